//! Puts what was checked into the stores: first objects, then the references to them, of all repositories together.
//!
//! The transactions of all stores are prepared, with git holding the locks, before the first is committed: one that cannot
//! be made leaves the others unmade, and they are made again without it if it lies inside. The workspace's own repository
//! is committed last. Whoever is killed between two commits has landed what lies inside and not the workspace itself: each
//! repository is whole, and a repeat makes the rest.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::build::Built;
use super::transaction::{self, Transaction};
use super::{Coming, LandedRepository};
use crate::client::error::{Error, Result};
use crate::client::lines::text;
use crate::client::store::Store;

/// Beneath a VM's prefix: what banger keeps of before.
const KEPT: [&str; 2] = ["earlier/", "before/"];

/// Lets one landing after the other write to a store.
pub(in crate::client) fn lock(store: &Store) -> Result<fs::File> {
    let own = store.own_directory();
    let directory = fs::File::open(&own).map_err(Error::file("lock", &own))?;
    let locked = rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive);
    locked.map_err(|error| Error::file("lock", &own)(error.into()))?;
    Ok(directory)
}

/// Puts all of it into the stores, the workspace's own repository last: it is the one that is looked at. In `vacated`
/// nothing of the VM's is any more. Where one cannot take it, nothing leads to anything of it in any, and the error comes
/// with that one's number.
pub(super) fn publish(
    all: &[Coming],
    built: Vec<Built>,
    vacated: Option<&Store>,
    prefix: &str,
) -> std::result::Result<Vec<LandedRepository>, (usize, Error)> {
    let moved = all.iter().zip(&built).enumerate();
    let mut moved = moved
        .map(|(number, (coming, built))| move_all(coming, built).map_err(|error| (number, error)));
    let changed = moved
        .try_for_each(|moved| moved)
        .and_then(|()| change_refs(all, &built, vacated, prefix));
    all.iter().for_each(unkeep);
    let mut landed = Vec::new();
    for ((coming, built), kept) in all.iter().zip(built).zip(changed?) {
        let named = |(name, id): (String, String)| (format!("{prefix}{name}"), id);
        landed.push(LandedRepository {
            path: coming.message.path.to_vec(),
            store: coming.store.directory().to_owned(),
            is_own_store: coming.is_own_store,
            head_ref: coming.message.head_ref.to_vec(),
            head: coming.message.head_commit.clone(),
            refs: built.refs.into_iter().map(named).collect(),
            kept,
            new_commits: built.new_commits,
            staged: built.staged,
            changed: built.changed,
            untracked: built.untracked,
            conflicted: built.conflicted,
            unfinished: coming.message.unfinished.clone(),
        });
    }
    Ok(landed)
}

/// Moves what came for a repository into its store.
fn move_all(coming: &Coming, built: &Built) -> Result<()> {
    move_objects(&coming.quarantine, &coming.store)?;
    match coming.is_own_store {
        true => cut_history(&coming.store, &coming.message.shallow, &built.deepened),
        false => Ok(()),
    }
}

/// Changes the references of all, and returns the names beneath which earlier values are kept, for each.
fn change_refs(
    all: &[Coming],
    built: &[Built],
    vacated: Option<&Store>,
    prefix: &str,
) -> std::result::Result<Vec<Vec<String>>, (usize, Error)> {
    let mut kept = Vec::new();
    let mut transactions = Vec::new();
    for (number, (coming, built)) in all.iter().zip(built).enumerate() {
        let changes = changes(&coming.store, prefix, &built.refs);
        let (transaction, names) = changes.map_err(|error| (number, error))?;
        transactions.push((&coming.store, transaction));
        kept.push(names);
    }
    if let Some(store) = vacated {
        let changes = changes(store, prefix, &[]).map_err(|error| (all.len(), error))?;
        transactions.push((store, changes.0));
    }
    transaction::run_all(&transactions)?;
    Ok(kept)
}

