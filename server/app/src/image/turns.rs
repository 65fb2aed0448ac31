//! Whose turn it is: to bring images in, or to sweep what no image needs.
//!
//! What a pull has brought has no record yet, so that a sweep would take it for a leftover; and an image that a pull
//! finds in place must stay until its record is there. The two therefore exclude each other. Those who bring share
//! their turn and wait for no sweep but the one that goes on; a sweep that finds somebody bringing is put off, and
//! done by the last of them who leaves. Where there is always somebody, one that was put off for long stands in line:
//! those who come then wait for it, for a while.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use banger_core::{Digest, Explain as _, FailureKind, ImageId, chain};
use banger_image::{StoreError, Sweep};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio_util::sync::CancellationToken;

use super::bring::Worker;
use super::{Images, blocking};
use crate::error::AppError;

/// A sweep that was put off for this long stands in line.
const OVERDUE: Duration = Duration::from_secs(300);
/// The part of the time since it was put off that others wait for it at once, and of which it lets them go on after.
const WAIT_PART: u32 = 4;

/// Who brings images in, and who sweeps.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Held for reading by those who bring, for writing by who sweeps.
    bringing: Arc<RwLock<()>>,
    /// Sweeps come one after the other: whoever has this and finds `bringing` taken knows that one who brings has it,
    /// and that this one has not looked at `owed` yet.
    sweeping: Arc<Mutex<()>>,
    /// A sweep that nobody did.
    owed: Arc<std::sync::Mutex<Option<Owed>>>,
}

/// There may be something to sweep.
#[derive(Debug, Clone, Copy)]
struct Owed {
    since: Instant,
    /// When it may stand in line.
    overdue: Instant,
}

impl Turns {
    fn owed<T>(&self, change: impl FnOnce(&mut Option<Owed>) -> T) -> T {
        change(&mut self.owed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How long what is owed may stand in line now: not at all until it is overdue. Whoever asks stands there, and
    /// nobody else before as long has passed several times.
    fn patience(&self, now: Instant) -> Duration {
        self.owed(|owed| match owed {
            Some(owed) if now >= owed.overdue => {
                let patience = now.duration_since(owed.since) / WAIT_PART;
                owed.overdue = now + patience * WAIT_PART;
                patience
            }
            _ => Duration::ZERO,
        })
    }

    /// The turn of nobody but who sweeps, in line for so long.
    async fn alone(&self, patience: Duration) -> Option<OwnedRwLockWriteGuard<()>> {
        let turn = tokio::time::timeout(patience, self.bringing.clone().write_owned());
        turn.await.ok()
    }
}

/// The turn of one who brings an image in: from before its files are looked for until its record is there.
pub(super) struct Bringing {
    worker: Worker,
    turn: Option<OwnedRwLockReadGuard<()>>,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Base disks and blobs.
    pub(super) files: u64,
    /// Their space.
    pub(super) bytes: u64,
    /// An image is being brought in: nothing was looked at, and the sweep comes when that has ended.
    pub(super) is_deferred: bool,
}

impl Drop for Bringing {
    fn drop(&mut self) {
        drop(self.turn.take());
        self.worker.sweep_owed();
    }
}

impl Worker {
    /// Waits for a sweep that goes on or stands in line, and keeps the next one off.
    pub(super) async fn begin_bringing(
        &self,
        cancel: &CancellationToken,
    ) -> Result<Bringing, AppError> {
        // cancel-safe: a place in line is given up
        tokio::select! {
            () = cancel.cancelled() => Err(StoreError::Cancelled.into()),
            turn = self.turns.bringing.clone().read_owned() => Ok(Bringing {
                turn: Some(turn),
                worker: self.clone(),
            }),
        }
    }

    /// Says that what was brought got no record: the last one who leaves sweeps it.
    pub(super) fn owe_sweep(&self) {
        let since = Instant::now();
        let overdue = since + OVERDUE;
        self.turns.owed(|owed| {
            owed.get_or_insert(Owed { since, overdue });
        });
    }

    /// Does what a sweep left undone. At a shutdown the next start does.
    fn sweep_owed(&self) {
        if self.turns.owed(|owed| owed.is_none()) || self.context.shutdown.is_cancelled() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let worker = self.clone();
        let sweep = async move {
            match worker.sweep_put_off().await {
                Ok(swept) => tracing::debug!(?swept, "swept what was put off"),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "could not sweep what was put off");
                }
            }
        };
        self.context.tasks.spawn_on(sweep, &runtime);
    }

    async fn sweep_put_off(&self) -> Result<Swept, AppError> {
        let patience = self.turns.patience(Instant::now());
        if !patience.is_zero() {
            tracing::info!(
                ?patience,
                "a sweep that was put off for long stands in line"
            );
            // Not in the line of the sweeps meanwhile: those find images coming, as before.
            let alone = self.turns.alone(patience);
            let alone = self.context.shutdown.run_until_cancelled(alone).await;
            if let Some(alone) = alone.flatten() {
                let sweeping = self.turns.sweeping.clone().lock_owned().await;
                let turns = (sweeping, alone);
                return self.prune(turns, Sweep::Remove, &HashSet::new()).await;
            }
        }
        self.sweep_files(Sweep::Remove, &HashSet::new()).await
    }

