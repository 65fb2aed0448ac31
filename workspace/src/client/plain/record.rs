//! What a directory was when it was carried into a VM, as this machine remembers it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Leaf, Tree, decoded, encoded, same, tree_of};
use crate::client::error::{Error, Result};
use crate::client::land::Place;
use crate::client::store::{Store, vm_prefix};
use crate::wire::Entry;

/// Beneath what banger keeps in a store: a file for each VM.
const DIRECTORY: &str = "carried";
const WHAT: &str = "remember what was carried in";

/// What a directory without git was when it was carried into a VM.
#[derive(Debug, Clone)]
pub struct Carried {
    file: PathBuf,
}

impl Carried {
    /// Of the directory `top` into `vm`; stores of directories lie beneath `state`. Needs no git.
    ///
    /// # Errors
    /// If the store cannot be made.
    pub fn of(top: &Path, vm: &str, state: &Path) -> Result<Self> {
        let store = Place::store_of_directory(top, state)?;
        Self::in_store(&store, vm)
    }

    pub(in crate::client) fn in_store(store: &Store, vm: &str) -> Result<Self> {
        // Only what is a name of a VM is one of a file.
        vm_prefix(vm)?;
        Ok(Self {
            file: store.own_directory().join(DIRECTORY).join(vm),
        })
    }

    /// The entries are about to be sent: until [`Carried::sent`] says so, the VM may have what it had or what it gets.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sending(&self, entries: &[Entry]) -> Result<()> {
        let next = tree_of(entries.to_vec());
        match self.read()? {
            Some((_, former)) => self.write(&encoded(&either(&former, &next))),
            None => self.write(&encoded(&next)),
        }
    }

    /// The entries are what the VM has.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sent(&self, entries: &[Entry]) -> Result<()> {
        self.write(&encoded(&tree_of(entries.to_vec())))
    }

    /// The bytes of the record; none where nothing is remembered.
    pub(in crate::client) fn bytes(&self) -> Result<Option<Vec<u8>>> {
        match fs::read(&self.file) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &self.file)(error)),
        }
    }

    /// What is remembered, in both forms.
    pub(super) fn read(&self) -> Result<Option<(Vec<u8>, Tree)>> {
        let bytes = self.bytes()?;
        bytes
            .map(|bytes| decoded(&bytes).map(|tree| (bytes, tree)))
            .transpose()
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<()> {
        let failed = || Error::file(WHAT, &self.file);
        let directory = self.file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(failed())?;
        let next = directory.join(format!(".{}", uuid::Uuid::new_v4()));
        let written = File::create_new(&next).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&next, &self.file)
        });
        written.map_err(|error| {
            // It is of no use to anybody.
            let _ = fs::remove_file(&next);
            failed()(error)
        })
    }
}

/// What holds whichever of two trees it is: where they differ, nothing is sure.
fn either(one: &Tree, other: &Tree) -> Tree {
    let paths = one.keys().chain(other.keys());
    let leaf = |path: &Vec<u8>| match same(one.get(path), other.get(path)) {
        true => one.get(path).cloned(),
        false => Some(Leaf::Unsure),
    };
    paths
        .filter_map(|path| Some((path.clone(), leaf(path)?)))
        .collect()
}
