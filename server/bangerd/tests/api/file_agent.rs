//! The files of agents that are no processes: one tree in memory for all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use banger_core::file::{
    ChangeKind, FileAttributes, FileChange, FileContent, FileInfo, FileKind, FileListing,
    FilePlace, FileProblem, FileRange, FileSource, FileWrite, GuestFiles, Links, Removal,
    Replacing, TreeMoved, TreeOwners, WatchEvent, WatchEvents, WriteMode,
};
use banger_core::guest::{DownloadPieces, GuestError, TreeSource};
use banger_core::tree::{
    DownloadPiece, Omission, OmissionReason, Omissions, TreeEntry, TreeKind, TreePiece,
};
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};

use crate::agent::FakeGuest;

/// Files by path.
pub(crate) type FakeFiles = Arc<Mutex<BTreeMap<Vec<u8>, Bytes>>>;

/// The files of one agent. What is at `/lost` breaks the connection, and what is at `/stuck` never ends.
pub(crate) struct FakeFileSystem(pub(crate) FakeFiles);

fn refused(problem: FileProblem, path: &[u8]) -> GuestError {
    GuestError::File {
        problem,
        path: String::from_utf8_lossy(path).into_owned(),
        detail: "words of the guest".into(),
    }
}

fn info(path: &[u8], size: usize) -> FileInfo {
    FileInfo {
        path: path.to_vec(),
        kind: FileKind::File,
        mode: 0o644,
        size_bytes: size as u64,
        allocated_bytes: 4096,
        uid: 0,
        gid: 0,
        user: "root".into(),
        group: "root".into(),
        mtime: (1_000_000_000, 0),
        link_count: 1,
        link_target: Vec::new(),
        is_unreadable: false,
    }
}

impl FakeFileSystem {
    fn get(&self, place: &FilePlace) -> Result<Bytes, GuestError> {
        if place.user == "nobody" {
            return Err(GuestError::UnknownUser {
                user: place.user.clone(),
            });
        }
        if place.path == b"/lost" {
            return Err(GuestError::Lost { during: "file" });
        }
        let files = self.0.lock().unwrap();
        let found = files.get(&place.path).cloned();
        found.ok_or_else(|| refused(FileProblem::NotFound, &place.path))
    }

    fn put(&self, path: &[u8], content: Bytes) -> FileInfo {
        let told = info(path, content.len());
        self.0.lock().unwrap().insert(path.to_vec(), content);
        told
    }
}

#[tonic::async_trait]
impl GuestFiles for FakeGuest {
    async fn read_file(
        &self,
        place: &FilePlace,
        range: FileRange,
    ) -> Result<(FileInfo, FileContent), GuestError> {
        let content = self.files.get(place)?;
        let told = info(&place.path, content.len());
        let offset = usize::try_from(range.offset).unwrap().min(content.len());
        let rest = content.slice(offset..);
        let length = range
            .length
            .map_or(rest.len(), |length| usize::try_from(length).unwrap());
        let part = rest.slice(..length.min(rest.len()));
        let pieces: Vec<_> = part
            .chunks(1000)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        Ok((told, stream::iter(pieces).boxed()))
    }

    async fn write_file(
        &self,
        place: &FilePlace,
        write: &FileWrite,
        source: FileSource,
    ) -> Result<FileInfo, GuestError> {
        if place.path == b"/stuck" {
            std::future::pending::<()>().await;
        }
        if write.mode == WriteMode::Create && self.files.get(place).is_ok() {
            return Err(refused(FileProblem::Exists, &place.path));
        }
        if place.path == b"/full" {
            return Err(refused(FileProblem::NoSpace, &place.path));
        }
        let content = source.collect::<Vec<_>>().await.concat();
        Ok(self.files.put(&place.path, content.into()))
    }

    async fn stat_file(&self, place: &FilePlace, _: Links) -> Result<FileInfo, GuestError> {
        Ok(info(&place.path, self.files.get(place)?.len()))
    }

