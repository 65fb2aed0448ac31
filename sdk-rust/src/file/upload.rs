//! Trees of files into a VM.

use std::future::IntoFuture;

use banger_proto::v1;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use v1::upload_files_request::Message;

use super::pack::Omitted;
use super::{Files, PackedTree};
use crate::error::{Error, Result};
use crate::upload::{Source, send_up_to};

const CALL: &str = "UploadFiles";

/// A tree on its way into a VM, sent when it is awaited. What of it was not sent, because it is a socket or was gone when
/// its turn came, or was sent with zeros at its end, because it became shorter meanwhile, is in `omissions` of what it gives.
/// It is not repeated when the connection breaks; what was sent
/// before is there then, each file whole or as it was.
#[must_use = "nothing is sent until this is awaited"]
pub struct Upload {
    files: Files,
    start: v1::UploadFilesStart,
    source: Source,
    omitted: Omitted,
    progress: Box<dyn FnMut(u64) + Send>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("start", &self.start)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Upload {
    pub(super) fn new(files: Files, tree: PackedTree, path: String) -> Self {
        let start = v1::UploadFilesStart {
            vm: files.vm.clone(),
            user: files.user.clone(),
            path,
            names_entry: tree.has_top(),
            keep_owners: false,
        };
        Self {
            files,
            start,
            omitted: tree.omitted(),
            source: Source::Tree(tree),
            progress: Box::new(|_| {}),
        }
    }

    /// Files keep their owners, by number, which only root of the VM may do; otherwise all are the user's.
    pub const fn keep_owners(mut self) -> Self {
        self.start.keep_owners = true;
        self
    }

    /// Calls back with how many bytes of the archive were taken.
    pub fn progress(mut self, callback: impl FnMut(u64) + Send + 'static) -> Self {
        self.progress = Box::new(callback);
        self
    }

    async fn run(self) -> Result<v1::FilesMoved> {
        let Self {
            files,
            start,
            source,
            omitted,
            mut progress,
        } = self;
        let start = v1::UploadFilesRequest {
            message: Some(Message::Start(start)),
        };
        let parts = vec![(source, chunk as fn(Bytes) -> _)];
        let end = v1::UploadFilesRequest {
            message: Some(Message::End(v1::UploadFilesEnd {})),
        };
        let moved = send_up_to(start, parts, Some(end), |stream| async move {
            let answer = files.rpc().upload_files(stream).await;
            let mut answers = files.client.watched(answer, CALL)?;
            loop {
                let Some(answer) = answers.next().await? else {
                    return Err(Error::cut_short(CALL));
                };
                match answer.message {
                    Some(v1::upload_files_response::Message::ProgressBytes(bytes)) => {
                        progress(u64::try_from(bytes).unwrap_or_default());
                    }
                    Some(v1::upload_files_response::Message::Done(moved)) => return Ok(moved),
                    Some(v1::upload_files_response::Message::Heartbeat(_)) | None => {}
                }
            }
        });
        Ok(v1::FilesMoved {
            omissions: omitted.told(),
            ..moved.await?
        })
    }
}

impl IntoFuture for Upload {
    type Output = Result<v1::FilesMoved>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

fn chunk(bytes: Bytes) -> v1::UploadFilesRequest {
    v1::UploadFilesRequest {
        message: Some(Message::Chunk(bytes)),
    }
}
