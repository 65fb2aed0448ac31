//! A catalog in a directory of this host, opened beneath one handle: no link leads out of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::SourceError;

/// How much is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Opens a catalog's file. Blocks.
pub(super) fn open(root: &Path, name: &str) -> Result<File, SourceError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => SourceError::Missing {
            file: name.to_owned(),
        },
        _ => SourceError::Unreadable {
            file: name.to_owned(),
            source: error,
        },
    };
    let root = File::open(root).map_err(failed)?;
    // A FIFO would block whoever opens it.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve)
        .map_err(|error| failed(error.into()))?;
    let file = File::from(file);
    if file.metadata().map_err(failed)?.is_file() {
        return Ok(file);
    }
    Err(failed(io::Error::new(
        io::ErrorKind::InvalidInput,
        "not a regular file",
    )))
}

/// The next piece; `None` at the end. Blocks.
pub(super) fn next_piece(file: &mut File) -> io::Result<Option<Bytes>> {
    let mut piece = vec![0; PIECE_BYTES];
    let read = file.read(&mut piece)?;
    piece.truncate(read);
    Ok((read > 0).then(|| piece.into()))
}