/// Moves packs and loose objects. git sees a pack when its index is there, so that comes last; a `.keep` holds it until
/// references lead to it.
fn move_objects(from: &Store, to: &Store) -> Result<()> {
    let (from, to) = (
        from.directory().join("objects"),
        to.directory().join("objects"),
    );
    let moved = || Error::file("move objects to", &to);
    let entries = fs::read_dir(&from).map_err(moved())?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == "pack" {
            move_packs(&entry.path(), &to.join("pack")).map_err(moved())?;
        } else if name.len() == 2 {
            let directory = to.join(&*name);
            fs::create_dir_all(&directory).map_err(moved())?;
            let objects = fs::read_dir(entry.path()).map_err(moved())?;
            for object in objects.flatten() {
                let target = directory.join(object.file_name());
                move_file(&object.path(), &target).map_err(moved())?;
            }
        }
    }
    Ok(())
}

/// Tells git where the history that came ends, in a store of banger's own: it would miss what is before. The owner's
/// repositories have all of it. Told before a reference leads there, and one that leads nowhere yet does no harm. At
/// `deepened` it ends no more: what lies behind has come.
fn cut_history(store: &Store, shallow: &[String], deepened: &BTreeSet<String>) -> Result<()> {
    let had = store.cut()?;
    let told = had.iter().chain(shallow);
    let cut = told.filter(|id| !deepened.contains(*id)).cloned().collect();
    match cut == had {
        true => Ok(()),
        false => store.set_cut(&cut),
    }
}

fn move_packs(from: &Path, to: &Path) -> io::Result<()> {
    let mut files: Vec<_> = fs::read_dir(from)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let is_index = |path: &Path| path.extension().is_some_and(|extension| extension == "idx");
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension != "keep")
    });
    files.sort_by_key(|path| is_index(path));
    for file in files {
        let Some(name) = file.file_name() else {
            continue;
        };
        let target = to.join(name);
        if is_index(&file) {
            fs::write(target.with_extension("keep"), "banger\n")?;
        }
        move_file(&file, &target)?;
    }
    Ok(())
}

/// A file of the same name has the same content: its name is a digest.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        return Ok(());
    }
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let temporary = to.with_extension("tmp-banger");
            fs::copy(from, &temporary)?;
            fs::File::open(&temporary)?.sync_all()?;
            fs::rename(temporary, to)
        }
        moved => moved,
    }
}

/// References lead to the packs now, or never will: git may treat them as any others.
fn unkeep(coming: &Coming) {
    let from = coming.quarantine.directory().join("objects/pack");
    let to = coming.store.directory().join("objects/pack");
    let keeps = fs::read_dir(to).into_iter().flatten().flatten();
    let keeps = keeps.filter(|entry| {
        entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "keep")
    });
    for keep in keeps {
        let is_ours = fs::read(keep.path()).is_ok_and(|content| content == b"banger\n");
        if is_ours && from.exists() {
            // One that stays costs room, and nothing else.
            let _ = fs::remove_file(keep.path());
        }
    }
}

