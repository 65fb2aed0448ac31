//! `WatchAudit`: the audit log as it is written.

use banger_app::audit::AuditWatch;
use banger_proto::v1;
use banger_proto::v1::watch_audit_response::Message;
use futures::{StreamExt as _, stream};
use tonic::Status;

use crate::grpc::convert::{self, field::int};
use crate::grpc::status;
use crate::grpc::stream::{Answers, Drain, served};

/// A watch as a stream; it ends with the daemon, or when the log cannot be read.
pub(super) fn watch(watch: AuditWatch, drain: &Drain) -> Answers<v1::WatchAuditResponse> {
    let started = response(Message::Started(int(watch.after())));
    let records = stream::unfold(Some(watch), async |watch| {
        let mut watch = watch?;
        match watch.next().await {
            Ok(record) => {
                let record = Message::Record(convert::audit::record(&record));
                Some((Ok(response(record)), Some(watch)))
            }
            Err(error) => Some((Err(status::of(&error)), None)),
        }
    });
    let messages = stream::iter([Ok::<_, Status>(started)]).chain(records);
    served(messages, drain.begun.clone(), || {
        response(Message::Heartbeat(v1::Heartbeat {}))
    })
}

const fn response(message: Message) -> v1::WatchAuditResponse {
    v1::WatchAuditResponse {
        message: Some(message),
    }
}
