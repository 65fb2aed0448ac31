//! The commits of a repository: what its references, its stash and its logs lead to.

use std::collections::BTreeSet;
use std::io::Write;

use bytes::Bytes;

use super::super::WorkError;
use super::super::notes::{Loss, Notes};
use super::repository::{Opened, records_of};
use crate::command::{Ending, Git, GitError};
use crate::wire::limits::REFS_MAX;
use crate::wire::path::{check_ref, is_object_id};
use crate::wire::{NoteKind, ObjectFormat, Ref, RefKind};

/// Entries of a stash that are told.
const STASH_MAX: usize = 10_000;
/// Commits without a reference that are looked at.
const LOST_MAX: usize = 100_000;

/// The object of the tree without anything.
pub(in super::super) const fn empty_tree(format: ObjectFormat) -> &'static str {
    match format {
        ObjectFormat::Sha256 => "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
        ObjectFormat::Sha1 | ObjectFormat::Unspecified => {
            "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
        }
    }
}

/// The references as git lists them: one a line, `ID NAME TARGET`.
pub(super) fn list(git: &Git) -> Result<Vec<u8>, WorkError> {
    let format = "--format=%(objectname) %(refname) %(symref)";
    Ok(git.run(&["for-each-ref", format])?)
}

/// References, which git has listed, entries of the stash, and commits that only logs or `tips` lead to and the base does
/// not: as they are told.
pub(super) fn refs(
    opened: &Opened,
    listed: &[u8],
    base: &[String],
    tips: &[&str],
    notes: &mut Notes,
) -> Result<Vec<Ref>, WorkError> {
    let mut refs = Vec::new();
    for line in listed.split(|&byte| byte == b'\n') {
        if line.is_empty() {
            continue;
        }
        let mut words = line.splitn(3, |&byte| byte == b' ');
        let id = String::from_utf8_lossy(words.next().unwrap_or_default()).into_owned();
        let name = words.next().unwrap_or_default();
        let target = words.next().unwrap_or_default();
        let is_told = is_object_id(&id)
            && check_ref(name).is_ok()
            && (target.is_empty() || check_ref(target).is_ok());
        if !is_told {
            notes.lost(NoteKind::BadRef, name, "the reference cannot be told");
            continue;
        }
        if refs.len() == REFS_MAX / 2 {
            notes.lost(NoteKind::TooLarge, name, "there are too many references");
            break;
        }
        refs.push(told(RefKind::Ref, name, &id, target));
    }
    refs.sort_by(|a, b| a.name.cmp(&b.name));
    let stash = match refs.iter().any(|found| &found.name[..] == b"refs/stash") {
        true => stash(&opened.git, notes)?,
        false => Vec::new(),
    };
    let lost = lost(opened, (base, tips), &stash, notes)?;
    refs.extend(stash);
    refs.extend(lost);
    Ok(refs)
}

fn told(kind: RefKind, name: &[u8], id: &str, target: &[u8]) -> Ref {
    Ref {
        kind: kind.into(),
        name: Bytes::copy_from_slice(name),
        object_id: id.to_owned(),
        symbolic_target: Bytes::copy_from_slice(target),
    }
}

