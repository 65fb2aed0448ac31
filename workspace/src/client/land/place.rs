//! Where workspaces land.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::client::error::{Error, Result};
use crate::client::lines::{path, text};
use crate::client::repository::LocalRepository;
use crate::client::store::{Store, vm_prefix};
use crate::command::Cancel;
use crate::wire::limits::SHALLOW_MAX;
use crate::wire::{Base, BaseRepository, ObjectFormat, Repository, RepositoryKind};

/// Commits that are told as a base, of one repository.
const BASE_COMMITS_MAX: usize = 5_000;

/// Where workspaces land.
#[derive(Debug, Clone)]
pub struct Place {
    top: PathBuf,
    repository: Option<LocalRepository>,
    store: Store,
    cancel: Cancel,
}

impl Place {
    /// The repository that `path` lies in, or a store for a directory that lies in none (or with `plain` is taken for
    /// none), kept beneath `state`.
    ///
    /// # Errors
    /// If there is no git, or the path cannot be read.
    pub fn find(path: &Path, state: &Path, plain: bool, cancel: &Cancel) -> Result<Self> {
        let found = match plain {
            true => None,
            false => LocalRepository::find(path, cancel)?,
        };
        let top = match &found {
            Some(repository) => repository.top().to_owned(),
            None => std::fs::canonicalize(path).map_err(Error::file("find", path))?,
        };
        let store = match &found {
            Some(repository) => Store::of(repository),
            None => store_for_directory(&top, state, cancel)?,
        };
        Ok(Self {
            top,
            repository: found,
            store,
            cancel: cancel.clone(),
        })
    }

    /// The store of the directory `top`, which has no git, beneath `state`; made if it is missing. Needs no git.
    pub(in crate::client) fn store_of_directory(top: &Path, state: &Path) -> Result<Store> {
        let top = std::fs::canonicalize(top).map_err(Error::file("find", top))?;
        store_for_directory(&top, state, &Cancel::default())
    }

    /// This repository.
    #[must_use]
    pub fn of(repository: LocalRepository) -> Self {
        Self {
            top: repository.top().to_owned(),
            store: Store::of(&repository),
            cancel: repository.git().cancel().clone(),
            repository: Some(repository),
        }
    }

    /// The directory that it is about.
    #[must_use]
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// The repository, where it is one.
    #[must_use]
    pub const fn repository(&self) -> Option<&LocalRepository> {
        self.repository.as_ref()
    }

    /// Where objects and references go.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// What of `prepared`, the base that the daemon keeps, is here, with what exports before have brought: so much need
    /// not come again.
    ///
    /// # Errors
    /// If git cannot be asked.
    pub fn base(&self, vm: &str, prepared: &Base) -> Result<Base> {
        self.base_of(vm, prepared, None)
    }

    /// The same, with a commit of the repository for what of it need not come: all that this does not lead to comes, also
    /// what exports before have brought. Where the VM has not the commit, that ends at those before it that it has.
    ///
    /// # Errors
    /// As [`Place::base`], and if there is no repository, or `since` is none of its commits.
    pub fn base_since(&self, vm: &str, prepared: &Base, since: &str) -> Result<Base> {
        let repository = self.repository.as_ref();
        let repository = repository.ok_or_else(|| Error::NoRepository {
            path: self.top.clone(),
        })?;
        let commit = repository.commit(since)?;
        let commit = commit.ok_or_else(|| Error::Revision {
            name: since.to_owned(),
        })?;
        self.base_of(vm, prepared, Some(&commit))
    }

    fn base_of(&self, vm: &str, prepared: &Base, since: Option<&str>) -> Result<Base> {
        let prefix = vm_prefix(vm)?;
        let mut stores: BTreeMap<Vec<u8>, Vec<Store>> = BTreeMap::new();
        for known in &prepared.repositories {
            let here = match self.at(&known.path) {
                // Nothing of it is counted on: it is told what is wrong when it comes.
                Err(error) if !known.path.is_empty() && !error.is_given_up() => continue,
                here => here?,
            };
            stores.entry(known.path.to_vec()).or_default().extend(here);
        }
        if self.repository.is_some() {
            stores.insert(Vec::new(), vec![self.store.clone()]);
        }
        for (at, own) in self.store.all_inside(vm, &self.cancel) {
            stores.entry(at).or_default().push(own);
        }
        let mut base = Base::default();
        for (at, stores) in stores {
            let known = prepared.repositories.iter().find(|known| known.path == at);
            let is_inside = !at.is_empty();
            let since = since.filter(|_| !is_inside);
            match self.known_of(at, &stores, &prefix, known, since) {
                Err(error) if is_inside && !error.is_given_up() => {}
                known => base.repositories.extend(known?),
            }
        }
        Ok(base)
    }

