//! `WatchEvents`: what happens on the host.

use banger_app::event::{Told, Watch};
use banger_proto::v1;
use banger_proto::v1::watch_events_response::Message;
use futures::stream;

use crate::grpc::convert;
use crate::grpc::convert::field::int;
use crate::grpc::stream::{Answers, Drain, served};

/// A watch as a stream; it ends with the daemon.
pub(super) fn watch(watch: Watch, drain: &Drain) -> Answers<v1::WatchEventsResponse> {
    let messages = stream::unfold(watch, async |mut watch| {
        let told = watch.next().await;
        Some((Ok(answer(told)), watch))
    });
    served(messages, drain.begun.clone(), || {
        response(0, Message::Heartbeat(v1::Heartbeat {}))
    })
}

fn answer(told: Told) -> v1::WatchEventsResponse {
    match told {
        Told::Event(event) => response(0, Message::Event(convert::event::event(&event))),
        Told::Snapshot(snapshot) => response(
            snapshot.dropped_count,
            Message::Snapshot(convert::event::snapshot(snapshot)),
        ),
    }
}

fn response(dropped_count: u64, message: Message) -> v1::WatchEventsResponse {
    v1::WatchEventsResponse {
        dropped_count: int(dropped_count),
        message: Some(message),
    }
}
