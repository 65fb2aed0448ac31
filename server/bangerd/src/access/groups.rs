//! The groups of this host's users, by the host's name service: which may be a file, or a directory far away that does
//! not answer.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// How long the groups of a user may take to be told.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// For so long they are taken as told: who is taken out of a group loses its role by then.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// The most users whose groups are kept.
const KEPT_MAX: usize = 1024;
/// Threads that may wait for the name service.
const THREADS_MAX: usize = 4;

/// The groups of a user; `None` if they cannot be told now.
type LookUp = dyn Fn(u32) -> Option<Vec<u32>> + Send + Sync;

/// The groups of users.
#[derive(Clone)]
pub(super) struct Groups {
    look_up: Arc<LookUp>,
    threads: Arc<Semaphore>,
    kept: Arc<Mutex<HashMap<u32, Kept>>>,
}

#[derive(Clone)]
struct Kept {
    groups: Arc<[u32]>,
    until: Instant,
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups").finish_non_exhaustive()
    }
}

impl Default for Groups {
    fn default() -> Self {
        Self::by(Arc::new(recorded))
    }
}

impl Groups {
    fn by(look_up: Arc<LookUp>) -> Self {
        Self {
            look_up,
            threads: Arc::new(Semaphore::new(THREADS_MAX)),
            kept: Arc::default(),
        }
    }

    /// The groups of a user; none where the host knows no such user, and `None` if it does not tell in time.
    pub(super) async fn of(&self, uid: u32) -> Option<Arc<[u32]>> {
        if let Some(groups) = self.kept(uid) {
            return Some(groups);
        }
        timeout(TOLD_WITHIN, self.look_up(uid)).await.ok()?
    }

    async fn look_up(&self, uid: u32) -> Option<Arc<[u32]>> {
        let turn = self.threads.clone().acquire_owned().await.ok()?;
        // Whoever was before may have asked for the same.
        if let Some(groups) = self.kept(uid) {
            return Some(groups);
        }
        let groups = self.clone();
        let looking = tokio::task::spawn_blocking(move || {
            // Given back when the name service has answered, though nobody waits any more.
            let _turn = turn;
            let found = (groups.look_up)(uid)?;
            Some(groups.keep(uid, found))
        });
        looking.await.ok()?
    }

    fn kept(&self, uid: u32) -> Option<Arc<[u32]>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.get(&uid)?;
        (found.until > Instant::now()).then(|| found.groups.clone())
    }

    fn keep(&self, uid: u32, groups: Vec<u32>) -> Arc<[u32]> {
        let (groups, now): (Arc<[u32]>, _) = (groups.into(), Instant::now());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, kept| kept.until > now);
        }
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        let until = now + KEPT_FOR;
        let entry = Kept {
            groups: groups.clone(),
            until,
        };
        kept.insert(uid, entry);
        groups
    }
}

/// What the host's records say.
fn recorded(uid: u32) -> Option<Vec<u32>> {
    let user = match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user,
        // By these, too, it is told that there is no such user (getpwuid(3)).
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => {
            return Some(Vec::new());
        }
        Err(error) => {
            tracing::warn!(uid, %error, "the host's name service does not tell a user");
            return None;
        }
    };
    let name = CString::new(user.name).ok()?;
    match nix::unistd::getgrouplist(&name, user.gid) {
        Ok(groups) => Some(groups.into_iter().map(Gid::as_raw).collect()),
        Err(error) => {
            tracing::warn!(uid, %error, "the host's name service does not tell a user's groups");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_told_is_kept_for_a_while() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let groups = Groups::by(Arc::new(move |uid| {
            counted.fetch_add(1, Ordering::SeqCst);
            Some(vec![uid + 1])
        }));
        for _ in 0..3 {
            assert_eq!(&*groups.of(7).await.unwrap(), [8]);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        tokio::time::advance(KEPT_FOR).await;
        groups.of(7).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_service_that_hangs_is_given_up_and_takes_few_threads() {
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let groups = Groups::by(Arc::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = held.lock().unwrap().recv();
            None
        }));
        let all = (0..100).map(|uid| groups.of(uid));
        let late = tokio::time::advance(TOLD_WITHIN + Duration::from_millis(1));
        let (told, ()) = tokio::join!(futures::future::join_all(all), late);
        assert!(told.iter().all(Option::is_none));
        assert!(asked.load(Ordering::SeqCst) <= THREADS_MAX);
        drop(release);
    }

    #[tokio::test]
    async fn what_could_not_be_told_is_asked_again_and_kept_users_are_bounded() {
        let groups = Groups::by(Arc::new(|uid| (uid != 0).then(Vec::new)));
        assert!(groups.of(0).await.is_none());
        for uid in 0..2 * u32::try_from(KEPT_MAX).unwrap() {
            groups.of(uid).await;
        }
        assert!(groups.kept.lock().unwrap().len() <= KEPT_MAX);
    }
}
