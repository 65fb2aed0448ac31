//! `WatchVm`: a VM now and as it changes.

use std::sync::Arc;

use banger_app::vm::VmView;
use banger_core::vm::Vm;
use banger_proto::v1;
use banger_proto::v1::watch_vm_response::Message;
use futures::stream;
use tokio::sync::watch::Receiver;
use tonic::Status;

use crate::grpc::convert;
use crate::grpc::request::RequestError;
use crate::grpc::stream::{Answers, Drain, numbered, served};

/// What a watcher has been told.
struct Watch {
    view: Receiver<VmView>,
    shown: Option<Arc<Vm>>,
}

/// A VM now, then each change, until it is deleted.
pub(super) fn watch(view: Receiver<VmView>, drain: &Drain) -> Answers<v1::WatchVmResponse> {
    let messages = stream::unfold(Some(Watch { view, shown: None }), async |watch| {
        let mut watch = watch?;
        match watch.next().await {
            Ok(Message::Deleted(deleted)) => Some((Ok(Message::Deleted(deleted)), None)),
            Ok(message) => Some((Ok(message), Some(watch))),
            Err(status) => Some((Err(status), None)),
        }
    });
    let messages = served(messages, drain.begun.clone(), || {
        Message::Heartbeat(v1::Heartbeat {})
    });
    numbered(messages, |sequence, message| v1::WatchVmResponse {
        sequence,
        message: Some(message),
    })
}

impl Watch {
    /// The next thing a watcher does not know yet. That a link to the agent comes and goes is none of it.
    async fn next(&mut self) -> Result<Message, Status> {
        let shown = self.shown.clone();
        let is_news = |view: &VmView| {
            view.deleted
                || shown
                    .as_ref()
                    .is_none_or(|shown| !Arc::ptr_eq(shown, &view.vm))
        };
        // A runner that is gone went with the daemon: its VM is taken up by the next.
        let view = self
            .view
            .wait_for(is_news)
            .await
            .map_err(|_| RequestError::Draining)?;
        if view.deleted {
            return Ok(Message::Deleted(v1::VmDeleted {}));
        }
        self.shown = Some(view.vm.clone());
        Ok(Message::Vm(convert::vm::vm(&view.vm)))
    }
}
