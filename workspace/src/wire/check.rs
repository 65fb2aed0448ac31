//! Judges what is whole by itself: what is known, a base, a status, notes, and the fields of parts.

use super::fault::{Fault, at_most};
use super::limits::{
    KNOWN_COMMITS_MAX, NOTE_MAX_BYTES, NOTES_MAX, PATH_MAX_BYTES, REPOSITORIES_MAX, SHALLOW_MAX,
    STATUS_PATHS_MAX, UNFINISHED_COMMITS_MAX,
};
use super::path::{self, is_object_id};
use super::{Base, Known, Note, NoteKind, Status, Unfinished, UnfinishedKind};

/// Judges the name of a reference.
pub(super) fn reference(name: &[u8]) -> Result<(), Fault> {
    path::check_ref(name).map_err(|source| Fault::name(name, source))
}

/// Whether it is `stash@{N}`.
pub(super) fn is_stash(name: &[u8]) -> bool {
    let number = name
        .strip_prefix(b"stash@{")
        .and_then(|rest| rest.strip_suffix(b"}"));
    number.is_some_and(|number| {
        (1..=6).contains(&number.len()) && number.iter().all(u8::is_ascii_digit)
    })
}

/// Judges merges and the like that had not ended.
pub(super) fn check_unfinished(unfinished: &[Unfinished], id_digits: usize) -> Result<(), Fault> {
    at_most("unfinished things", unfinished.len(), 8)?;
    for thing in unfinished {
        at_most(
            "commits of something unfinished",
            thing.commits.len(),
            UNFINISHED_COMMITS_MAX,
        )?;
        let is_id = |id: &String| is_object_id(id) && id.len() == id_digits;
        if thing.kind() == UnfinishedKind::Unspecified || !thing.commits.iter().all(is_id) {
            return Err(Fault::Field {
                what: "something unfinished is of no kind or of no commit",
            });
        }
    }
    Ok(())
}

/// Judges a note by itself.
pub(super) fn check_note(note: &Note) -> Result<(), Fault> {
    let is_known = note.kind() != NoteKind::Unspecified;
    let fits = note.path.len() <= PATH_MAX_BYTES && note.detail.len() <= NOTE_MAX_BYTES;
    match is_known && fits {
        true => Ok(()),
        false => Err(Fault::Field {
            what: "a note says nothing, or too much",
        }),
    }
}

/// Judges what a receiver says that it has already, of which `before` commits were told before.
///
/// # Errors
/// What is wrong with it.
pub fn check_known(known: &Known, before: usize) -> Result<usize, Fault> {
    let mut count = before;
    at_most("repositories", known.repositories.len(), REPOSITORIES_MAX)?;
    for repository in &known.repositories {
        check_place(&repository.path)?;
        count += repository.commits.len();
        at_most("known commits", count, KNOWN_COMMITS_MAX)?;
        check_ids(&repository.commits)?;
    }
    Ok(count)
}

/// Judges where a history is to begin.
///
/// # Errors
/// What is wrong with it.
pub fn check_base(base: &Base) -> Result<(), Fault> {
    at_most("repositories", base.repositories.len(), REPOSITORIES_MAX)?;
    let mut count = 0;
    for repository in &base.repositories {
        check_place(&repository.path)?;
        count += repository.commits.len();
        at_most("known commits", count, KNOWN_COMMITS_MAX)?;
        check_ids(&repository.commits)?;
        if !repository.head_commit.is_empty() {
            check_ids(std::slice::from_ref(&repository.head_commit))?;
        }
        at_most("shallow commits", repository.shallow.len(), SHALLOW_MAX)?;
        check_ids(&repository.shallow)?;
    }
    Ok(())
}

fn check_place(name: &[u8]) -> Result<(), Fault> {
    match name.is_empty() {
        true => Ok(()),
        false => path::check(name).map_err(|source| Fault::name(name, source)),
    }
}

/// Judges notes, of which there may be `limit`.
///
/// # Errors
/// What is wrong with one.
pub fn check_notes(notes: &[Note], limit: usize) -> Result<(), Fault> {
    at_most("notes", notes.len(), limit)?;
    notes.iter().try_for_each(check_note)
}

/// Judges what is said of a workspace.
///
/// # Errors
/// What is wrong with it.
pub fn check_status(status: &Status) -> Result<(), Fault> {
    at_most("repositories", status.repositories.len(), REPOSITORIES_MAX)?;
    check_notes(&status.notes, NOTES_MAX)?;
    for repository in &status.repositories {
        check_place(&repository.path)?;
        if !repository.head_ref.is_empty() {
            reference(&repository.head_ref)?;
        }
        let digits = match repository.head_commit.as_str() {
            "" => 40,
            head => {
                check_ids(std::slice::from_ref(&repository.head_commit))?;
                head.len()
            }
        };
        check_unfinished(&repository.unfinished, digits)?;
        for paths in [&repository.changed_paths, &repository.committed_paths] {
            at_most("changed paths", paths.len(), STATUS_PATHS_MAX)?;
            for name in paths {
                path::check(name).map_err(|source| Fault::name(name, source))?;
            }
        }
        let counts = [
            repository.ahead_count,
            repository.behind_count,
            repository.new_commit_count,
            repository.staged_count,
            repository.conflicted_count,
            repository.changed_count,
            repository.untracked_count,
            repository.object_bytes,
            repository.file_bytes,
        ];
        if counts.iter().any(|count| *count < 0) {
            return Err(Fault::Field {
                what: "a count is negative",
            });
        }
    }
    Ok(())
}

fn check_ids(ids: &[String]) -> Result<(), Fault> {
    match ids.iter().all(|id| is_object_id(id)) {
        true => Ok(()),
        false => Err(Fault::Field {
            what: "an object's id is none",
        }),
    }
}
