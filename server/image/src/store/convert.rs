//! Building an image: its layers brought in, made one tree, written as one disk, published.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use banger_core::Digest;
use banger_core::operation::{Progress, StageKey};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bring::{Bringing, ReadyLayer, WantedLayer, joined};
use super::flight::Board;
use super::plan::Plan;
use super::source::BlobSource;
use super::{BuiltImage, ImageStore, StoreError};
use crate::ext4::{self, BaseSpec, Ext4Error};
use crate::flatten::Tree;
use crate::limits::LAYERS_AT_ONCE;
use crate::tar::{Budget, Entry};

/// The stage in which the base disk is written.
const CONVERT: &str = "convert";
/// The stage in which everything reaches the disk under its final name.
const PUBLISH: &str = "publish";

impl ImageStore {
    /// Builds what `plan` says, or finds it built.
    pub(super) async fn build(
        self,
        plan: Plan,
        source: BlobSource,
        board: Arc<Board>,
        cancel: CancellationToken,
    ) -> Result<BuiltImage, StoreError> {
        if let Ok(image) = self.load(plan.digest) {
            return Ok(image);
        }
        let mut publishing = Vec::new();
        let result = self
            .build_anew(&plan, source, &board, &cancel, &mut publishing)
            .await;
        // Blobs that came whole are kept even if the image failed: the next try is spared them. They are
        // waited for, so that nothing is left under a temporary name.
        let mut published = Ok(());
        for handle in publishing {
            published = published.and(joined(handle).await.and_then(|result| result));
        }
        let disk = result?;
        published?;
        let key = StageKey::new(PUBLISH);
        board.start(&key, None);
        let image = self.publish_image(plan, disk).await?;
        board.finish(&key);
        Ok(image)
    }

    async fn build_anew(
        &self,
        plan: &Plan,
        source: BlobSource,
        board: &Arc<Board>,
        cancel: &CancellationToken,
        publishing: &mut Vec<JoinHandle<Result<(), StoreError>>>,
    ) -> Result<NamedTempFile, StoreError> {
        let bringing = Bringing {
            store: self.clone(),
            source,
            budget: Arc::new(Budget::default()),
            board: Arc::clone(board),
            cancel: cancel.child_token(),
        };
        let diff_ids = plan.config.diff_ids.iter();
        let wanted = plan.manifest.layers.iter().zip(diff_ids);
        let wanted = wanted.map(|(descriptor, diff_id)| WantedLayer {
            descriptor: descriptor.clone(),
            diff_id: *diff_id,
        });
        let layers = bring_all(&bringing, wanted.collect(), publishing).await?;
        let uuid = disk_uuid(&plan.config.diff_ids);
        self.convert(layers, uuid, board, cancel).await
    }

    /// Writes the base disk, under a temporary name.
    async fn convert(
        &self,
        layers: Vec<(Vec<Entry>, File)>,
        uuid: [u8; 16],
        board: &Arc<Board>,
        cancel: &CancellationToken,
    ) -> Result<NamedTempFile, StoreError> {
        // cancel-safe: a place in the queue is given up
        let _permit = tokio::select! {
            () = cancel.cancelled() => return Err(StoreError::Cancelled),
            permit = self.inner.conversions.acquire() => permit.expect("never closed"),
        };
        let (tmp, board, cancel) = (
            self.inner.layout.tmp().to_owned(),
            Arc::clone(board),
            cancel.clone(),
        );
        let disk = joined(
            self.inner
                .tracker
                .spawn_blocking(move || write_disk(layers, uuid, &tmp, &board, &cancel)),
        )
        .await?;
        disk.map_err(|error| match error {
            Ext4Error::Cancelled => StoreError::Cancelled,
            error => error.into(),
        })
    }

    /// Gives everything its final name, the disk last.
    async fn publish_image(
        &self,
        plan: Plan,
        disk: NamedTempFile,
    ) -> Result<BuiltImage, StoreError> {
        let store = self.clone();
        joined(self.inner.tracker.spawn_blocking(move || {
            let layout = &store.inner.layout;
            layout.keep_blob(plan.manifest.config.digest, &plan.config_bytes)?;
            layout.keep_blob(plan.digest, &plan.manifest_bytes)?;
            let path = layout.rootfs(plan.digest);
            super::publish(disk, &path).map_err(StoreError::io("write", &path))?;
            store.describe(plan.digest, &plan.manifest, plan.config)
        }))
        .await?
    }
}

/// Brings all layers, some at a time; returns them lowest first. After the first failure the others are
/// stopped, and waited for.
async fn bring_all(
    bringing: &Bringing,
    wanted: Vec<WantedLayer>,
    publishing: &mut Vec<JoinHandle<Result<(), StoreError>>>,
) -> Result<Vec<(Vec<Entry>, File)>, StoreError> {
    let mut ready: Vec<Option<(Vec<Entry>, File)>> = wanted.iter().map(|_| None).collect();
    let mut failure = None;
    let mut waiting = wanted.into_iter().enumerate();
    let mut running = FuturesUnordered::new();
    let bring =
        async |(number, layer): (usize, WantedLayer)| (number, bringing.bring(&layer).await);
    loop {
        while running.len() < LAYERS_AT_ONCE && failure.is_none() {
            let Some(next) = waiting.next() else { break };
            running.push(bring(next));
        }
        match running.next().await {
            None => break,
            Some((
                number,
                Ok(ReadyLayer {
                    entries,
                    archive,
                    publishing: handle,
                }),
            )) => {
                publishing.extend(handle);
                ready[number] = Some((entries, archive));
            }
            Some((_, Err(error))) => {
                bringing.cancel.cancel();
                failure.get_or_insert(error);
            }
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(ready
            .into_iter()
            .map(|layer| layer.expect("all were brought"))
            .collect()),
    }
}

/// Merges the layers and writes the disk. Blocks.
fn write_disk(
    layers: Vec<(Vec<Entry>, File)>,
    uuid: [u8; 16],
    tmp: &Path,
    board: &Board,
    cancel: &CancellationToken,
) -> Result<NamedTempFile, Ext4Error> {
    let mut tree = Tree::new();
    let mut archives = Vec::with_capacity(layers.len());
    for (entries, archive) in layers {
        tree.apply(entries)?;
        archives.push(archive);
    }
    let key = StageKey::new(CONVERT);
    board.start(&key, Some(ext4::content_bytes(&tree)));
    let file =
        NamedTempFile::with_prefix_in("rootfs-", tmp).map_err(|source| Ext4Error::Create {
            path: tmp.to_owned(),
            source,
        })?;
    let spec = BaseSpec {
        tree,
        archives: &archives,
        uuid,
    };
    ext4::write_base(spec, file.as_file(), cancel, &|bytes| {
        board.advance(&key, bytes);
    })?;
    board.finish(&key);
    Ok(file)
}

/// The file system's id: of its content, so that the same layers make the same disk.
fn disk_uuid(diff_ids: &[Digest]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for diff_id in diff_ids {
        hasher.update(diff_id.hex());
    }
    ext4::base_uuid(Digest::from_sha256(hasher.finalize().into()))
}
