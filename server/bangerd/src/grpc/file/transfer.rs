//! Streams of bytes into a VM, with what their caller is told meanwhile, and out of it.
//!
//! What comes is pulled by the guest, chunk by chunk, so nothing piles up here. A caller's stream that breaks off, or
//! has something wrong in it, is never taken for the whole: the source then goes on without an end, and the call ends
//! with what was wrong.

use std::time::Duration;

use banger_app::AppError;
use banger_app::file::{Archive, ArchivePart};
use banger_core::file::{FileInfo, FileSource, TreeMoved};
use banger_proto::v1;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use tokio::sync::{oneshot, watch};
use tonic::{Status, Streaming};

use crate::grpc::convert::{field, file};
use crate::grpc::refused;
use crate::grpc::request::RequestError;
use crate::grpc::stream::{Answers, Drain, served};

/// Progress is told at most this often.
const TOLD_EVERY: Duration = Duration::from_millis(100);

/// One message of a caller; none is the end.
type Parsed = Result<Option<Bytes>, RequestError>;

/// A message of `WriteFile` after the first.
pub(super) fn write_chunk(message: v1::WriteFileRequest) -> Parsed {
    use v1::write_file_request::Message;
    match message.message {
        Some(Message::Chunk(bytes)) => field::chunk("chunk", bytes).map(Some),
        Some(Message::End(_)) => Ok(None),
        Some(Message::Start(_)) => Err(RequestError::invalid("start", "comes a second time")),
        None => Err(RequestError::missing("message")),
    }
}

/// A message of `UploadFiles` after the first.
pub(super) fn upload_chunk(message: v1::UploadFilesRequest) -> Parsed {
    use v1::upload_files_request::Message;
    match message.message {
        Some(Message::Chunk(bytes)) => field::chunk("chunk", bytes).map(Some),
        Some(Message::End(_)) => Ok(None),
        Some(Message::Start(_)) => Err(RequestError::invalid("start", "comes a second time")),
        None => Err(RequestError::missing("message")),
    }
}

/// What is known of a caller's stream.
pub(super) struct Incoming {
    /// Resolves when there is something wrong with it.
    fault: oneshot::Receiver<RequestError>,
    /// Bytes that came.
    progress: watch::Receiver<u64>,
}

/// A caller's bytes, up to the end that it says and no other.
pub(super) fn source<M: Send + 'static>(
    messages: Streaming<M>,
    parse: fn(M) -> Parsed,
) -> (FileSource, Incoming) {
    let (fault, faulty) = oneshot::channel();
    let (progress, seen) = watch::channel(0);
    let state = (messages, parse, fault, progress);
    let source = stream::unfold(state, async |(mut messages, parse, fault, progress)| {
        let parsed = match messages.message().await {
            Ok(Some(message)) => parse(message),
            // A stream that its caller gave up may end as one that is whole does.
            Ok(None) | Err(_) => Err(RequestError::CutShort),
        };
        match parsed {
            Ok(None) => None,
            Ok(Some(bytes)) => {
                progress.send_modify(|sum| *sum += bytes.len() as u64);
                Some((bytes, (messages, parse, fault, progress)))
            }
            Err(error) => {
                // Nobody may be left to be told.
                let _ = fault.send(error);
                std::future::pending().await
            }
        }
    });
    let incoming = Incoming {
        fault: faulty,
        progress: seen,
    };
    // A file's content has no empty pieces.
    let source = source.filter(|bytes| std::future::ready(!bytes.is_empty()));
    (source.boxed(), incoming)
}

/// The answers of a call that takes a stream.
pub(super) trait TransferMessage: Sized + Send + 'static {
    /// What the work gives.
    type Done: Send + 'static;

    /// So much has come.
    fn progress(bytes: i64) -> Self;

    /// It is done.
    fn done(done: Self::Done) -> Self;

    /// Nothing new.
    fn heartbeat() -> Self;
}

impl TransferMessage for v1::WriteFileResponse {
    type Done = FileInfo;

    fn progress(bytes: i64) -> Self {
        let message = Some(v1::write_file_response::Message::ProgressBytes(bytes));
        Self { message }
    }

