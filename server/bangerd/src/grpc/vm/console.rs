//! `ReadConsole`: what a guest wrote to its console, and what it goes on to write.

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
use crate::grpc::status;
use crate::grpc::stream::{Answers, Drain, served};

/// How much of a console one message carries.
const PIECE_BYTES: usize = 64 << 10;

/// Reads one console for one caller.
pub(super) struct Reader {
    pub(super) console: Arc<dyn Console>,
    pub(super) view: Receiver<VmView>,
    pub(super) offset: u64,
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
        loop {
            // Looked at before reading: what was written before the end is read after it.
            let has_ended = !self.follow || has_ended(&self.view.borrow_and_update());
            let chunk = self
                .console
                .read(self.offset, PIECE_BYTES)
                .await
                .map_err(failed)?;
            if !chunk.data.is_empty() {
                self.offset = chunk.offset + chunk.data.len() as u64;
                return Ok(Some(chunk));
            }
            if has_ended {
                return Ok(None);
            }
            tokio::select! {
                // cancel-safe: holds no state
                grown = self.console.grown(self.offset) => grown.map_err(failed)?,
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