    /// What is known of the repository that lands in one of `stores`, or `since` of it; none where neither is counted on.
    fn known_of(
        &self,
        at: Vec<u8>,
        stores: &[Store],
        prefix: &str,
        known: Option<&BaseRepository>,
        since: Option<&str>,
    ) -> Result<Option<BaseRepository>> {
        // Of two stores at one path either may be the one that something lands in. What the owner's has both have: the
        // other shares its objects. Of others neither is counted on.
        let counted_on = match stores {
            [only] => only,
            [here, ..] if at.is_empty() && self.repository.is_some() => here,
            _ => return Ok(None),
        };
        let mut known = match since {
            Some(commit) => since_of(counted_on, commit)?,
            None => known_of(at, counted_on, prefix, known)?,
        };
        let mut cut = BTreeSet::new();
        for store in stores {
            cut.extend(store.cut()?);
        }
        match cut.len() > SHALLOW_MAX {
            true => known.commits.clear(),
            false => known.shallow = cut.into_iter().collect(),
        }
        Ok(Some(known))
    }

    /// Digest of the state of the VM's workspace that was exported last; empty for none. What is in that state may be
    /// replaced: it is here.
    ///
    /// # Errors
    /// If git cannot be asked.
    pub fn exported_state(&self, vm: &str) -> Result<Vec<u8>> {
        let name = format!("{}state/landing:state", vm_prefix(vm)?);
        Ok(self.store.blob(&name)?.unwrap_or_default())
    }

    /// The store of the repository that is at the same place here; none if there is none.
    fn at(&self, place: &[u8]) -> Result<Option<Store>> {
        Ok(self.repository_at(place)?.as_ref().map(Store::of))
    }

    /// The repository that is at the same place here; none if there is none.
    pub(in crate::client) fn repository_at(&self, place: &[u8]) -> Result<Option<LocalRepository>> {
        if self.repository.is_none() || place.is_empty() {
            return Ok(self.repository.clone());
        }
        let Some(directory) = beneath(&self.top, place) else {
            return Ok(None);
        };
        if directory.join(".git").symlink_metadata().is_err() {
            return Ok(None);
        }
        LocalRepository::exactly(&directory, &self.cancel)
    }

    /// The store for a repository that comes: the owner's at the same place, if that can take it (its objects are named
    /// alike, no history that is cut would have to be cut there too, and it is none of `taken`, as that of a linked working
    /// tree is), and otherwise one of banger's own. Whether it is one of those comes with it.
    pub(super) fn store_for(
        &self,
        vm: &str,
        message: &Repository,
        taken: &[&Path],
    ) -> Result<(Store, bool)> {
        if message.kind() == RepositoryKind::Plain {
            return Ok((self.store.clone(), self.repository.is_none()));
        }
        let format = match message.object_format() {
            ObjectFormat::Unspecified => ObjectFormat::Sha1,
            format => format,
        };
        let here = self.at(&message.path)?;
        let here = here.filter(|store| store.format() == format);
        if let Some(here) = &here
            && !taken.contains(&here.directory())
            && here.has(&message.shallow)?.len() == message.shallow.len()
        {
            return Ok((here.clone(), false));
        }
        let directory = self.store.inside(vm, &message.path, format);
        let shares = here.as_ref();
        let own = Store::own(&directory, format, &message.path, shares, &self.cancel)?;
        Ok((own, true))
    }
}

fn known_of(
    at: Vec<u8>,
    store: &Store,
    prefix: &str,
    known: Option<&BaseRepository>,
) -> Result<BaseRepository> {
    let head = known.map(|known| known.head_commit.clone());
    let head = head.unwrap_or_default();
    let mut asked: Vec<String> = known.map(|known| known.commits.clone()).unwrap_or_default();
    asked.push(head.clone());
    for prefix in [prefix, "refs/heads/"] {
        asked.extend(store.refs(prefix)?.into_iter().map(|(_, id)| id));
    }
    asked.retain(|id| !id.is_empty());
    asked.sort_unstable();
    asked.dedup();
    asked.truncate(BASE_COMMITS_MAX);
    let names: Vec<String> = asked.iter().map(|id| format!("{id}^{{commit}}")).collect();
    let mut commits = store.has(&names)?;
    commits.sort_unstable();
    commits.dedup();
    Ok(BaseRepository {
        path: at.into(),
        commits,
        head_commit: head,
        shallow: Vec::new(),
    })
}

/// A commit of the workspace's own repository, and those before it: the VM may have only an earlier one.
fn since_of(store: &Store, commit: &str) -> Result<BaseRepository> {
    let most = format!("--max-count={BASE_COMMITS_MAX}");
    let listed = store.git().run(&["rev-list", &most, commit, "--"]);
    let listed = text(&listed.map_err(Error::git("read the history"))?);
    Ok(BaseRepository {
        commits: listed.lines().map(str::to_owned).collect(),
        head_commit: commit.to_owned(),
        ..BaseRepository::default()
    })
}

/// The directory at a place beneath `top`, if no link is on the way.
fn beneath(top: &Path, place: &[u8]) -> Option<PathBuf> {
    let mut directory = top.to_owned();
    for name in place.split(|&byte| byte == b'/') {
        directory.push(path(name));
        if !directory.symlink_metadata().ok()?.is_dir() {
            return None;
        }
    }
    Some(directory)
}

/// A store of banger's own for a directory without a repository.
fn store_for_directory(top: &Path, state: &Path, cancel: &Cancel) -> Result<Store> {
    let name = top.as_os_str().as_encoded_bytes();
    let digest = Sha256::digest(name);
    let digest: String = digest[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let directory = state.join(format!("{digest}.git"));
    Store::own(&directory, ObjectFormat::Sha1, name, None, cancel)
}
