//! `banger run`: one VM, one command, nothing left.
//!
//! ```text
//! pull? ─▶ create ─▶ exec ─▶ delete
//!   └ signal ─┴ signal ─┴ signal ──▶ delete
//! ```
//! The VM has a name from the start, so that it can be deleted whatever it was interrupted in.

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::time::Duration;

use banger_sdk::types::Vm;
use banger_sdk::{Client, Code, CreateVm, Error};
use clap::{Args, ValueEnum};
use clap_complete::ArgValueCandidates;
use tokio::sync::watch;
use tokio::time::timeout;

use super::process::{ProcessOptions, StdioOptions, exit_code};
use super::vm::create::MachineOptions;
use super::vm::setup::SetupOptions;
use crate::bridge::{Bridge, Ended};
use crate::complete;
use crate::context::Context;
use crate::failure::{Failure, signal_code};
use crate::interrupt::Interrupts;
use crate::output;
use crate::progress::Progress;
use crate::view::Stage;

/// What runs when neither the caller nor the image says what to run.
const SHELL: &str = "/bin/sh";
/// The first characters of a generated name.
const NAME_PREFIX: &str = "run-";
/// How long a VM may take to be deleted: the daemon's own bound is shorter.
const DELETE_LIMIT: Duration = Duration::from_secs(60);

const AFTER_HELP: &str = "\
The exit code is the command's own, 128+n if signal n ended it, 124 after --timeout, 126 and 127 if it \
cannot be executed or found, and 125 if banger failed.

Standard input is forwarded when the command has a terminal, and when it is a pipe or a file; -n keeps it, \
for loops that read it themselves.

Ctrl-C before the command runs cancels everything and removes the VM. Without a terminal, Ctrl-C goes to \
the command as SIGINT, and a second one within 2 s kills it; with a terminal, the guest's terminal gets \
it. SIGTERM, SIGHUP and SIGQUIT end the command and remove the VM.

Examples:
  banger run debian:bookworm -- cat /etc/os-release
  banger run -m 2G --cpus 2 -e CI=1 python:3.12 -- python -c 'print(6 * 7)'
  tar c . | banger run debian:bookworm -- tar tv
  banger run --keep --name dev debian:bookworm     # a shell; then: banger vm shell dev";

/// Run a command in a new VM, and remove the VM when it ends
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Run {
    /// The image: a reference, a digest or an id
    #[arg(add = ArgValueCandidates::new(complete::images))]
    image: String,
    #[command(flatten)]
    machine: MachineOptions,
    #[command(flatten)]
    setup: SetupOptions,
    #[command(flatten)]
    process: ProcessOptions,
    #[command(flatten)]
    stdio: StdioOptions,
    /// When to pull the image
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pull: Pull,
    /// Remove the VM when the command ends; so it is by itself
    #[arg(long, overrides_with = "keep")]
    rm: bool,
    /// Keep the VM running when the command ends
    #[arg(long, overrides_with = "rm")]
    keep: bool,
    /// The command; without it the image's own, else a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// When to pull an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Pull {
    /// If it is not there
    #[default]
    Missing,
    /// Always
    Always,
    /// Never
    Never,
}

impl Run {
    pub(crate) async fn run(mut self, context: &Context) -> Result<u8, Failure> {
        let mut signals = Interrupts::new()?;
        let client = tokio::select! {
            client = context.client() => client?,
            signal = signals.end() => return Ok(signal_code(signal)),
        };
        let progress = context.quiet_progress();
        if self.pull == Pull::Always {
            let pull = client
                .images()
                .pull(&self.image)
                .progress(progress.callback());
            tokio::select! {
                pulled = pull.into_future() => pulled.map(drop)?,
                signal = signals.end() => return Ok(signal_code(signal)),
            }
        }
        let name = self.machine.name.get_or_insert_with(generated_name).clone();
        let vm = match self.create(&client, &progress, &name, &mut signals).await? {
            Created::Vm(vm) => vm,
            Created::Interrupted(signal) => return Ok(signal_code(signal)),
        };
        progress.clear();
        if context.verbose {
            print_stages(&vm);
        }
        let result = self.exec(&client, &vm, &mut signals).await;
        if self.keep {
            return result;
        }
        let deleted = delete(&client, &vm.id, &name, &mut signals).await;
        let code = result?;
        deleted.map(|()| code)
    }

