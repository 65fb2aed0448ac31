//! Files and directories on their way to the daemon, in bounded chunks.
//!
//! Reads on a blocking thread, a few chunks ahead at most. A directory is sent as a tar that is made
//! while it is sent. When reading fails the call is dropped, so that the daemon never takes a part for
//! the whole.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use crate::context::BuildContext;
use crate::error::{Error, Result};
use crate::file::PackedTree;
use crate::stream::Messages;

/// The length of a chunk: a quarter of what the API allows.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that are read ahead of the connection: a megabyte.
const CHUNKS_AHEAD: usize = 4;

/// What is uploaded.
pub enum Source {
    /// A file as it is, or a directory as a tar of its content.
    Path(PathBuf),
    /// What this reader gives, to its end.
    Reader(Box<dyn Read + Send>),
    /// A directory as a tar of its content, without what is ignored.
    Context(BuildContext),
    /// Files as a tar that keeps all of them.
    Tree(PackedTree),
}

impl Source {
    /// What this reader gives, to its end.
    pub fn reader(reader: impl Read + Send + 'static) -> Self {
        Self::Reader(Box::new(reader))
    }

    /// The directory, if this is one.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Path(path) if path.is_dir() => Some(path),
            _ => None,
        }
    }

    /// What the file is called, without its directory; empty for a reader.
    pub(crate) fn file_name(&self) -> String {
        let name = match self {
            Self::Path(path) => path.file_name(),
            Self::Reader(_) | Self::Context(_) | Self::Tree(_) => None,
        };
        let name = name.unwrap_or_default().to_string_lossy();
        name.chars().filter(|c| !c.is_control()).collect()
    }

    fn name(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Reader(_) => PathBuf::from("-"),
            Self::Context(context) => context.directory().to_owned(),
            Self::Tree(tree) => tree.name(),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.name()).finish()
    }
}

impl<P: AsRef<Path>> From<P> for Source {
    fn from(path: P) -> Self {
        Self::Path(path.as_ref().to_path_buf())
    }
}

/// How the reading of all sources ended.
type Ended = Result<()>;

/// One part of an upload: a source and the message that a chunk of it becomes.
pub(crate) type Part<M> = (Source, fn(Bytes) -> M);

/// Makes `call` with a stream of `start` and the chunks of `parts`, one part after the other. When a
/// part cannot be read the call is dropped and the reason returned.
pub(crate) async fn send<M, T, C, Fut>(start: M, parts: Vec<Part<M>>, call: C) -> Result<T>
where
    M: Send + 'static,
    C: FnOnce(Messages<M>) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    send_up_to(start, parts, None, call).await
}

/// [`send`], with a message that says that all was sent. Given up, the stream ends without it.
pub(crate) async fn send_up_to<M, T, C, Fut>(
    start: M,
    parts: Vec<Part<M>>,
    last: Option<M>,
    call: C,
) -> Result<T>
where
    M: Send + 'static,
    C: FnOnce(Messages<M>) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    // What is sent goes on by itself: whoever drops this must stop it, where a part can be told from the whole.
    let (_alive, dropped) = oneshot::channel::<()>();
    let is_told = last.is_some();
    let given_up = async move {
        match is_told {
            true => drop(dropped.await),
            false => std::future::pending().await,
        }
    };
    let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
    let (end, ended) = oneshot::channel::<Ended>();
    let (fail, failed) = oneshot::channel::<Error>();
    let reading = tokio::task::spawn_blocking(move || {
        // The receiver is gone only when the call has ended.
        let _ = end.send(read_all(parts, last, &chunks));
    });
    let rest = ReceiverStream::new(received).chain(gate(ended, fail));
    let rest = rest.take_until(given_up);
    let stream = Messages::new(stream::iter([start]).chain(rest));
    let result = tokio::select! {
        biased; // a failed read must win over the answer to half an upload
        // cancel-safe: the other arm returns
        Ok(error) = failed => Err(error),
        // cancel-safe: dropping the call is how it is given up
        result = call(stream) => result,
    };
    drop(reading); // it ends at its next chunk: nobody receives any more
    result
}

