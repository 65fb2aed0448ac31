//! `ReadConsole`: what a guest wrote to its console, and what it goes on to write.

use std::collections::VecDeque;
use std::sync::Arc;

use banger_app::AppError;
use banger_app::vm::VmView;
use banger_core::vm::Phase;
use banger_core::vmm::{Console, ConsoleChunk};
use banger_proto::v1;
use banger_proto::v1::read_console_response::Message;
use futures::stream;
use tokio::sync::watch::Receiver;

use crate::grpc::convert::field;
use crate::grpc::request::RequestError;
use crate::grpc::status;
use crate::grpc::stream::{Answers, Drain, served};

/// How much of a console one message carries.
const PIECE_BYTES: usize = 64 << 10;

/// How many lines a caller may want of the end.
const TAIL_LINES_MAX: u32 = 10_000;
/// How far from the end lines are looked for.
const TAIL_BYTES_MAX: u64 = 4 << 20;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// At this byte.
    Offset(u64),
    /// So many lines before the end.
    Lines(u32),
}

/// Where a caller wants to begin.
pub(super) fn start(offset: Option<i64>, tail_lines: Option<i32>) -> Result<Start, RequestError> {
    const FIELD: &str = "tail_lines";
    let Some(lines) = tail_lines else {
        return Ok(Start::Offset(field::natural(
            "offset",
            offset.unwrap_or(0),
        )?));
    };
    if offset.is_some() {
        return Err(RequestError::invalid(
            FIELD,
            "cannot be given with an offset",
        ));
    }
    let lines: u32 = field::natural(FIELD, lines)?;
    if lines > TAIL_LINES_MAX {
        return Err(RequestError::invalid(
            FIELD,
            format!("is {lines}, and may be {TAIL_LINES_MAX}"),
        ));
    }
    Ok(Start::Lines(lines))
}

/// Where the last `lines` lines of a console begin.
async fn tail(console: &dyn Console, lines: u32) -> std::io::Result<u64> {
    let end = console.read(u64::MAX, 1).await?.offset;
    let mut at = end.saturating_sub(TAIL_BYTES_MAX);
    let mut begins = VecDeque::new();
    let mut is_begin = true;
    while at < end {
        let chunk = console.read(at, PIECE_BYTES).await?;
        if chunk.data.is_empty() {
            break;
        }
        for (offset, &byte) in (chunk.offset..end).zip(&chunk.data) {
            if is_begin {
                begins.push_back(offset);
            }
            if begins.len() > lines as usize {
                begins.pop_front();
            }
            is_begin = byte == b'\n';
        }
        at = chunk.offset + chunk.data.len() as u64;
    }
    Ok(begins.front().copied().unwrap_or(end))
}

/// Reads one console for one caller.
pub(super) struct Reader {
    pub(super) console: Arc<dyn Console>,
    pub(super) view: Receiver<VmView>,
    pub(super) start: Start,
    pub(super) follow: bool,
}

impl Reader {
    /// What is kept, then, if it follows, what comes until the VM has stopped and everything was read.
    pub(super) fn read(self, drain: &Drain) -> Answers<v1::ReadConsoleResponse> {
        let messages = stream::unfold(Some(self), async |reader| {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(chunk)) => Some((Ok(answer(chunk)), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(status::of(&error)), None)),
            }
        });
        served(messages, drain.begun.clone(), || v1::ReadConsoleResponse {
            message: Some(Message::Heartbeat(v1::Heartbeat {})),
        })
    }

    async fn next(&mut self) -> Result<Option<ConsoleChunk>, AppError> {
        let failed = |source| AppError::ReadConsole { source };
        let mut offset = match self.start {
            Start::Offset(offset) => offset,
            Start::Lines(lines) => tail(&*self.console, lines).await.map_err(failed)?,
        };
        self.start = Start::Offset(offset);
        loop {
            // Looked at before reading: what was written before the end is read after it.
            let has_ended = !self.follow || has_ended(&self.view.borrow_and_update());
            let chunk = self
                .console
                .read(offset, PIECE_BYTES)
                .await
                .map_err(failed)?;
            if !chunk.data.is_empty() {
                offset = chunk.offset + chunk.data.len() as u64;
                self.start = Start::Offset(offset);
                return Ok(Some(chunk));
            }
            if has_ended {
                return Ok(None);
            }
            tokio::select! {
                // cancel-safe: holds no state
                grown = self.console.grown(offset) => grown.map_err(failed)?,
                // cancel-safe: a change that is not seen now is seen at the next turn
                changed = self.view.changed() => if changed.is_err() { self.follow = false },
            }
        }
    }
}

fn has_ended(view: &VmView) -> bool {
    view.deleted || matches!(view.vm.state.phase(), Phase::Stopped | Phase::Failed)
}

fn answer(chunk: ConsoleChunk) -> v1::ReadConsoleResponse {
    let output = v1::ConsoleOutput {
        offset: field::int(chunk.offset),
        data: chunk.data,
    };
    v1::ReadConsoleResponse {
        message: Some(Message::Output(output)),
    }
}

#[cfg(test)]
mod tests {
    use banger_core::vmm::ConsoleChunk;
    use bytes::Bytes;

    use super::*;

    /// A console whose first bytes are no longer kept, read at most 3 bytes at once.
    struct Short {
        from: u64,
        text: &'static [u8],
    }

    #[tonic::async_trait]
    impl Console for Short {
        async fn read(&self, offset: u64, max_bytes: usize) -> std::io::Result<ConsoleChunk> {
            let end = self.from + self.text.len() as u64;
            let offset = offset.clamp(self.from, end);
            let rest = &self.text[usize::try_from(offset - self.from).unwrap()..];
            let data = Bytes::from_static(&rest[..rest.len().min(max_bytes).min(3)]);
            Ok(ConsoleChunk { offset, data })
        }

        async fn grown(&self, _: u64) -> std::io::Result<()> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn the_end_is_found_by_lines() {
        let begins = async |text, lines| {
            let console = Short { from: 100, text };
            tail(&console, lines).await.unwrap() - 100
        };
        assert_eq!(begins(b"one\ntwo\nthree\n", 1).await, 8);
        assert_eq!(begins(b"one\ntwo\nthree\n", 2).await, 4);
        assert_eq!(begins(b"one\ntwo\nthree\n", 9).await, 0);
        assert_eq!(
            begins(b"one\ntwo\nthr", 1).await,
            8,
            "a line that goes on is one"
        );
        assert_eq!(begins(b"one\n\n\n", 2).await, 4, "an empty line is one");
        assert_eq!(begins(b"one\ntwo", 0).await, 7, "only what comes");
        assert_eq!(begins(b"", 5).await, 0);
    }

    #[test]
    fn a_wrong_beginning_is_refused_by_field() {
        assert_eq!(start(None, None), Ok(Start::Offset(0)));
        assert_eq!(start(Some(5), None), Ok(Start::Offset(5)));
        assert_eq!(start(None, Some(10_000)), Ok(Start::Lines(10_000)));
        let refused = |offset, lines| start(offset, lines).unwrap_err().to_string();
        assert_eq!(
            refused(Some(-1), None),
            "offset is -1, which is out of range"
        );
        assert_eq!(
            refused(Some(0), Some(1)),
            "tail_lines cannot be given with an offset"
        );
        assert_eq!(
            refused(None, Some(-1)),
            "tail_lines is -1, which is out of range"
        );
        assert_eq!(
            refused(None, Some(10_001)),
            "tail_lines is 10001, and may be 10000"
        );
    }
}
