//! A channel that runs a program: a session of the VM, as any other, that lives as long as its channel.

use std::collections::BTreeMap;
use std::sync::Arc;

use banger_app::session::{Events, Exec};
use banger_app::{App, AppError};
use banger_core::Explain as _;
use banger_core::guest::SessionInputs;
use banger_core::session::{Exit, SessionEvent, SessionInput, SessionSpec, Stream, TerminalSize};
use futures::StreamExt as _;
use futures::stream;
use russh::server::{Handle, Msg};
use russh::{ChannelId, ChannelWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::inbox::Source;
use crate::limits::HANGUP_GRACE;
use crate::login::Login;
use crate::signal;

/// Standard error's number in ssh (RFC 4254, section 5.2).
pub(crate) const STDERR: u32 = 1;
/// Exit codes of what did not run, as a shell has them, and of what banger or ssh itself failed at.
const NOT_FOUND: u32 = 127;
const NOT_EXECUTABLE: u32 = 126;
pub(crate) const FAILED: u32 = 255;

/// What a channel runs.
#[derive(Debug)]
pub(crate) enum Program {
    /// The user's shell, as at a login.
    Shell,
    /// A line for the user's shell.
    Command(String),
    /// The SFTP server, which is here and not in the guest.
    Sftp,
}

/// A program and what it needs.
pub(crate) struct Process {
    pub(crate) app: Arc<App>,
    /// The VM's id.
    pub(crate) vm: String,
    pub(crate) login: Arc<Login>,
    pub(crate) program: Program,
    /// What the client sets.
    pub(crate) env: BTreeMap<String, String>,
    /// The size of its terminal, if it has one.
    pub(crate) sizes: Option<watch::Receiver<TerminalSize>>,
    pub(crate) signals: mpsc::Receiver<i32>,
    pub(crate) source: Source,
    pub(crate) session: Handle,
    pub(crate) channel: ChannelWriteHalf<Msg>,
}

/// The end of a program's output.
enum Ended {
    Exit(Exit),
    Failed(AppError),
    /// The client is gone.
    Unheard,
}

/// Runs a program to its end, or until `closed`: then it is hung up on, as at the end of a terminal.
pub(crate) async fn run(process: Process, closed: CancellationToken) {
    let spec = process.spec();
    let Process {
        app,
        vm,
        sizes,
        mut signals,
        source,
        session,
        channel,
        ..
    } = process;
    let has_terminal = sizes.is_some();
    let input = input(source, sizes);
    let last = Last {
        session: &session,
        channel: &channel,
        has_terminal,
    };
    let started = tokio::select! {
        // cancel-safe: an exec that is dropped is killed
        started = app.sessions.exec(&vm, spec, input) => started,
        // cancel-safe: holds no state
        () = closed.cancelled() => return,
    };
    let mut exec = match started {
        Ok(exec) => exec,
        Err(error) => return last.failed(&error).await,
    };
    let signaller = exec.signaller();
    let ended = {
        let output = output(&mut exec.events, &channel);
        let signalling = async {
            while let Some(number) = signals.recv().await {
                // A process that has ended has nothing to be told.
                let _ = signaller(number).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // cancel-safe: dropped only where nobody hears what is lost
            ended = output => ended,
            // never ends
            () = signalling => Ended::Unheard,
            // cancel-safe: holds no state
            () = closed.cancelled() => Ended::Unheard,
        }
    };
    match ended {
        Ended::Exit(exit) => last.exit(exit).await,
        Ended::Failed(error) => last.failed(&error).await,
        Ended::Unheard => hang_up(exec).await,
    }
}

/// Tells the process that its client is gone. One that does not end is killed when it is dropped.
async fn hang_up(mut exec: Exec) {
    let ending = async {
        let _ = exec.signaller()(signal::HUP).await;
        while let Some(Ok(event)) = exec.events.next().await {
            if let SessionEvent::Exited { .. } = event {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(HANGUP_GRACE, ending).await;
}

impl Process {
    fn spec(&self) -> SessionSpec {
        let shell = self.login.shell.clone();
        let command = match &self.program {
            Program::Command(line) => vec![shell, "-c".into(), line.clone()],
            Program::Shell | Program::Sftp => vec![shell, "-l".into()],
        };
        let mut env = self.env.clone();
        env.extend(self.login.environment());
        SessionSpec {
            command,
            env,
            working_dir: self.login.working_dir.clone(),
            user: self.login.user.clone(),
            terminal: self.sizes.as_ref().map(|sizes| *sizes.borrow()),
            stdin: true,
            ..SessionSpec::default()
        }
    }
}

/// What the client sends, as the guest asks for it.
fn input(source: Source, sizes: Option<watch::Receiver<TerminalSize>>) -> SessionInputs {
    let state = Input {
        source,
        sizes,
        offset: 0,
        has_ended: false,
    };
    stream::unfold(state, async |mut state| {
        let input = state.next().await?;
        Some((input, state))
    })
    .boxed()
}

struct Input {
    source: Source,
    sizes: Option<watch::Receiver<TerminalSize>>,
    offset: u64,
    has_ended: bool,
}

impl Input {
    async fn next(&mut self) -> Option<SessionInput> {
        let Self {
            source,
            sizes,
            offset,
            has_ended,
        } = self;
        let resized = async {
            let sizes = sizes.as_mut()?;
            sizes.changed().await.ok()?;
            Some(*sizes.borrow_and_update())
        };
        if *has_ended {
            return resized.await.map(SessionInput::Resize);
        }
        tokio::select! {
            biased; // a terminal's size is known before what is typed into it
            // cancel-safe: a change that was not seen is seen again
            Some(size) = resized => Some(SessionInput::Resize(size)),
            // cancel-safe: what was not taken stays
            piece = source.next() => Some(match piece {
                Some(data) => {
                    let offset = std::mem::replace(offset, *offset + data.len() as u64);
                    SessionInput::Stdin { offset, data }
                }
                None => {
                    *has_ended = true;
                    SessionInput::CloseStdin
                }
            }),
        }
    }
}

/// Carries what a program says, as fast as the client takes it, up to its end.
async fn output(events: &mut Events, channel: &ChannelWriteHalf<Msg>) -> Ended {
    while let Some(event) = events.next().await {
        let sent = match event {
            Ok(SessionEvent::Output { stream, data, .. }) => match stream {
                Stream::Stdout => channel.data_bytes(data).await,
                Stream::Stderr => channel.extended_data_bytes(STDERR, data).await,
            },
            Ok(SessionEvent::Exited { exit, .. }) => return Ended::Exit(exit),
            Ok(_) => Ok(()),
            Err(error) => return Ended::Failed(error),
        };
        if sent.is_err() {
            return Ended::Unheard;
        }
    }
    Ended::Exit(Exit::VmGone)
}

/// The last words in a channel. That nobody hears them is no error.
struct Last<'a> {
    session: &'a Handle,
    channel: &'a ChannelWriteHalf<Msg>,
    has_terminal: bool,
}

impl Last<'_> {
    fn id(&self) -> ChannelId {
        self.channel.id()
    }

    async fn exit(&self, exit: Exit) {
        match exit {
            Exit::Code(code) => self.code(u32::try_from(code).unwrap_or(FAILED)).await,
            Exit::Signal(number) => self.signal(number, String::new()).await,
            Exit::OutOfMemory => {
                let text = "the VM's kernel ended it for want of memory".to_owned();
                self.say(&text).await;
                self.signal(9, text).await;
            }
            Exit::Deadline => {
                self.say("it ran longer than it may").await;
                self.code(FAILED).await;
            }
            Exit::VmGone => {
                self.say("the VM has ended, and its processes with it")
                    .await;
                self.code(FAILED).await;
            }
        }
        self.close().await;
    }

    async fn failed(&self, error: &AppError) {
        self.say(&described(error)).await;
        let code = match error.reason() {
            "PROGRAM_NOT_FOUND" => NOT_FOUND,
            "PROGRAM_NOT_EXECUTABLE" => NOT_EXECUTABLE,
            _ => FAILED,
        };
        self.code(code).await;
        self.close().await;
    }

    async fn code(&self, code: u32) {
        let _ = self.channel.exit_status(code).await;
    }

    async fn signal(&self, number: i32, text: String) {
        let name = signal::name(number);
        let told = self
            .session
            .exit_signal_request(self.id(), name, false, text, "en".into());
        let _ = told.await;
    }

    async fn say(&self, text: &str) {
        let end = if self.has_terminal { "\r\n" } else { "\n" };
        let line = format!("banger: {text}{end}");
        let _ = self
            .channel
            .extended_data_bytes(STDERR, line.into_bytes())
            .await;
    }

    async fn close(&self) {
        let _ = self.channel.eof().await;
        let _ = self.channel.close().await;
    }
}

/// An error with its remedy, in one line.
pub(crate) fn described(error: &AppError) -> String {
    let text = banger_core::chain(error);
    match error.remedy() {
        Some(remedy) => format!("{text}. {remedy}"),
        None => text,
    }
}
