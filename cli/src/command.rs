//! The commands, a file each.

pub(crate) mod catalog;
pub(crate) mod cert;
pub(crate) mod completion;
pub(crate) mod cp;
pub(crate) mod doctor;
pub(crate) mod event;
pub(crate) mod file;
pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod kernel;
pub(crate) mod operation;
mod process;
pub(crate) mod run;
pub(crate) mod session;
pub(crate) mod ssh;
pub(crate) mod vm;
pub(crate) mod volume;
pub(crate) mod workspace;

use crate::args::Command;
use crate::context::Context;
use crate::failure::Failure;

/// Runs a command; its exit code.
pub(crate) async fn run(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run(run) => run.run(context).await,
        Command::Image(image) => image.run(context).await,
        Command::Catalog(catalog) => catalog.run(context).await,
        Command::Kernel(kernel) => kernel.run(context).await,
        Command::Vm(vm) => vm.run(context).await,
        Command::Volume(volume) => volume.run(context).await,
        Command::Session(session) => session.run(context).await,
        Command::Cp(cp) => cp.run(context).await,
        Command::File(file) => file.run(context).await,
        Command::Workspace(workspace) => workspace.run(context).await,
        Command::SshConfig(config) => config.run(context),
        Command::SshProxy(proxy) => proxy.run(context).await,
        Command::SshHostKey(key) => key.run(context).await,
        Command::Operation(operation) => operation.run(context).await,
        Command::Host(host) => host.run(context).await,
        Command::Cert(cert) => cert.run(context).await,
        Command::Doctor(doctor) => doctor.run(context).await,
        Command::Events(events) => events.run(context).await,
        Command::Completion(completion) => completion.run(),
    }
}
