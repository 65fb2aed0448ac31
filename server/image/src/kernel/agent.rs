//! The agent's digest, by which an initramfs is named: computed once per file, not once per boot.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use banger_core::Digest;

use super::KernelError;
use super::store::read_bounded;

/// Bytes of an agent's binary.
const AGENT_BYTES_MAX: u64 = 256 << 20;

/// What the agent's file was when it was read last.
#[derive(Debug, Default)]
pub(super) struct AgentDigest {
    last: Mutex<Option<(Stamp, Digest)>>,
}

/// What changes when a file does: an installation puts another inode in its place, and whoever writes into it
/// moves its change time, which nobody can set.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl AgentDigest {
    /// The digest of the agent at `path`, if that is still the file that was read.
    pub(super) fn known(&self, path: &Path) -> Option<Digest> {
        let stamp = Stamp::of(path)?;
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, digest) = last.as_ref().filter(|(known, _)| *known == stamp)?;
        Some(*digest)
    }

    /// The agent at `path`, and its digest.
    pub(super) fn read(&self, path: &Path) -> Result<(Vec<u8>, Digest), KernelError> {
        let before = Stamp::of(path);
        let bytes = read_bounded(path, AGENT_BYTES_MAX, "the agent")?;
        let digest = Digest::of(&bytes);
        // Only what did not change while it was read.
        let stamp = before.filter(|stamp| Stamp::of(path).as_ref() == Some(stamp));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = stamp.map(|stamp| (stamp, digest));
        Ok((bytes, digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_read_again_only_when_its_file_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent");
        std::fs::write(&path, "one").unwrap();
        let agent = AgentDigest::default();
        assert_eq!(agent.known(&path), None);
        let (bytes, digest) = agent.read(&path).unwrap();
        assert_eq!((bytes, digest), (b"one".to_vec(), Digest::of(b"one")));
        assert_eq!(agent.known(&path), Some(digest));

        std::fs::write(directory.path().join("next"), "two").unwrap();
        std::fs::rename(directory.path().join("next"), &path).unwrap();
        assert_eq!(agent.known(&path), None, "same length, another file");
        agent.read(&path).unwrap();
        std::fs::write(&path, "longer").unwrap();
        assert_eq!(agent.known(&path), None, "same file, another length");
    }
}
