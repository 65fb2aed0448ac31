//! What comes and goes piece by piece, in the shapes that other code takes: streams, readers, writers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{Error, Result};
use crate::export::Export;
use crate::file::{DownloadStream, FileContent, WatchEvent, Watcher};
use crate::session::{Event, Input, Process};

/// The bytes of a stream, read as from a file. An error of the SDK is the inner one of an [`io::Error`]; after it there is
/// nothing more to read.
pub struct Reader {
    stream: BoxStream<'static, Result<Bytes>>,
    /// What came and was not read.
    piece: Bytes,
}

impl Reader {
    fn new(stream: BoxStream<'static, Result<Bytes>>) -> Self {
        Self {
            stream,
            piece: Bytes::new(),
        }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.piece.is_empty() {
            match ready!(self.stream.poll_next_unpin(task)) {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.piece.len().min(buffer.remaining());
        buffer.put_slice(&self.piece.split_to(length));
        Poll::Ready(Ok(()))
    }
}

/// What gives pieces until there are none.
macro_rules! pieces {
    ($type:ty, $item:ty) => {
        impl $type {
            /// The same as a stream, which ends after the last or with the first error. Dropping it gives it up.
            #[must_use]
            pub fn into_stream(self) -> BoxStream<'static, Result<$item>> {
                stream::try_unfold(self, async |mut this| {
                    Ok(this.next().await?.map(|item| (item, this)))
                })
                .boxed()
            }
        }
    };
    ($type:ty) => {
        pieces!($type, Bytes);

        impl $type {
            /// The same as a reader. Dropping it gives it up.
            #[must_use]
            pub fn into_reader(self) -> Reader {
                Reader::new(self.into_stream())
            }
        }
    };
}

pieces!(DownloadStream);
pieces!(Export);
pieces!(FileContent);
pieces!(Process, Event);
pieces!(Watcher, WatchEvent);

/// The longest piece that a [`Writer`] queues at once.
const PIECE_BYTES: usize = 64 << 10;

/// Standard input of a process as a writer. A write is done when its bytes are queued; `flush` waits until the guest has
/// taken them, `shutdown` ends standard input. It works only while somebody reads the process's events.
pub struct Writer {
    input: Input,
    /// A write that has begun, and its length.
    writing: Option<(BoxFuture<'static, Result<()>>, usize)>,
    flushing: Option<BoxFuture<'static, ()>>,
}

impl Input {
    /// The same as a writer.
    #[must_use]
    pub fn into_writer(self) -> Writer {
        Writer {
            input: self,
            writing: None,
            flushing: None,
        }
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Ends the write that has begun; says how long it was.
    fn poll_written(&mut self, task: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some((writing, length)) = &mut self.writing else {
            return Poll::Ready(Ok(0));
        };
        let (written, length) = (ready!(writing.as_mut().poll(task)), *length);
        self.writing = None;
        Poll::Ready(match written {
            Ok(()) => Ok(length),
            Err(error @ Error::InputClosed) => {
                Err(io::Error::new(io::ErrorKind::BrokenPipe, error))
            }
            Err(error) => Err(io::Error::other(error)),
        })
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.writing.is_none() {
            let piece = Bytes::copy_from_slice(&bytes[..bytes.len().min(PIECE_BYTES)]);
            let (input, length) = (self.input.clone(), piece.len());
            let writing = async move { input.write(piece).await };
            self.writing = Some((Box::pin(writing), length));
        }
        // A write that was given up and begun again with less.
        let written = ready!(self.poll_written(task));
        Poll::Ready(written.map(|length| length.min(bytes.len())))
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_written(task))?;
        let input = self.input.clone();
        let flushing = self
            .flushing
            .get_or_insert_with(|| Box::pin(async move { input.flush().await }));
        ready!(flushing.as_mut().poll(task));
        self.flushing = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_written(task))?;
        self.input.close();
        Poll::Ready(Ok(()))
    }
}
