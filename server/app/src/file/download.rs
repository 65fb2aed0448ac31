//! Writes what comes out of a guest as a tar archive, while it comes.

use banger_archive::TarWriter;
use banger_core::file::TreeMoved;
use banger_core::guest::GuestError;
use banger_core::tree::{DownloadPiece, Omissions, TreeEntry, TreeKind, TreePiece};
use bytes::Bytes;
use futures::StreamExt as _;

use super::error::Change;
use super::{Told, failed};
use crate::error::AppError;
use crate::tree::{join, put_beneath};

/// Headers and small files go together, up to this many bytes; what is larger goes as it came.
const CHUNK_BYTES: usize = 128 << 10;

/// An archive being made.
pub struct Archive {
    pieces: Told<DownloadPiece>,
    /// What names in it begin with; empty where the directory itself has no name.
    prefix: Vec<u8>,
    tar: TarWriter<Vec<u8>>,
    /// What comes after the chunk that was handed out.
    next: Option<Bytes>,
    moved: TreeMoved,
    omissions: Omissions,
    is_ended: bool,
}

/// A part of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchivePart {
    /// The next bytes.
    Chunk(Bytes),
    /// All of it has come, but for what it lacks.
    End(TreeMoved, Omissions),
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive")
            .field("moved", &self.moved)
            .finish_non_exhaustive()
    }
}

impl Archive {
    /// Of what is at `path`, as its caller wrote it.
    pub(super) fn new(pieces: Told<DownloadPiece>, path: &[u8]) -> Self {
        let name = path
            .split(|&byte| byte == b'/')
            .rfind(|name| !name.is_empty() && *name != b".")
            .filter(|name| *name != b"~");
        Self {
            pieces,
            prefix: name.unwrap_or_default().to_vec(),
            tar: TarWriter::new(Vec::new()),
            next: None,
            moved: TreeMoved::default(),
            omissions: Omissions::default(),
            is_ended: false,
        }
    }

    /// The next part; nothing follows [`ArchivePart::End`] or an error.
    ///
    /// # Errors
    /// When the guest fails. What came before is no archive.
    pub async fn next(&mut self) -> Option<Result<ArchivePart, AppError>> {
        if let Some(chunk) = self.next.take() {
            return Some(Ok(ArchivePart::Chunk(chunk)));
        }
        if self.is_ended {
            return None;
        }
        let part = self.part().await;
        self.is_ended = !matches!(part, Ok(ArchivePart::Chunk(_)));
        Some(part)
    }

    async fn part(&mut self) -> Result<ArchivePart, AppError> {
        if self.tar.is_finished() {
            let omissions = std::mem::take(&mut self.omissions);
            return Ok(ArchivePart::End(self.moved, omissions));
        }
        loop {
            let piece = match self.pieces.next().await.transpose()? {
                Some(DownloadPiece::Tree(piece)) => piece,
                Some(DownloadPiece::Omissions(omissions)) => {
                    self.omit(omissions);
                    continue;
                }
                None => return self.end(),
            };
            match piece {
                TreePiece::Entry(entry) => self.entry(*entry)?,
                TreePiece::Data(data) if data.len() < CHUNK_BYTES => {
                    self.count(data.len());
                    self.tar.data(&data).map_err(broken)?;
                }
                TreePiece::Data(data) => {
                    self.count(data.len());
                    self.tar.pass(data.len()).map_err(broken)?;
                    let before = std::mem::take(self.tar.get_mut());
                    if before.is_empty() {
                        return Ok(ArchivePart::Chunk(data));
                    }
                    self.next = Some(data);
                    return Ok(ArchivePart::Chunk(before.into()));
                }
            }
            if self.tar.get_mut().len() >= CHUNK_BYTES {
                return Ok(ArchivePart::Chunk(
                    std::mem::take(self.tar.get_mut()).into(),
                ));
            }
        }
    }

    fn count(&mut self, bytes: usize) {
        self.moved.bytes += bytes as u64;
    }

    /// What is lacking is called as an entry would be.
    fn omit(&mut self, mut omissions: Omissions) {
        for omission in &mut omissions.first {
            omission.path = join(&self.prefix, &omission.path);
        }
        self.omissions = omissions;
    }

    fn entry(&mut self, mut entry: TreeEntry) -> Result<(), AppError> {
        // Of a directory without a name, only what is in it is told.
        if self.prefix.is_empty() && entry.path.is_empty() && entry.kind == TreeKind::Directory {
            return Ok(());
        }
        put_beneath(&self.prefix, &mut entry);
        if entry.path.is_empty() {
            return Err(broken("a directory is none"));
        }
        self.moved.entries += 1;
        self.tar.entry(&entry).map_err(broken)
    }

