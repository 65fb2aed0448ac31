//! Notes, a bounded number of them.

use bytes::Bytes;

use crate::wire::limits::{NOTE_MAX_BYTES, NOTES_MAX, PATH_MAX_BYTES};
use crate::wire::{Note, NoteKind};

/// Whether something is missing for what a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Something that was done in the workspace is not told.
    Yes,
    /// All is told.
    No,
}

/// What there is to say.
#[derive(Debug, Default, Clone)]
pub(super) struct Notes {
    pub(super) kept: Vec<Note>,
    pub(super) left_out: i64,
}

impl Notes {
    pub(super) fn add(&mut self, kind: NoteKind, path: &[u8], detail: &str, loss: Loss) {
        if self.kept.len() == NOTES_MAX {
            self.left_out += 1;
            // That something is missing must be seen all the same.
            if let (Loss::Yes, Some(last)) = (loss, self.kept.last_mut()) {
                last.is_loss = true;
            }
            return;
        }
        let detail = &detail[..detail.floor_char_boundary(NOTE_MAX_BYTES)];
        self.kept.push(Note {
            kind: kind.into(),
            path: Bytes::copy_from_slice(&path[..path.len().min(PATH_MAX_BYTES)]),
            detail: detail.to_owned(),
            is_loss: loss == Loss::Yes,
        });
    }

    pub(super) fn lost(&mut self, kind: NoteKind, path: &[u8], detail: &str) {
        self.add(kind, path, detail, Loss::Yes);
    }
}
