//! Writing a file of a VM.

use banger_proto::v1;
use bytes::Bytes;
use prost_types::Timestamp;
use v1::write_file_request::Message;
use v1::write_file_start::Mode;

use super::Files;
use crate::error::{Error, Result};
use crate::upload::{Source, send_up_to};

const CALL: &str = "WriteFile";

/// Which file is written, and how.
#[must_use = "nothing is written until its content is given"]
pub struct WriteFile {
    files: Files,
    start: v1::WriteFileStart,
    progress: Box<dyn FnMut(u64) + Send>,
}

impl std::fmt::Debug for WriteFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteFile")
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

impl WriteFile {
    pub(super) fn new(files: Files, path: String) -> Self {
        let start = v1::WriteFileStart {
            vm: files.vm.clone(),
            user: files.user.clone(),
            path,
            ..v1::WriteFileStart::default()
        };
        Self {
            files,
            start,
            progress: Box::new(|_| {}),
        }
    }

    /// Only if nothing is there; otherwise it is refused.
    pub const fn if_absent(mut self) -> Self {
        self.start.mode = Mode::Create as i32;
        self
    }

    /// After what the file has. Where the answer is lost, the content may be there in part or whole, and a repeat may add
    /// it twice: what must be repeatable goes [at](Self::at) the size that the file had.
    pub const fn append(mut self) -> Self {
        self.start.mode = Mode::Append as i32;
        self
    }

    /// Into the file, from this byte on.
    pub const fn at(mut self, offset: i64) -> Self {
        self.start.mode = Mode::At as i32;
        self.start.offset = offset;
        self
    }

    /// Into the file from its beginning, with nothing left of what it had. Needs no right to its directory, but is not
    /// done at once.
    pub const fn in_place(mut self) -> Self {
        self.start.mode = Mode::At as i32;
        self.start.truncate = true;
        self
    }

    /// With these permission bits.
    pub const fn permissions(mut self, bits: u32) -> Self {
        self.start.permissions = Some(bits);
        self
    }

    /// Owned by `user`, `uid`, `user:group` or `uid:gid`.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.start.owner = owner.into();
        self
    }

    /// Last changed at this time.
    pub const fn mtime(mut self, time: Timestamp) -> Self {
        self.start.mtime = Some(time);
        self
    }

    /// With the directories that are missing on the way.
    pub const fn make_parents(mut self) -> Self {
        self.start.make_parents = true;
        self
    }

    /// Calls back with how many bytes were handed to the VM.
    pub fn progress(mut self, callback: impl FnMut(u64) + Send + 'static) -> Self {
        self.progress = Box::new(callback);
        self
    }

    /// Writes what `source` has. Dropped before its end, a file that was to be replaced is as it was.
    ///
    /// # Errors
    /// When the file cannot be written, or the daemon cannot be asked. It is not repeated.
    pub async fn from(self, source: impl Into<Source>) -> Result<v1::FileInfo> {
        let Self {
            files,
            start,
            mut progress,
        } = self;
        let start = v1::WriteFileRequest {
            message: Some(Message::Start(start)),
        };
        let parts = vec![(source.into(), chunk as fn(Bytes) -> _)];
        let end = v1::WriteFileRequest {
            message: Some(Message::End(v1::WriteFileEnd {})),
        };
        send_up_to(start, parts, Some(end), |stream| async move {
            let answer = files.rpc().write_file(stream).await;
            let mut answers = files.client.watched(answer, CALL)?;
            loop {
                let Some(answer) = answers.next().await? else {
                    return Err(Error::cut_short(CALL));
                };
                match answer.message {
                    Some(v1::write_file_response::Message::ProgressBytes(bytes)) => {
                        progress(u64::try_from(bytes).unwrap_or_default());
                    }
                    Some(v1::write_file_response::Message::File(file)) => return Ok(file),
                    Some(v1::write_file_response::Message::Heartbeat(_)) | None => {}
                }
            }
        })
        .await
    }

    /// Writes these bytes.
    ///
    /// # Errors
    /// Those of [`WriteFile::from`].
    pub async fn bytes(self, content: impl Into<Bytes>) -> Result<v1::FileInfo> {
        let content: Bytes = content.into();
        self.from(Source::reader(std::io::Cursor::new(content)))
            .await
    }
}

fn chunk(bytes: Bytes) -> v1::WriteFileRequest {
    v1::WriteFileRequest {
        message: Some(Message::Chunk(bytes)),
    }
}