    /// Removes, or tells of, what no image needs; the images in `without` count as gone. While one is brought in
    /// nothing is touched: what was to be removed is then owed.
    pub(super) async fn sweep_files(
        &self,
        sweep: Sweep,
        without: &HashSet<ImageId>,
    ) -> Result<Swept, AppError> {
        let sweeping = self.turns.sweeping.clone().lock_owned().await;
        if sweep == Sweep::Remove {
            // Before the lock is tried: who holds it looks at this after it has let it go.
            self.owe_sweep();
        }
        let Ok(alone) = self.turns.bringing.clone().try_write_owned() else {
            return Ok(Swept {
                is_deferred: true,
                ..Swept::default()
            });
        };
        self.prune((sweeping, alone), sweep, without).await
    }

    /// Does so in its turn.
    async fn prune(
        &self,
        turns: (OwnedMutexGuard<()>, OwnedRwLockWriteGuard<()>),
        sweep: Sweep,
        without: &HashSet<ImageId>,
    ) -> Result<Swept, AppError> {
        // Only now is it sure that no row is missing.
        let kept = self.context.store.all_images().await?;
        let kept = kept.iter().filter(|image| !without.contains(&image.id));
        let keep: HashSet<Digest> = kept.map(|image| image.digest).collect();
        let (files, owed) = (self.files.clone(), self.turns.owed.clone());
        let pruned = blocking(move || {
            // Whoever gives up waiting for this does not end it.
            let _turns = turns;
            let pruned = files.prune(&keep, sweep)?;
            if sweep == Sweep::Remove {
                *owed.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            Ok(pruned)
        });
        let pruned = pruned.await?;
        Ok(Swept {
            files: pruned.files,
            bytes: pruned.bytes,
            is_deferred: false,
        })
    }

    /// After work that a full disk ended: what had come whole goes too, though the next try would have been spared
    /// it, so that the disk is as it was.
    pub(super) async fn give_back<T>(&self, result: &Result<T, AppError>) {
        let Err(error) = result else { return };
        if !matches!(error.kind(), FailureKind::ResourceExhausted { .. }) {
            return;
        }
        if let Err(error) = self.sweep_files(Sweep::Remove, &HashSet::new()).await {
            tracing::warn!(
                error = chain(&error),
                "could not give back what a full disk cut off"
            );
        }
    }
}

impl Images {
    /// Removes the files that no record owns.
    pub(crate) async fn sweep(&self) -> Result<u64, AppError> {
        let worker = self.worker();
        let swept = worker.sweep_files(Sweep::Remove, &HashSet::new()).await?;
        Ok(swept.files)
    }

    /// How many files no image needs, and their space; none while an image is brought in.
    pub(crate) async fn strays(&self) -> Result<(u64, u64), AppError> {
        let worker = self.worker();
        let told = worker.sweep_files(Sweep::Tell, &HashSet::new()).await?;
        Ok((told.files, told.bytes))
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    fn owed(turns: &Turns, since: Instant) {
        let overdue = since + OVERDUE;
        turns.owed(|owed| *owed = Some(Owed { since, overdue }));
    }

    #[test]
    fn a_sweep_stands_in_line_only_when_it_is_overdue_and_never_most_of_the_time() {
        let (turns, begin) = (Turns::default(), Instant::now());
        assert_eq!(turns.patience(begin), Duration::ZERO);
        owed(&turns, begin);
        let almost = begin + OVERDUE - Duration::from_secs(1);
        assert_eq!(turns.patience(almost), Duration::ZERO);
        let mut now = begin + OVERDUE;
        let mut before = Duration::ZERO;
        for _ in 0..5 {
            let patience = turns.patience(now);
            assert!(patience > before, "it grows");
            assert_eq!(turns.patience(now + patience * 2), Duration::ZERO);
            (before, now) = (patience, now + patience * WAIT_PART);
        }
    }

    #[tokio::test]
    async fn those_who_come_wait_for_a_sweep_that_stands_in_line() {
        let turns = Turns::default();
        let bring = || Box::pin(turns.bringing.clone().read_owned());
        let first = bring().await;
        assert!(turns.alone(Duration::ZERO).await.is_none());
        let mut sweep = Box::pin(turns.alone(Duration::from_secs(600)));
        assert!(poll!(&mut sweep).is_pending());
        let mut second = bring();
        assert!(poll!(&mut second).is_pending());
        drop(first);
        let alone = sweep.await.unwrap();
        assert!(poll!(&mut second).is_pending());
        drop(alone);
        second.await;
    }
}
