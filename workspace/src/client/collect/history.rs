//! References and the history they lead to.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Write;

use super::Options;
use crate::client::error::{Error, Result};
use crate::client::lines::text;
use crate::client::repository::LocalRepository;
use crate::wire::{Ref, RefKind};

const WHAT: &str = "read the history";

/// The references that go along, in the order of their names.
///
/// Branches that are chosen are the workspace's own; of repositories inside then only HEAD goes along.
pub(super) fn refs(
    repository: &LocalRepository,
    options: &Options,
    is_own: bool,
) -> Result<Vec<Ref>> {
    let is_chosen = !options.branches.is_empty();
    if (options.depth > 0 && !is_chosen) || (is_chosen && !is_own) {
        return Ok(Vec::new());
    }
    let mut words = vec![
        "for-each-ref".to_owned(),
        "--format=%(objectname)%00%(refname)%00%(symref)".to_owned(),
    ];
    for branch in &options.branches {
        let name = format!("refs/heads/{branch}");
        if repository.resolve(&name)?.is_none() {
            return Err(Error::Revision {
                name: branch.clone(),
            });
        }
        words.push(name);
    }
    if !is_chosen {
        words.extend(["refs/heads/".to_owned(), "refs/tags/".to_owned()]);
    }
    let answer = repository.git().run(&words).map_err(Error::git(WHAT))?;
    let mut refs = Vec::new();
    for line in answer.split(|&byte| byte == b'\n') {
        let mut parts = line.split(|&byte| byte == 0);
        let (Some(id), Some(name), Some(target)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        refs.push(Ref {
            kind: RefKind::Ref.into(),
            name: name.to_vec().into(),
            object_id: text(id),
            symbolic_target: target.to_vec().into(),
        });
    }
    refs.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    refs.dedup_by(|one, other| one.name == other.name);
    Ok(refs)
}

/// The commits at the boundary of a history `depth` commits deep from `tips` (0: as deep as the repository's is).
pub(super) fn boundary(
    repository: &LocalRepository,
    tips: &[String],
    depth: u32,
) -> Result<Vec<String>> {
    let own = own_boundary(repository);
    if tips.is_empty() || (depth == 0 && own.is_empty()) {
        return Ok(Vec::new());
    }
    let feed = |input: &mut dyn Write| tips.iter().try_for_each(|tip| writeln!(input, "{tip}"));
    let words = ["rev-list", "--parents", "--stdin"];
    let answer = repository.git().feed(&words, feed);
    let answer = text(&answer.map_err(Error::git(WHAT))?);
    let mut parents: HashMap<&str, Vec<&str>> = HashMap::new();
    for line in answer.lines() {
        let mut ids = line.split(' ');
        let commit = ids.next().unwrap_or_default();
        parents.insert(commit, ids.collect());
    }
    if depth == 0 {
        let cut = own.into_iter().filter(|id| parents.contains_key(&id[..]));
        return Ok(BTreeSet::from_iter(cut).into_iter().collect());
    }
    let peeled = existing(repository, tips)?;
    let mut level: Vec<&str> = peeled.iter().map(String::as_str).collect();
    let mut seen: HashSet<&str> = level.iter().copied().collect();
    let mut found = BTreeSet::new();
    for at in 1..=depth {
        let mut next = Vec::new();
        for commit in level {
            let above = parents.get(commit).map(Vec::as_slice).unwrap_or_default();
            if own.contains(commit) || (at == depth && !above.is_empty()) {
                found.insert(commit.to_owned());
                continue;
            }
            next.extend(above.iter().copied().filter(|parent| seen.insert(parent)));
        }
        level = next;
    }
    Ok(found.into_iter().collect())
}

/// The commits that `ids` lead to; what is not there, or leads to none, is left out.
pub(super) fn existing(repository: &LocalRepository, ids: &[String]) -> Result<Vec<String>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let feed = |input: &mut dyn Write| {
        ids.iter()
            .try_for_each(|id| writeln!(input, "{id}^{{commit}}"))
    };
    let words = ["cat-file", "--batch-check=%(objectname)"];
    let answer = repository.git().feed(&words, feed);
    let answer = text(&answer.map_err(Error::git(WHAT))?);
    let commits = answer.lines().filter(|line| !line.contains(' '));
    Ok(commits.map(str::to_owned).collect())
}

/// Where the repository's own history was cut.
fn own_boundary(repository: &LocalRepository) -> HashSet<String> {
    let read = std::fs::read_to_string(repository.common_dir().join("shallow"));
    let read = read.unwrap_or_default();
    read.lines().map(str::to_owned).collect()
}
