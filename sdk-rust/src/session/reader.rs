//! Output in order: each byte once, each lost byte told.

use std::time::SystemTime;

use banger_proto::v1;

use crate::error::{Error, Result};

/// What a process or a log tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Output, in order, no byte twice.
    Output(v1::Output),
    /// Output that is no longer kept.
    Gap(v1::Gap),
    /// What the terminal shows: once, before all output, if [`ReadFrom::Screen`] was asked for and the guest knows.
    Screen(v1::Screen),
    /// The process has ended and all its output came before; the last event.
    Exited(v1::Exit),
}

/// Where to begin to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the oldest byte that is kept.
    #[default]
    Oldest,
    /// At this offset; a gap tells what of it is no longer kept.
    Offset(i64),
    /// After the newest byte.
    End,
    /// So many bytes before the end, as far as they are kept.
    TailBytes(i64),
    /// So many lines before the end, at most 1000000, as far as they are kept.
    TailLines(i64),
    /// At the first output that the guest read then or later, by its own clock.
    Since(SystemTime),
    /// After the newest byte; what a terminal shows comes first. For attaching only.
    Screen,
}

impl ReadFrom {
    /// As the API says it.
    pub(super) fn options(self, hold_process: bool) -> v1::ReadOptions {
        use v1::read_options::From;
        let from = match self {
            Self::Oldest => None,
            Self::Offset(offset) => Some(From::Offset(offset)),
            Self::End => Some(From::End(true)),
            Self::TailBytes(bytes) => Some(From::TailBytes(bytes)),
            Self::TailLines(lines) => Some(From::TailLines(lines)),
            Self::Since(time) => Some(From::Since(time.into())),
            Self::Screen => Some(From::Screen(true)),
        };
        v1::ReadOptions { from, hold_process }
    }
}

/// Where a reader and its writer begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begin {
    /// Of the first byte of output that comes.
    pub(super) output: i64,
    /// Of the byte of standard input that the guest expects next.
    pub(super) stdin: i64,
}

/// A message of any stream of output, in one form.
pub(super) enum Received {
    /// The session as it is, and where its reader and its writer begin; the first message.
    Session(Box<v1::Session>, Begin),
    /// What the terminal shows.
    Screen(v1::Screen),
    /// Output.
    Output(v1::Output),
    /// Lost output.
    Gap(v1::Gap),
    /// Standard input accepted up to here.
    StdinAck(i64),
    /// Nothing.
    Idle,
    /// The end.
    Exited(v1::Exited),
}

impl Begin {
    /// Of what begins with its process.
    const START: Self = Self {
        output: 0,
        stdin: 0,
    };
}

/// A message that can be taken as [`Received`].
pub(super) trait Receive {
    /// `None` for a message without content.
    fn receive(self) -> Option<Received>;
}

impl Receive for v1::ExecResponse {
    fn receive(self) -> Option<Received> {
        use v1::exec_response::Message;
        Some(match self.message? {
            Message::Started(session) => Received::Session(Box::new(session), Begin::START),
            Message::Output(output) => Received::Output(output),
            Message::StdinAck(offset) => Received::StdinAck(offset),
            Message::Heartbeat(_) => Received::Idle,
            Message::Exited(exited) => Received::Exited(exited),
        })
    }
}

impl Receive for v1::AttachSessionResponse {
    fn receive(self) -> Option<Received> {
        use v1::attach_session_response::Message;
        let (output, stdin) = (self.start_offset, self.stdin_offset);
        Some(match self.message? {
            Message::Attached(session) => {
                let stdin = stdin.unwrap_or(session.stdin_offset);
                Received::Session(Box::new(session), Begin { output, stdin })
            }
            Message::Screen(screen) => Received::Screen(screen),
            Message::Output(output) => Received::Output(output),
            Message::Gap(gap) => Received::Gap(gap),
            Message::StdinAck(offset) => Received::StdinAck(offset),
            Message::Heartbeat(_) => Received::Idle,
            Message::Exited(exited) => Received::Exited(exited),
        })
    }
}

impl Receive for v1::ReadSessionLogResponse {
    fn receive(self) -> Option<Received> {
        use v1::read_session_log_response::Message;
        let begin = Begin {
            output: self.start_offset,
            ..Begin::START
        };
        Some(match self.message? {
            Message::Attached(session) => Received::Session(Box::new(session), begin),
            Message::Output(output) => Received::Output(output),
            Message::Gap(gap) => Received::Gap(gap),
            Message::Heartbeat(_) => Received::Idle,
            Message::Exited(exited) => Received::Exited(exited),
        })
    }
}

/// The place in a session's output.
#[derive(Debug)]
pub(super) struct Position {
    during: &'static str,
    /// The offset of the next byte; `None` until the first is known.
    next: Option<i64>,
    /// Output that follows a gap which the stream did not tell of.
    held: Option<v1::Output>,
    start: ReadFrom,
}

impl Position {
    pub(super) const fn new(start: ReadFrom, during: &'static str) -> Self {
        let next = match start {
            ReadFrom::Offset(offset) => Some(offset),
            _ => None,
        };
        Self {
            during,
            next,
            held: None,
            start,
        }
    }

