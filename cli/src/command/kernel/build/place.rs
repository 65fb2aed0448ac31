//! Where builds are kept, and what of one is done.
//!
//! ```text
//! $XDG_CACHE_HOME/banger/kernel/<sources>/
//!   lock                 held by the build at work
//!   <step>.done          what the step was done for; another word makes it be done again
//!   download/ package/   until the sources are unpacked
//!   source/              the kernel's sources
//!   build/               what make makes of them
//!   build.log            what the last make said
//!   vmlinux              the kernel, stripped
//! ```

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::error::BuildError;

/// A build's directory, held by this process.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
    /// Locked as long as this lives.
    _lock: File,
}

/// The directory of all builds.
pub(super) fn cache() -> Result<PathBuf, BuildError> {
    let absolute = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Ok(cache.ok_or(BuildError::NoCache)?.join("banger/kernel"))
}

impl Place {
    /// Takes the directory of the sources called `key` below `cache`.
    pub(super) fn take(cache: &Path, key: &str) -> Result<Self, BuildError> {
        let root = cache.join(key);
        fs::create_dir_all(&root).map_err(BuildError::files("make the directory", &root))?;
        let path = root.join("lock");
        let lock = File::create(&path).map_err(BuildError::files("make", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(BuildError::Busy { path: root }),
            Err(TryLockError::Error(source)) => Err(BuildError::files("lock", &path)(source)),
        }
    }

    /// A file or directory of the build.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Whether `step` was done for `what`.
    pub(super) fn is_done(&self, step: &str, what: &str) -> bool {
        fs::read_to_string(self.stamp(step)).is_ok_and(|done| done == what)
    }

    /// From now on `step` is done for `what`.
    pub(super) fn done(&self, step: &str, what: &str) -> Result<(), BuildError> {
        let (path, part) = (self.stamp(step), self.at("stamp.part"));
        fs::write(&part, what)
            .and_then(|()| fs::rename(&part, &path))
            .map_err(BuildError::files("write", &path))
    }

    /// From now on `step` is not done.
    pub(super) fn undone(&self, step: &str) -> Result<(), BuildError> {
        remove(&self.stamp(step))
    }

    /// An empty directory of the build.
    pub(super) fn fresh(&self, name: &str) -> Result<PathBuf, BuildError> {
        let path = self.at(name);
        remove(&path)?;
        fs::create_dir_all(&path).map_err(BuildError::files("make the directory", &path))?;
        Ok(path)
    }

    fn stamp(&self, step: &str) -> PathBuf {
        self.at(&format!("{step}.done"))
    }
}

/// Removes a file or a directory with all in it; what is not there is no error.
pub(super) fn remove(path: &Path) -> Result<(), BuildError> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(BuildError::files("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_done_for_one_thing_only() {
        let cache = tempfile::tempdir().unwrap();
        let place = Place::take(cache.path(), "linux").unwrap();
        assert!(!place.is_done("unpack", "6.1"));
        place.done("unpack", "6.1").unwrap();
        assert!(place.is_done("unpack", "6.1"));
        assert!(!place.is_done("unpack", "6.2"));
        assert!(!place.is_done("configure", "6.1"));
        place.undone("unpack").unwrap();
        place.undone("unpack").unwrap();
        assert!(!place.is_done("unpack", "6.1"));
    }

    #[test]
    fn a_place_is_taken_by_one_build_at_a_time() {
        let cache = tempfile::tempdir().unwrap();
        let first = Place::take(cache.path(), "linux").unwrap();
        let error = Place::take(cache.path(), "linux").unwrap_err();
        assert_eq!(error.reason(), "BUILD_IN_PROGRESS");
        Place::take(cache.path(), "other").unwrap();
        drop(first);
        Place::take(cache.path(), "linux").unwrap();
    }
}
