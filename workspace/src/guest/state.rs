//! The digest of a workspace's state: what was done in it, in one number.

use sha2::{Digest, Sha256};

use super::WorkError;
use super::content;
use super::look::{Draft, Seen};
use crate::wire::{EntryKind, RefKind};

/// The digest of what was seen, given the digests of the files' contents in the order of the entries.
pub(super) fn of(seen: &Seen, contents: &[Option<[u8; 32]>]) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut contents = contents.iter();
    for repository in &seen.repositories {
        if repository.is_ignored {
            contents
                .by_ref()
                .take(repository.drafts.len())
                .for_each(drop);
            continue;
        }
        let told = &repository.told;
        field(&mut digest, b"repository");
        field(&mut digest, &told.path);
        field(&mut digest, &told.kind.to_le_bytes());
        field(&mut digest, &told.head_ref);
        field(&mut digest, told.head_commit.as_bytes());
        for unfinished in &told.unfinished {
            field(&mut digest, &unfinished.kind.to_le_bytes());
        }
        for found in &repository.refs {
            // What only logs lead to is no work in progress, and grows with every command.
            if found.kind() != RefKind::Lost {
                field(&mut digest, &found.name);
                field(&mut digest, found.object_id.as_bytes());
            }
        }
        field(&mut digest, b"index");
        for entry in &repository.index {
            field(&mut digest, &entry.path);
            field(&mut digest, &entry.mode.to_le_bytes());
            field(&mut digest, &entry.stage.to_le_bytes());
            field(&mut digest, entry.object_id.as_bytes());
        }
        field(&mut digest, b"files");
        for draft in &repository.drafts {
            entry(&mut digest, draft, contents.next().copied().flatten());
        }
    }
    digest.finalize().into()
}

/// The digest of what was seen, for which the files are read.
pub(super) fn read(seen: &Seen) -> Result<[u8; 32], WorkError> {
    let mut contents = Vec::new();
    for draft in seen.repositories.iter().flat_map(|one| &one.drafts) {
        let is_file = draft.kind == EntryKind::File;
        contents.push(match is_file {
            true => Some(content::read(&seen.root, draft, |_| Ok::<_, WorkError>(()))?.sha256),
            false => None,
        });
    }
    Ok(of(seen, &contents))
}

fn entry(digest: &mut Sha256, draft: &Draft, content: Option<[u8; 32]>) {
    field(digest, &draft.path);
    field(digest, draft.kind.as_str_name().as_bytes());
    field(digest, &draft.mode.to_le_bytes());
    field(digest, &draft.link_target);
    field(digest, &content.unwrap_or_default());
}

/// Its length goes before a field, so that two never look like one.
fn field(digest: &mut Sha256, bytes: &[u8]) {
    digest.update((bytes.len() as u64).to_le_bytes());
    digest.update(bytes);
}
