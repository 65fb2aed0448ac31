//! Steps kept of earlier builds: the writable disk as it was after a step, named by a digest of all that
//! went into it. Any of them that no running build needs may be removed at any time; a build then runs the step again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use banger_core::{Digest, OperationId};

use super::error::BuildError;
use crate::disk;

/// Steps that are kept.
const STEPS_MAX: usize = 500;
/// Results of whole builds that are kept: a name each.
const RESULTS_MAX: usize = 500;

/// The steps kept in one state directory.
#[derive(Debug, Clone)]
pub(super) struct StepCache {
    steps: PathBuf,
    results: PathBuf,
    tmp: PathBuf,
    /// Space of all steps that are kept, on the host's disk.
    bytes_max: u64,
    held: Arc<HeldSteps>,
}

/// How often each step is held.
#[derive(Debug, Default)]
struct HeldSteps(Mutex<HashMap<PathBuf, usize>>);

/// A step that is not removed while this lives, if it is kept.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    all: Arc<HeldSteps>,
}

/// What is kept, or was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheUsage {
    /// Steps.
    pub steps: u64,
    /// Their space on the host.
    pub bytes: u64,
}

struct Kept {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::Io { step, path, source }
}

impl StepCache {
    /// Opens the cache below `state_dir`; `tmp` is on the same file system and swept at start.
    pub(super) fn open(state_dir: &Path, tmp: PathBuf, bytes_max: u64) -> Result<Self, BuildError> {
        let cache = Self {
            steps: state_dir.join("build/steps"),
            results: state_dir.join("build/results"),
            tmp,
            bytes_max,
            held: Arc::default(),
        };
        for dir in [&cache.steps, &cache.results] {
            fs::create_dir_all(dir).map_err(failed("make the directory", dir))?;
        }
        Ok(cache)
    }

    fn step(&self, key: Digest) -> PathBuf {
        self.steps.join(format!("{}.ext4", key.hex()))
    }

    /// Keeps a step from being removed, whether or not it is there yet.
    pub(super) fn hold(&self, key: Digest) -> Held {
        let path = self.step(key);
        self.held
            .with(|held| *held.entry(path.clone()).or_default() += 1);
        let all = self.held.clone();
        Held { path, all }
    }

    /// Whether a step is kept.
    pub(super) fn has(&self, key: Digest) -> bool {
        self.step(key).is_file()
    }

    /// Makes `to` a disk as it was after a step; false where that is not kept. Blocks.
    pub(super) fn take(&self, key: Digest, to: &Path) -> Result<bool, BuildError> {
        let from = self.step(key);
        let file = match File::open(&from) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed("open", &from)(error)),
        };
        // The time says when it was used last.
        let _ = file.set_modified(SystemTime::now());
        disk::copy(&file, to, &mut |_| Ok(())).map_err(failed("copy to", to))?;
        Ok(true)
    }

    /// Keeps `disk` as it is, which nobody may write to meanwhile. Blocks.
    pub(super) fn keep(&self, key: Digest, disk: &Path) -> Result<(), BuildError> {
        let tmp = self.tmp.join(format!("step-{}.ext4", OperationId::new()));
        let made = || -> io::Result<()> {
            disk::copy(&File::open(disk)?, &tmp, &mut |_| Ok(()))?;
            File::open(&tmp)?.sync_data()?;
            fs::rename(&tmp, self.step(key))
        };
        made()
            .map_err(failed("keep a step in", &self.steps))
            .inspect_err(|_| remove(&tmp))?;
        shrink(&self.steps, STEPS_MAX, self.bytes_max, &self.held).map(drop)
    }

    /// The image that a whole build made.
    pub(super) fn result(&self, key: Digest) -> Option<Digest> {
        let path = self.results.join(key.hex());
        let image = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
        // The time says when it was used last.
        let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(image)
    }

    /// Remembers the image that a whole build made. One that is lost costs a boot.
    pub(super) fn set_result(&self, key: Digest, image: Digest) {
        let _ = fs::write(self.results.join(key.hex()), image.to_string());
        let _ = shrink(&self.results, RESULTS_MAX, u64::MAX, &self.held);
    }

    /// What is kept. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(super) fn usage(&self) -> Result<CacheUsage, BuildError> {
        let kept = kept(&self.steps)?;
        Ok(CacheUsage {
            steps: kept.len() as u64,
            bytes: kept.iter().map(|kept| kept.bytes).sum(),
        })
    }

    /// Removes everything that is kept and that no running build needs. Blocks.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub(super) fn prune(&self) -> Result<CacheUsage, BuildError> {
        for entry in fs::read_dir(&self.results).into_iter().flatten().flatten() {
            remove(&entry.path());
        }
        shrink(&self.steps, 0, 0, &self.held)
    }
}

