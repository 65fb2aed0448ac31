//! `banger vm create`, and the options of a machine, which `banger run` shares.

use std::time::Duration;

use banger_sdk::CreateVm;
use clap::Args;
use clap_complete::ArgValueCandidates;

use super::setup::SetupOptions;
use crate::command::run::print_stages;
use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::value::{self, Mount, Network, Restart};
use crate::view;

/// Options of a machine.
#[derive(Debug, Args)]
pub(crate) struct MachineOptions {
    /// Call the VM this: lower-case letters, digits and hyphens
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Memory, e.g. 512M or 2G
    #[arg(short, long, value_name = "SIZE", value_parser = value::mib)]
    memory: Option<i64>,
    /// Number of virtual CPUs
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    cpus: Option<i32>,
    /// Size of the writable disk, e.g. 20G; it takes what is written to it
    #[arg(long, value_name = "SIZE", value_parser = value::mib)]
    disk: Option<i64>,
    /// The network; by itself what the daemon is configured to
    #[arg(long, value_enum, value_name = "MODE")]
    network: Option<Network>,
    /// Set a label, for finding the VM
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = value::pair)]
    label: Vec<(String, String)>,
    /// Remove the VM this long after its creation, whatever it does then, e.g. 8h
    #[arg(long, value_name = "TIME", value_parser = value::long_duration)]
    ttl: Option<Duration>,
    /// Stop the VM when nothing has used it for this long, e.g. 30m: no call, no attached reader, no running session
    #[arg(long, value_name = "TIME", value_parser = value::long_duration)]
    idle_timeout: Option<Duration>,
    /// Mount a volume, e.g. data:/data or data:/data:ro; again for more
    #[arg(long, value_name = "VOLUME:PATH[:ro]", value_parser = value::mount, add = ArgValueCandidates::new(complete::volumes))]
    volume: Vec<Mount>,
    /// Boot this kernel instead of the default one
    #[arg(short, long, value_name = "KERNEL", add = ArgValueCandidates::new(complete::kernels))]
    kernel: Option<String>,
}

impl MachineOptions {
    /// `create` with these options.
    pub(crate) fn apply(&self, mut create: CreateVm) -> CreateVm {
        if let Some(name) = &self.name {
            create = create.name(name);
        }
        if let Some(mib) = self.memory {
            create = create.memory_mib(mib);
        }
        if let Some(count) = self.cpus {
            create = create.vcpus(count);
        }
        if let Some(mib) = self.disk {
            create = create.disk_mib(mib);
        }
        if let Some(network) = self.network {
            create = create.network(network.into());
        }
        for (key, value) in &self.label {
            create = create.label(key, value);
        }
        for Mount {
            volume,
            path,
            read_only,
        } in &self.volume
        {
            create = match read_only {
                true => create.volume_read_only(volume, path),
                false => create.volume(volume, path),
            };
        }
        if let Some(time) = self.ttl {
            create = create.ttl(time);
        }
        if let Some(time) = self.idle_timeout {
            create = create.idle_timeout(time);
        }
        match &self.kernel {
            Some(kernel) => create.kernel(kernel),
            None => create,
        }
    }
}

/// Make a VM and boot it
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the VM's name. The image is pulled if it is not there. The creation goes on if banger is \
interrupted; `banger operation list` shows it.

Examples:
  banger vm create debian:bookworm --name web
  banger vm create -m 2G --cpus 2 --label team=web debian:bookworm -v
  banger vm create --init image --file app.conf:/etc/app.conf:0640:app my/systemd-image
  banger vm create --git-name Ann --git-email ann@example.com --ssh-key ~/.ssh/id_ed25519.pub \
    --credentials claude debian:bookworm")]
pub(crate) struct Create {
    /// The image: a reference, a digest or an id
    #[arg(add = ArgValueCandidates::new(complete::images))]
    image: String,
    #[command(flatten)]
    machine: MachineOptions,
    #[command(flatten)]
    setup: SetupOptions,
    /// Set a variable in every session; KEY alone takes its value from here
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = value::env)]
    env: Vec<(String, String)>,
    /// Remove the VM when it stops, however it stops
    #[arg(long)]
    ephemeral: bool,
    /// Keep the output of its sessions whenever it is stopped in order
    #[arg(long, conflicts_with = "ephemeral")]
    keep_logs: bool,
    /// What happens when the VM ends by itself
    #[arg(long, value_enum, value_name = "POLICY", conflicts_with = "ephemeral")]
    restart: Option<Restart>,
    /// Fail if the image is not there, instead of pulling it
    #[arg(long)]
    no_pull: bool,
}

impl Create {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let progress = context.progress();
        let create = self.machine.apply(client.vms().create(self.image));
        let mut create = self.setup.apply(create)?;
        for (key, value) in self.env {
            create = create.env(key, value);
        }
        if self.ephemeral {
            create = create.ephemeral();
        }
        if self.keep_logs {
            create = create.keep_logs();
        }
        if let Some(policy) = self.restart {
            create = create.restart_policy(policy.into());
        }
        if !self.no_pull {
            create = create.pull_if_missing();
        }
        let created = create.progress(progress.callback()).await;
        progress.clear();
        let vm = created?;
        if context.verbose {
            print_stages(&vm);
        }
        context.printer().changed(&view::Vm::from(vm))
    }
}
