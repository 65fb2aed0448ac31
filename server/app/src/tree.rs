//! Trees of files on their way: paths put beneath others.

use banger_core::guest::TreePieces;
use banger_core::tree::{TreeEntry, TreeKind, TreePiece};
use futures::StreamExt as _;

/// The path `inside` beneath `prefix`; either may be empty.
pub(crate) fn join(prefix: &[u8], inside: &[u8]) -> Vec<u8> {
    match (prefix, inside) {
        (b"", inside) => inside.to_vec(),
        (prefix, b"") => prefix.to_vec(),
        (prefix, inside) => [prefix, inside].join(&b'/'),
    }
}

/// Puts an entry beneath `prefix`, and what a hard link leads to.
pub(crate) fn put_beneath(prefix: &[u8], entry: &mut TreeEntry) {
    entry.path = join(prefix, &entry.path);
    if let TreeKind::HardLink { target } = &mut entry.kind {
        *target = join(prefix, target);
    }
}

/// A whole tree beneath `prefix`.
pub(crate) fn beneath(prefix: &[u8], pieces: TreePieces) -> TreePieces {
    let prefix = prefix.to_vec();
    pieces
        .map(move |piece| {
            Ok(match piece? {
                TreePiece::Entry(mut entry) => {
                    put_beneath(&prefix, &mut entry);
                    TreePiece::Entry(entry)
                }
                data @ TreePiece::Data(_) => data,
            })
        })
        .boxed()
}
