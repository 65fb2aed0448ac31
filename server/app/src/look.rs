//! Looks at what files take of the host's disk. One that hangs is told in bounded time, and costs a thread for each file
//! that is looked at, up to a few for all.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

/// How long the host's disk may take to tell what files take of it.
const DISK_WITHIN: Duration = Duration::from_secs(2);
/// Looks at once: on a disk that hangs each holds a thread, of which other work needs some.
const LOOKS_AT_ONCE: usize = 16;
/// `st_blocks` of stat(2) counts these, whatever the file system's own are.
const BLOCK_BYTES: u64 = 512;

/// Held while a file is looked at. Clones are the same.
pub(crate) type DiskLook = Arc<Mutex<()>>;

/// Who looks now.
#[derive(Debug)]
pub(crate) struct Looks(Arc<Semaphore>);

impl Default for Looks {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKS_AT_ONCE)))
    }
}

/// When looks that begin now must have ended.
pub(crate) fn deadline() -> Instant {
    Instant::now() + DISK_WITHIN
}

impl Looks {
    /// What a file takes of the host's disk; 0 where it is not there. On a disk that hangs one look at it waits, and no
    /// second begins.
    ///
    /// # Errors
    /// Of the file, or `TimedOut` where the disk does not answer until `deadline`.
    pub(crate) async fn allocated(
        &self,
        path: PathBuf,
        turn: DiskLook,
        deadline: Instant,
    ) -> io::Result<u64> {
        let places = self.0.clone();
        let looking = async move {
            let turn = turn.lock_owned().await;
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            let look = move || {
                let _held = (turn, place);
                std::fs::metadata(path)
            };
            tokio::task::spawn_blocking(look).await?
        };
        match tokio::time::timeout_at(deadline, looking).await {
            Ok(Ok(file)) => Ok(file.blocks().saturating_mul(BLOCK_BYTES)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_told_and_holds_one_thread() {
        let dir = tempfile::tempdir().unwrap();
        let (path, turn, looks) = (
            dir.path().join("disk"),
            DiskLook::default(),
            Looks::default(),
        );
        // Whoever looks holds the turn, for as long as the disk hangs.
        let hung = turn.clone().lock_owned().await;
        for _ in 0..3 {
            let look = looks.allocated(path.clone(), turn.clone(), soon());
            assert_eq!(look.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        drop(hung);
        let look = looks.allocated(path.clone(), turn.clone(), late());
        assert_eq!(look.await.unwrap(), 0);
        std::fs::write(&path, vec![1; 1 << 16]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        file.sync_all().unwrap();
        assert!(looks.allocated(path, turn, late()).await.unwrap() >= 1 << 16);
    }

    #[tokio::test]
    async fn files_that_hang_take_so_many_threads_together() {
        let dir = tempfile::tempdir().unwrap();
        let looks = Looks::default();
        let hung = looks.0.clone().acquire_many_owned(16).await.unwrap();
        let path = dir.path().join("disk");
        let look = looks.allocated(path.clone(), DiskLook::default(), soon());
        assert_eq!(look.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(hung);
        let look = looks.allocated(path, DiskLook::default(), late());
        assert_eq!(look.await.unwrap(), 0);
    }
}
