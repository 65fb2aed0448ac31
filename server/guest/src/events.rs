//! A session's events, checked one by one: order, offsets, lengths, and that something comes at all.
//!
//! ```text
//! attached ─► (output | gap | ack | heartbeat)* ─► exited
//! ```

use std::sync::Arc;
use std::time::Duration;

use banger_core::guest::{GuestError, SessionEvents};
use banger_core::session::{AttachOptions, Attached as Begun, ReadFrom, SessionEvent};
use banger_core::{SessionId, VmId};
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::attach_session_response::Message as Attached;
use banger_proto::guest::v1::read_session_log_response::Message as Logged;
use futures::stream::{self, StreamExt};
use tonic::Streaming;

use crate::convert::{exit, offset, required, session, stream, time};
use crate::judge::{Call, broken, judge};
use crate::link::Link;

/// Where a reader and its writer begin, as the first message says.
pub(crate) struct Begin {
    output: i64,
    /// Absent from an agent that numbers all writers' bytes together, and of who does not write.
    stdin: Option<i64>,
}

/// A message of either stream of events, in the form of the larger one.
pub(crate) trait Message: Sized + Send + 'static {
    /// The event in it, and where its reader and its writer begin, if it is the first.
    fn event(self) -> (Option<Attached>, Begin);
}

impl Message for proto::AttachSessionResponse {
    fn event(self) -> (Option<Attached>, Begin) {
        let begin = Begin {
            output: self.start_offset,
            stdin: self.writer_offset,
        };
        (self.message, begin)
    }
}

impl Message for proto::ReadSessionLogResponse {
    fn event(self) -> (Option<Attached>, Begin) {
        let event = self.message.map(|message| match message {
            Logged::Attached(session) => Attached::Attached(session),
            Logged::Output(output) => Attached::Output(output),
            Logged::Gap(gap) => Attached::Gap(gap),
            Logged::Heartbeat(heartbeat) => Attached::Heartbeat(heartbeat),
            Logged::Exited(exited) => Attached::Exited(exited),
        });
        let begin = Begin {
            output: self.start_offset,
            stdin: None,
        };
        (event, begin)
    }
}

/// Whether the events may end without the session's exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Only with it.
    Exit,
    /// At the end of what there was.
    Anywhere,
}

/// What the events are checked against.
#[derive(Debug)]
pub(crate) struct Checker {
    pub(crate) vm: VmId,
    pub(crate) id: SessionId,
    pub(crate) during: &'static str,
    pub(crate) from: ReadFrom,
    pub(crate) ending: Ending,
    /// Longest silence.
    pub(crate) silence: Duration,
    /// Set by the first event.
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    position: u64,
    is_screen_due: bool,
    acked: u64,
    has_terminal: bool,
}

impl Checker {
    pub(crate) fn new(
        vm: VmId,
        id: SessionId,
        during: &'static str,
        options: AttachOptions,
        silence: Duration,
    ) -> Self {
        Self {
            vm,
            id,
            during,
            from: options.from,
            ending: Ending::Exit,
            silence,
            place: None,
        }
    }

