//! Whose turn it is: to bring images in, or to sweep what no image needs.
//!
//! What a pull has brought has no record yet, so that a sweep would take it for a leftover; and an image that a pull
//! finds in place must stay until its record is there. The two therefore exclude each other. Those who bring share
//! their turn and wait for no sweep but the one that goes on; a sweep that finds somebody bringing is put off, and
//! done by the last of them who leaves.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use banger_core::{Digest, Explain as _, FailureKind, ImageId, chain};
use banger_image::Sweep;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedRwLockReadGuard, RwLock};

use super::bring::Worker;
use super::{Images, blocking};
use crate::error::AppError;

/// Who brings images in, and who sweeps.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Held for reading by those who bring, for writing by who sweeps.
    bringing: Arc<RwLock<()>>,
    /// Sweeps come one after the other: whoever has this and finds `bringing` taken knows that one who brings has it,
    /// and that this one has not looked at `owed` yet.
    sweeping: Arc<Mutex<()>>,
    /// Whether there may be something to sweep that nobody swept.
    owed: Arc<AtomicBool>,
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
    /// Waits for a sweep that goes on, and keeps the next one off.
    pub(super) async fn begin_bringing(&self) -> Bringing {
        Bringing {
            turn: Some(self.turns.bringing.clone().read_owned().await),
            worker: self.clone(),
        }
    }

    /// Says that what was brought got no record: the last one who leaves sweeps it.
    pub(super) fn owe_sweep(&self) {
        self.turns.owed.store(true, Ordering::SeqCst);
    }

    /// Does what a sweep left undone. At a shutdown the next start does.
    fn sweep_owed(&self) {
        if !self.turns.owed.load(Ordering::SeqCst) || self.context.shutdown.is_cancelled() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let worker = self.clone();
        let sweep = async move {
            match worker.sweep_files(Sweep::Remove, &HashSet::new()).await {
                Ok(swept) => tracing::debug!(?swept, "swept what was put off"),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "could not sweep what was put off");
                }
            }
        };
        self.context.tasks.spawn_on(sweep, &runtime);
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
        // Only now is it sure that no row is missing.
        let kept = self.context.store.all_images().await?;
        let kept = kept.iter().filter(|image| !without.contains(&image.id));
        let keep: HashSet<Digest> = kept.map(|image| image.digest).collect();
        let (files, owed) = (self.files.clone(), self.turns.owed.clone());
        let pruned = blocking(move || {
            // Whoever gives up waiting for this does not end it.
            let _alone = (sweeping, alone);
            let pruned = files.prune(&keep, sweep)?;
            if sweep == Sweep::Remove {
                owed.store(false, Ordering::SeqCst);
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
