//! A session's log, over as many connections as it takes.

use banger_proto::v1;
use futures::stream::{self, BoxStream, StreamExt};

use super::Sessions;
use super::reader::{Event, Position, ReadFrom, Receive, Received};
use crate::client::Retry;
use crate::error::{CodeRan, Error, Result};
use crate::stream::Watched;

/// The name of the call.
const CALL: &str = "ReadSessionLog";

/// A reading of a log, begun when it is made a stream.
#[derive(Debug)]
#[must_use = "a log is read when it is made a stream"]
pub struct Log {
    sessions: Sessions,
    session: String,
    position: Position,
    follow: bool,
    stream: Option<Watched<v1::ReadSessionLogResponse>>,
    retry: Retry,
    ended: bool,
}

impl Log {
    pub(super) fn new(sessions: Sessions, session: String) -> Self {
        Self {
            retry: sessions.client.retry(),
            sessions,
            session,
            position: Position::new(ReadFrom::Oldest, CALL),
            follow: false,
            stream: None,
            ended: false,
        }
    }

    /// Begins there.
    pub fn from(mut self, from: ReadFrom) -> Self {
        self.position = Position::new(from, CALL);
        self
    }

    /// Goes on with what comes until the exit.
    pub const fn follow(mut self) -> Self {
        self.follow = true;
        self
    }

    /// The events, in order; goes on at the same byte over broken connections.
    pub fn stream(self) -> BoxStream<'static, Result<Event>> {
        stream::try_unfold(self, |mut log| async move {
            Ok(log.next().await?.map(|event| (event, log)))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Event>> {
        if let Some(event) = self.position.held() {
            return Ok(Some(event));
        }
        if self.ended {
            return Ok(None);
        }
        loop {
            match self.step().await {
                Ok(event) => {
                    self.retry.established();
                    self.ended = matches!(event, None | Some(Event::Exited(_)));
                    return Ok(event);
                }
                Err(error) => {
                    self.stream = None;
                    self.retry.after(error.with_code_ran(CodeRan::Yes)).await?;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Event>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let request = v1::ReadSessionLogRequest {
                    session: self.session.clone(),
                    options: Some(self.position.resume_from().options(false)),
                    follow: self.follow,
                };
                let answer = self.sessions.rpc().read_session_log(request).await;
                empty.insert(self.sessions.client.watched(answer, CALL)?)
            }
        };
        loop {
            let Some(message) = stream.next().await? else {
                // What is followed ends with the exit.
                return if self.follow {
                    Err(Error::cut_short(CALL))
                } else {
                    Ok(None)
                };
            };
            let event = match message.receive() {
                Some(Received::Session(_, begin)) => {
                    self.position.attached(begin.output);
                    None
                }
                Some(Received::Output(output)) => self.position.output(output)?,
                Some(Received::Gap(gap)) => self.position.gap(gap),
                Some(Received::Exited(exited)) => {
                    let exit = exited.exit.ok_or(Error::Protocol {
                        during: CALL,
                        detail: "no exit",
                    })?;
                    Some(Event::Exited(exit))
                }
                Some(Received::Idle | Received::StdinAck(_) | Received::Screen(_)) => None,
                None => {
                    return Err(Error::Protocol {
                        during: CALL,
                        detail: "an empty message",
                    });
                }
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }
}
