//! `banger events`: what happens on the host.

use std::io::Write;

use banger_sdk::{EventKind, HostEvent};
use clap::{Args, ValueEnum};
use clap_complete::ArgValueCandidates;
use futures::StreamExt;

use crate::args::Format;
use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::view::EventItem;

/// Show what has happened on the host, and what happens
#[derive(Debug, Args)]
#[command(after_help = "\
Shows the events that the daemon keeps, the newest few thousand since its start. Their numbers have no holes but for \
what a filter leaves out; events that were lost are counted on standard error. In JSON a `snapshot` follows the kept \
events, and comes again after a loss or a restart of the daemon.

Examples:
  banger events
  banger events --follow --vm web
  banger events --follow --kind vm-state-changed --output json | jq -r '[.vm.name, .vm.to] | @tsv'")]
pub(crate) struct Events {
    /// Go on with what happens
    #[arg(short, long)]
    follow: bool,
    /// Only events of this kind; again for more
    #[arg(
        short,
        long,
        value_enum,
        value_name = "KIND",
        hide_possible_values = false
    )]
    kind: Vec<Kind>,
    /// Only events of this VM, and of work on it
    #[arg(long, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vm: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A VM is being made
    VmCreated,
    /// A VM is in another state
    VmStateChanged,
    /// What a VM is made of was changed
    VmUpdated,
    /// A VM is gone
    VmDeleted,
    /// Long work began
    OperationBegun,
    /// Long work ended
    OperationEnded,
    /// An image is there
    ImageAdded,
    /// An image is gone
    ImageRemoved,
    /// A kernel is there
    KernelAdded,
    /// A kernel is gone
    KernelRemoved,
}

impl From<Kind> for EventKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::VmCreated => Self::VmCreated,
            Kind::VmStateChanged => Self::VmStateChanged,
            Kind::VmUpdated => Self::VmUpdated,
            Kind::VmDeleted => Self::VmDeleted,
            Kind::OperationBegun => Self::OperationBegun,
            Kind::OperationEnded => Self::OperationEnded,
            Kind::ImageAdded => Self::ImageAdded,
            Kind::ImageRemoved => Self::ImageRemoved,
            Kind::KernelAdded => Self::KernelAdded,
            Kind::KernelRemoved => Self::KernelRemoved,
        }
    }
}

impl Events {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut events = context.client().await?.events().kept();
        events = events.kinds(self.kind.into_iter().map(EventKind::from));
        if let Some(vm) = self.vm {
            events = events.vm(vm);
        }
        let mut events = events.stream();
        while let Some(event) = events.next().await {
            let event = event?;
            let is_caught_up = matches!(event, HostEvent::Snapshot { .. });
            show(context, EventItem::from(event))?;
            if is_caught_up && !self.follow {
                break;
            }
        }
        Ok(0)
    }
}

fn show(context: &Context, item: EventItem) -> Result<(), Failure> {
    match (item, context.format, context.quiet) {
        (item, Format::Json, false) => output::json_line(&item),
        (EventItem::Event(event), _, true) => output::lines([event.id()]),
        (EventItem::Event(event), Format::Table, false) => output::lines([event.line()]),
        (EventItem::Snapshot { dropped_count, .. }, ..) => {
            if dropped_count > 0 && !context.is_silent() {
                // A note that cannot be told is no fault.
                let _ = writeln!(
                    std::io::stderr(),
                    "banger: {dropped_count} events were lost"
                );
            }
            Ok(())
        }
    }
}
