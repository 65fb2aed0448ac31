//! Reading a kept log as that of a session of a running VM is read.

use std::io;
use std::path::{Path, PathBuf};

use banger_core::session::{
    AttachOptions, Attached, Exit, ReadFrom, Session, SessionEvent, SessionState,
};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;

use super::file::{Piece, Reader};
use crate::error::AppError;
use crate::session::Events;

/// Events that wait for who reads.
const AHEAD: usize = 4;

/// A kept log.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    /// As it is since the stop.
    pub(crate) session: Session,
    pub(crate) exit: Exit,
}

impl Kept {
    /// Reads what it is of, and how long it is.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (mut reader, header) = Reader::open(path)?;
        let mut end = header.start_offset;
        while let Some(piece) = reader.next()? {
            end = end.saturating_add(piece.length());
        }
        let mut session = header.session;
        let exit = match session.state {
            SessionState::Exited(exit) => exit,
            // The stop ended it, and its result is not known.
            SessionState::Running => Exit::VmGone,
        };
        session.state = SessionState::Exited(exit);
        session.pid = 0;
        (session.log_start_offset, session.log_end_offset) = (header.start_offset, end);
        Ok(Self {
            path: path.to_owned(),
            session,
            exit,
        })
    }

    /// All of it from where `options` say on. Nothing more comes, so there is nothing to follow.
    pub(crate) fn events(self, tasks: &TaskTracker, options: AttachOptions) -> Events {
        let (events, received) = mpsc::channel(AHEAD);
        tasks.spawn_blocking(move || {
            if let Err(source) = self.tell(options.from, &events) {
                let path = self.path.clone();
                // Who reads may have gone.
                let _ = events.blocking_send(Err(AppError::ReadDirectory { path, source }));
            }
        });
        ReceiverStream::new(received).boxed()
    }

    fn tell(
        &self,
        from: ReadFrom,
        events: &mpsc::Sender<Result<SessionEvent, AppError>>,
    ) -> io::Result<()> {
        let (mut reader, _) = Reader::open(&self.path)?;
        let start = self.locate(from, &mut reader)?;
        let (first, end) = (self.session.log_start_offset, self.session.log_end_offset);
        let begun = Attached {
            session: self.session.clone(),
            start_offset: start,
            stdin_offset: self.session.stdin_offset,
        };
        let send = |event| events.blocking_send(Ok(event)).is_ok();
        if !send(SessionEvent::Attached(Box::new(begun))) {
            return Ok(());
        }
        if start < first {
            let lost_bytes = first - start;
            let gap = SessionEvent::Gap {
                offset: start,
                lost_bytes,
            };
            if !send(gap) {
                return Ok(());
            }
        }
        reader.rewind()?;
        let mut offset = first;
        while let Some(piece) = reader.next()? {
            let next = offset + piece.length();
            // Where the reader begins in it.
            let at = offset.max(start);
            if next > at && !send(event(piece, offset, at)) {
                return Ok(());
            }
            offset = next;
        }
        send(SessionEvent::Exited {
            exit: self.exit,
            end_offset: end.max(start),
        });
        Ok(())
    }

    /// The offset at which a reader begins.
    fn locate(&self, from: ReadFrom, reader: &mut Reader) -> io::Result<u64> {
        let (first, end) = (self.session.log_start_offset, self.session.log_end_offset);
        Ok(match from {
            ReadFrom::Start => first,
            ReadFrom::End | ReadFrom::Screen => end,
            ReadFrom::Offset(offset) => offset.min(end),
            ReadFrom::TailBytes(bytes) => end.saturating_sub(bytes).max(first),
            ReadFrom::TailLines(lines) => self.tail(lines, reader)?,
            ReadFrom::Since(time) => {
                let mut offset = first;
                loop {
                    match reader.next()? {
                        None => return Ok(end),
                        Some(Piece::Output(_, read, _)) if read >= time => return Ok(offset),
                        Some(piece) => offset += piece.length(),
                    }
                }
            }
        })
    }

    /// The beginning of the last `lines` lines: after as many line ends as come before them.
    fn tail(&self, lines: u64, reader: &mut Reader) -> io::Result<u64> {
        let (first, end) = (self.session.log_start_offset, self.session.log_end_offset);
        if lines == 0 {
            return Ok(end);
        }
        let mut count = 0;
        line_ends(first, reader, |after| {
            // A line end at the very end begins no line.
            count += u64::from(after < end);
            false
        })?;
        // Of so many beginnings, the first line's own excluded.
        let Some(before) = count.checked_sub(lines) else {
            return Ok(first);
        };
        reader.rewind()?;
        let mut seen = 0;
        let found = line_ends(first, reader, |_| {
            seen += 1;
            seen > before
        })?;
        Ok(found.unwrap_or(first))
    }
}

/// Tells the offset after each line end, until `is_it` says that it is the one.
fn line_ends(
    first: u64,
    reader: &mut Reader,
    mut is_it: impl FnMut(u64) -> bool,
) -> io::Result<Option<u64>> {
    let mut offset = first;
    while let Some(piece) = reader.next()? {
        if let Piece::Output(_, _, data) = &piece {
            let ends = data.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            for (index, _) in ends {
                let after = offset + index as u64 + 1;
                if is_it(after) {
                    return Ok(Some(after));
                }
            }
        }
        offset += piece.length();
    }
    Ok(None)
}

/// A piece at `offset`, from `at` on.
fn event(piece: Piece, offset: u64, at: u64) -> SessionEvent {
    let skipped = at - offset;
    match piece {
        Piece::Output(stream, time, data) => SessionEvent::Output {
            offset: at,
            stream,
            time,
            data: data.slice(usize::try_from(skipped).unwrap_or(data.len())..),
        },
        Piece::Gap(lost) => SessionEvent::Gap {
            offset: at,
            lost_bytes: lost - skipped,
        },
    }
}

#[cfg(test)]
mod tests;
