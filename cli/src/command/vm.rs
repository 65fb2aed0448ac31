//! `banger vm`: VMs that stay.

pub(crate) mod create;
mod exec;
pub(crate) mod forward;
pub(crate) mod setup;
mod stats;
mod top;
mod update;

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
    Update(update::Update),
    Start(Start),
    Stop(Stop),
    Restart(Restart),
    Pause(Pause),
    Resume(Resume),
    Kill(Kill),
    #[command(visible_alias = "rm")]
    Remove(Remove),
    Console(Console),
    Shell(exec::Shell),
    Exec(exec::Exec),
    Forward(forward::Forward),
    Watch(Watch),
    Stats(stats::Stats),
    Ports(stats::Ports),
    Top(top::Top),
}

impl Vm {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Create(create) => create.run(context).await,
            Self::List(list) => list.run(context).await,
            Self::Inspect(inspect) => inspect.run(context).await,
            Self::Start(start) => start.run(context).await,
            Self::Stop(stop) => stop.run(context).await,
            Self::Update(update) => update.run(context).await,
            Self::Restart(restart) => restart.run(context).await,
            Self::Pause(pause) => pause.run(context).await,
            Self::Resume(resume) => resume.run(context).await,
            Self::Kill(kill) => kill.run(context).await,
            Self::Remove(remove) => remove.run(context).await,
            Self::Console(console) => console.run(context).await,
            Self::Shell(shell) => shell.run(context).await,
            Self::Exec(exec) => exec.run(context).await,
            Self::Forward(forward) => forward.run(context).await,
            Self::Watch(watch) => watch.run(context).await,
            Self::Stats(stats) => stats.run(context).await,
            Self::Ports(ports) => ports.run(context).await,
            Self::Top(top) => top.run(context).await,
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

With --keep-logs the output of its sessions is copied out of it first; `session list` and
`session log` show it as before, until the VM is removed or another stop keeps other logs.

Examples:
  banger vm stop web
  banger vm stop --keep-logs web && banger session list web")]
pub(crate) struct Stop {
    /// The VMs' names or ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
    /// Keep the output of its sessions
    #[arg(long)]
    keep_logs: bool,
}

impl Stop {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        for vm in self.vms {
            let stop = match self.keep_logs {
                true => client.vms().stop_keeping_logs(&vm),
                false => client.vms().stop(&vm),
            };
            let stopped = stop.await?;
            let kept = stopped.last_stop.as_ref();
            let problem = kept.and_then(|stop| Some(&stop.kept_logs.as_ref()?.problem));
            if let Some(problem) = problem.filter(|problem| !problem.is_empty()) {
                // The VM is stopped all the same.
                let _ = writeln!(
                    std::io::stderr(),
                    "banger: not all logs of {vm} were kept: {problem}"
                );
            }
            context.printer().changed(&view::Vm::from(stopped))?;
        }
        Ok(0)
    }
}

/// Shut VMs down and boot them again; boot those that are off
#[derive(Debug, Args)]
#[command(after_help = "\
What was changed with `vm update` and waits for the next start holds after this.

Examples:
  banger vm restart web")]
pub(crate) struct Restart {
    /// The VMs' names or ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
}

impl Restart {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        for vm in self.vms {
            context
                .printer()
                .changed(&view::Vm::from(client.vms().restart(vm).await?))?;
        }
        Ok(0)
    }
}

/// Hold VMs still; their memory is kept
#[derive(Debug, Args)]
#[command(after_help = "\
A paused VM uses no processor time; its sessions stand still and go on with `vm resume`.

Examples:
  banger vm pause web
  banger vm resume web")]
pub(crate) struct Pause {
    /// The VMs' names or ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
}

impl Pause {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        for vm in self.vms {
            context
                .printer()
                .changed(&view::Vm::from(client.vms().pause(vm).await?))?;
        }
        Ok(0)
    }
}

/// Let paused VMs go on
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger vm resume web")]
pub(crate) struct Resume {
    /// The VMs' names or ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
}

impl Resume {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        for vm in self.vms {
            context
                .printer()
                .changed(&view::Vm::from(client.vms().resume(vm).await?))?;
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
  banger vm console web --tail 20
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
    /// Begin so many lines before the end, at most 10,000
    #[arg(short = 'n', long, value_name = "LINES", conflicts_with = "offset")]
    tail: Option<i32>,
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
        if let Some(lines) = self.tail {
            console = console.tail(lines);
        }
        let mut pieces = console.stream();
        let mut expected = None;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            let lost = expected.map_or(0, |expected| piece.offset.saturating_sub(expected));
            expected = Some(
                piece
                    .offset
                    .saturating_add_unsigned(piece.data.len() as u64),
            );
            if lost > 0 && !context.is_silent() {
                // A note that cannot be told is no fault.
                let _ = writeln!(
                    std::io::stderr(),
                    "banger: {lost} bytes of the console are no longer kept"
                );
            }
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
