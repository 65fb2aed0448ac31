//! What is to be done at which paths.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::apply::Both;
use super::disk::{Disk, Here};
use super::{Leaf, Tree, same};
use crate::client::error::{Error, Result};
use crate::client::lines::shown;
use crate::wire::path::is_beneath;

/// A path that changes.
#[derive(Debug)]
pub(super) struct Change {
    /// What is there.
    pub(super) here: Option<Here>,
    /// What comes there.
    pub(super) target: Option<Leaf>,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) changes: BTreeMap<Vec<u8>, Change>,
    /// Paths that are not told of, and are here: nobody knows whether they are to go.
    pub(super) left: BTreeSet<Vec<u8>>,
}

/// What is compared.
#[derive(Debug)]
pub(super) struct Trees<'a> {
    /// What was carried; none where that is not known.
    pub(super) base: Option<&'a Tree>,
    pub(super) target: &'a Tree,
    /// Paths of which the target does not tell, and all beneath them; `.` are all.
    pub(super) untold: &'a [Vec<u8>],
}

/// What becomes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Stay,
    Change,
    Conflict,
}

/// Three states of one path.
pub(super) fn judge(base: Option<&Leaf>, target: Option<&Leaf>, here: Option<&Leaf>) -> Verdict {
    let is_unsure = matches!(base, Some(Leaf::Unsure));
    if same(target, here) || same(base, target) {
        return Verdict::Stay;
    }
    // Whatever was carried: a file that nothing is in the way of takes nothing from anybody.
    if same(base, here) || (is_unsure && here.is_none()) {
        return Verdict::Change;
    }
    // A directory that is empty is no work of anybody's.
    match (base, target) {
        (Some(Leaf::Directory { .. }), None) => Verdict::Stay,
        _ => Verdict::Conflict,
    }
}

impl Trees<'_> {
    pub(super) fn base_of(&self, path: &[u8]) -> Option<&Leaf> {
        self.base.map_or(Some(&Leaf::Unsure), |base| base.get(path))
    }

    fn is_untold(&self, path: &[u8]) -> bool {
        let mut untold = self.untold.iter();
        untold.any(|told| told == b"." || told == path || is_beneath(path, told))
    }

    /// Something of the target lies beneath a path.
    fn is_parent(&self, path: &[u8]) -> bool {
        let beneath = [path, b"/"].concat();
        let mut next = self.target.range(beneath.clone()..);
        next.next()
            .is_some_and(|(path, _)| path.starts_with(&beneath))
    }

    /// Compares, and changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] where something of the owner's is in the way.
    pub(super) fn plan(&self, disk: &Disk, both: Both) -> Result<Plan> {
        let mut plan = Plan::default();
        let mut conflicts = BTreeSet::new();
        let base = self.base.into_iter().flat_map(|base| base.keys());
        let paths: BTreeSet<&Vec<u8>> = base.chain(self.target.keys()).collect();
        for path in paths {
            let (base, target) = (self.base_of(path), self.target.get(path));
            let here = disk.look(path)?;
            if target.is_none() && self.is_untold(path) {
                if here.is_some() {
                    plan.left.insert(path.clone());
                }
                continue;
            }
            let is_directory = here.as_ref().is_some_and(|here| here.leaf.is_directory());
            // It is no leaf any more: the paths beneath it say what becomes of it.
            if target.is_none() && (is_directory || base.is_some_and(Leaf::is_directory)) {
                let goes = base.is_some_and(Leaf::is_directory) && is_directory;
                if goes && !self.is_parent(path) {
                    plan.insert(path, here, None);
                }
                continue;
            }
            match judge(base, target, here.as_ref().map(|here| &here.leaf)) {
                Verdict::Stay => {}
                Verdict::Change => plan.insert(path, here, target),
                // What is beneath a directory is looked at below.
                Verdict::Conflict if is_directory && base.is_none() => {
                    plan.insert(path, here, target);
                }
                Verdict::Conflict => match both {
                    Both::Refused => drop(conflicts.insert(path.clone())),
                    Both::Mine => {}
                    Both::Theirs => plan.insert(path, here, target),
                },
            }
        }
        refuse(
            "files were changed here and in the VM since they were carried there",
            "Say whose they are to be (--mine or --theirs; either way leads back), or make them the same first.",
            &conflicts,
        )?;
        let in_the_way = plan.in_the_way(disk)?;
        match both {
            Both::Mine => {
                for path in in_the_way.values().flatten() {
                    plan.changes.remove(path);
                }
            }
            Both::Refused | Both::Theirs => refuse(
                "files here that the VM does not know are where files of the VM go",
                "Move or remove them, or leave what comes there out with --mine; then apply again.",
                &in_the_way.into_keys().collect(),
            )?,
        }
        Ok(plan)
    }
}

fn refuse(problem: &str, remedy: &str, paths: &BTreeSet<Vec<u8>>) -> Result<()> {
    match paths.is_empty() {
        true => Ok(()),
        false => Err(Error::Refused {
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
            paths: paths.iter().map(|path| shown(path)).collect(),
        }),
    }
}

impl Plan {
    fn insert(&mut self, path: &[u8], here: Option<Here>, target: Option<&Leaf>) {
        let target = target.cloned();
        self.changes.insert(path.to_vec(), Change { here, target });
    }

    /// Whether what is at a path goes away, or becomes a directory.
    fn goes(&self, path: &[u8]) -> bool {
        let change = self.changes.get(path);
        change.is_some_and(|change| change.target.as_ref().is_none_or(Leaf::is_directory))
    }

    /// What stays and is where something comes: on the way to it, or beneath it. With what would come there.
    fn in_the_way(&self, disk: &Disk) -> Result<BTreeMap<Vec<u8>, Vec<Vec<u8>>>> {
        let mut found: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        let seen: RefCell<BTreeMap<Vec<u8>, bool>> = RefCell::default();
        let is_leaf = |path: &[u8]| -> Result<bool> {
            if let Some(&known) = seen.borrow().get(path) {
                return Ok(known);
            }
            let here = disk.look(path)?;
            let is_leaf = here.is_some_and(|here| !here.leaf.is_directory());
            seen.borrow_mut().insert(path.to_vec(), is_leaf);
            Ok(is_leaf)
        };
        let coming = self.changes.iter();
        for (path, change) in coming.filter(|(_, change)| change.target.is_some()) {
            let ends = path.iter().enumerate();
            let ends = ends.filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
            for above in ends.map(|end| &path[..end]) {
                if !self.goes(above) && is_leaf(above)? {
                    found.entry(above.to_vec()).or_default().push(path.clone());
                }
            }
            let is_directory = |leaf: &Leaf| leaf.is_directory();
            let here = change
                .here
                .as_ref()
                .is_some_and(|here| here.leaf.is_directory());
            let stays = change.target.as_ref().is_some_and(is_directory);
            if here && !stays && disk.has_others(path, &|inside| self.goes(inside))? {
                found.entry(path.clone()).or_default().push(path.clone());
            }
        }
        Ok(found)
    }
}
