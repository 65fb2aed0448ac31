//! `banger session`: processes that go on without us.

use std::io::Write;
use std::time::SystemTime;

use banger_sdk::{Event, ReadFrom, SignalTarget, types};
use clap::{Args, Subcommand, ValueEnum};
use clap_complete::ArgValueCandidates;
use futures::StreamExt;

use super::process::{ProcessOptions, Stdio, exit_code};
use crate::args::Format;
use crate::bridge::{Bridge, Ended};
use crate::complete;
use crate::context::Context;
use crate::detach::DetachKeys;
use crate::failure::{Failure, signal_code};
use crate::interrupt::Interrupts;
use crate::output;
use crate::value;
use crate::view::{self, StreamItem};

/// Start, attach to and end sessions, which go on without banger
#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    Start(Start),
    Attach(Attach),
    #[command(visible_alias = "logs")]
    Log(Log),
    #[command(visible_alias = "ls")]
    List(List),
    #[command(visible_alias = "show")]
    Inspect(Inspect),
    Signal(Signal),
    Wait(Wait),
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

impl Session {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Start(start) => start.run(context).await,
            Self::Attach(attach) => attach.run(context).await,
            Self::Log(log) => log.run(context).await,
            Self::List(list) => list.run(context).await,
            Self::Inspect(inspect) => inspect.run(context).await,
            Self::Signal(signal) => signal.run(context).await,
            Self::Wait(wait) => wait.run(context).await,
            Self::Remove(remove) => remove.run(context).await,
        }
    }
}

/// Start a command in a running VM and leave it running
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the session's id.

Examples:
  banger session start web -- make test
  id=$(banger session start -t web -- bash); banger session attach $id")]
pub(crate) struct Start {
    /// The VM's name or id
    #[arg(add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    #[command(flatten)]
    process: ProcessOptions,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Keep its standard input open, for `session attach`
    #[arg(short, long)]
    interactive: bool,
    /// Let processes that the command leaves behind go on after its end, until the session is removed
    #[arg(long)]
    keep_children: bool,
    /// The command; without it the image's own
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Start {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let stdio = Stdio {
            terminal: self.tty,
            stdin: self.interactive,
        };
        let mut command = self.process.command(self.command, stdio);
        if self.keep_children {
            command = command.keep_children();
        }
        let session = context
            .client()
            .await?
            .sessions()
            .start(self.vm, command)
            .await?;
        context.printer().changed(&view::Session::from(session))
    }
}

/// Connect to a session: its output, and your input
#[derive(Debug, Args)]
#[command(after_help = "\
Shows all output that is kept; of a session with a terminal, in a terminal, what that shows now. Others may be \
attached too: the session's terminal is as large as that of who attached last, and --steal detaches everybody else \
who may write.

Typing the detach keys (Ctrl-P Ctrl-Q) leaves the session running; so do SIGTERM and SIGHUP. When the \
command ends, banger ends with its exit code. A broken connection is made again, and nothing is shown \
twice. Without a terminal, Ctrl-C is sent to the session as SIGINT, and a second one within 2 s kills it; with --read-only nothing is sent, and Ctrl-C detaches.

Examples:
  banger session attach ID
  banger session attach --read-only --tail 100 ID
  banger session attach --steal ID
  banger session attach --no-replay --detach-keys ctrl-a,d ID")]
pub(crate) struct Attach {
    /// The session's id
    session: String,
    /// The keys that detach, typed one after the other
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    /// Show only what comes from now on
    #[arg(long, conflicts_with = "begin")]
    no_replay: bool,
    #[command(flatten)]
    begin: Begin,
    /// Detach everybody else who may write
    #[arg(long, conflicts_with = "read_only")]
    steal: bool,
    /// Only look on: neither input nor the size of your terminal is sent
    #[arg(long)]
    read_only: bool,
    /// Do not forward standard input
    #[arg(short = 'n', long)]
    no_stdin: bool,
}

impl Attach {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut signals = Interrupts::new()?;
        let client = context.client().await?;
        let sessions = client.sessions();
        let from = match self.begin.from() {
            Some(from) => from,
            None if self.no_replay => ReadFrom::End,
            None if !crate::terminal::is_interactive() => ReadFrom::Oldest,
            None => {
                let spec = sessions.get(&self.session).await?.spec;
                match spec.and_then(|spec| spec.terminal) {
                    Some(_) => ReadFrom::Screen,
                    None => ReadFrom::Oldest,
                }
            }
        };
        let attach = |from| {
            let attach = sessions.attach(&self.session).from(from);
            match (self.steal, self.read_only) {
                (true, _) => attach.steal(),
                (_, true) => attach.read_only(),
                _ => attach,
            }
        };
        let mut process = match attach(from).await {
            // An agent of before the update keeps no screen: its output makes one.
            Err(error) if from == ReadFrom::Screen && error.reason() == "AGENT_TOO_OLD" => {
                attach(ReadFrom::Oldest).await?
            }
            attached => attached?,
        };
        let spec = process.session().spec.clone().unwrap_or_default();
        let terminal = spec.terminal.is_some() && (self.read_only || !self.no_stdin);
        if terminal && !self.read_only && crate::terminal::stdin_is_terminal() {
            let (rows, columns) = crate::terminal::size();
            process.input().resize(rows, columns);
        }
        let bridge = Bridge {
            terminal,
            stdin: spec.stdin && !self.no_stdin,
            detach: (!self.no_stdin).then_some(self.detach_keys),
            read_only: self.read_only,
        };
        match bridge.run(&mut process, &mut signals).await? {
            Ended::Exited(exit) => exit_code(&exit),
            Ended::Signalled(signal) => Ok(signal_code(signal)),
            Ended::Detached => {
                eprintln!(
                    "\r\nbanger: detached; banger session attach {}",
                    self.session
                );
                Ok(0)
            }
        }
    }
}