/// What makes the references beneath `prefix` those of `refs`. What nothing would lead to any more is kept beneath
/// `earlier/`; those names are returned.
fn changes(
    store: &Store,
    prefix: &str,
    refs: &[(String, String)],
) -> Result<(Transaction, Vec<String>)> {
    let new: BTreeMap<String, &String> = refs
        .iter()
        .map(|(name, id)| (format!("{prefix}{name}"), id))
        .collect();
    let stays = |name: &str| {
        let rest = name.strip_prefix(prefix).unwrap_or(name);
        let is_kept = KEPT.iter().any(|kept| rest.starts_with(kept));
        // What only a log leads to in the VM is told once.
        is_kept || (rest.starts_with("lost/") && !new.contains_key(name))
    };
    let (kept, old): (Vec<_>, Vec<_>) = store
        .refs(prefix)?
        .into_iter()
        .partition(|(name, _)| stays(name));
    let old: BTreeMap<String, String> = old.into_iter().collect();
    let changed = old.iter().filter(|(name, id)| new.get(*name) != Some(id));
    let changed: Vec<(&String, &String)> = changed.collect();
    let news: Vec<&String> = new
        .values()
        .copied()
        .chain(kept.iter().map(|(_, id)| id))
        .collect();
    let lost = unreachable(store, &changed, &news)?;
    let landing = moment(store, prefix)?;
    let earlier = |name: &String| {
        let rest = name.strip_prefix(prefix).unwrap_or(name);
        format!("{prefix}earlier/{landing}/{rest}")
    };
    let mut script = Transaction::default();
    let mut names = Vec::new();
    for (name, id) in changed.iter().filter(|(_, id)| lost.contains(*id)) {
        let kept = earlier(name);
        script.line("create", &kept, &[id]);
        names.push(kept);
    }
    names.sort_unstable();
    let removed = changed.iter().filter(|(name, _)| !new.contains_key(*name));
    let removed: Vec<&(&String, &String)> = removed.collect();
    let in_the_way = removed.iter().any(|(name, _)| {
        new.keys()
            .any(|new| new.starts_with(&format!("{name}/")) || name.starts_with(&format!("{new}/")))
    });
    for (name, id) in &removed {
        script.line("delete", name, &[id]);
    }
    if in_the_way {
        // git cannot, in one transaction, make a directory of a name and remove the name. What goes is kept by then:
        // also, until the new leads there, what the new will lead to.
        let until_then = removed.iter().filter(|(_, id)| !lost.contains(*id));
        let until_then = until_then.map(|(name, id)| (earlier(name), *id));
        let until_then: Vec<(String, &String)> = until_then.collect();
        for (kept, id) in &until_then {
            script.line("create", kept, &[id]);
        }
        script.run(store)?;
        for (kept, id) in &until_then {
            script.line("delete", kept, &[id]);
        }
    }
    for (name, id) in &new {
        match old.get(name) {
            Some(same) if same == *id => {}
            Some(other) => script.line("update", name, &[id, other]),
            None => script.line("create", name, &[id]),
        }
    }
    Ok((script, names))
}

/// The ids among `old` that nothing in `new` leads to.
fn unreachable(
    store: &Store,
    old: &[(&String, &String)],
    new: &[&String],
) -> Result<HashSet<String>> {
    if old.is_empty() {
        return Ok(HashSet::new());
    }
    let feed = |input: &mut dyn Write| -> io::Result<()> {
        let mut input = io::BufWriter::new(input);
        for (_, id) in old {
            writeln!(input, "{id}")?;
        }
        for id in new {
            writeln!(input, "^{id}")?;
        }
        input.flush()
    };
    let words = ["rev-list", "--stdin"];
    let answer = store.git().feed(&words, feed);
    let answer = text(&answer.map_err(Error::git("compare with what was exported before"))?);
    let mut found: HashSet<String> = answer.lines().map(str::to_owned).collect();
    // Tags are no commits, and cost nothing to keep.
    let commits: Vec<String> = old
        .iter()
        .map(|(_, id)| format!("{id}^{{commit}}"))
        .collect();
    let commits: HashSet<String> = store.has(&commits)?.into_iter().collect();
    let others = old.iter().map(|(_, id)| (*id).clone());
    found.extend(others.filter(|id| !commits.contains(id)));
    Ok(found)
}

/// A name for now, in the order of time, that is not there yet.
pub(crate) fn moment(store: &Store, prefix: &str) -> Result<String> {
    let now = jiff::Timestamp::now()
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string();
    let taken: HashSet<String> = KEPT
        .iter()
        .map(|kept| store.refs(&format!("{prefix}{kept}")))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .filter_map(|(name, _)| {
            let rest = name.strip_prefix(prefix)?;
            rest.split('/').nth(1).map(str::to_owned)
        })
        .collect();
    let mut name = now.clone();
    let mut number = 2;
    while taken.contains(&name) {
        name = format!("{now}-{number}");
        number += 1;
    }
    Ok(name)
}
