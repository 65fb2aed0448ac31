//! Streams that a thread fills which may wait for a disk: while it does, the host is told that the agent is alive.

use banger_proto::guest::v1::read_file_response::Message;
use banger_proto::guest::v1::tree_piece::Piece;
use banger_proto::guest::v1::{ReadFileResponse, TreePiece, WatchFilesResponse};
use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;

use crate::service::Events;
use crate::session::reader::HEARTBEAT;

/// A message of such a stream.
pub(crate) trait Beating: Send + 'static {
    /// What says nothing else; none where the thread beats by itself.
    fn beat() -> Option<Self>
    where
        Self: Sized;
}

impl Beating for TreePiece {
    fn beat() -> Option<Self> {
        let piece = Some(Piece::Data(Bytes::new()));
        Some(Self { piece })
    }
}

impl Beating for ReadFileResponse {
    fn beat() -> Option<Self> {
        let message = Some(Message::Data(Bytes::new()));
        Some(Self { message })
    }
}

impl Beating for WatchFilesResponse {
    fn beat() -> Option<Self> {
        None
    }
}

/// What a thread sends, with a beat whenever that takes long.
pub(crate) fn beating<M: Beating>(messages: mpsc::Receiver<Result<M, Status>>) -> Events<M> {
    Box::pin(stream::unfold(messages, |mut messages| async move {
        let message = loop {
            match timeout(HEARTBEAT, messages.recv()).await {
                Ok(message) => break message?,
                Err(_) => match M::beat() {
                    Some(beat) => break Ok(beat),
                    None => continue,
                },
            }
        };
        Some((message, messages))
    }))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_waits_for_its_disk_is_not_taken_for_dead() {
        let (sender, receiver) = mpsc::channel(1);
        let mut pieces = beating::<TreePiece>(receiver);
        for _ in 0..3 {
            let beat = timeout(HEARTBEAT * 2, pieces.next()).await.unwrap();
            assert_eq!(beat.unwrap().unwrap(), TreePiece::beat().unwrap());
        }
        let piece = TreePiece {
            piece: Some(Piece::Data(Bytes::from_static(b"x"))),
        };
        sender.send(Ok(piece.clone())).await.unwrap();
        assert_eq!(pieces.next().await.unwrap().unwrap(), piece);
        drop(sender);
        assert!(pieces.next().await.is_none());
    }
}
