//! A process that one is attached to, over as many connections as it takes.
//!
//! ```text
//! exec ──started──▶ live ──exited──▶ ended
//! attach ─attached─▶ │ ▲
//!              break ▼ │ attached, from the next byte
//!                   broken ──window over──▶ error
//! ```

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use banger_proto::v1;
use futures::future::{BoxFuture, FutureExt};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::outbox::{Outbox, Sent, Signals};
use super::reader::{Begin, Event, Position, ReadFrom, Receive, Received};
use super::{Command, Input, Sessions, SignalTarget};
use crate::client::Retry;
use crate::error::{Code, CodeRan, Error, LostProcess, Result};
use crate::stream::Watched;

/// The output that [`Process::output`] collects at most, of both streams together.
const COLLECTED_MAX_BYTES: usize = 256 << 20;

/// The stream of answers of one connection.
enum Connection {
    Exec(Watched<v1::ExecResponse>),
    Attach(Watched<v1::AttachSessionResponse>),
}

impl Connection {
    async fn next(&mut self) -> Result<Received> {
        let (message, during) = match self {
            Self::Exec(stream) => (stream.next().await?.map(Receive::receive), "Exec"),
            Self::Attach(stream) => (stream.next().await?.map(Receive::receive), "AttachSession"),
        };
        message
            .ok_or(Error::cut_short(during))?
            .ok_or(Error::Protocol {
                during,
                detail: "an empty message",
            })
    }
}

/// A process that one is attached to: its events, and by [`Process::input`] its input. Dropping it kills
/// what [`Sessions::exec`] began, and leaves running what was attached to.
pub struct Process {
    session: v1::Session,
    sessions: Sessions,
    outbox: Arc<Outbox>,
    connection: Option<Connection>,
    position: Position,
    retry: Retry,
    hold_process: bool,
    writing: v1::Writing,
    /// By which the guest knows whose bytes come; empty for an exec, whose only writer this is.
    writer: String,
    exec: bool,
    reconnects: u32,
    ended: bool,
    /// The caller was told that it is lost.
    lost: bool,
}

impl Process {
    pub(super) async fn exec(sessions: Sessions, vm: String, command: Command) -> Result<Self> {
        const CALL: &str = "Exec";
        use v1::exec_request::Message;
        let outbox = Arc::new(Outbox::default());
        let spec = Some(command.into_spec());
        let start = Message::Start(v1::ExecStart { vm, spec });
        let stream = outbox.connect(
            v1::ExecRequest {
                message: Some(start),
            },
            Signals::Carried,
            |sent| {
                let message = match sent {
                    Sent::Stdin(stdin) => Message::Stdin(stdin),
                    Sent::Close => Message::CloseStdin(v1::CloseStdin {}),
                    Sent::Resize(size) => Message::Resize(size),
                    Sent::Signal(signal) => Message::Signal(signal),
                };
                Some(v1::ExecRequest {
                    message: Some(message),
                })
            },
        );
        let answer = sessions.rpc().exec(stream).await;
        let mut connection = Connection::Exec(sessions.client.watched(answer, CALL)?);
        let (session, _) = first(&mut connection, CALL).await?;
        outbox.open(0);
        let position = Position::new(ReadFrom::Offset(0), CALL);
        Ok(Self::new(
            sessions, session, outbox, connection, position, true,
        ))
    }

    async fn attach(attach: Attach) -> Result<Self> {
        let (sessions, id) = (attach.sessions, attach.session);
        let (from, hold, writing) = (attach.from, attach.hold_process, attach.writing);
        let writer = attach.writer;
        let outbox = Arc::new(Outbox::default());
        let mut position = Position::new(from, "AttachSession");
        let mut retry = sessions.client.retry();
        loop {
            match connect(
                sessions.clone(),
                Arc::clone(&outbox),
                id.clone(),
                from.options(hold),
                (writing, &writer),
            )
            .await
            {
                Ok((connection, session, begin)) => {
                    outbox.open(begin.stdin);
                    position.attached(begin.output);
                    let mut process =
                        Self::new(sessions, session, outbox, connection, position, false);
                    process.hold_process = hold;
                    process.writer = writer;
                    // Who comes back has taken over already.
                    process.writing = match writing {
                        v1::Writing::Steal => v1::Writing::Shared,
                        other => other,
                    };
                    return Ok(process);
                }
                Err(error) => retry.after(error.with_code_ran(CodeRan::Yes)).await?,
            }
        }
    }

    fn new(
        sessions: Sessions,
        session: v1::Session,
        outbox: Arc<Outbox>,
        connection: Connection,
        position: Position,
        exec: bool,
    ) -> Self {
        let mut retry = sessions.client.retry();
        retry.established();
        Self {
            retry,
            session,
            sessions,
            outbox,
            connection: Some(connection),
            position,
            hold_process: exec,
            writing: v1::Writing::Shared,
            writer: String::new(),
            exec,
            reconnects: 0,
            ended: false,
            lost: false,
        }
    }

    /// The session, as it was when the connection was made.
    #[must_use]
    pub const fn session(&self) -> &v1::Session {
        &self.session
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.session.id
    }