/// The end of the stream: at once when all was read, never when reading failed.
fn gate<M: Send + 'static>(
    ended: oneshot::Receiver<Ended>,
    fail: oneshot::Sender<Error>,
) -> impl Stream<Item = M> + Send {
    stream::once(async move {
        let error = match ended.await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => error,
            Err(_) => Error::Upload {
                path: PathBuf::new(),
                source: io::Error::other("the reader ended"),
            },
        };
        // The receiver is gone only when the call has ended.
        let _ = fail.send(error);
        std::future::pending().await
    })
    .filter_map(|never| async move { never })
}

fn read_all<M>(parts: Vec<Part<M>>, last: Option<M>, chunks: &mpsc::Sender<M>) -> Ended {
    for (source, wrap) in parts {
        let path = source.name();
        let mut writer = ChunkWriter {
            chunks,
            wrap,
            buffer: Vec::new(),
        };
        match read_one(source, &mut writer) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(source) => return Err(Error::Upload { path, source }),
        }
    }
    if let Some(last) = last {
        // The receiver is gone only when the call has ended.
        let _ = chunks.blocking_send(last);
    }
    Ok(())
}

fn read_one<M>(source: Source, writer: &mut ChunkWriter<'_, M>) -> io::Result<()> {
    match source {
        Source::Path(path) if path.is_dir() => write_tar(&path, writer)?,
        Source::Path(path) => copy(&mut File::open(path)?, writer)?,
        Source::Context(context) => context.write_tar(&mut *writer)?,
        Source::Tree(tree) => tree.write_to(&mut *writer)?,
        Source::Reader(mut reader) => copy(&mut reader, writer)?,
    }
    writer.flush()
}

fn copy<M>(reader: &mut dyn Read, writer: &mut ChunkWriter<'_, M>) -> io::Result<()> {
    io::copy(reader, writer).map(drop)
}

/// The content of `directory` as a tar, links as links.
fn write_tar(directory: &Path, writer: &mut dyn Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(writer);
    tar.follow_symlinks(false);
    tar.append_dir_all(".", directory)?;
    tar.finish()
}

/// Collects what is written into chunks.
struct ChunkWriter<'a, M> {
    chunks: &'a mpsc::Sender<M>,
    wrap: fn(Bytes) -> M,
    buffer: Vec<u8>,
}

impl<M> Write for ChunkWriter<'_, M> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&data[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.chunks.blocking_send((self.wrap)(chunk)).map_err(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn collect(parts: Vec<Part<Bytes>>) -> Result<Vec<Bytes>> {
        send(Bytes::new(), parts, |stream| async {
            Ok(stream.collect::<Vec<_>>().await)
        })
        .await
    }

    #[tokio::test]
    async fn a_file_arrives_whole_in_bounded_chunks() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..3_000_000_u32)
            .map(|i| u8::try_from(i % 251).unwrap())
            .collect();
        std::fs::write(file.path(), &content).unwrap();
        let chunks = collect(vec![(file.path().into(), |chunk| chunk)])
            .await
            .unwrap();
        assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES));
        assert_eq!(chunks.concat(), content);
    }

    #[tokio::test]
    async fn a_directory_is_sent_as_a_tar_of_its_content() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/file"), b"hello").unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
        let bytes = collect(vec![(dir.path().into(), |chunk| chunk)])
            .await
            .unwrap()
            .concat();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        names.sort();
        assert_eq!(
            names
                .iter()
                .filter(|name| name.ends_with("sub/file"))
                .count(),
            1,
            "{names:?}"
        );
        assert_eq!(
            names.iter().filter(|name| name.ends_with("link")).count(),
            1,
            "{names:?}"
        );
    }

    #[tokio::test]
    async fn a_failed_read_drops_the_call_instead_of_ending_the_upload() {
        let error = collect(vec![("/does/not/exist".into(), |chunk| chunk)])
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Upload { .. }), "{error}");
        assert_eq!(error.to_string(), "could not read `/does/not/exist`");
    }
}