    fn done(done: FileInfo) -> Self {
        let message = v1::write_file_response::Message::File(file::info(&done));
        Self {
            message: Some(message),
        }
    }

    fn heartbeat() -> Self {
        let message = v1::write_file_response::Message::Heartbeat(v1::Heartbeat {});
        Self {
            message: Some(message),
        }
    }
}

impl TransferMessage for v1::UploadFilesResponse {
    type Done = TreeMoved;

    fn progress(bytes: i64) -> Self {
        let message = Some(v1::upload_files_response::Message::ProgressBytes(bytes));
        Self { message }
    }

    fn done(done: TreeMoved) -> Self {
        let message = v1::upload_files_response::Message::Done(file::moved(done));
        Self {
            message: Some(message),
        }
    }

    fn heartbeat() -> Self {
        let message = v1::upload_files_response::Message::Heartbeat(v1::Heartbeat {});
        Self {
            message: Some(message),
        }
    }
}

/// A transfer that goes on as its answers are read.
struct Transfer<T> {
    work: BoxFuture<'static, Result<T, AppError>>,
    fault: Option<oneshot::Receiver<RequestError>>,
    progress: watch::Receiver<u64>,
}

enum Step<T> {
    Progress(u64),
    Done(T),
}

/// Does `work` while its caller is told how it goes. A caller that hangs up ends it.
pub(super) fn answers<M: TransferMessage>(
    work: impl Future<Output = Result<M::Done, AppError>> + Send + 'static,
    incoming: Incoming,
    drain: &Drain,
) -> Answers<M> {
    let transfer = Transfer {
        work: work.boxed(),
        fault: Some(incoming.fault),
        progress: incoming.progress,
    };
    let steps = stream::unfold(Some(transfer), async |transfer| {
        let mut transfer = transfer?;
        Some(match transfer.step().await {
            Ok(Step::Progress(bytes)) => (Ok(M::progress(field::int(bytes))), Some(transfer)),
            Ok(Step::Done(done)) => (Ok(M::done(done)), None),
            Err(status) => (Err(status), None),
        })
    });
    served(steps, drain.over.clone(), M::heartbeat)
}

impl<T> Transfer<T> {
    async fn step(&mut self) -> Result<Step<T>, Status> {
        let before = *self.progress.borrow_and_update();
        let progress = async {
            tokio::time::sleep(TOLD_EVERY).await;
            let moved = self.progress.wait_for(|&bytes| bytes > before).await;
            match moved.map(|bytes| *bytes).ok() {
                Some(bytes) => bytes,
                // The source was let go: the end follows.
                None => std::future::pending().await,
            }
        };
        let fault = async {
            let Some(fault) = &mut self.fault else {
                return std::future::pending().await;
            };
            match fault.await {
                Ok(error) => error,
                Err(_) => {
                    self.fault = None;
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            biased; // what is wrong with the stream says more than what the work makes of it
            // cancel-safe: holds no state
            error = fault => Err(error.into()),
            // cancel-safe: the work stays in `self`
            done = &mut self.work => Ok(Step::Done(done.map_err(refused)?)),
            // cancel-safe: the level is read again
            bytes = progress => Ok(Step::Progress(bytes)),
        }
    }
}

/// An archive on its way to its caller, who ends it by hanging up.
pub(super) fn archive(archive: Archive, drain: &Drain) -> Answers<v1::DownloadFilesResponse> {
    use v1::download_files_response::Message;
    let parts = stream::unfold(archive, async |mut archive| {
        let part = archive.next().await?;
        let message = part.map_err(refused).map(|part| match part {
            ArchivePart::Chunk(bytes) => Message::Chunk(bytes),
            ArchivePart::End(moved, omissions) => Message::Done(file::downloaded(moved, omissions)),
        });
        let answer = message.map(|message| v1::DownloadFilesResponse {
            message: Some(message),
        });
        Some((answer, archive))
    });
    served(parts, drain.over.clone(), || v1::DownloadFilesResponse {
        message: Some(Message::Heartbeat(v1::Heartbeat {})),
    })
}
