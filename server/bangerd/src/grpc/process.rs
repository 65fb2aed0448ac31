//! The two directions of a running process: what its caller sends, and what it says.
//!
//! Input is pulled by the guest, message by message, so nothing piles up here: a process that does not read
//! holds the caller's stream. What is wrong with input cannot be said on the input: it ends the output.

use banger_app::session::{Events, Exec};
use banger_core::session::{SessionEvent, SessionInput};
use banger_proto::v1;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

use super::convert::session;
use super::request::RequestError;
use super::status;
use super::stream::{Answers, Drain, served};

/// Signals of one exec that wait to be sent: more than a person or a program sends in one round trip.
const SIGNALS_WAITING: usize = 16;

/// What is wrong with the input, once something is.
pub(super) type Faults = oneshot::Receiver<RequestError>;

/// One message of a caller, as `parse` reads it; `None` is one that is no input.
type Parsed<I = SessionInput> = Result<Option<I>, RequestError>;

/// The channel by which an exec's signals go from its input to [`executed`].
pub(super) fn signals() -> (mpsc::Sender<i32>, mpsc::Receiver<i32>) {
    mpsc::channel(SIGNALS_WAITING)
}

/// The input of a process, or of a tunnel. A caller who ends or breaks off the stream leaves standard input as it is.
pub(super) fn input<M: Send + 'static, I: Send + 'static>(
    messages: Streaming<M>,
    parse: impl Fn(M) -> Parsed<I> + Send + Sync + 'static,
) -> (BoxStream<'static, I>, Faults) {
    let (fault, faults) = oneshot::channel();
    let parsed = stream::unfold(
        (messages, parse, fault),
        async |(mut messages, parse, fault)| {
            loop {
                match parse(messages.message().await.ok()??) {
                    Ok(Some(input)) => return Some((input, (messages, parse, fault))),
                    Ok(None) => {}
                    Err(error) => {
                        // Nobody may be left to be told.
                        let _ = fault.send(error);
                        return None;
                    }
                }
            }
        },
    );
    (parsed.boxed(), faults)
}

/// A message of `AttachSession` after the first.
pub(super) fn attach_input(message: v1::AttachSessionRequest) -> Parsed {
    use v1::attach_session_request::Message;
    match message.message {
        Some(Message::Stdin(stdin)) => session::stdin(stdin).map(Some),
        Some(Message::CloseStdin(_)) => Ok(Some(SessionInput::CloseStdin)),
        Some(Message::Resize(size)) => session::resize(size).map(Some),
        Some(Message::Start(_)) => Err(RequestError::invalid("start", "comes a second time")),
        None => Err(RequestError::missing("message")),
    }
}

/// A message of `Exec` after the first.
pub(super) fn exec_input(message: v1::ExecRequest, signals: &mpsc::Sender<i32>) -> Parsed {
    use v1::exec_request::Message;
    match message.message {
        Some(Message::Stdin(stdin)) => session::stdin(stdin).map(Some),
        Some(Message::CloseStdin(_)) => Ok(Some(SessionInput::CloseStdin)),
        Some(Message::Resize(size)) => session::resize(size).map(Some),
        Some(Message::Signal(number)) => {
            let number = session::signal("signal", number)?;
            // One that comes faster than signals can be sent is dropped, as the kernel merges those that are pending.
            let _ = signals.try_send(number);
            Ok(None)
        }
        Some(Message::Start(_)) => Err(RequestError::invalid("start", "comes a second time")),
        None => Err(RequestError::missing("message")),
    }
}

/// Events up to the exit: whatever a guest says after it is not heard.
fn until_exit(events: Events) -> Events {
    let next = async |events: Option<Events>| {
        let mut events = events?;
        let event = events.next().await?;
        let is_last = matches!(event, Err(_) | Ok(SessionEvent::Exited { .. }));
        Some((event, (!is_last).then_some(events)))
    };
    stream::unfold(Some(events), next).boxed()
}

/// How far a caller has come, which an error tells: what is after it is not known to the caller.
#[derive(Debug, Default)]
struct Offsets {
    output: u64,
    stdin: u64,
}

impl Offsets {
    fn note(&mut self, event: &SessionEvent) {
        match event {
            SessionEvent::Attached(attached) => self.stdin = attached.stdin_offset,
            SessionEvent::StdinAck { offset } => self.stdin = *offset,
            _ => {}
        }
        if let Some(offset) = event.output_end() {
            self.output = offset;
        }
    }