    /// Where a new connection must begin.
    pub(super) fn resume_from(&self) -> ReadFrom {
        self.next.map_or(self.start, ReadFrom::Offset)
    }

    /// A new connection says where its reader begins, so that what is lost while it is broken is told as a gap.
    pub(super) fn attached(&mut self, start_offset: i64) {
        self.next.get_or_insert(start_offset);
    }

    /// What a terminal shows, where nothing came before it.
    pub(super) fn screen(&mut self, screen: v1::Screen) -> Option<Event> {
        let is_first = self.start == ReadFrom::Screen && self.next == Some(screen.offset);
        (is_first && !screen.data.is_empty()).then_some(Event::Screen(screen))
    }

    /// Output that was held back.
    pub(super) fn held(&mut self) -> Option<Event> {
        self.held.take().map(|output| self.deliver(output))
    }

    /// What is new in `output`; nothing if all of it is known.
    pub(super) fn output(&mut self, mut output: v1::Output) -> Result<Option<Event>> {
        let next = *self.next.get_or_insert(output.offset);
        let length = i64::try_from(output.data.len()).unwrap_or(i64::MAX);
        if output.offset < 0 || output.offset.checked_add(length).is_none() {
            return Err(Error::Protocol {
                during: self.during,
                detail: "an impossible offset",
            });
        }
        if output.offset > next {
            let gap = v1::Gap {
                offset: next,
                lost_bytes: output.offset - next,
            };
            self.next = Some(output.offset);
            self.held = Some(output);
            return Ok(Some(Event::Gap(gap)));
        }
        let known = usize::try_from(next - output.offset).unwrap_or(usize::MAX);
        if known >= output.data.len() {
            return Ok(None);
        }
        if known > 0 {
            drop(output.data.split_to(known));
            output.offset = next;
        }
        Ok(Some(self.deliver(output)))
    }

    fn deliver(&mut self, output: v1::Output) -> Event {
        let length = i64::try_from(output.data.len()).unwrap_or(i64::MAX);
        self.next = Some(output.offset.saturating_add(length));
        Event::Output(output)
    }

    /// What is new in `gap`; nothing if all of it is known.
    pub(super) fn gap(&mut self, gap: v1::Gap) -> Option<Event> {
        let end = gap.offset.saturating_add(gap.lost_bytes.max(0));
        let next = *self.next.get_or_insert(gap.offset);
        if end <= next {
            return None;
        }
        self.next = Some(end);
        Some(Event::Gap(v1::Gap {
            offset: next,
            lost_bytes: end - next,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(offset: i64, data: &[u8]) -> v1::Output {
        v1::Output {
            offset,
            stream: 1,
            time: None,
            data: data.to_vec().into(),
        }
    }

    #[test]
    fn bytes_that_come_twice_are_delivered_once() {
        let mut position = Position::new(ReadFrom::Oldest, "test");
        assert_eq!(
            position.output(output(0, b"abc")).unwrap(),
            Some(Event::Output(output(0, b"abc")))
        );
        assert_eq!(position.output(output(1, b"bc")).unwrap(), None);
        assert_eq!(
            position.output(output(2, b"cde")).unwrap(),
            Some(Event::Output(output(3, b"de")))
        );
        assert_eq!(position.resume_from(), ReadFrom::Offset(5));
    }

    #[test]
    fn missing_bytes_are_told_as_a_gap_even_if_the_stream_does_not() {
        let mut position = Position::new(ReadFrom::Offset(2), "test");
        let gap = v1::Gap {
            offset: 2,
            lost_bytes: 3,
        };
        assert_eq!(
            position.output(output(5, b"x")).unwrap(),
            Some(Event::Gap(gap))
        );
        assert_eq!(position.held(), Some(Event::Output(output(5, b"x"))));
        assert_eq!(position.held(), None);
        assert_eq!(position.resume_from(), ReadFrom::Offset(6));
    }

    #[test]
    fn a_gap_that_comes_twice_is_told_once() {
        let mut position = Position::new(ReadFrom::Offset(0), "test");
        let gap = v1::Gap {
            offset: 0,
            lost_bytes: 4,
        };
        assert_eq!(position.gap(gap), Some(Event::Gap(gap)));
        assert_eq!(position.gap(gap), None);
        assert_eq!(position.resume_from(), ReadFrom::Offset(4));
    }

    #[test]
    fn a_reader_resumes_where_it_began_before_anything_came() {
        let time = SystemTime::UNIX_EPOCH;
        for from in [
            ReadFrom::Oldest,
            ReadFrom::End,
            ReadFrom::TailBytes(2),
            ReadFrom::TailLines(2),
            ReadFrom::Since(time),
            ReadFrom::Screen,
        ] {
            let mut position = Position::new(from, "test");
            assert_eq!(position.resume_from(), from);
            position.attached(7);
            assert_eq!(position.resume_from(), ReadFrom::Offset(7));
            position.attached(9);
            assert_eq!(position.resume_from(), ReadFrom::Offset(7));
        }
    }

    #[test]
    fn an_impossible_offset_breaks_the_protocol() {
        let mut position = Position::new(ReadFrom::Oldest, "test");
        assert!(position.output(output(i64::MAX, b"x")).is_err());
        assert!(position.output(output(-1, b"x")).is_err());
    }
}
