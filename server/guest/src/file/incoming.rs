//! Streams out of a guest: a file's content, and what changes. After an error nothing follows.

use std::sync::Arc;
use std::time::Duration;

use banger_core::file::{ChangeKind, FileContent, FileInfo, FilePlace, WatchEvent, WatchEvents};
use banger_core::guest::GuestError;
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::read_file_response::Message;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tonic::{Status, Streaming};

use super::{by, check};
use crate::judge::{Call, broken, judge};
use crate::limits::FILE_BYTES_MAX;
use crate::link::{Link, Waits};

/// Messages of a call.
struct Incoming<M> {
    messages: Streaming<M>,
    call: Call,
    link: Arc<Link>,
}

impl<M> Incoming<M> {
    /// The next message, within the longest silence.
    async fn next(&mut self, silence: Duration) -> Result<Option<M>, GuestError> {
        let come = self.link.within(silence, self.messages.message()).await;
        self.judged(come.ok_or(silence))
    }

    fn judged(
        &self,
        come: Result<Result<Option<M>, Status>, Duration>,
    ) -> Result<Option<M>, GuestError> {
        let during = self.call.during;
        match come {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(_)) if self.link.has_ended() => Err(GuestError::Lost { during }),
            Ok(Err(status)) => Err(judge(&status, &self.call)),
            Err(limit) => Err(GuestError::Deadline { during, limit }),
        }
    }
}

impl Incoming<proto::ReadFileResponse> {
    /// The next message that is no beat.
    async fn content(&mut self, waits: Waits) -> Result<Option<Message>, GuestError> {
        let is_beat = |message: &proto::ReadFileResponse| matches!(&message.message, Some(Message::Data(data)) if data.is_empty());
        let come = self.link.content(&mut self.messages, waits, is_beat).await;
        match self.judged(come)? {
            Some(message) => match message.message {
                Some(message) => Ok(Some(message)),
                None => Err(broken("a message about a file is empty")),
            },
            None => Ok(None),
        }
    }
}

/// A file, and what comes of its content: at most `length` bytes.
pub(super) async fn content(
    messages: Streaming<proto::ReadFileResponse>,
    place: &FilePlace,
    length: Option<u64>,
    waits: Waits,
    link: Arc<Link>,
) -> Result<(FileInfo, FileContent), GuestError> {
    let mut incoming = Incoming {
        messages,
        call: by("read_file", &place.user),
        link,
    };
    let Some(Message::File(file)) = incoming.content(waits).await? else {
        return Err(broken("a file's content comes before the file"));
    };
    let file = check::info(file, place.path.clone())?;
    let left = length.unwrap_or(FILE_BYTES_MAX);
    let state = Some((incoming, left));
    let content = stream::unfold(state, move |state| async move {
        let (mut incoming, mut left) = state?;
        match piece(&mut incoming, &mut left, waits).await {
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
    waits: Waits,
) -> Result<Option<Bytes>, GuestError> {
    match incoming.content(waits).await? {
        None => Ok(None),
        Some(Message::Data(data)) if data.len() as u64 <= *left => {
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
        link,
    };
    let state = Some((incoming, true));
    stream::unfold(state, move |state| async move {
        let (mut incoming, is_first) = state?;
        let event = match incoming.next(silence).await {
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
