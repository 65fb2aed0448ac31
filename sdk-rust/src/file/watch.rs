//! Watching files of a VM.

use banger_proto::v1;

use super::Files;
use crate::error::Result;
use crate::stream::Watched;

const CALL: &str = "WatchFiles";

/// What is watched.
#[derive(Debug)]
#[must_use = "nothing is watched until this is opened"]
pub struct WatchFiles {
    files: Files,
    request: v1::WatchFilesRequest,
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    /// From now on changes are seen; always first.
    Started {
        /// Directories that are watched.
        directories: i32,
    },
    /// Something changed.
    Changed(v1::FileEvent),
    /// Changes were lost: whoever must know looks anew.
    Overflow,
}

impl WatchFiles {
    pub(super) fn new(files: Files, path: String) -> Self {
        let request = v1::WatchFilesRequest {
            vm: files.vm.clone(),
            user: files.user.clone(),
            path,
            recursive: false,
        };
        Self { files, request }
    }

    /// The directories below it too, those that are made later included.
    pub const fn recursive(mut self) -> Self {
        self.request.recursive = true;
        self
    }

    /// Begins to watch.
    ///
    /// # Errors
    /// When there is nothing to watch, or the daemon cannot be asked.
    pub async fn open(self) -> Result<Watcher> {
        let answer = self.files.rpc().watch_files(self.request).await;
        let answers = self.files.client.watched(answer, CALL)?;
        Ok(Watcher { answers })
    }
}

/// Changes as they happen; dropping it ends the watch. One whose connection broke may have missed changes: open
/// another and look anew.
#[derive(Debug)]
pub struct Watcher {
    answers: Watched<v1::WatchFilesResponse>,
}

impl Watcher {
    /// The next event; `None` when what was watched is gone.
    ///
    /// # Errors
    /// When watching failed.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>> {
        use v1::watch_files_response::Message;
        loop {
            let Some(answer) = self.answers.next().await? else {
                return Ok(None);
            };
            return Ok(Some(match answer.message {
                Some(Message::Started(started)) => WatchEvent::Started {
                    directories: started.directory_count,
                },
                Some(Message::Event(event)) => WatchEvent::Changed(event),
                Some(Message::Overflow(_)) => WatchEvent::Overflow,
                Some(Message::Heartbeat(_)) | None => continue,
            }));
        }
    }
}