    fn status(&self, error: &banger_app::AppError) -> Status {
        let mut failure = error.to_failure();
        let mut tell = |key: &str, offset: u64| {
            failure.metadata.insert(key.to_owned(), offset.to_string());
        };
        tell("output_offset", self.output);
        tell("stdin_offset", self.stdin);
        status::of_failure(&failure)
    }
}

/// Events up to the exit, or to an error that tells how far they came.
fn told(events: Events) -> Answers<SessionEvent> {
    let mut offsets = Offsets::default();
    let told = until_exit(events).map(move |event| match event {
        Ok(event) => {
            offsets.note(&event);
            Ok(event)
        }
        Err(error) => Err(offsets.status(&error)),
    });
    told.boxed()
}

/// What a reader of a log is told.
pub(super) fn log(events: Events, drain: &Drain) -> Answers<v1::ReadSessionLogResponse> {
    let messages = told(events).map(|event| event.map(session::log_event));
    served(messages, drain.begun.clone(), || {
        session::log_event(SessionEvent::Heartbeat)
    })
}

/// What an attached reader is told.
pub(super) fn attached(
    events: Events,
    faults: Faults,
    drain: &Drain,
) -> Answers<v1::AttachSessionResponse> {
    let messages = told(events).map(|event| event.map(session::attach_event));
    served(
        until_fault(messages.boxed(), faults),
        drain.begun.clone(),
        || session::attach_event(SessionEvent::Heartbeat),
    )
}

/// Ends `messages` with what is wrong with the input.
pub(super) fn until_fault<T: Send + 'static>(messages: Answers<T>, faults: Faults) -> Answers<T> {
    let fault = stream::once(faults).filter_map(async |fault| Some(Err(fault.ok()?.into())));
    let merged = stream::select(
        messages.map(Some).chain(stream::iter([None])),
        fault.map(Some),
    );
    // Ends with the messages, or after the first error of either.
    let ended = merged
        .take_while(|item| std::future::ready(item.is_some()))
        .filter_map(std::future::ready);
    stream::unfold(Some(ended.boxed()), next_until_error).boxed()
}

async fn next_until_error<T>(
    stream: Option<BoxStream<'static, Result<T, Status>>>,
) -> Option<(
    Result<T, Status>,
    Option<BoxStream<'static, Result<T, Status>>>,
)> {
    let mut stream = stream?;
    let item = stream.next().await?;
    let rest = item.is_ok().then_some(stream);
    Some((item, rest))
}

/// What the caller of an exec is told, while its signals are sent.
pub(super) fn executed(
    exec: Exec,
    faults: Faults,
    signals: mpsc::Receiver<i32>,
    drain: &Drain,
) -> Answers<v1::ExecResponse> {
    let send = Box::new(exec.signaller());
    let running = Running {
        events: told(exec.events),
        signals: Some(signals),
        sending: None,
        send,
    };
    let messages = stream::unfold(running, async |mut running| {
        running.next().await.map(|message| (message, running))
    });
    let heartbeat = || v1::ExecResponse {
        message: Some(v1::exec_response::Message::Heartbeat(v1::Heartbeat {})),
    };
    served(
        until_fault(messages.boxed(), faults),
        drain.over.clone(),
        heartbeat,
    )
}

/// An exec as it runs.
struct Running {
    events: Answers<SessionEvent>,
    /// Gone when the input has ended.
    signals: Option<mpsc::Receiver<i32>>,
    sending: Option<BoxFuture<'static, Result<(), banger_app::AppError>>>,
    send: Box<dyn Fn(i32) -> BoxFuture<'static, Result<(), banger_app::AppError>> + Send + Sync>,
}

impl Running {
    async fn next(&mut self) -> Option<Result<v1::ExecResponse, Status>> {
        loop {
            let signal = OptionFuture::from(self.signals.as_mut().map(mpsc::Receiver::recv));
            tokio::select! {
                // cancel-safe: what the stream has begun stays in it
                event = self.events.next() => return event.map(answer),
                // cancel-safe: the future stays where it is until it is done
                Some(sent) = OptionFuture::from(self.sending.as_mut()) => {
                    self.sending = None;
                    if let Err(error) = sent {
                        // The process may have ended meanwhile: its exit tells.
                        tracing::debug!(error = banger_core::chain(&error), "could not signal an exec");
                    }
                }
                // cancel-safe: `recv`
                Some(signal) = signal, if self.sending.is_none() => match signal {
                    Some(signal) => self.sending = Some((self.send)(signal)),
                    None => self.signals = None,
                },
            }
        }
    }
}

fn answer(event: Result<SessionEvent, Status>) -> Result<v1::ExecResponse, Status> {
    Ok(session::exec_event(event?)?)
}

#[cfg(test)]
mod tests;
