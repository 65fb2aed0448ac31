//! `WatchVm`: a VM now and as it changes.

use banger_app::vm::VmView;
use banger_core::access::Secrets;
use banger_proto::v1;
use banger_proto::v1::watch_vm_response::Message;
use futures::stream;
use tokio::sync::watch::Receiver;
use tonic::Status;

use crate::grpc::convert;
use crate::grpc::convert::field::int;
use crate::grpc::request::RequestError;
use crate::grpc::stream::{Answers, Drain, numbered, served};

/// What a watcher has been told.
struct Watch {
    view: Receiver<VmView>,
    secrets: Secrets,
    /// The generation that was shown last.
    shown: Option<u64>,
}

/// What is said, and how many changes were merged into it.
struct Said {
    message: Message,
    dropped_count: u64,
}

/// A VM now, then each change, until it is deleted.
pub(super) fn watch(
    view: Receiver<VmView>,
    secrets: Secrets,
    drain: &Drain,
) -> Answers<v1::WatchVmResponse> {
    let watch = Watch {
        view,
        secrets,
        shown: None,
    };
    let messages = stream::unfold(Some(watch), async |watch| {
        let mut watch = watch?;
        let said = watch.next().await;
        let is_last = match &said {
            Ok(said) => matches!(said.message, Message::Deleted(_)),
            Err(_) => true,
        };
        Some((said, (!is_last).then_some(watch)))
    });
    let messages = served(messages, drain.begun.clone(), || Said {
        message: Message::Heartbeat(v1::Heartbeat {}),
        dropped_count: 0,
    });
    numbered(messages, |sequence, said| v1::WatchVmResponse {
        sequence,
        message: Some(said.message),
        dropped_count: int(said.dropped_count),
    })
}

impl Watch {
    /// The next thing a watcher does not know yet. That a link to the agent comes and goes is none of it.
    async fn next(&mut self) -> Result<Said, Status> {
        let shown = self.shown;
        let is_news = |view: &VmView| view.deleted || shown != Some(view.vm.generation);
        // A runner that is gone went with the daemon: its VM is taken up by the next.
        let view = self
            .view
            .wait_for(is_news)
            .await
            .map_err(|_| RequestError::Draining)?;
        let dropped_count = merged(shown, view.vm.generation);
        let message = if view.deleted {
            Message::Deleted(v1::VmDeleted {})
        } else {
            Message::Vm(convert::vm::shown(&view.vm, self.secrets))
        };
        self.shown = Some(view.vm.generation);
        Ok(Said {
            message,
            dropped_count,
        })
    }
}

/// Changes between the one that was shown and this one. Each has its generation.
fn merged(shown: Option<u64>, generation: u64) -> u64 {
    shown.map_or(0, |shown| generation.saturating_sub(shown + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_were_merged_are_counted() {
        assert_eq!(merged(None, 7), 0, "before the first nothing was missed");
        assert_eq!(merged(Some(7), 8), 0);
        assert_eq!(merged(Some(7), 10), 2);
        assert_eq!(
            merged(Some(7), 7),
            0,
            "a removal is no change of the record"
        );
    }
}
