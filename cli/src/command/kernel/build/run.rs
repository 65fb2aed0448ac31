//! Running the programs of a build: in process groups of their own, so that Ctrl-C reaches them through us, and
//! none is left behind.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines};
use tokio::process::{Child, Command};

use super::error::BuildError;
use crate::interrupt::Interrupts;

/// For what only asks.
const QUICK: Duration = Duration::from_secs(60);
/// Between asking a program to end and killing it.
const GRACE: Duration = Duration::from_secs(10);
/// Lines of a failed program that are told.
const LAST_LINES: usize = 12;
/// Characters of such a line.
const LINE_CHARS_MAX: usize = 300;

/// Runs programs until a signal asks us to end.
#[derive(Debug)]
pub(super) struct Runner {
    signals: Interrupts,
    log: Option<(PathBuf, File)>,
}

/// What a program said.
struct Said {
    status: ExitStatus,
    last: VecDeque<String>,
    out: Vec<String>,
}

/// What is kept of a program's standard output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    Last,
}

/// A program in an environment that changes nothing of what it does or says.
pub(super) fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("LC_ALL", "C")
        .env_remove("MAKEFLAGS")
        .env_remove("ARCH")
        .env_remove("CROSS_COMPILE")
        .env_remove("KBUILD_OUTPUT");
    command
}

impl Runner {
    /// Takes the signals over.
    pub(super) const fn new(signals: Interrupts) -> Self {
        Self { signals, log: None }
    }

    /// From now on everything that programs say is written to `path` too.
    pub(super) fn log_to(&mut self, path: PathBuf) -> Result<(), BuildError> {
        let file = File::create(&path).map_err(BuildError::files("make", &path))?;
        self.log = Some((path, file));
        Ok(())
    }

    /// Asks a program something; its standard output.
    pub(super) async fn quick(&mut self, command: Command) -> Result<Vec<String>, BuildError> {
        let program = program_of(&command);
        let said = self.run(command, QUICK, Keep::All, |_| {}).await?;
        succeeded(&program, &said)?;
        Ok(said.out)
    }

    /// Has a program do something, within `limit`.
    pub(super) async fn work(
        &mut self,
        command: Command,
        limit: Duration,
    ) -> Result<(), BuildError> {
        let program = program_of(&command);
        let said = self.run(command, limit, Keep::Last, |_| {}).await?;
        succeeded(&program, &said)
    }

    /// Has make compile; `line` gets what it says.
    pub(super) async fn make(
        &mut self,
        command: Command,
        limit: Duration,
        line: impl FnMut(&str),
    ) -> Result<(), BuildError> {
        let said = self.run(command, limit, Keep::Last, line).await?;
        if said.status.success() {
            return Ok(());
        }
        Err(BuildError::Make {
            status: said.status.to_string(),
            output: joined(&said.last),
            log: self
                .log
                .as_ref()
                .map(|(path, _)| path.clone())
                .unwrap_or_default(),
        })
    }

    async fn run(
        &mut self,
        mut command: Command,
        limit: Duration,
        keep: Keep,
        line: impl FnMut(&str),
    ) -> Result<Said, BuildError> {
        let program = program_of(&command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|source| BuildError::Start {
            program: program.clone(),
            source,
        })?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let log = self.log.as_mut().map(|(_, file)| file);
        let ended = tokio::select! {
            // dropped when it loses; then the program is ended
            ended = tokio::time::timeout(limit, listen(&mut child, log, keep, line)) => match ended {
                Ok(said) => {
                    return said.map_err(|source| BuildError::Start { program, source });
                }
                Err(_) => BuildError::Late { program, limit },
            },
            // cancel-safe
            signal = self.signals.end() => BuildError::Interrupted { signal },
        };
        end(&mut child, group).await;
        Err(ended)
    }
}

/// Reads what a program says until it has ended.
async fn listen(
    child: &mut Child,
    mut log: Option<&mut File>,
    keep: Keep,
    mut line: impl FnMut(&str),
) -> std::io::Result<Said> {
    let mut out = lines_of(child.stdout.take());
    let mut err = lines_of(child.stderr.take());
    let (mut last, mut all) = (VecDeque::new(), Vec::new());
    while out.is_some() || err.is_some() {
        let (text, is_out) = tokio::select! {
            // both arms are cancel-safe: a line that is not whole stays in its reader
            text = take_line(&mut out) => (text?, true),
            text = take_line(&mut err) => (text?, false),
        };
        let Some(text) = text else { continue };
        if let Some(log) = log.as_deref_mut() {
            // A log that cannot be written must not end the build.
            let _ = writeln!(log, "{text}");
        }
        if is_out {
            line(&text);
        }
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(text.chars().take(LINE_CHARS_MAX).collect());
        if is_out && keep == Keep::All {
            all.push(text);
        }
    }
    Ok(Said {
        status: child.wait().await?,
        last,
        out: all,
    })
}

fn lines_of<R: AsyncRead>(stream: Option<R>) -> Option<Lines<BufReader<R>>> {
    stream.map(|stream| BufReader::new(stream).lines())
}

/// The next line; a stream that has ended is taken away, and then never answers.
async fn take_line<R: AsyncRead + Unpin>(
    lines: &mut Option<Lines<BufReader<R>>>,
) -> std::io::Result<Option<String>> {
    let Some(open) = lines else {
        return std::future::pending().await;
    };
    match open.next_line().await {
        Ok(Some(line)) => Ok(Some(line)),
        // A compiler may quote bytes that are no text.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Ok(Some(String::new())),
        Ok(None) => {
            *lines = None;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Ends a program and all that it started.
async fn end(child: &mut Child, group: Option<Pid>) {
    let Some(group) = group else { return };
    // A group that is gone needs no signal.
    let _ = kill_process_group(group, Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
        let _ = tokio::time::timeout(GRACE, child.wait()).await;
    }
    // What ignored the first signal and outlived its parent.
    let _ = kill_process_group(group, Signal::KILL);
}

fn succeeded(program: &str, said: &Said) -> Result<(), BuildError> {
    if said.status.success() {
        return Ok(());
    }
    Err(BuildError::Tool {
        program: program.to_owned(),
        status: said.status.to_string(),
        output: joined(&said.last),
    })
}

fn program_of(command: &Command) -> String {
    command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned()
}

fn joined(lines: &VecDeque<String>) -> String {
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    lines.join("\n")
}