    /// The end mark. That it was the end is the next part.
    fn end(&mut self) -> Result<ArchivePart, AppError> {
        self.tar.end().map_err(broken)?;
        Ok(ArchivePart::Chunk(
            std::mem::take(self.tar.get_mut()).into(),
        ))
    }
}

/// What was checked before holds: if it does not, the guest is not to be believed.
fn broken(error: impl std::fmt::Display) -> AppError {
    failed(Change::None)(GuestError::Protocol {
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use banger_archive::{Budget, StreamInput, TarPieces};
    use banger_core::tree::{Omission, OmissionReason};
    use futures::stream;

    use super::*;

    fn entry(path: &str, kind: TreeKind) -> TreePiece {
        TreePiece::Entry(Box::new(TreeEntry {
            path: path.into(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (1, 0),
            xattrs: BTreeMap::new(),
        }))
    }

    async fn archived(path: &str, pieces: Vec<TreePiece>) -> (Vec<u8>, TreeMoved) {
        let pieces = pieces.into_iter().map(DownloadPiece::Tree).collect();
        let (archive, moved, omissions) = downloaded(path, pieces).await;
        assert_eq!(omissions, Omissions::default());
        (archive, moved)
    }

    async fn downloaded(path: &str, pieces: Vec<DownloadPiece>) -> (Vec<u8>, TreeMoved, Omissions) {
        // As a guest's, it must not be asked again after its end.
        let pieces = stream::unfold(pieces.into_iter(), async |mut pieces| {
            Some((Ok(pieces.next()?), pieces))
        });
        let pieces = pieces.boxed();
        let mut archive = Archive::new(pieces, path.as_bytes());
        let mut bytes = Vec::new();
        loop {
            match archive.next().await.unwrap().unwrap() {
                ArchivePart::Chunk(chunk) => bytes.extend_from_slice(&chunk),
                ArchivePart::End(moved, omissions) => return (bytes, moved, omissions),
            }
        }
    }

    fn names(archive: &[u8]) -> Vec<String> {
        let budget = Budget::default();
        let mut pieces = TarPieces::new(StreamInput::new(archive), &budget);
        let mut names = Vec::new();
        while let Some(piece) = pieces.next_piece().unwrap() {
            if let TreePiece::Entry(entry) = piece {
                names.push(String::from_utf8(entry.path).unwrap());
            }
        }
        names
    }

    #[tokio::test]
    async fn names_begin_with_the_name_that_was_asked_for() {
        let tree = || {
            vec![
                entry("", TreeKind::Directory),
                entry("a", TreeKind::File { size: 3 }),
                TreePiece::Data(Bytes::from_static(b"abc")),
                entry("b", TreeKind::File { size: 1 << 20 }),
                TreePiece::Data(vec![7; 1 << 20].into()),
                entry(
                    "c",
                    TreeKind::HardLink {
                        target: b"a".to_vec(),
                    },
                ),
            ]
        };
        let (archive, moved) = archived("/srv/data/", tree()).await;
        assert_eq!(names(&archive), ["data", "data/a", "data/b", "data/c"]);
        let bytes = (1 << 20) + 3;
        assert_eq!(moved, TreeMoved { entries: 4, bytes });
        for root in ["/", "~", ".", "~/."] {
            assert_eq!(
                names(&archived(root, tree()).await.0),
                ["a", "b", "c"],
                "{root}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_lacking_is_called_as_an_entry_would_be() {
        let omission = |path: &str| Omission {
            path: path.into(),
            reason: OmissionReason::Socket,
        };
        let told = |paths: [&str; 2]| Omissions {
            count: 9,
            first: paths.map(omission).into(),
        };
        for (path, first) in [("/srv/data", ["data", "data/s"]), ("/", ["", "s"])] {
            let pieces = vec![
                DownloadPiece::Tree(entry("", TreeKind::Directory)),
                DownloadPiece::Omissions(told(["", "s"])),
            ];
            let omissions = downloaded(path, pieces).await.2;
            assert_eq!(omissions, told(first));
        }
    }

    #[tokio::test]
    async fn a_broken_tree_has_no_end() {
        let fault = GuestError::Lost { during: "tree" };
        let pieces = stream::iter([
            Ok(DownloadPiece::Tree(entry("", TreeKind::File { size: 3 }))),
            Err(failed(Change::None)(fault)),
        ]);
        let mut archive = Archive::new(pieces.boxed(), b"/x");
        assert!(archive.next().await.unwrap().is_err());
        assert!(archive.next().await.is_none());
    }
}
