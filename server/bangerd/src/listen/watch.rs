//! The kernel's word that one of a few files changed, however it was: written, replaced, or a link turned to another.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchMask};

/// Room for a burst of events; what does not fit is told as an overflow, which counts as a change.
const BUFFER_BYTES: usize = 16 << 10;
/// How the names begin by whose turning Kubernetes replaces all files of a directory.
const TURNED: &[u8] = b"..";

/// Files that are watched.
pub(super) struct Watched {
    events: EventStream<Vec<u8>>,
    names: BTreeSet<OsString>,
}

impl Watched {
    /// Watches `files`, by the directories in which they and what they link to are.
    ///
    /// # Errors
    /// If the kernel watches no more, or a directory cannot be read.
    pub(super) fn new(files: &[PathBuf]) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let mut names = BTreeSet::new();
        let mut directories = BTreeSet::new();
        for file in files {
            let target = std::fs::canonicalize(file).ok();
            for path in [Some(file.as_path()), target.as_deref()]
                .into_iter()
                .flatten()
            {
                names.extend(path.file_name().map(OsStr::to_owned));
                directories.extend(path.parent().map(Path::to_path_buf));
            }
        }
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::ATTRIB;
        for directory in directories {
            inotify.watches().add(directory, mask)?;
        }
        let events = inotify.into_event_stream(vec![0; BUFFER_BYTES])?;
        Ok(Self { events, names })
    }

    /// Resolves at the next change. Cancel-safe: an event is taken whole or not at all.
    pub(super) async fn changed(&mut self) {
        while let Some(event) = self.events.next().await {
            let Ok(event) = event else {
                break;
            };
            let is_ours = event.mask.contains(EventMask::Q_OVERFLOW)
                || event.name.is_some_and(|name| {
                    self.names.contains(&name) || name.as_bytes().starts_with(TURNED)
                });
            if is_ours {
                return;
            }
        }
        // The kernel tells no more: SIGHUP is left.
        std::future::pending::<()>().await;
    }
}