/// Where to begin; by itself with all that is kept.
#[derive(Debug, Args)]
#[group(id = "begin", multiple = false)]
struct Begin {
    /// Begin at this byte of the output
    #[arg(long, value_name = "BYTES")]
    offset: Option<i64>,
    /// Begin so many lines before the end
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(i64).range(0..=1_000_000))]
    tail: Option<i64>,
    /// Begin with what was written since: a moment by the guest's clock, or how long ago, e.g. 10m
    #[arg(long, value_name = "TIME", value_parser = value::since)]
    since: Option<SystemTime>,
}

impl Begin {
    fn from(&self) -> Option<ReadFrom> {
        let offset = self.offset.map(ReadFrom::Offset);
        let tail = || self.tail.map(ReadFrom::TailLines);
        let since = || self.since.map(ReadFrom::Since);
        offset.or_else(tail).or_else(since)
    }
}

/// Print what a session wrote
#[derive(Debug, Args)]
#[command(after_help = "\
With --output json each line is an object with a type: output (offset, stream, time, data_base64), gap \
(offset, lost_bytes) or exited (exit).

Examples:
  banger session log ID
  banger session log --follow --tail 20 ID
  banger session log --since 10m ID
  banger session log --stream stderr ID
  banger session log --output json ID")]
pub(crate) struct Log {
    /// The session's id
    session: String,
    /// Go on with what comes until the command ends
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    begin: Begin,
    /// Only this stream
    #[arg(long, value_enum, value_name = "STREAM")]
    stream: Option<Only>,
}

/// A stream of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
}

impl Log {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut log = context.client().await?.sessions().log(&self.session);
        if self.follow {
            log = log.follow();
        }
        if let Some(from) = self.begin.from() {
            log = log.from(from);
        }
        let mut events = log.stream();
        while let Some(event) = events.next().await {
            let event = event?;
            if !self.wants(&event) {
                continue;
            }
            if context.format == Format::Json {
                output::json_line(&StreamItem::from(event))?;
            } else {
                print(&event)?;
            }
        }
        Ok(0)
    }

    fn wants(&self, event: &Event) -> bool {
        let (Event::Output(output), Some(only)) = (event, self.stream) else {
            return true;
        };
        (only == Only::Stderr) == (output.stream() == types::Stream::Stderr)
    }
}

/// Output where the command had written it.
fn print(event: &Event) -> Result<(), Failure> {
    let written = match event {
        Event::Output(output) if output.stream() == types::Stream::Stderr => {
            std::io::stderr().write_all(&output.data)
        }
        Event::Output(output) => {
            let mut out = std::io::stdout().lock();
            out.write_all(&output.data).and_then(|()| out.flush())
        }
        Event::Gap(gap) => {
            eprintln!(
                "banger: {} bytes of output are no longer kept",
                gap.lost_bytes
            );
            Ok(())
        }
        Event::Screen(_) | Event::Exited(_) => Ok(()),
    };
    written.map_err(Failure::write)
}

/// List a VM's sessions, oldest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger session list web")]
pub(crate) struct List {
    /// The VM's name or id
    #[arg(add = ArgValueCandidates::new(complete::vms))]
    vm: String,
}

impl List {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let sessions = context.client().await?.sessions().list(self.vm);
        context.printer().list(sessions, view::Session::from).await
    }
}

/// Show all of a session
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger session inspect ID --output json")]
pub(crate) struct Inspect {
    /// The session's id
    session: String,
}

impl Inspect {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let session = context.client().await?.sessions().get(self.session).await?;
        context.printer().one(&view::Session::from(session))
    }
}

/// Send a signal to a session's process group
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger session signal ID INT
  banger session signal ID KILL --target all")]
pub(crate) struct Signal {
    /// The session's id
    session: String,
    /// The signal: TERM, SIGTERM or 15
    #[arg(value_parser = value::signal)]
    signal: i32,
    /// For whom it is
    #[arg(long, value_enum, default_value_t, value_name = "TARGET")]
    target: Target,
}

/// For whom a signal is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Target {
    /// The process group of the first process
    #[default]
    Group,
    /// The first process alone
    Leader,
    /// Every process of the session
    All,
}

impl Signal {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let target = match self.target {
            Target::Group => SignalTarget::Group,
            Target::Leader => SignalTarget::Leader,
            Target::All => SignalTarget::All,
        };
        context
            .client()
            .await?
            .sessions()
            .signal(self.session, self.signal, target)
            .await?;
        Ok(0)
    }
}

/// Wait until a session has ended
#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is the command's own; see `banger run --help`.

Examples:
  banger session wait ID
  banger session wait ID --output json")]
pub(crate) struct Wait {
    /// The session's id
    session: String,
}

impl Wait {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let exit = context
            .client()
            .await?
            .sessions()
            .wait(self.session)
            .await?;
        if context.format == Format::Json {
            output::json_line(&view::Exit::from(&exit))?;
        }
        exit_code(&exit)
    }
}

/// Kill what is left of sessions and remove them with their logs
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger session remove ID")]
pub(crate) struct Remove {
    /// The sessions' ids
    #[arg(required = true, value_name = "SESSION")]
    sessions: Vec<String>,
}

impl Remove {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        for session in self.sessions {
            client.sessions().delete(&session).await?;
            context.printer().removed(&session)?;
        }
        Ok(0)
    }
}