    async fn create(
        &self,
        client: &Client,
        progress: &Progress,
        name: &str,
        signals: &mut Interrupts,
    ) -> Result<Created, Failure> {
        let (changed, changes) = watch::channel(());
        let mut show = progress.callback();
        let create = self.machine.apply(client.vms().create(&self.image));
        let mut create = self.setup.apply(create)?;
        if !self.keep {
            create = create.ephemeral();
        }
        if self.pull != Pull::Never {
            create = create.pull_if_missing();
        }
        let create: CreateVm = create.progress(move |operation| {
            show(operation);
            // Nobody listens unless the creation is being cancelled.
            let _ = changed.send(());
        });
        let mut create = pin!(create.into_future());
        let signal = tokio::select! {
            vm = &mut create => return Ok(Created::Vm(Box::new(vm?))),
            signal = signals.end() => signal,
        };
        progress.clear();
        eprintln!("banger: cancelling; once more leaves VM `{name}` to itself");
        tokio::select! {
            cancelled = cancel(client, name, create, changes) => cancelled?,
            _ = signals.end() => {
                return Err(Failure::LeftBehind { vm: name.to_owned(), source: None });
            }
        }
        Ok(Created::Interrupted(signal))
    }

    async fn exec(
        &self,
        client: &Client,
        vm: &Vm,
        signals: &mut Interrupts,
    ) -> Result<u8, Failure> {
        let stdio = self.stdio.decide();
        let running = async {
            let mut arguments = self.command.clone();
            if arguments.is_empty() && !has_command(client, vm).await? {
                arguments.push(SHELL.to_owned());
            }
            let command = self.process.command(arguments, stdio);
            client.sessions().exec(&vm.id, command).await
        };
        let mut process = tokio::select! {
            process = running => process?,
            signal = signals.end() => return Ok(signal_code(signal)),
        };
        let bridge = Bridge {
            terminal: stdio.terminal,
            stdin: stdio.stdin,
            detach: None,
            read_only: false,
        };
        match bridge.run(&mut process, signals).await? {
            Ended::Exited(exit) => exit_code(&exit),
            Ended::Signalled(signal) => Ok(signal_code(signal)),
            Ended::Detached => Ok(0),
        }
    }
}

/// How a creation ended that did not fail.
enum Created {
    Vm(Box<Vm>),
    Interrupted(i32),
}

/// Deletes a VM that is being made. Until the daemon knows it by name, each change of the creation is
/// followed by another try; a creation that ends by itself is followed by the last.
async fn cancel(
    client: &Client,
    name: &str,
    mut create: impl Future<Output = banger_sdk::Result<Vm>> + Unpin,
    mut changes: watch::Receiver<()>,
) -> Result<(), Failure> {
    loop {
        if try_delete(client, name).await? {
            return Ok(());
        }
        let ended = tokio::select! {
            biased; // when it has ended there are no more changes
            created = &mut create => Some(created),
            changed = changes.changed() => match changed {
                Ok(()) => None,
                Err(_) => return Ok(()),
            },
        };
        match ended {
            Some(Ok(vm)) => return try_delete(client, &vm.id).await.map(drop),
            Some(Err(error)) if error.is_connection_lost() => return Err(left_behind(name, error)),
            Some(Err(_)) => return Ok(()), // a failed creation leaves nothing
            None => {}
        }
    }
}

/// Deletes a VM; false if there is none.
async fn try_delete(client: &Client, vm: &str) -> Result<bool, Failure> {
    match client.vms().delete(vm).await {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Code::NotFound => Ok(false),
        Err(error) => Err(left_behind(vm, error)),
    }
}

/// Deletes the VM of a command that has ended; two more signals leave it to itself.
async fn delete(
    client: &Client,
    id: &str,
    name: &str,
    signals: &mut Interrupts,
) -> Result<(), Failure> {
    let twice = async {
        signals.end().await;
        eprintln!("banger: removing VM `{name}`; once more leaves it to itself");
        signals.end().await;
    };
    tokio::select! {
        deleted = timeout(DELETE_LIMIT, try_delete(client, id)) => match deleted {
            Ok(deleted) => deleted.map(drop),
            Err(_) => Err(Failure::LeftBehind { vm: name.to_owned(), source: None }),
        },
        () = twice => Err(Failure::LeftBehind { vm: name.to_owned(), source: None }),
    }
}

fn left_behind(name: &str, error: Error) -> Failure {
    Failure::LeftBehind {
        vm: name.to_owned(),
        source: Some(Box::new(error)),
    }
}

/// Whether the VM's image says what to run.
async fn has_command(client: &Client, vm: &Vm) -> banger_sdk::Result<bool> {
    let config = client
        .images()
        .get(&vm.image_id)
        .await?
        .config
        .unwrap_or_default();
    Ok(!config.entrypoint.is_empty() || !config.cmd.is_empty())
}

fn generated_name() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("{NAME_PREFIX}{}", &id[..12])
}

/// The stages of the VM's boot, to standard error.
pub(crate) fn print_stages(vm: &Vm) {
    let rows = vm
        .boot_timing
        .iter()
        .cloned()
        .map(|stage| Stage::from(stage).cells());
    let table = output::format_table(&["STAGE", "TIME", "MOVED"], rows);
    eprintln!(
        "{}",
        table
            .lines()
            .map(str::trim_end)
            .collect::<Vec<_>>()
            .join("\n")
    );
}