    async fn list_files(
        &self,
        _: &FilePlace,
        listing: &FileListing,
    ) -> Result<(Vec<FileInfo>, bool), GuestError> {
        let files = self.files.0.lock().unwrap();
        let after = files
            .iter()
            .filter(|(path, _)| path[1..] > listing.after[..]);
        let mut found: Vec<FileInfo> = after
            .map(|(path, content)| info(&path[1..], content.len()))
            .collect();
        let limit = usize::try_from(listing.limit).unwrap();
        let has_more = found.len() > limit;
        found.truncate(limit);
        Ok((found, has_more))
    }

    async fn make_directory(
        &self,
        place: &FilePlace,
        _: Option<u16>,
        _: bool,
    ) -> Result<FileInfo, GuestError> {
        Ok(self.files.put(&place.path, Bytes::new()))
    }

    async fn remove_file(&self, place: &FilePlace, _: Removal) -> Result<u64, GuestError> {
        self.files.get(place)?;
        self.files.0.lock().unwrap().remove(&place.path);
        Ok(1)
    }

    async fn rename_file(
        &self,
        from: &FilePlace,
        to: &[u8],
        _: Replacing,
    ) -> Result<FileInfo, GuestError> {
        let content = self.files.get(from)?;
        self.files.0.lock().unwrap().remove(&from.path);
        Ok(self.files.put(to, content))
    }

    async fn set_file_attributes(
        &self,
        place: &FilePlace,
        _: Links,
        _: &FileAttributes,
    ) -> Result<FileInfo, GuestError> {
        Ok(info(&place.path, self.files.get(place)?.len()))
    }

    async fn make_symlink(
        &self,
        place: &FilePlace,
        target: &[u8],
        _: Replacing,
    ) -> Result<FileInfo, GuestError> {
        Ok(self.files.put(&place.path, Bytes::copy_from_slice(target)))
    }

    async fn watch_files(&self, place: &FilePlace, _: bool) -> Result<WatchEvents, GuestError> {
        self.files.get(place)?;
        let changed = WatchEvent::Changed(FileChange {
            kind: ChangeKind::Created,
            path: b"new".to_vec(),
            is_directory: false,
            rename: 0,
        });
        let events = [
            WatchEvent::Started { directories: 1 },
            changed,
            WatchEvent::Overflow,
        ];
        let events = stream::iter(events.map(Ok));
        Ok(events.chain(stream::pending()).boxed())
    }

    async fn upload_files(
        &self,
        place: &FilePlace,
        _: bool,
        _: TreeOwners,
        mut source: TreeSource,
    ) -> Result<TreeMoved, GuestError> {
        let mut moved = TreeMoved::default();
        let mut file: Option<(Vec<u8>, Vec<u8>)> = None;
        let mut whole = Vec::new();
        while let Some(piece) = source.next().await {
            match piece {
                TreePiece::Entry(entry) => {
                    moved.entries += 1;
                    whole.extend(file.take());
                    let path = [&place.path[..], b"/", &entry.path].concat();
                    file = matches!(entry.kind, TreeKind::File { .. }).then(|| (path, Vec::new()));
                }
                TreePiece::Data(data) => {
                    moved.bytes += data.len() as u64;
                    file.as_mut().unwrap().1.extend_from_slice(&data);
                }
            }
        }
        for (path, content) in whole.into_iter().chain(file) {
            self.files.put(&path, content.into());
        }
        Ok(moved)
    }

    async fn download_files(&self, place: &FilePlace) -> Result<DownloadPieces, GuestError> {
        let content = self.files.get(place)?;
        let entry = TreeEntry {
            path: Vec::new(),
            kind: TreeKind::File {
                size: content.len() as u64,
            },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (1_000_000_000, 0),
            xattrs: BTreeMap::new(),
        };
        let pieces = [TreePiece::Entry(Box::new(entry)), TreePiece::Data(content)];
        let omissions = DownloadPiece::Omissions(Omissions {
            count: 70,
            first: vec![Omission {
                path: Vec::new(),
                reason: OmissionReason::Attributes,
            }],
        });
        let pieces = pieces.map(DownloadPiece::Tree).into_iter();
        Ok(stream::iter(pieces.chain([omissions]).map(Ok)).boxed())
    }
}