    /// The offset after the last byte of output that came: what is known of a process that is lost.
    #[must_use]
    pub fn output_offset(&self) -> i64 {
        match self.position.resume_from() {
            ReadFrom::Offset(offset) => offset,
            _ => self.session.log_start_offset,
        }
    }

    /// Whose bytes are written: who attaches by the same later goes on at [`Process::stdin_offset`]. Empty for an exec.
    #[must_use]
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// How many bytes of this writer's standard input the guest is known to have taken.
    #[must_use]
    pub fn stdin_offset(&self) -> i64 {
        self.outbox.accepted()
    }

    /// How often the connection was lost and came back.
    #[must_use]
    pub const fn reconnects(&self) -> u32 {
        self.reconnects
    }

    /// The writing side.
    #[must_use]
    pub fn input(&self) -> Input {
        Input {
            outbox: Arc::clone(&self.outbox),
            sessions: self.sessions.clone(),
            session: self.session.id.clone(),
        }
    }

    /// The next event; `None` after the exit. Cancel-safe. A lost connection is made again within the
    /// reconnect window, from the next byte on.
    ///
    /// # Errors
    /// When the connection is lost for good, or the session is; [`Error::lost_process`] tells where to go on.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        if let Some(event) = self.position.held() {
            return Ok(Some(event));
        }
        while !self.ended {
            match self.step().await {
                Ok(Some(event)) => {
                    self.retry.established();
                    return Ok(Some(event));
                }
                Ok(None) => {}
                Err(error) => {
                    self.connection = None;
                    let error = error.of_running();
                    if let Err(error) = self.retry.after(error).await {
                        return Err(self.lose(error));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The error for the caller: with what a successor must know.
    fn lose(&mut self, mut error: Error) -> Error {
        self.lost = true;
        if let Some(process) = error.lost_process_mut() {
            *process = Some(Box::new(LostProcess {
                session_id: self.session.id.clone(),
                output_offset: self.output_offset(),
                stdin_offset: self.stdin_offset(),
                ..LostProcess::default()
            }));
        }
        error
    }

    async fn step(&mut self) -> Result<Option<Event>> {
        let Some(connection) = &mut self.connection else {
            self.reconnect().await?;
            return Ok(None);
        };
        Ok(match connection.next().await? {
            Received::Output(output) => self.position.output(output)?,
            Received::Gap(gap) => self.position.gap(gap),
            Received::StdinAck(offset) => {
                self.outbox.acknowledge(offset);
                None
            }
            Received::Screen(screen) => self.position.screen(screen),
            Received::Session(..) | Received::Idle => None,
            Received::Exited(exited) => {
                let detail = "an exit without a result";
                let exit = exited.exit.ok_or(Error::Protocol {
                    during: "Exec",
                    detail,
                })?;
                self.ended = true;
                self.outbox.end();
                self.connection = None;
                Some(Event::Exited(exit))
            }
        })
    }

    /// Attaches again. A process begun with `exec` is attached to by its session's id: if the daemon has
    /// ended it with the connection, the connection is lost for good.
    async fn reconnect(&mut self) -> Result<()> {
        let options = self.position.resume_from().options(self.hold_process);
        let made = connect(
            self.sessions.clone(),
            Arc::clone(&self.outbox),
            self.session.id.clone(),
            options,
            (self.writing, &self.writer),
        )
        .await;
        let (connection, session, begin) = match made {
            Err(Error::Refused(refusal)) if self.exec && refusal.code == Code::NotFound => {
                self.ended = true;
                self.outbox.end();
                let lost = Error::cut_short("Exec").with_code_ran(CodeRan::Yes);
                return self.retry.give_up(lost);
            }
            made => made?,
        };
        while let Some(signal) = self.outbox.take_signal() {
            let (id, target) = (&self.session.id, SignalTarget::Group);
            // Of a process that has ended meanwhile the events tell.
            let _ = self.sessions.signal(id, signal, target).await;
        }
        self.outbox.open(begin.stdin);
        self.session = session;
        self.connection = Some(connection);
        self.reconnects += 1;
        self.retry.established();
        Ok(())
    }

    /// Reads to the end and drops the output.
    ///
    /// # Errors
    /// As [`Process::next`].
    pub async fn wait(mut self) -> Result<v1::Exit> {
        loop {
            match self.next().await? {
                Some(Event::Exited(exit)) => return Ok(exit),
                Some(_) => {}
                None => return Err(Error::cut_short("Exec").with_code_ran(CodeRan::Yes)),
            }
        }
    }

    /// Reads to the end and collects the output, up to 256 MiB.
    ///
    /// # Errors
    /// As [`Process::next`], with what came until then in [`Error::lost_process`]; and [`Error::OutputTooLong`].
    pub async fn output(mut self) -> Result<Collected> {
        let (mut stdout, mut stderr, mut lost_bytes) = (Vec::new(), Vec::new(), 0);
        loop {
            let event = match self.next().await {
                Ok(event) => event,
                Err(mut error) => {
                    if let Some(Some(process)) = error.lost_process_mut() {
                        (process.stdout, process.stderr) = (stdout, stderr);
                    }
                    return Err(error);
                }
            };
            match event {
                Some(Event::Output(output)) => {
                    if stdout.len() + stderr.len() + output.data.len() > COLLECTED_MAX_BYTES {
                        return Err(Error::OutputTooLong {
                            limit_bytes: COLLECTED_MAX_BYTES,
                        });
                    }
                    let into = if output.stream() == v1::Stream::Stderr {
                        &mut stderr
                    } else {
                        &mut stdout
                    };
                    into.extend_from_slice(&output.data);
                }
                Some(Event::Gap(gap)) => lost_bytes += gap.lost_bytes,
                Some(Event::Screen(_)) => {}
                Some(Event::Exited(exit)) => {
                    return Ok(Collected {
                        stdout,
                        stderr,
                        lost_bytes,
                        exit,
                    });
                }
                None => return Err(Error::cut_short("Exec").with_code_ran(CodeRan::Yes)),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.outbox.end();
        let ends_by_itself = matches!(self.connection, Some(Connection::Exec(_)));
        if !self.exec || ends_by_itself || self.ended || self.lost {
            return;
        }
        // By the end of its own connection a guest knows that the caller is gone; of one that was made again it thinks
        // that the caller comes back.
        if let Ok(runtime) = Handle::try_current() {
            let delete = self.sessions.delete(&self.session.id).into_future();
            drop(runtime.spawn(async move { drop(delete.await) }));
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("session", &self.session.id)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// What a process wrote, and how it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Collected {
    /// File descriptor 1, or the terminal.
    pub stdout: Vec<u8>,
    /// File descriptor 2.
    pub stderr: Vec<u8>,
    /// Output that was no longer kept.
    pub lost_bytes: i64,
    /// How it ended.
    pub exit: v1::Exit,
}

/// An attachment, made when it is awaited.
#[derive(Debug)]
#[must_use = "an attachment is made when it is awaited"]
pub struct Attach {
    sessions: Sessions,
    session: String,
    from: ReadFrom,
    hold_process: bool,
    writing: v1::Writing,
    writer: String,
}

impl Attach {
    pub(super) fn new(sessions: Sessions, session: String) -> Self {
        Self {
            sessions,
            session,
            from: ReadFrom::Oldest,
            hold_process: false,
            writing: v1::Writing::Shared,
            writer: Uuid::new_v4().to_string(),
        }
    }

    /// Goes on as this writer, a UUID: by [`Process::writer`] of one that was attached before, it begins at the byte after
    /// those that the guest has of it, however many others wrote meanwhile.
    pub fn writer(mut self, writer: impl Into<String>) -> Self {
        self.writer = writer.into();
        self
    }

    /// Begins there instead of at the oldest byte that is kept.
    pub fn from(mut self, from: ReadFrom) -> Self {
        self.from = from;
        self
    }

    /// The process waits for this reader, as on a pipe, instead of losing its oldest output.
    pub fn hold_process(mut self) -> Self {
        self.hold_process = true;
        self
    }

    /// Only reads: whatever is written is refused.
    pub fn read_only(mut self) -> Self {
        self.writing = v1::Writing::None;
        self
    }

    /// Detaches everybody else who may write; they are told `WRITER_REPLACED`.
    pub fn steal(mut self) -> Self {
        self.writing = v1::Writing::Steal;
        self
    }
}

impl IntoFuture for Attach {
    type Output = Result<Process>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Process::attach(self).boxed()
    }
}

/// A new attached connection and the session as it is.
async fn connect(
    sessions: Sessions,
    outbox: Arc<Outbox>,
    id: String,
    options: v1::ReadOptions,
    (writing, writer): (v1::Writing, &str),
) -> Result<(Connection, v1::Session, Begin)> {
    const CALL: &str = "AttachSession";
    use v1::attach_session_request::Message;
    let start = v1::AttachSessionStart {
        session: id,
        options: Some(options),
        writing: writing.into(),
        writer: writer.to_owned(),
    };
    let start = v1::AttachSessionRequest {
        message: Some(Message::Start(start)),
    };
    let stream = outbox.connect(start, Signals::Apart, |sent| {
        let message = match sent {
            Sent::Stdin(stdin) => Message::Stdin(stdin),
            Sent::Close => Message::CloseStdin(v1::CloseStdin {}),
            Sent::Resize(size) => Message::Resize(size),
            Sent::Signal(_) => return None, // sent by a call of its own
        };
        Some(v1::AttachSessionRequest {
            message: Some(message),
        })
    });
    let answer = sessions.rpc().attach_session(stream).await;
    let mut connection = Connection::Attach(sessions.client.watched(answer, CALL)?);
    let (session, begin) = first(&mut connection, CALL).await?;
    Ok((connection, session, begin))
}

/// The session that a connection begins with, and where its reader and its writer do.
async fn first(connection: &mut Connection, during: &'static str) -> Result<(v1::Session, Begin)> {
    loop {
        match connection.next().await? {
            Received::Session(session, begin) => return Ok((*session, begin)),
            Received::Idle => {}
            _ => {
                return Err(Error::Protocol {
                    during,
                    detail: "output before the session",
                });
            }
        }
    }
}
