//! Reading a file of a VM.

use banger_proto::v1;
use bytes::Bytes;

use super::Files;
use crate::error::{Error, Result};
use crate::stream::Watched;

const CALL: &str = "ReadFile";

/// Which file is read, and which part of it.
#[derive(Debug)]
#[must_use = "nothing is read until this is opened"]
pub struct ReadFile {
    files: Files,
    request: v1::ReadFileRequest,
}

impl ReadFile {
    pub(super) fn new(files: Files, path: String) -> Self {
        let request = v1::ReadFileRequest {
            vm: files.vm.clone(),
            user: files.user.clone(),
            path,
            offset: 0,
            length: None,
        };
        Self { files, request }
    }

    /// From this byte on; a negative one counts from the end.
    pub const fn offset(mut self, offset: i64) -> Self {
        self.request.offset = offset;
        self
    }

    /// So many bytes at most.
    pub const fn length(mut self, bytes: i64) -> Self {
        self.request.length = Some(bytes);
        self
    }

    /// Begins to read.
    ///
    /// # Errors
    /// When the file cannot be read, or the daemon cannot be asked.
    pub async fn open(self) -> Result<FileContent> {
        let answer = self.files.rpc().read_file(self.request).await;
        let mut answers = self.files.client.watched(answer, CALL)?;
        loop {
            let message = answers.next().await?.and_then(|answer| answer.message);
            match message {
                Some(v1::read_file_response::Message::File(file)) => {
                    return Ok(FileContent { file, answers });
                }
                Some(v1::read_file_response::Message::Heartbeat(_)) => {}
                _ => {
                    return Err(Error::Protocol {
                        during: CALL,
                        detail: "no file",
                    });
                }
            }
        }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// [`Error::FileTooLong`] beyond `limit_bytes`, and when the file cannot be read.
    pub async fn bytes(self, limit_bytes: usize) -> Result<Vec<u8>> {
        let mut content = self.open().await?;
        let mut all = Vec::new();
        while let Some(chunk) = content.next().await? {
            if all.len() + chunk.len() > limit_bytes {
                return Err(Error::FileTooLong { limit_bytes });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }
}

/// A file being read. It is not repeated when the connection breaks: read on from where it ended.
#[derive(Debug)]
pub struct FileContent {
    file: v1::FileInfo,
    answers: Watched<v1::ReadFileResponse>,
}

impl FileContent {
    /// The file, as it was when reading began.
    #[must_use]
    pub const fn file(&self) -> &v1::FileInfo {
        &self.file
    }

    /// The next bytes; `None` when all that was asked for has come.
    ///
    /// # Errors
    /// When reading fails. Then more is missing.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(answer) = self.answers.next().await? else {
                return Ok(None);
            };
            match answer.message {
                Some(v1::read_file_response::Message::Chunk(bytes)) => return Ok(Some(bytes)),
                Some(v1::read_file_response::Message::File(_)) => {
                    return Err(Error::Protocol {
                        during: CALL,
                        detail: "a second file",
                    });
                }
                Some(v1::read_file_response::Message::Heartbeat(_)) | None => {}
            }
        }
    }
}
