//! `banger vm stats` and `banger vm ports`: what a VM uses, and who listens in it.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCandidates;
use futures::StreamExt;

use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::value;
use crate::view;

/// Show how much a VM uses
#[derive(Debug, Args)]
#[command(after_help = "\
What is said of the host was measured there; what is said of the guest are the guest's own words. A guest that does \
not answer leaves the host's figures, and says why.

Examples:
  banger vm stats web
  banger vm stats web --output json | jq .host.cpu_percent
  banger vm stats web --follow --interval 5s")]
pub(crate) struct Stats {
    /// The VM's name or id
    #[arg(add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// Go on, a line for each measurement, until the VM is removed
    #[arg(short, long)]
    follow: bool,
    /// From one measurement to the next, 500ms to 60s
    #[arg(short, long, value_name = "TIME", value_parser = value::duration, default_value = "1s", requires = "follow")]
    interval: Duration,
}

impl Stats {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        if !self.follow {
            let stats = client.vms().stats(self.vm).await?;
            return context.printer().one(&view::VmStats::from(stats));
        }
        let mut rounds = client.vms().watch_stats(self.vm, self.interval);
        while let Some(round) = rounds.next().await {
            for stats in round? {
                context.printer().item(&view::VmStats::from(stats))?;
            }
        }
        Ok(0)
    }
}

/// List who listens in a running VM
#[derive(Debug, Args)]
#[command(after_help = "\
The list is the guest's own words. With --probe the agent in the guest asks each listener on its loopback for its \
page: one request each, five seconds in all, redirects are shown and not followed.

Examples:
  banger vm ports web
  banger vm ports web --probe
  banger vm ports web --output json | jq '.[] | select(.port == 8080)'")]
pub(crate) struct Ports {
    /// The VM's name or id
    #[arg(add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// Ask each listener for its page too: status and title
    #[arg(short, long)]
    probe: bool,
}

impl Ports {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut ask = context.client().await?.vms().ports(self.vm);
        if self.probe {
            ask = ask.probe();
        }
        let found = ask.await?;
        if found.is_truncated && !context.is_silent() {
            // A note that cannot be told is no fault.
            let _ = writeln!(
                std::io::stderr(),
                "banger: there are more listeners, or processes of theirs, than are shown"
            );
        }
        let ports = futures::stream::iter(found.ports.into_iter().map(Ok));
        context.printer().list(ports, view::Port::from).await
    }
}