impl HeldSteps {
    fn with<T>(&self, change: impl FnOnce(&mut HashMap<PathBuf, usize>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Removes a file that nobody holds; false where somebody does.
    fn remove_free(&self, path: &Path) -> io::Result<bool> {
        self.with(|held| {
            if held.contains_key(path) {
                return Ok(false);
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(true),
            }
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.with(|held| {
            if let Some(count) = held.get_mut(&self.path) {
                *count -= 1;
                if *count == 0 {
                    held.remove(&self.path);
                }
            }
        });
    }
}

/// The files of a directory of the cache.
fn kept(dir: &Path) -> Result<Vec<Kept>, BuildError> {
    let unreadable = |error| failed("read the directory", dir)(error);
    let mut kept = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // One that went meanwhile is not there to be counted.
        if let Ok(metadata) = fs::symlink_metadata(&path) {
            kept.push(Kept {
                bytes: metadata.blocks() * 512,
                used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                path,
            });
        }
    }
    Ok(kept)
}

/// Removes what was not used for longest and nobody holds, until the rest is within the bounds.
fn shrink(
    dir: &Path,
    count_max: usize,
    bytes_max: u64,
    held: &HeldSteps,
) -> Result<CacheUsage, BuildError> {
    let mut kept = kept(dir)?;
    kept.sort_by_key(|kept| kept.used);
    let mut bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
    let mut removed = CacheUsage::default();
    let mut count = kept.len();
    for oldest in kept {
        if count <= count_max && bytes <= bytes_max {
            break;
        }
        let is_gone = held.remove_free(&oldest.path);
        if !is_gone.map_err(failed("remove", &oldest.path))? {
            continue;
        }
        count -= 1;
        bytes -= oldest.bytes;
        removed.steps += 1;
        removed.bytes += oldest.bytes;
    }
    Ok(removed)
}

/// Removes a file that is of no use; what stays is swept at the next start.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;
    use std::time::Duration;

    use super::*;

    fn cache(dir: &Path) -> StepCache {
        let tmp = dir.join("tmp");
        fs::create_dir_all(&tmp).unwrap();
        StepCache::open(dir, tmp, 1 << 30).unwrap()
    }

    fn disk(dir: &Path, content: &[u8]) -> PathBuf {
        let path = dir.join("disk");
        let mut file = File::create(&path).unwrap();
        file.write_all(content).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"end", (64 << 20) - 3).unwrap();
        path
    }

    #[test]
    fn a_kept_disk_comes_back_as_it_was_and_sparse() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let disk = disk(dir.path(), b"begin");
        let key = Digest::of(b"key");
        let back = dir.path().join("back");
        assert!(!cache.has(key) && !cache.take(key, &back).unwrap());
        cache.keep(key, &disk).unwrap();
        fs::write(&disk, "changed").unwrap();
        assert!(cache.take(key, &back).unwrap());
        let bytes = fs::read(&back).unwrap();
        assert_eq!(bytes.len(), 64 << 20);
        assert!(bytes.starts_with(b"begin") && bytes.ends_with(b"end"));
        assert!(fs::metadata(&back).unwrap().blocks() * 512 < 1 << 20);
        assert_eq!(cache.usage().unwrap().steps, 1);
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let keys = [b"a", b"b", b"c"].map(|name| Digest::of(name));
        for (age, key) in keys.iter().enumerate() {
            cache.keep(*key, &disk(dir.path(), b"x")).unwrap();
            let used = SystemTime::now() - Duration::from_secs(100 - age as u64);
            File::open(cache.step(*key))
                .unwrap()
                .set_modified(used)
                .unwrap();
        }
        assert!(cache.take(keys[0], &dir.path().join("back")).unwrap());
        let shrunk = shrink(&cache.steps, 2, u64::MAX, &cache.held).unwrap();
        assert_eq!(shrunk.steps, 1);
        assert_eq!(keys.map(|key| cache.has(key)), [true, false, true]);
        cache.set_result(keys[0], keys[1]);
        assert_eq!(cache.result(keys[0]), Some(keys[1]));
        assert_eq!(cache.prune().unwrap().steps, 2);
        assert_eq!(
            (cache.result(keys[0]), cache.usage().unwrap()),
            (None, CacheUsage::default())
        );
    }

    #[test]
    fn what_a_running_build_needs_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = StepCache {
            bytes_max: 0,
            ..cache(dir.path())
        };
        let keys = [b"a", b"b"].map(|name| Digest::of(name));
        let kept = || keys.map(|key| cache.has(key));
        let (held, twice) = (cache.hold(keys[0]), cache.hold(keys[0]));
        for key in keys {
            cache.keep(key, &disk(dir.path(), b"x")).unwrap();
        }
        assert_eq!(kept(), [true, false]);
        drop(twice);
        assert_eq!(cache.prune().unwrap().steps, 0);
        drop(held);
        assert_eq!(cache.prune().unwrap().steps, 1);
        assert_eq!(kept(), [false, false]);
    }

    #[test]
    fn results_are_bounded_and_those_that_were_used_stay() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let key = |number: usize| Digest::of(number.to_string().as_bytes());
        let image = Digest::of(b"image");
        for number in 0..RESULTS_MAX {
            cache.set_result(key(number), image);
            let used = SystemTime::now() - Duration::from_secs((2 * RESULTS_MAX - number) as u64);
            let file = File::open(cache.results.join(key(number).hex())).unwrap();
            file.set_modified(used).unwrap();
        }
        // The oldest is used, so that the second is the one that goes.
        assert_eq!(cache.result(key(0)), Some(image));
        cache.set_result(key(RESULTS_MAX), image);
        let kept = [0, 1, 2, RESULTS_MAX].map(|number| cache.result(key(number)).is_some());
        assert_eq!(kept, [true, false, true, true]);
        assert_eq!(fs::read_dir(&cache.results).unwrap().count(), RESULTS_MAX);
    }
}
