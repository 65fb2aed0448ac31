//! Streams out of a guest: a file's content, and what changes. After an error nothing follows.

use std::sync::Arc;
use std::time::Duration;

use banger_core::file::{ChangeKind, FileContent, FileInfo, FilePlace, WatchEvent, WatchEvents};
use banger_core::guest::GuestError;
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::read_file_response::Message;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tonic::Streaming;

use super::{by, check};
use crate::judge::{Call, broken, judge};
use crate::limits::FILE_BYTES_MAX;
use crate::link::Link;

/// Messages of a call, each within the longest silence.
struct Incoming<M> {
    messages: Streaming<M>,
    call: Call,
    silence: Duration,
    link: Arc<Link>,
}

impl<M> Incoming<M> {
    async fn next(&mut self) -> Result<Option<M>, GuestError> {
        let (during, limit) = (self.call.during, self.silence);
        match self.link.within(limit, self.messages.message()).await {
            Some(Ok(message)) => Ok(message),
            Some(Err(_)) if self.link.has_ended() => Err(GuestError::Lost { during }),
            Some(Err(status)) => Err(judge(&status, &self.call)),
            None => Err(GuestError::Deadline { during, limit }),
        }
    }
}

/// A file, and what comes of its content: at most `length` bytes.
pub(super) async fn content(
    messages: Streaming<proto::ReadFileResponse>,
    place: &FilePlace,
    length: Option<u64>,
    silence: Duration,
    link: Arc<Link>,
) -> Result<(FileInfo, FileContent), GuestError> {
    let mut incoming = Incoming {
        messages,
        call: by("read_file", &place.user),
        silence,
        link,
    };
    let first = incoming.next().await?.and_then(|first| first.message);
    let Some(Message::File(file)) = first else {
        return Err(broken("a file's content comes before the file"));
    };
    let file = check::info(file, place.path.clone())?;
    let left = length.unwrap_or(FILE_BYTES_MAX);
    let state = Some((incoming, left));
    let content = stream::unfold(state, async |state| {
        let (mut incoming, mut left) = state?;
        match piece(&mut incoming, &mut left).await {
            Ok(Some(data)) => Some((Ok(data), Some((incoming, left)))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok((file, content.boxed()))
}

async fn piece(
    incoming: &mut Incoming<proto::ReadFileResponse>,
    left: &mut u64,
) -> Result<Option<Bytes>, GuestError> {
    let Some(message) = incoming.next().await? else {
        return Ok(None);
    };
    match message.message {
        Some(Message::Data(data)) if !data.is_empty() && data.len() as u64 <= *left => {
            *left -= data.len() as u64;
            Ok(Some(data))
        }
        _ => Err(broken("a file has more content than was asked for")),
    }
}

/// What changes, up to the end of what is watched.
pub(super) fn changes(
    messages: Streaming<proto::WatchFilesResponse>,
    user: &str,
    silence: Duration,
    link: Arc<Link>,
) -> WatchEvents {
    let incoming = Incoming {
        messages,
        call: by("watch_files", user),
        silence,
        link,
    };
    let state = Some((incoming, true));
    stream::unfold(state, async |state| {
        let (mut incoming, is_first) = state?;
        let event = match incoming.next().await {
            Ok(Some(message)) => check::watched(message, is_first),
            Ok(None) => Err(broken("a watch ended by itself")),
            Err(error) => Err(error),
        };
        let is_last = match &event {
            Ok(WatchEvent::Changed(change)) => change.kind == ChangeKind::RootGone,
            Ok(_) => false,
            Err(_) => true,
        };
        Some((event, (!is_last).then_some((incoming, false))))
    })
    .boxed()
}
