//! `banger vm top`: what all VMs use, live.

mod frame;

use std::time::Duration;

use banger_sdk::Round;
use clap::{Args, ValueEnum};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::{AsyncReadExt, Stdin};

use crate::args::Format;
use crate::context::Context;
use crate::failure::{Failure, signal_code};
use crate::interrupt::{Interrupts, Sent};
use crate::output::{self, Row};
use crate::terminal::{self, Screen};
use crate::value;
use crate::view::VmStats;
use frame::Frame;

/// Between the two measurements of a table that is printed once.
const ONCE_APART: Duration = Duration::from_millis(500);
/// Ctrl-C, in a terminal that is raw.
const CTRL_C: u8 = 3;
/// Keys that are read at once.
const KEYS_MAX: usize = 64;

/// Show what all VMs use, live
#[derive(Debug, Args)]
#[command(after_help = "\
Keys: c, m, d, i and n sort by processor, memory, disk, I/O and name; q ends.

CPU% is of one processor of the host. MEMORY and PROCS are the guest's own words; RSS is the host's memory, DISK what \
the writable disk takes there.

Examples:
  banger vm top
  banger vm top --sort memory --interval 5s
  banger vm top --once
  banger vm top --once --output json | jq '.[] | select(.host.cpu_percent > 50) | .name'")]
pub(crate) struct Top {
    /// From one measurement to the next, 500ms to 60s
    #[arg(short, long, value_name = "TIME", value_parser = value::duration, default_value = "1s")]
    interval: Duration,
    /// What comes first
    #[arg(short, long, value_enum, value_name = "KEY", default_value_t)]
    sort: Sort,
    /// Print the table once, and end
    #[arg(long)]
    once: bool,
}

/// What comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// What uses most processor time
    #[default]
    Cpu,
    /// What uses most memory of the host
    Memory,
    /// What takes most disk of the host
    Disk,
    /// What reads and writes most
    Io,
    /// By name
    Name,
}

impl Sort {
    const fn of_key(key: u8) -> Option<Self> {
        match key {
            b'c' => Some(Self::Cpu),
            b'm' => Some(Self::Memory),
            b'd' => Some(Self::Disk),
            b'i' => Some(Self::Io),
            b'n' => Some(Self::Name),
            _ => None,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Io => "io",
            Self::Name => "name",
        }
    }

    fn sort(self, rows: &mut [VmStats]) {
        rows.sort_by(|one, other| {
            let by = match self {
                Self::Cpu => other.cpu_percent().total_cmp(&one.cpu_percent()),
                Self::Memory => other.rss_bytes().cmp(&one.rss_bytes()),
                Self::Disk => other.disk_bytes().cmp(&one.disk_bytes()),
                Self::Io => other.io_rate().total_cmp(&one.io_rate()),
                Self::Name => std::cmp::Ordering::Equal,
            };
            by.then_with(|| one.name().cmp(&other.name()))
        });
    }

    fn rows(self, round: Round) -> Vec<VmStats> {
        let mut rows: Vec<VmStats> = round.into_iter().map(VmStats::from).collect();
        self.sort(&mut rows);
        rows
    }
}

impl Top {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let vms = context.client().await?.vms();
        if self.once {
            // What changes is known from the second measurement on.
            let mut rounds = vms.watch_all_stats(ONCE_APART).skip(1);
            return self.print(context, rounds.next().await);
        }
        let mut rounds = vms.watch_all_stats(self.interval);
        if context.format == Format::Json {
            while let Some(round) = rounds.next().await {
                output::json_line(&self.sort.rows(round?))?;
            }
            return Ok(0);
        }
        if !terminal::is_interactive() {
            return Err(Failure::Usage {
                problem: "the live table needs a terminal: use --once or --output json".to_owned(),
            });
        }
        self.live(rounds).await
    }

    fn print(
        &self,
        context: &Context,
        round: Option<banger_sdk::Result<Round>>,
    ) -> Result<u8, Failure> {
        let rows = self.sort.rows(round.transpose()?.unwrap_or_default());
        match (context.quiet, context.format) {
            (true, _) => output::lines(rows.iter().map(Row::name))?,
            (false, Format::Json) => output::json(&rows)?,
            (false, Format::Table) => {
                output::table(VmStats::HEADINGS, rows.iter().map(Row::cells))?;
            }
        }
        Ok(0)
    }

    async fn live(
        self,
        mut rounds: BoxStream<'static, banger_sdk::Result<Round>>,
    ) -> Result<u8, Failure> {
        let mut signals = Interrupts::new()?;
        let mut stdin = tokio::io::stdin();
        let screen = Screen::enter()?;
        let mut frame = Frame::new(self.sort, self.interval);
        loop {
            screen.show(&frame.draw(terminal::size()))?;
            tokio::select! {
                // cancel-safe: the stream keeps what it has begun
                round = rounds.next() => match round {
                    Some(round) => frame.set(round?),
                    None => return Ok(0),
                },
                // cancel-safe: `read` loses nothing when dropped
                keys = keys(&mut stdin) => match frame.press(&keys?) {
                    Pressed::Quit => return Ok(0),
                    Pressed::Other => {}
                },
                // cancel-safe: see there
                sent = signals.next() => match sent {
                    Sent::Resized => {}
                    Sent::Interrupt | Sent::InterruptAgain => return Ok(0),
                    Sent::Terminate(signal) => return Ok(signal_code(signal)),
                },
            }
        }
    }
}

/// What a key asked for.
#[derive(Debug, PartialEq, Eq)]
enum Pressed {
    Quit,
    Other,
}

/// The next keys; none is the end of the terminal.
async fn keys(stdin: &mut Stdin) -> Result<Vec<u8>, Failure> {
    let mut keys = vec![0; KEYS_MAX];
    let length = stdin.read(&mut keys).await.map_err(Failure::Read)?;
    keys.truncate(length);
    Ok(keys)
}
