//! Reads an archive while it arrives, on a thread, into the pieces that a guest is sent.

use std::io::{self, Read};

use banger_archive::{Budget, StreamInput, TarError, TarPieces};
use banger_core::file::FileSource;
use banger_core::guest::TreeSource;
use banger_core::tree::TreePiece;
use bytes::{Buf as _, Bytes};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;

/// Chunks and pieces between the streams and the thread: a few megabytes at most.
const AHEAD: usize = 4;

/// The pieces of `archive`, whose end says that it is whole; and what resolves when it is refused, and else never.
pub(super) fn read(
    tasks: &TaskTracker,
    archive: FileSource,
) -> (TreeSource, BoxFuture<'static, TarError>) {
    let (chunks, received) = mpsc::channel(AHEAD);
    let (pieces, made) = mpsc::channel(AHEAD);
    let (end, ended) = oneshot::channel();
    tasks.spawn_blocking(move || {
        let read = read_all(Received::new(received), &pieces);
        // Whoever waits for it has gone only if the upload was given up.
        let _ = end.send(read);
    });
    let (fail, failed) = oneshot::channel();
    let gate = stream::once(gate(ended, fail)).filter_map(async |never| never);
    let source = ReceiverStream::new(made).chain(gate).boxed();
    let feed = feed(archive, chunks);
    let refused = async move {
        let feed = feed.then(|()| std::future::pending::<TarError>());
        tokio::select! {
            // cancel-safe: feeding goes on as long as it is polled
            error = feed => error,
            // cancel-safe
            Ok(error) = failed => error,
        }
    };
    (source, refused.boxed())
}

/// Passes the chunks to the thread, up to their end.
async fn feed(mut archive: FileSource, chunks: mpsc::Sender<Bytes>) {
    while let Some(chunk) = archive.next().await {
        if chunks.send(chunk).await.is_err() {
            return; // The thread has ended and says how.
        }
    }
}

/// The end of the pieces: at once when all was read, never when the archive is refused.
async fn gate(
    ended: oneshot::Receiver<Result<(), TarError>>,
    fail: oneshot::Sender<TarError>,
) -> Option<TreePiece> {
    match ended.await {
        Ok(Ok(())) => return None,
        // The receiver is gone only when the upload was given up.
        Ok(Err(error)) => drop(fail.send(error)),
        Err(_) => drop(fail.send(TarError::Read(io::Error::other("the reader ended")))),
    }
    std::future::pending().await
}

fn read_all(mut archive: Received, pieces: &mpsc::Sender<TreePiece>) -> Result<(), TarError> {
    let budget = Budget::default();
    let mut tar = TarPieces::new(StreamInput::new(&mut archive), &budget);
    while let Some(piece) = tar.next_piece()? {
        if pieces.blocking_send(piece).is_err() {
            return Ok(()); // The guest has ended the call and says why.
        }
    }
    // What pads an archive comes after its end.
    io::copy(&mut archive, &mut io::sink()).map_err(TarError::Read)?;
    Ok(())
}

/// What a thread reads of a stream.
struct Received {
    chunks: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Received {
    fn new(chunks: mpsc::Receiver<Bytes>) -> Self {
        Self {
            chunks,
            chunk: Bytes::new(),
        }
    }
}

impl Read for Received {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let length = self.chunk.len().min(buf.len());
        buf[..length].copy_from_slice(&self.chunk[..length]);
        self.chunk.advance(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_no_archive_is_refused_and_never_whole() {
        let garbage = stream::iter([Bytes::from(vec![b'x'; 4096])]).boxed();
        let (mut pieces, refused) = read(&TaskTracker::new(), garbage);
        tokio::select! {
            error = refused => assert!(matches!(error, TarError::BadHeader { .. }), "{error}"),
            piece = pieces.next() => panic!("{piece:?} of garbage"),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_archive_is_whole_at_its_end_whatever_pads_it() {
        let padded = stream::iter([Bytes::from(vec![0; 10_240])]).boxed();
        let (mut pieces, refused) = read(&TaskTracker::new(), padded);
        tokio::select! {
            error = refused => panic!("{error}"),
            piece = pieces.next() => assert_eq!(piece, None),
        }
    }
}