/// The entries of the stash, the newest first.
fn stash(git: &Git, notes: &mut Notes) -> Result<Vec<Ref>, WorkError> {
    let words = ["reflog", "show", "--format=%H", "refs/stash", "--"];
    let listed = match git.run(&words) {
        Ok(listed) => listed,
        // There is no stash.
        Err(GitError::Failed {
            ending: Ending::Code(_),
            ..
        }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let ids: Vec<&str> = listed.lines().filter(|id| is_object_id(id)).collect();
    if ids.len() > STASH_MAX {
        notes.lost(
            NoteKind::TooLarge,
            b"refs/stash",
            "the stash has too many entries",
        );
    }
    let told = |(number, id): (usize, &&str)| {
        told(
            RefKind::Stash,
            format!("stash@{{{number}}}").as_bytes(),
            id,
            b"",
        )
    };
    Ok(ids.iter().take(STASH_MAX).enumerate().map(told).collect())
}

/// The newest of the commits to which only logs lead, or `tips` of what is unfinished.
fn lost(
    opened: &Opened,
    (base, tips): (&[String], &[&str]),
    stash: &[Ref],
    notes: &mut Notes,
) -> Result<Vec<Ref>, WorkError> {
    let known: Vec<String> = base
        .iter()
        .cloned()
        .chain(stash.iter().map(|entry| entry.object_id.clone()))
        .collect();
    let words = ["rev-list", "--parents", "--ignore-missing", "--reflog"];
    let words = [&words, tips, &["--not", "--all", "--stdin"]].concat();
    let input = move |to: &mut dyn Write| known.iter().try_for_each(|id| writeln!(to, "^{id}"));
    let (mut commits, mut parents) = (BTreeSet::new(), BTreeSet::new());
    let result = opened.git.feed(&words, input);
    let listed = match result {
        Ok(listed) => listed,
        Err(GitError::Failed { complaint, .. }) => {
            notes.add(
                NoteKind::MissingObjects,
                &opened.path,
                &complaint,
                Loss::Yes,
            );
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    for line in String::from_utf8_lossy(&listed).lines() {
        if commits.len() == LOST_MAX {
            notes.lost(
                NoteKind::TooLarge,
                &opened.path,
                "too many commits have no reference",
            );
            break;
        }
        let mut ids = line.split(' ').filter(|id| is_object_id(id));
        if let Some(commit) = ids.next() {
            commits.insert(commit.to_owned());
            parents.extend(ids.map(str::to_owned));
        }
    }
    let newest = commits.difference(&parents);
    Ok(newest
        .map(|id| told(RefKind::Lost, id.as_bytes(), id, b""))
        .collect())
}

/// Adds `heads`, of working trees elsewhere, as far as they are objects here and no reference leads to them itself.
pub(super) fn add_lost(
    opened: &Opened,
    refs: &mut Vec<Ref>,
    heads: &[String],
) -> Result<(), WorkError> {
    for head in existing(&opened.git, heads)? {
        if refs.iter().all(|found| found.object_id != head) {
            refs.push(told(RefKind::Lost, head.as_bytes(), &head, b""));
        }
    }
    Ok(())
}

/// Where the history of whoever asks was cut and this one is not.
#[derive(Debug, Default)]
pub(in super::super) struct Behind {
    /// The commits at which it was cut.
    pub(in super::super) cut: Vec<String>,
    /// Their parents, which are told with all that they lead to.
    pub(in super::super) parents: Vec<String>,
}

/// What is here behind `cut`, where the history of whoever asks ends; this one's ends at `own`.
pub(super) fn behind(git: &Git, cut: &[String], own: &[String]) -> Result<Behind, WorkError> {
    let own: BTreeSet<&str> = own.iter().map(String::as_str).collect();
    let asked: Vec<&str> = cut
        .iter()
        .map(String::as_str)
        .filter(|id| is_object_id(id) && !own.contains(id))
        .collect();
    let mut behind = Behind::default();
    if asked.is_empty() {
        return Ok(behind);
    }
    let words = [
        "rev-list",
        "--parents",
        "--no-walk=unsorted",
        "--ignore-missing",
        "--stdin",
    ];
    let input = |to: &mut dyn Write| asked.iter().try_for_each(|id| writeln!(to, "{id}"));
    let listed = match git.feed(&words, input) {
        Ok(listed) => listed,
        // They are no commits here.
        Err(GitError::Failed { .. }) => return Ok(behind),
        Err(error) => return Err(error.into()),
    };
    for line in String::from_utf8_lossy(&listed).lines() {
        let mut ids = line.split(' ').filter(|id| is_object_id(id));
        behind.cut.extend(ids.next().map(str::to_owned));
        behind.parents.extend(ids.map(str::to_owned));
    }
    Ok(behind)
}

/// Those of `ids` that are objects here.
pub(in super::super) fn existing(git: &Git, ids: &[String]) -> Result<Vec<String>, WorkError> {
    match ids.is_empty() {
        true => Ok(Vec::new()),
        false => Ok(found(git, "", ids)?.1),
    }
}

/// The commit of HEAD, and those of `ids` that are objects here.
pub(super) fn head_and_existing(
    git: &Git,
    ids: &[String],
) -> Result<(Option<String>, Vec<String>), WorkError> {
    found(git, "HEAD^{commit}\n", ids)
}

/// What `first`, a line or none, leads to, and those of `ids` that are objects here.
fn found(
    git: &Git,
    first: &str,
    ids: &[String],
) -> Result<(Option<String>, Vec<String>), WorkError> {
    let asked: Vec<&String> = ids.iter().filter(|id| is_object_id(id)).collect();
    let mut existing = Vec::new();
    let mut answer = None;
    let mut each = |record: &[u8]| {
        for (number, line) in record.split(|&byte| byte == b'\n').enumerate() {
            let line = String::from_utf8_lossy(line);
            if let Some((id, "commit" | "tag" | "tree" | "blob")) = line.split_once(' ') {
                match number == 0 && !first.is_empty() {
                    true => answer = Some(id.to_owned()),
                    false => existing.push(id.to_owned()),
                }
            }
        }
        true
    };
    let input = move |to: &mut dyn Write| {
        to.write_all(first.as_bytes())?;
        asked.iter().try_for_each(|id| writeln!(to, "{id}"))
    };
    let words = [
        "cat-file",
        "--buffer",
        "--batch-check=%(objectname) %(objecttype)",
    ];
    records_of(git, &words, input, &mut each)?;
    Ok((answer, existing))
}
