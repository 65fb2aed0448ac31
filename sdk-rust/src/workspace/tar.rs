//! Files that have landed, as a tar archive.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use banger_archive::TarWriter;
use banger_core::tree::{TreeEntry, TreeKind};
use banger_workspace::client::render::{File, FileKind, Only, Work};

use crate::error::Result;

/// Content is written in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;

/// Writes the files that are not as at the base, as they are.
///
/// # Errors
/// If what has landed cannot be read, or `to` cannot be written.
pub fn write_tar(work: &Work<'_>, only: Only, to: &mut dyn Write) -> Result<()> {
    let mut tar = TarWriter::new(to);
    work.files(only, &mut |file, content| add(&mut tar, file, content))?;
    tar.finish().map_err(|source| crate::Error::Unpack {
        path: "-".into(),
        source,
    })?;
    Ok(())
}

fn add(tar: &mut TarWriter<&mut dyn Write>, file: &File, content: &mut dyn Read) -> io::Result<()> {
    let mut entry = TreeEntry {
        path: file.path.clone(),
        kind: TreeKind::File { size: file.size },
        mode: match file.kind {
            FileKind::Program => 0o755,
            FileKind::Regular | FileKind::Symlink => 0o644,
        },
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        xattrs: BTreeMap::new(),
    };
    if file.kind == FileKind::Symlink {
        let mut target = Vec::new();
        content.read_to_end(&mut target)?;
        entry.kind = TreeKind::Symlink { target };
        entry.mode = 0o777;
        return tar.entry(&entry);
    }
    tar.entry(&entry)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = content.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        tar.data(&piece[..length])?;
    }
}
