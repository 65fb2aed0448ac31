//! Histories that were cut, and of which more has come since.

use std::collections::BTreeSet;
use std::io::Write;

use super::Coming;
use super::quarantine::strict;
use crate::client::error::{Error, Result};
use crate::client::lines::text;
use crate::client::store::Store;
use crate::command::GitError;

const WHAT: &str = "look at where the history was cut";
/// A variable of git's own: the file that says where the history was cut, in the place of the repository's.
const CUT_FILE: &str = "GIT_SHALLOW_FILE";

/// The commits among those at which the history of a store of banger's own was cut behind which all is there by now, with
/// what has come: it is cut there no more.
pub(super) fn deepened(coming: &Coming) -> Result<BTreeSet<String>> {
    let none = BTreeSet::new();
    // How the owner's own repository is cut is the owner's.
    if !coming.is_own_store {
        return Ok(none);
    }
    let quarantine = &coming.quarantine;
    let cut = quarantine.cut()?;
    let (candidates, parents) = with_parents(quarantine, &cut)?;
    if candidates.is_empty() {
        return Ok(none);
    }
    let left: BTreeSet<String> = cut.difference(&candidates).cloned().collect();
    let file = quarantine.directory().join("shallow.deepened");
    let lines: String = left.iter().map(|id| format!("{id}\n")).collect();
    std::fs::write(&file, lines).map_err(Error::file("write", &file))?;
    let feed = |to: &mut dyn Write| parents.iter().try_for_each(|id| writeln!(to, "{id}"));
    let walked = strict(quarantine)
        .with_env(CUT_FILE, file)
        .feed(&["rev-list", "--objects", "--quiet", "--stdin"], feed);
    match walked {
        Ok(_) => {
            quarantine.set_cut(&left)?;
            Ok(candidates)
        }
        // Something is missing: it stays cut.
        Err(GitError::Failed { .. }) => Ok(none),
        Err(source) => Err(Error::Git { what: WHAT, source }),
    }
}

/// Those of `cut` whose parents are there, and these.
fn with_parents(
    quarantine: &Store,
    cut: &BTreeSet<String>,
) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    if cut.is_empty() {
        return Ok((BTreeSet::new(), BTreeSet::new()));
    }
    let feed = |to: &mut dyn Write| cut.iter().try_for_each(|id| writeln!(to, "{id}"));
    let words = [
        "rev-list",
        "--parents",
        "--no-walk=unsorted",
        "--ignore-missing",
        "--stdin",
    ];
    // Cut nowhere, so that parents are told.
    let told = strict(quarantine).with_env(CUT_FILE, "").feed(&words, feed);
    let told = text(&told.map_err(Error::git(WHAT))?);
    let all: Vec<String> = told
        .lines()
        .flat_map(|line| line.split(' ').skip(1))
        .map(str::to_owned)
        .collect();
    let there: BTreeSet<String> = quarantine.has(&all)?.into_iter().collect();
    let (mut candidates, mut parents) = (BTreeSet::new(), BTreeSet::new());
    for line in told.lines() {
        let mut ids = line.split(' ').map(str::to_owned);
        let Some(commit) = ids.next() else {
            continue;
        };
        let own: Vec<String> = ids.collect();
        if own.iter().all(|parent| there.contains(parent)) {
            candidates.insert(commit);
            parents.extend(own);
        }
    }
    Ok((candidates, parents))
}
