//! The image store: blobs by digest, one read-only base disk per image, and the ways images come in.
//!
//! ```text
//! <state dir>/blobs/sha256/<hex>        manifests, configurations and layers as they came
//! <state dir>/rootfs/<hex>-<format>.ext4  base disks, by the digest of the manifest
//! <state dir>/rootfs/<hex>-<format>.layers  where the files of its layers lie on a base disk
//! <state dir>/unsynced/                 marks of files that may not be on the disk yet
//! <state dir>/tmp/                      what has no final name yet
//! ```
//! A file gets its final name by rename, after its content is on the disk or it has a mark; the base disk's comes last,
//! so an image that can be loaded is whole. Whoever opens the state directory sweeps `tmp/`, and what has marks of
//! another boot of the host.
//!
//! ```text
//! pull / register → plan (manifest, configuration) → flight, one per manifest
//!    → layers, some at a time: fetch ∥ verify ∥ decompress ∥ index → tree → base disk → publish
//! ```

mod assemble;
mod bring;
mod built;
mod bundle;
mod convert;
mod error;
mod export;
mod flight;
mod index;
mod keyed;
mod layout;
mod line;
mod plan;
mod prune;
mod pull;
mod record;
mod register;
mod source;
mod unsynced;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use banger_core::Digest;
use banger_core::operation::Progress;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use built::BuiltImage;
pub use error::StoreError;
pub use export::{BundleExport, BundleNames};
use flight::Flights;
use keyed::{KeyedLocks, KeyedSlots};
use layout::Layout;
pub(crate) use layout::{publish, sync_directory};
pub(crate) use plan::Plan;
pub use prune::{ImageFiles, KeptFile, KeptKind, Pruned, Sweep};
use record::Records;
pub use register::{RegisterOptions, RegisterSource};
pub(crate) use source::{BlobSource, Region};
use unsynced::Unsynced;
pub use unsynced::{LossCause, LostImage};

use crate::limits::{
    CONVERSIONS_MAX, EARLY_MAX, LAYER_JOBS_MAX, LAYER_JOBS_OF_REGISTRY_MAX, LAYERS_AHEAD_MAX,
    READING_JOBS_MAX,
};

/// The images of one state directory. Cheap to clone; all clones share their work.
#[derive(Debug, Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    /// Layers being fetched, by the registry they come from.
    of_registry: KeyedSlots<String>,
    /// Layers being fetched, all pulls together.
    layer_jobs: Semaphore,
    /// Layers that are decompressed before it is known where they go. Nobody waits for a place among them.
    ahead: Semaphore,
    /// Archives and bundles being read.
    reading_jobs: Semaphore,
    /// Images of whose disks a part is made while their layers come. Nobody waits for a place among them.
    early: Arc<Semaphore>,
    /// Base disks being written, but for that part.
    conversions: Semaphore,
    /// What layers lie on which base disks.
    records: Records,
    /// One fetch per blob.
    blobs: KeyedLocks<Digest>,
    /// One build per manifest.
    flights: Flights,
    /// What was not waited for.
    unsynced: Unsynced,
    /// Cancelled when what waits should wait no longer.
    hurry: Mutex<CancellationToken>,
    tracker: TaskTracker,
}

impl ImageStore {
    /// Opens the store under `state_dir`, making its directories where they are missing. Sweeps what an
    /// earlier process left in `tmp/`: **only one process may use a state directory**.
    ///
    /// # Errors
    /// When a directory cannot be made, read or swept.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let layout = Layout::open(state_dir)?;
        let unsynced = Unsynced::open(&layout)?;
        Ok(Self {
            inner: Arc::new(Inner {
                layout,
                of_registry: KeyedSlots::new(LAYER_JOBS_OF_REGISTRY_MAX),
                layer_jobs: Semaphore::new(LAYER_JOBS_MAX),
                ahead: Semaphore::new(LAYERS_AHEAD_MAX),
                reading_jobs: Semaphore::new(READING_JOBS_MAX),
                early: Arc::new(Semaphore::new(EARLY_MAX)),
                conversions: Semaphore::new(CONVERSIONS_MAX),
                records: Records::default(),
                blobs: KeyedLocks::default(),
                flights: Flights::default(),
                unsynced,
                hurry: Mutex::default(),
                tracker: TaskTracker::new(),
            }),
        })
    }

    /// Waits for a place among those who read an archive or a bundle.
    async fn reading_place(
        &self,
        cancel: &CancellationToken,
    ) -> Result<SemaphorePermit<'_>, StoreError> {
        // cancel-safe: a place in the queue is given up
        tokio::select! {
            () = cancel.cancelled() => Err(StoreError::Cancelled),
            place = self.inner.reading_jobs.acquire() => Ok(place.expect("never closed")),
        }
    }

    /// Where an image's base disk is, or would be.
    #[must_use]
    pub fn rootfs_path(&self, manifest: Digest) -> PathBuf {
        self.inner.layout.rootfs(manifest)
    }

    /// Where a blob is, or would be.
    pub(crate) fn blob_path(&self, digest: Digest) -> PathBuf {
        self.inner.layout.blob(digest)
    }

    /// For what has no final name yet.
    pub(crate) fn tmp(&self) -> &Path {
        self.inner.layout.tmp()
    }

    /// Builds what `plan` says of files of this host, or joins whoever does. It is on the disk then.
    pub(crate) async fn build_files(
        &self,
        plan: Plan,
        source: BlobSource,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<BuiltImage, StoreError> {
        let (store, digest) = (self.clone(), plan.digest);
        let work = |board, cancel| store.build(plan, source, board, cancel);
        let flights = &self.inner.flights;
        let flight = flights.join(digest, &self.inner.tracker, progress, cancel, work);
        let built = flight.await?;
        // Nobody may have it twice.
        self.sync_image(digest).await?;
        Ok(built)
    }

    /// Waits until no work is going on and all is on the disk. Call it after the last pull was cancelled, at shutdown.
    pub async fn drain(&self) {
        let hurry = std::mem::take(
            &mut *self
                .inner
                .hurry
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        hurry.cancel();
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
        self.inner.tracker.reopen();
    }
}
