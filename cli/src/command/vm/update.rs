//! `banger vm update`: changes of a VM that exists.

use std::collections::BTreeMap;

use clap::Args;
use clap_complete::ArgValueCandidates;

use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::value::{self, Life, Restart};
use crate::view;

/// Change a VM
#[derive(Debug, Args)]
#[command(after_help = "\
Labels, times and the restart policy hold at once. CPUs and memory hold from the next start on; `vm inspect` shows \
what waits, and `vm restart` takes it up. A disk can only grow; with its file system it does so at once, while the VM \
runs.

Examples:
  banger vm update web --label team=web --unlabel old
  banger vm update web --memory 2G --cpus 4 && banger vm restart web
  banger vm update web --ttl 8h --idle-timeout never")]
pub(crate) struct Update {
    /// The VM's name or id
    #[arg(add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// Set a label; again for more
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = value::pair)]
    label: Vec<(String, String)>,
    /// Take a label away; again for more
    #[arg(long, value_name = "KEY")]
    unlabel: Vec<String>,
    /// Remove the VM this long after its creation, e.g. 8h, or never
    #[arg(long, value_name = "TIME", value_parser = value::life)]
    ttl: Option<Life>,
    /// Stop the VM when nothing has used it for this long, e.g. 30m, or never
    #[arg(long, value_name = "TIME", value_parser = value::life)]
    idle_timeout: Option<Life>,
    /// What happens when the VM ends by itself
    #[arg(long, value_enum, value_name = "POLICY")]
    restart: Option<Restart>,
    /// Memory, e.g. 512M or 2G
    #[arg(short, long, value_name = "SIZE", value_parser = value::mib)]
    memory: Option<i64>,
    /// Number of virtual CPUs
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    cpus: Option<i32>,
    /// Size of the writable disk, e.g. 20G; it can only grow
    #[arg(long, value_name = "SIZE", value_parser = value::mib)]
    disk: Option<i64>,
}

impl Update {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let vms = client.vms();
        let mut update = vms.update(&self.vm);
        if !self.label.is_empty() || !self.unlabel.is_empty() {
            // All labels are set together: refused if another changed the VM in between.
            let vm = vms.get(&self.vm).await?;
            let mut labels: BTreeMap<String, String> = vm.spec.unwrap_or_default().labels;
            labels.retain(|key, _| !self.unlabel.contains(key));
            labels.extend(self.label);
            update = update.labels(labels).if_unchanged(vm.etag);
        }
        if let Some(Life(time)) = self.ttl {
            update = update.ttl(time);
        }
        if let Some(Life(time)) = self.idle_timeout {
            update = update.idle_timeout(time);
        }
        if let Some(policy) = self.restart {
            update = update.restart_policy(policy.into());
        }
        if let Some(mib) = self.memory {
            update = update.memory_mib(mib);
        }
        if let Some(count) = self.cpus {
            update = update.vcpus(count);
        }
        if let Some(mib) = self.disk {
            update = update.disk_mib(mib);
        }
        context.printer().changed(&view::Vm::from(update.await?))
    }
}
