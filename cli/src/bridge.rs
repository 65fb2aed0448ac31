//! Between a process in a VM and our own standard input, output and terminal.
//!
//! Three loops run side by side: output (which ends it all), input, and signals. Output is written by
//! a blocking thread a piece at a time, so that a slow reader holds the process back and signals are
//! still heard.

use std::io;
use std::time::Duration;

use banger_sdk::types::Stream;
use banger_sdk::types::exit::How;
use banger_sdk::{Event, Input, Process, types};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Stdin};

use crate::detach::DetachKeys;
use crate::failure::Failure;
use crate::interrupt::{Interrupts, Sent};
use crate::terminal::{self, Raw};

/// What is read from standard input at once.
const READ_BYTES: usize = 64 << 10;
/// How long detaching waits for what was typed before.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// The number of SIGINT.
const SIGINT: i32 = 2;
/// The number of SIGKILL.
const SIGKILL: i32 = 9;

/// How to connect a process to us.
#[derive(Debug, Default)]
pub(crate) struct Bridge {
    /// The process has a terminal, and ours becomes raw.
    pub(crate) terminal: bool,
    /// Standard input is forwarded.
    pub(crate) stdin: bool,
    /// The keys that detach.
    pub(crate) detach: Option<DetachKeys>,
    /// Nothing is sent to the process, no signal either: Ctrl-C and the keys detach.
    pub(crate) read_only: bool,
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The process ended, and all its output is written.
    Exited(types::Exit),
    /// The detach keys were typed.
    Detached,
    /// We were asked to end, by this signal.
    Signalled(i32),
}

impl Bridge {
    /// Connects `process` to us until one of them ends.
    pub(crate) async fn run(
        mut self,
        process: &mut Process,
        signals: &mut Interrupts,
    ) -> Result<Ended, Failure> {
        if self.read_only {
            return self.look_on(process, signals).await;
        }
        let input = process.input();
        if !terminal::stdin_is_terminal() {
            self.detach = None; // what comes is data, whatever its bytes
        }
        let raw = if self.terminal && terminal::stdin_is_terminal() {
            Some(Raw::enter()?.showing_guest())
        } else {
            None
        };
        let forward = self.stdin || self.terminal;
        let ended = tokio::select! {
            biased; // an exit must win over the end of input that it causes
            ended = output(process) => ended,
            ended = forward_signals(signals, &input, self.terminal) => ended,
            ended = forward_input(&input, &mut self.detach), if forward => ended,
        };
        give_back(raw, &ended);
        ended
    }

    /// Shows what `process` writes until it ends or we are to.
    async fn look_on(
        mut self,
        process: &mut Process,
        signals: &mut Interrupts,
    ) -> Result<Ended, Failure> {
        // Where our output goes elsewhere, the keys may be another program's, as of a pager.
        let keys = self.detach.as_mut().filter(|_| terminal::is_interactive());
        let watched = match &keys {
            Some(_) if self.terminal => Some(Raw::watch_keys(true)?.showing_guest()),
            Some(_) => Some(Raw::watch_keys(false)?),
            None => None,
        };
        let ended = tokio::select! {
            biased; // as above
            ended = output(process) => ended,
            ended = signalled(signals) => Ok(ended),
            ended = detach_keys(keys) => ended,
        };
        give_back(watched, &ended);
        ended
    }
}

/// Gives the terminal back as it was before.
fn give_back(raw: Option<Raw>, ended: &Result<Ended, Failure>) {
    let by_itself = |exit: &types::Exit| matches!(exit.how, Some(How::Code(_)));
    if let Some(raw) = raw
        && matches!(ended, Ok(Ended::Exited(exit)) if by_itself(exit))
    {
        raw.guest_ended();
    }
}

/// Writes what the process writes, until it has ended.
async fn output(process: &mut Process) -> Result<Ended, Failure> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        match process.next().await? {
            Some(Event::Output(output)) if output.stream() == Stream::Stderr => {
                write(&mut stderr, &output.data).await?;
            }
            Some(Event::Output(output)) => write(&mut stdout, &output.data).await?,
            Some(Event::Gap(gap)) => {
                let text = format!(
                    "banger: {} bytes of output are no longer kept\r\n",
                    gap.lost_bytes
                );
                write(&mut stderr, text.as_bytes()).await?;
            }
            Some(Event::Screen(screen)) => write(&mut stdout, &screen.data).await?,
            Some(Event::Exited(exit)) => return Ok(Ended::Exited(exit)),
            None => return Ok(Ended::Exited(types::Exit::default())),
        }
    }
}

async fn write(out: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> Result<(), Failure> {
    out.write_all(data).await.map_err(Failure::write)?;
    out.flush().await.map_err(Failure::write)
}

/// Forwards standard input to its end; then waits for ever.
async fn forward_input(input: &Input, detach: &mut Option<DetachKeys>) -> Result<Ended, Failure> {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = read(&mut stdin, &mut buffer).await?;
        let typed = &buffer[..length];
        let (data, detached) = match detach {
            Some(keys) if length == 0 => (keys.held(), false),
            Some(keys) => keys.filter(typed),
            None => (typed.to_vec(), false),
        };
        // A process that takes no more input ends by itself or not at all.
        if input.write(Bytes::from(data)).await.is_err() {
            return std::future::pending().await;
        }
        if detached {
            // What was typed before the keys is still on its way; a process that does not read it must
            // not keep us.
            let _ = tokio::time::timeout(FLUSH_LIMIT, input.flush()).await;
            return Ok(Ended::Detached);
        }
        if length == 0 {
            input.close();
            return std::future::pending().await;
        }
    }
}

/// Reads standard input; 0 at its end.
async fn read(stdin: &mut Stdin, buffer: &mut [u8]) -> Result<usize, Failure> {
    loop {
        return match stdin.read(buffer).await {
            Ok(length) => Ok(length),
            // A terminal that hung up has no more input.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(Failure::Read(error)),
        };
    }
}

/// Returns when `keys` were typed; what else is typed is for nobody.
async fn detach_keys(keys: Option<&mut DetachKeys>) -> Result<Ended, Failure> {
    let Some(keys) = keys else {
        return std::future::pending().await;
    };
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match read(&mut stdin, &mut buffer).await? {
            0 => return std::future::pending().await,
            length if keys.filter(&buffer[..length]).1 => return Ok(Ended::Detached),
            _ => {}
        }
    }
}

/// Returns when a signal asks one who only looks on to end.
async fn signalled(signals: &mut Interrupts) -> Ended {
    loop {
        match signals.next().await {
            Sent::Resized => {}
            Sent::Interrupt | Sent::InterruptAgain => return Ended::Detached,
            Sent::Terminate(signal) => return Ended::Signalled(signal),
        }
    }
}

/// Forwards what concerns the process; returns when we are to end.
async fn forward_signals(
    signals: &mut Interrupts,
    input: &Input,
    terminal: bool,
) -> Result<Ended, Failure> {
    loop {
        match signals.next().await {
            Sent::Resized if terminal => {
                let (rows, columns) = terminal::size();
                input.resize(rows, columns);
            }
            Sent::Resized => {}
            Sent::Interrupt => input.signal(SIGINT).await?,
            Sent::InterruptAgain => {
                input.signal(SIGKILL).await?;
                return Ok(Ended::Signalled(SIGINT));
            }
            Sent::Terminate(signal) => return Ok(Ended::Signalled(signal)),
        }
    }
}
