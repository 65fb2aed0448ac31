//! `banger vm`: VMs that stay.

pub(crate) mod create;
mod exec;

use std::io::Write;

use banger_sdk::VmEvent;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use futures::StreamExt;

use crate::args::Format;
use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, Row};
use crate::value;
use crate::view::{self, StreamItem};

/// Create, use and remove VMs
#[derive(Debug, Subcommand)]
pub(crate) enum Vm {
    Create(Box<create::Create>),
    #[command(visible_alias = "ls")]
    List(List),
    #[command(visible_alias = "show")]
    Inspect(Inspect),
    Start(Start),
    Stop(Stop),
    Kill(Kill),
    #[command(visible_alias = "rm")]
    Remove(Remove),
    Console(Console),
    Shell(exec::Shell),
    Exec(exec::Exec),
    Watch(Watch),
}

impl Vm {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Create(create) => create.run(context).await,
            Self::List(list) => list.run(context).await,
            Self::Inspect(inspect) => inspect.run(context).await,
            Self::Start(start) => start.run(context).await,
            Self::Stop(stop) => stop.run(context).await,
            Self::Kill(kill) => kill.run(context).await,
            Self::Remove(remove) => remove.run(context).await,
            Self::Console(console) => console.run(context).await,
            Self::Shell(shell) => shell.run(context).await,
            Self::Exec(exec) => exec.run(context).await,
            Self::Watch(watch) => watch.run(context).await,
        }
    }
}

/// List the VMs, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger vm list
  banger vm list --label team=web --output json
  banger vm list -q | xargs -r banger vm remove")]
pub(crate) struct List {
    /// Only VMs with this label; again for more, all of which they must have
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = value::pair)]
    label: Vec<(String, String)>,
}

impl List {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let vms = context.client().await?.vms().list_labelled(self.label);
        context.printer().list(vms, view::Vm::from).await
    }
}

/// Show all of a VM
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger vm inspect web
  banger vm inspect web --output json")]
pub(crate) struct Inspect {
    /// The VM's name or id
    #[arg(add = ArgValueCandidates::new(complete::vms))]
    vm: String,
}

impl Inspect {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let vm = context.client().await?.vms().get(self.vm).await?;
        context.printer().one(&view::Vm::from(vm))
    }
}

/// Boot stopped VMs
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger vm start web")]
pub(crate) struct Start {
    /// The VMs' names or ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
}

impl Start {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        for vm in self.vms {
            context
                .printer()
                .changed(&view::Vm::from(client.vms().start(vm).await?))?;
        }
        Ok(0)
    }
}

/// Shut VMs down
#[derive(Debug, Args)]
#[command(after_help = "\
The agent flushes the disks and powers off; if it does not, the power button is pressed; if that does not \
help, the VMM is ended. `vm inspect` tells what worked.

Examples:
  banger vm stop web")]
pub(crate) struct Stop {
    /// The VMs' names or ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
}

impl Stop {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        for vm in self.vms {
            context
                .printer()
                .changed(&view::Vm::from(client.vms().stop(vm).await?))?;
        }
        Ok(0)
    }
}

/// End VMs at once, as pulling the plug does
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger vm kill web")]
pub(crate) struct Kill {
    /// The VMs' names or ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
}

impl Kill {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        for vm in self.vms {
            context
                .printer()
                .changed(&view::Vm::from(client.vms().kill(vm).await?))?;
        }
        Ok(0)
    }
}

/// Throw VMs and their disks away, in whatever state they are
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger vm remove web
  banger vm list -q | xargs -r banger vm remove")]
pub(crate) struct Remove {
    /// The VMs' names or ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
}

impl Remove {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        for vm in self.vms {
            client.vms().delete(&vm).await?;
            context.printer().removed(&vm)?;
        }
        Ok(0)
    }
}

/// Show what the guest's kernel and agent printed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger vm console web
  banger vm console web --follow")]
pub(crate) struct Console {
    /// The VM's name or id
    #[arg(add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// Go on with what comes until the VM stops
    #[arg(short, long)]
    follow: bool,
    /// Begin at this byte
    #[arg(long, value_name = "BYTES")]
    offset: Option<i64>,
}

impl Console {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut console = context.client().await?.vms().console(self.vm);
        if self.follow {
            console = console.follow();
        }
        if let Some(offset) = self.offset {
            console = console.offset(offset);
        }
        let mut pieces = console.stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            if context.format == Format::Json {
                output::json_line(&StreamItem::from(piece))?;
                continue;
            }
            let mut out = std::io::stdout().lock();
            out.write_all(&piece.data)
                .and_then(|()| out.flush())
                .map_err(Failure::write)?;
        }
        Ok(0)
    }
}

/// Print a VM each time it changes, until it is removed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger vm watch web
  banger vm watch web --output json | jq .vm.state")]
pub(crate) struct Watch {
    /// The VM's name or id
    #[arg(add = ArgValueCandidates::new(complete::vms))]
    vm: String,
}

impl Watch {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut events = context.client().await?.vms().watch(self.vm);
        while let Some(event) = events.next().await {
            match (event?, context.format, context.quiet) {
                (event, Format::Json, false) => output::json_line(&StreamItem::from(event))?,
                (VmEvent::State(vm), ..) => {
                    let vm = view::Vm::from(*vm);
                    let line = if context.quiet {
                        vm.name()
                    } else {
                        vm.cells().join("  ")
                    };
                    output::lines([line])?;
                }
                (VmEvent::Deleted, ..) => output::lines(["deleted".to_owned()])?,
            }
        }
        Ok(0)
    }
}
