//! Trees of files out of a VM.

use std::io::{self, Read};
use std::path::PathBuf;
use std::pin::Pin;

use banger_proto::v1;
use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::unpack::{Naming, Unpacker};
use super::{Files, Unpack, Unpacked};
use crate::error::{Error, Result};
use crate::stream::Watched;

const CALL: &str = "DownloadFiles";
/// Chunks of an archive between the connection and the thread that unpacks it.
const CHUNKS_AHEAD: usize = 4;

/// What is to come out of a VM.
#[must_use = "nothing comes until this is opened or unpacked"]
pub struct Download {
    files: Files,
    path: String,
    progress: Box<dyn FnMut(u64) + Send>,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Download {
    pub(super) fn new(files: Files, path: String) -> Self {
        Self {
            files,
            path,
            progress: Box::new(|_| {}),
            stop: Box::pin(std::future::pending()),
        }
    }

    /// Calls back with how many bytes of the archive have come.
    pub fn progress(mut self, callback: impl FnMut(u64) + Send + 'static) -> Self {
        self.progress = Box::new(callback);
        self
    }

    /// Gives unpacking up when this resolves, and ends with [`Error::GivenUp`] when no unfinished file is left.
    pub fn stop_when(mut self, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        self.stop = Box::pin(stop);
        self
    }

    /// Begins, as a tar archive. Its names begin with the last name of the path.
    ///
    /// # Errors
    /// When nothing is there, or the daemon cannot be asked.
    pub async fn open(self) -> Result<DownloadStream> {
        let request = v1::DownloadFilesRequest {
            vm: self.files.vm.clone(),
            user: self.files.user.clone(),
            path: self.path,
        };
        let answer = self.files.rpc().download_files(request).await;
        Ok(DownloadStream {
            answers: self.files.client.watched(answer, CALL)?,
            received: 0,
            moved: None,
        })
    }

    /// Gets it, and unpacks it to `target`: into it if it is a directory, and otherwise by that name, which may be a link to
    /// a file. A device or a pipe is not replaced: what [`Files::read`] gives can be written there. Files appear under
    /// their names when they are whole. Nothing is written anywhere else, whatever the VM sends.
    ///
    /// # Errors
    /// When nothing is there, the daemon cannot be asked, what comes is refused, or it cannot be written.
    pub async fn unpack(self, target: impl Into<PathBuf>, unpack: Unpack) -> Result<Unpacked> {
        let target = target.into();
        // As the daemon has it: what is in a root or home directory has no name before it.
        let name = self
            .path
            .rsplit('/')
            .find(|name| !matches!(*name, "" | "."));
        let name = name.filter(|name| *name != "~");
        let naming = Naming::of(&target, name.unwrap_or_default(), unpack.contents)?;
        self.run(naming, unpack).await
    }

    async fn run(mut self, naming: Naming, unpack: Unpack) -> Result<Unpacked> {
        let mut progress = std::mem::replace(&mut self.progress, Box::new(|_| {}));
        let mut stop = std::mem::replace(&mut self.stop, Box::pin(std::future::pending()));
        let mut archive = self.open().await?;
        let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
        let unpacking = tokio::task::spawn_blocking(move || {
            let mut input = Received::new(received);
            Unpacker::open(naming, unpack)?.run(&mut input)
        });
        let fed = tokio::select! {
            // cancel-safe: the archive is given up with it
            fed = feed(&mut archive, chunks, &mut progress) => fed,
            // cancel-safe: the other arm is dropped, and with it the sender
            () = &mut stop => Err(Error::GivenUp),
        };
        // The thread ends when nothing comes any more, and leaves no unfinished file.
        let unpacked = match unpacking.await {
            Ok(unpacked) => unpacked,
            Err(_) => Err(Error::GivenUp),
        };
        match (fed, unpacked) {
            // Why nothing more came, rather than that it did not.
            (Err(error), _) => Err(error),
            (Ok(()), unpacked) => unpacked.map(|unpacked| Unpacked {
                omissions: archive.omissions(),
                ..unpacked
            }),
        }
    }
}

/// Passes an archive to the thread that unpacks it, with its end.
async fn feed(
    archive: &mut DownloadStream,
    chunks: mpsc::Sender<Option<Bytes>>,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<()> {
    while let Some(chunk) = archive.next().await? {
        progress(archive.received_bytes());
        if chunks.send(Some(chunk)).await.is_err() {
            return Ok(()); // Unpacking has failed and says why.
        }
    }
    // The thread may have ended already.
    let _ = chunks.send(None).await;
    Ok(())
}

/// What the thread reads. That nothing comes any more is an error; only the end is the end.
struct Received {
    chunks: mpsc::Receiver<Option<Bytes>>,
    chunk: Bytes,
    is_ended: bool,
}

impl Received {
    const fn new(chunks: mpsc::Receiver<Option<Bytes>>) -> Self {
        Self {
            chunks,
            chunk: Bytes::new(),
            is_ended: false,
        }
    }
}

impl Read for Received {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.is_ended {
            match self.chunks.blocking_recv() {
                Some(Some(chunk)) => self.chunk = chunk,
                Some(None) => self.is_ended = true,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let length = self.chunk.len().min(buf.len());
        buf[..length].copy_from_slice(&self.chunk[..length]);
        self.chunk.advance(length);
        Ok(length)
    }
}

/// An archive on its way; dropping it gives it up.
#[derive(Debug)]
pub struct DownloadStream {
    answers: Watched<v1::DownloadFilesResponse>,
    received: u64,
    moved: Option<v1::FilesMoved>,
}

impl DownloadStream {
    /// Bytes that have come.
    #[must_use]
    pub const fn received_bytes(&self) -> u64 {
        self.received
    }

    /// How much it has, and what it lacks; known when all has come.
    #[must_use]
    pub const fn moved(&self) -> Option<&v1::FilesMoved> {
        self.moved.as_ref()
    }

    /// What it lacks; known when all has come.
    fn omissions(&self) -> v1::Omissions {
        let moved = self.moved.as_ref();
        moved
            .and_then(|moved| moved.omissions.clone())
            .unwrap_or_default()
    }

    /// The next bytes; `None` when all have come.
    ///
    /// # Errors
    /// When the download failed or was cut short.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        use v1::download_files_response::Message;
        while self.moved.is_none() {
            let Some(answer) = self.answers.next().await? else {
                return Err(Error::cut_short(CALL));
            };
            match answer.message {
                Some(Message::Chunk(bytes)) => {
                    self.received += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Some(Message::Done(moved)) => self.moved = Some(moved),
                Some(Message::Heartbeat(_)) | None => {}
            }
        }
        Ok(None)
    }
}