    /// The events of `messages`, up to the exit or the first that is wrong. `link` lives as long as they.
    pub(crate) fn events<M: Message>(
        self,
        messages: Streaming<M>,
        link: Arc<Link>,
    ) -> SessionEvents {
        let state = Some((self, messages, link));
        stream::unfold(state, |state| async move {
            let (mut checker, mut messages, link) = state?;
            match checker.next(&mut messages, &link).await {
                Ok(Some(event)) => {
                    let is_last = matches!(event, SessionEvent::Exited { .. });
                    Some((Ok(event), (!is_last).then_some((checker, messages, link))))
                }
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next<M: Message>(
        &mut self,
        messages: &mut Streaming<M>,
        link: &Link,
    ) -> Result<Option<SessionEvent>, GuestError> {
        let message = match link.within(self.silence, messages.message()).await {
            Some(Ok(message)) => message,
            Some(Err(status)) => {
                let call = Call {
                    during: self.during,
                    session: Some(self.id),
                    asked: None,
                };
                return Err(judge(&status, &call));
            }
            None => {
                return Err(GuestError::Deadline {
                    during: self.during,
                    limit: self.silence,
                });
            }
        };
        match message {
            Some(message) => {
                let (event, begin) = message.event();
                self.check(required(event, "an event")?, &begin).map(Some)
            }
            None if self.ending == Ending::Anywhere && self.place.is_some() => Ok(None),
            None => Err(broken("the events ended before the session")),
        }
    }

    fn check(&mut self, event: Attached, begin: &Begin) -> Result<SessionEvent, GuestError> {
        let Some(place) = &mut self.place else {
            return self.attached(event, begin);
        };
        // Only the very next event may be the screen.
        let is_screen_due = std::mem::take(&mut place.is_screen_due);
        match event {
            Attached::Screen(screen) if is_screen_due => place.screen(screen),
            Attached::Screen(_) => Err(broken("it shows a screen that nobody asked for")),
            Attached::Attached(_) => Err(broken("it attached twice")),
            Attached::Output(output) => place.output(output),
            Attached::Gap(gap) => place.gap(&gap),
            Attached::StdinAck(acked) => place.ack(acked),
            Attached::Heartbeat(_) => Ok(SessionEvent::Heartbeat),
            Attached::Exited(exited) => place.exited(exited),
        }
    }

    fn attached(&mut self, event: Attached, begin: &Begin) -> Result<SessionEvent, GuestError> {
        let Attached::Attached(first) = event else {
            return Err(broken("the first event is not the session"));
        };
        let session = session(first, self.vm, Some(self.id))?;
        let position = match self.from {
            ReadFrom::Start => session.log_start_offset,
            ReadFrom::End => session.log_end_offset,
            ReadFrom::Offset(offset) if offset <= session.log_end_offset => offset,
            ReadFrom::Offset(_) => return Err(broken("it attached beyond the log's end")),
            ReadFrom::TailBytes(_)
            | ReadFrom::TailLines(_)
            | ReadFrom::Since(_)
            | ReadFrom::Screen => {
                let start = offset(begin.output, "a reader's start")?;
                if !(session.log_start_offset..=session.log_end_offset).contains(&start) {
                    return Err(broken("a reader starts outside of the log"));
                }
                start
            }
        };
        let stdin_offset = match begin.stdin {
            Some(own) => offset(own, "a writer's offset")?,
            None => session.stdin_offset,
        };
        self.place = Some(Place {
            position,
            is_screen_due: self.from == ReadFrom::Screen,
            acked: stdin_offset,
            has_terminal: session.spec.terminal.is_some(),
        });
        Ok(SessionEvent::Attached(Box::new(Begun {
            session,
            start_offset: position,
            stdin_offset,
        })))
    }
}

impl Place {
    fn at(&self, value: i64) -> Result<(), GuestError> {
        if offset(value, "an offset")? == self.position {
            Ok(())
        } else {
            Err(broken(format!(
                "an event is at offset {value} instead of {}",
                self.position
            )))
        }
    }

    fn advance(&mut self, length: u64) -> Result<(), GuestError> {
        let end = self.position.checked_add(length);
        self.position = end
            .filter(|&end| i64::try_from(end).is_ok())
            .ok_or_else(|| broken("an offset is beyond every log"))?;
        Ok(())
    }

    fn screen(&self, screen: proto::Screen) -> Result<SessionEvent, GuestError> {
        self.at(screen.offset)?;
        Ok(SessionEvent::Screen {
            offset: self.position,
            data: screen.data,
        })
    }

    fn output(&mut self, output: proto::Output) -> Result<SessionEvent, GuestError> {
        self.at(output.offset)?;
        if output.data.is_empty() {
            return Err(broken("output is empty"));
        }
        let from = self.position;
        self.advance(output.data.len() as u64)?;
        Ok(SessionEvent::Output {
            offset: from,
            stream: stream(output.stream, self.has_terminal)?,
            time: time(required(output.time, "the time of output")?)?,
            data: output.data,
        })
    }

    fn gap(&mut self, gap: &proto::Gap) -> Result<SessionEvent, GuestError> {
        self.at(gap.offset)?;
        let lost_bytes = offset(gap.lost_bytes, "a gap")?;
        if lost_bytes == 0 {
            return Err(broken("a gap is empty"));
        }
        let from = self.position;
        self.advance(lost_bytes)?;
        Ok(SessionEvent::Gap {
            offset: from,
            lost_bytes,
        })
    }

    /// How much was sent is not known here: a session may have several writers.
    fn ack(&mut self, acked: i64) -> Result<SessionEvent, GuestError> {
        let acked = offset(acked, "an acknowledgement")?;
        if acked < self.acked {
            return Err(broken("an acknowledgement was taken back"));
        }
        self.acked = acked;
        Ok(SessionEvent::StdinAck { offset: acked })
    }

    fn exited(&self, exited: proto::Exited) -> Result<SessionEvent, GuestError> {
        self.at(exited.end_offset)?;
        Ok(SessionEvent::Exited {
            exit: exit(required(exited.exit, "the exit")?)?,
            end_offset: self.position,
        })
    }
}
