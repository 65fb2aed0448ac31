//! An archive as the pieces of a tree, while it still arrives.

use banger_core::tree::{DataRange, RANGES_MAX, TreeEntry, TreeKind, TreePiece};
use bytes::Bytes;

use crate::{Budget, Content, TarError, TarInput, TarReader};

/// Content comes in pieces of at most this size.
const PIECE_BYTES: usize = 256 << 10;

/// Reads an archive piece by piece. Nothing of a file's content is kept.
#[derive(Debug)]
pub struct TarPieces<'a, I> {
    reader: TarReader<'a, I>,
    file: Option<File>,
}

/// A file whose content is being read.
#[derive(Debug)]
struct File {
    content: Content,
    /// Whether its holes were told; otherwise they are zeros.
    holes_told: bool,
    /// Where it is read.
    at: u64,
    /// The extent that is read, or comes next.
    extent: usize,
}

impl<'a, I: TarInput> TarPieces<'a, I> {
    /// Reads from `input`, spending `budget`.
    #[must_use]
    pub fn new(input: I, budget: &'a Budget) -> Self {
        Self {
            reader: TarReader::new(input, budget),
            file: None,
        }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// What is wrong with the archive.
    pub fn next_piece(&mut self) -> Result<Option<TreePiece>, TarError> {
        if let Some(file) = &mut self.file {
            if let Some(data) = file.read(&mut self.reader)? {
                return Ok(Some(TreePiece::Data(data)));
            }
            self.file = None;
        }
        let Some(entry) = self.reader.next_entry()? else {
            return Ok(None);
        };
        let (mut entry, content) = entry.into_tree();
        self.file = content.map(|content| File::new(&mut entry, content));
        Ok(Some(TreePiece::Entry(Box::new(entry))))
    }
}

impl File {
    /// Of an entry, which is told of the holes.
    fn new(entry: &mut TreeEntry, content: Content) -> Self {
        let stored: u64 = content.extents.iter().map(|extent| extent.len).sum();
        let holes_told = stored < content.size && content.extents.len() <= RANGES_MAX;
        if holes_told {
            let range = |extent: &crate::Extent| DataRange {
                offset: extent.logical,
                length: extent.len,
            };
            entry.kind = TreeKind::SparseFile {
                size: content.size,
                ranges: content.extents.iter().map(range).collect(),
            };
        }
        Self {
            content,
            holes_told,
            at: 0,
            extent: 0,
        }
    }

    fn read<I: TarInput>(
        &mut self,
        reader: &mut TarReader<'_, I>,
    ) -> Result<Option<Bytes>, TarError> {
        let bounded = |length: u64| {
            usize::try_from(length)
                .unwrap_or(PIECE_BYTES)
                .min(PIECE_BYTES)
        };
        let Some(extent) = self.content.extents.get(self.extent) else {
            // What is left is a hole.
            let length = match self.holes_told {
                true => 0,
                false => bounded(self.content.size - self.at),
            };
            return Ok(self.zeros(length));
        };
        if self.at < extent.logical {
            if !self.holes_told {
                return Ok(self.zeros(bounded(extent.logical - self.at)));
            }
            self.at = extent.logical;
        }
        let end = extent.logical + extent.len;
        let mut data = vec![0; bounded(end - self.at)];
        let read = reader.read_content(&mut data)?;
        data.truncate(read);
        self.at += read as u64;
        if self.at == end {
            self.extent += 1;
        }
        Ok((read > 0).then(|| data.into()))
    }

    fn zeros(&mut self, length: usize) -> Option<Bytes> {
        self.at += length as u64;
        (length > 0).then(|| vec![0; length].into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{StreamInput, TarWriter};

    fn entry(path: &str, kind: TreeKind) -> TreeEntry {
        TreeEntry {
            path: path.into(),
            kind,
            mode: 0o640,
            uid: 5,
            gid: 6,
            mtime: (1_000_000_000, 7),
            xattrs: BTreeMap::from([("user.note".to_owned(), Bytes::from_static(b"a\nb\0"))]),
        }
    }

    fn read(archive: &[u8]) -> Result<Vec<TreePiece>, TarError> {
        let budget = Budget::default();
        let mut pieces = TarPieces::new(StreamInput::new(archive), &budget);
        let mut found = Vec::new();
        while let Some(piece) = pieces.next_piece()? {
            found.push(piece);
        }
        Ok(found)
    }

    fn written(entries: &[(TreeEntry, &[u8])]) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        for (entry, content) in entries {
            tar.entry(entry).unwrap();
            tar.data(content).unwrap();
        }
        tar.finish().unwrap()
    }

    fn ranges(pairs: &[(u64, u64)]) -> Vec<DataRange> {
        let range = |&(offset, length): &(u64, u64)| DataRange { offset, length };
        pairs.iter().map(range).collect()
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let long = "x".repeat(150);
        let sparse = TreeKind::SparseFile {
            size: 1 << 40,
            ranges: ranges(&[(3, 512), (1 << 30, 1)]),
        };
        let hole = TreeKind::SparseFile {
            size: 9,
            ranges: Vec::new(),
        };
        let link = TreeKind::Symlink {
            target: b"/nowhere/\xff".to_vec(),
        };
        let data = [&[b'a'; 512][..], b"b"].concat();
        let entries: Vec<(TreeEntry, &[u8])> = vec![
            (entry("d", TreeKind::Directory), b""),
            (entry("d/sparse", sparse.clone()), &data),
            (entry(&long, sparse), &data),
            (entry("hole", hole), b""),
            (entry("file", TreeKind::File { size: 5 }), b"hello"),
            (entry("empty", TreeKind::File { size: 0 }), b""),
            (entry("link", link), b""),
        ];
        let mut told = Vec::new();
        for piece in read(&written(&entries)).unwrap() {
            match piece {
                TreePiece::Entry(entry) => told.push((*entry, Vec::new())),
                TreePiece::Data(data) => told.last_mut().unwrap().1.extend_from_slice(&data),
            }
        }
        let expected: Vec<_> = entries
            .into_iter()
            .map(|(entry, content)| (entry, content.to_vec()))
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn an_archive_that_is_cut_off_is_told_so() {
        let archive = written(&[(entry("file", TreeKind::File { size: 5 }), b"hello")]);
        for end in [100, 1024 + 512 + 3] {
            assert!(matches!(
                read(&archive[..end]),
                Err(TarError::Truncated { .. })
            ));
        }
    }

    #[test]
    fn gnu_tar_reads_holes_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let kind = TreeKind::SparseFile {
            size: 1 << 20,
            // As file systems tell them: whole blocks, but for the end of the data.
            ranges: ranges(&[(0, 512), (499_712, 2)]),
        };
        let mut entry = entry("sparse", kind);
        entry.xattrs.clear();
        let archive = dir.path().join("a.tar");
        let data: &[u8] = &[&[b'a'; 512][..], b"de"].concat();
        std::fs::write(&archive, written(&[(entry, data)])).unwrap();
        let tar = std::process::Command::new("tar")
            .args(["--no-same-owner", "-xf"])
            .arg(&archive)
            .arg("-C")
            .arg(dir.path())
            .status();
        let Ok(status) = tar else {
            eprintln!("SKIPPED gnu_tar_reads_holes_as_they_were_written: there is no tar");
            return;
        };
        assert!(status.success());
        let content = std::fs::read(dir.path().join("sparse")).unwrap();
        assert_eq!(content.len(), 1 << 20);
        assert_eq!(&content[511..513], b"a\0");
        assert_eq!(&content[499_711..499_715], b"\0de\0");
    }
}
