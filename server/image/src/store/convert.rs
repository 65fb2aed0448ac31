//! Building an image: its layers brought in, made one tree, written as one disk, published.

use std::collections::BTreeSet;
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

use super::assemble::{Assembling, Copies, Merged, merge};
use super::bring::{Bringing, FromRecords, ReadyLayer, WantedLayer, joined};
use super::flight::Board;
use super::line::Line;
use super::plan::Plan;
use super::record::{self, LayerKey, Unsealed, Waiting};
use super::source::BlobSource;
use super::unsynced::ExpectedFile;
use super::{BuiltImage, ImageStore, StoreError};
use crate::ext4::{self, BaseSpec, Ext4Error, Hidden};
use crate::flatten::{Node, Tree};
use crate::tar::Budget;
use crate::writeback::Flush;

/// The stage in which the base disk is written.
const CONVERT: &str = "convert";

/// What is on its way to its final name.
type Publishing = Vec<JoinHandle<Result<(), StoreError>>>;

/// A base disk under a temporary name.
#[derive(Debug)]
struct NewDisk {
    file: NamedTempFile,
    /// Where its layers' files lie on it; absent where that would take too much.
    record: Option<NamedTempFile>,
    layers: Vec<LayerKey>,
}

/// What a disk is made of.
#[derive(Debug)]
struct Work {
    keys: Vec<LayerKey>,
    layers: Vec<ReadyLayer>,
    /// The layers' tree, where it was made while they came.
    merged: Option<Merged>,
    uuid: [u8; 16],
    flush: Flush,
    /// It may have the bytes of layers' files.
    file: NamedTempFile,
}

/// A disk to which files may still be on their way.
#[derive(Debug)]
struct Written {
    file: NamedTempFile,
    hidden: Hidden,
    record: Option<Unsealed>,
    layers: Vec<LayerKey>,
}

/// What became of a conversion.
enum Converted<D> {
    Disk(D),
    /// Of these layers files are needed that their records do not have.
    Lost(Vec<ReadyLayer>, BTreeSet<u32>, NamedTempFile),
}

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
        let built = self.build_new(plan, source, &board, &cancel).await;
        // Blobs that came whole too, if the image failed.
        self.sync_soon();
        built
    }

    async fn build_new(
        &self,
        plan: Plan,
        source: BlobSource,
        board: &Arc<Board>,
        cancel: &CancellationToken,
    ) -> Result<BuiltImage, StoreError> {
        // Beside the layers: each takes the host's disk some milliseconds.
        let mut publishing = vec![self.keep_documents(&plan)];
        let (store, path) = (self.clone(), self.inner.layout.rootfs(plan.digest));
        let expecting = self
            .inner
            .tracker
            .spawn_blocking(move || store.expect(path));
        let result = self
            .build_anew(&plan, source, board, cancel, &mut publishing)
            .await;
        // Blobs that came whole are kept even if the image failed: the next try is spared them. They are
        // waited for, so that nothing is left under a temporary name.
        let mut published = joined(expecting).await.and_then(|expected| expected);
        for handle in publishing {
            let also = joined(handle).await.and_then(|result| result);
            published = published.and_then(|expected| also.map(|()| expected));
        }
        let disk = result?;
        let expected = published?;
        let key = StageKey::new(PUBLISH);
        board.start(&key, None);
        let image = self.publish_image(plan, disk, expected).await?;
        board.finish(&key);
        Ok(image)
    }

    async fn build_anew(
        &self,
        plan: &Plan,
        source: BlobSource,
        board: &Arc<Board>,
        cancel: &CancellationToken,
        publishing: &mut Publishing,
    ) -> Result<NewDisk, StoreError> {
        let mut disk = self.new_disk()?;
        let file = disk.as_file().try_clone();
        let file = file.map_err(StoreError::io("open", disk.path()))?;
        let bringing = Bringing {
            store: self.clone(),
            source,
            budget: Arc::new(Budget::default()),
            board: Arc::clone(board),
            line: Line::new(Arc::new(file), plan.manifest.layers.len()),
            cancel: cancel.child_token(),
        };
        let diff_ids = plan.config.diff_ids.iter();
        let wanted = plan.manifest.layers.iter().zip(diff_ids);
        let wanted = wanted.map(|(descriptor, diff_id)| WantedLayer {
            descriptor: descriptor.clone(),
            diff_id: *diff_id,
            records: FromRecords::Allowed,
        });
        let mut wanted: Vec<WantedLayer> = wanted.collect();
        let mut ready: Vec<Option<ReadyLayer>> = wanted.iter().map(|_| None).collect();
        let uuid = disk_uuid(&plan.config.diff_ids);
        // The second time no layer is lost any more: those that were come from their blobs.
        loop {
            let mut assembling = Assembling::new(&bringing);
            let more = (&mut *publishing, &mut assembling);
            let brought = bring_missing(&bringing, &wanted, &mut ready, more).await;
            // Whatever happened, so that nothing of it is left.
            let (merged, mut copies) = assembling.finish().await;
            let converted = match brought.and(merged) {
                Ok(merged) => {
                    let layers = ready
                        .into_iter()
                        .map(|layer| layer.expect("all were brought"));
                    let keys = wanted.iter().map(WantedLayer::key);
                    let (keys, layers) = keys.zip(layers).unzip();
                    let work = Work {
                        keys,
                        layers,
                        merged,
                        uuid,
                        flush: bringing.source.flush(),
                        file: disk,
                    };
                    self.convert(work, &mut copies, &bringing).await
                }
                Err(error) => Err(error),
            };
            if converted.is_err() {
                bringing.cancel.cancel();
            }
            let copied = copies.finish().await;
            let (layers, lost) = match (converted, copied) {
                // What could not be copied gave up the rest, and what that says of it.
                (_, Err(error)) if !matches!(error, StoreError::Cancelled) => return Err(error),
                (converted, copied) => match converted.and_then(|done| copied.map(|()| done))? {
                    Converted::Disk(disk) => return Ok(disk),
                    Converted::Lost(layers, lost, file) => {
                        disk = file;
                        (layers, lost)
                    }
                },
            };
            ready = layers.into_iter().map(Some).collect();
            for number in lost {
                wanted[number as usize].records = FromRecords::Avoided;
                if let Some(layer) = ready[number as usize].take() {
                    bringing.budget.refund(layer.cost);
                }
            }
        }
    }

    /// Writes the base disk, under a temporary name.
    async fn convert(
        &self,
        work: Work,
        copies: &mut Copies,
        bringing: &Bringing,
    ) -> Result<Converted<NewDisk>, StoreError> {
        let (board, cancel) = (&bringing.board, &bringing.cancel);
        // cancel-safe: a place in the queue is given up
        let _permit = tokio::select! {
            () = cancel.cancelled() => return Err(StoreError::Cancelled),
            permit = self.inner.conversions.acquire() => permit.expect("never closed"),
        };
        let key = StageKey::new(CONVERT);
        let tmp = self.inner.layout.tmp().to_owned();
        let tracker = &self.inner.tracker;
        let (watched, given_up) = ((key.clone(), Arc::clone(board)), cancel.clone());
        let write = move || write_disk(work, &tmp, (&watched.0, &watched.1), &given_up);
        let written = match joined(tracker.spawn_blocking(write)).await?? {
            Converted::Disk(written) => written,
            Converted::Lost(layers, lost, file) => return Ok(Converted::Lost(layers, lost, file)),
        };
        copies.finish().await?;
        let given_up = cancel.clone();
        let finish = move || written.finish(&given_up);
        let disk = joined(tracker.spawn_blocking(finish)).await??;
        board.finish(&key);
        Ok(Converted::Disk(disk))
    }

    /// A base disk with nothing on it.
    fn new_disk(&self) -> Result<NamedTempFile, Ext4Error> {
        let tmp = self.inner.layout.tmp();
        NamedTempFile::with_prefix_in("rootfs-", tmp).map_err(|source| Ext4Error::Create {
            path: tmp.to_owned(),
            source,
        })
    }

    /// Keeps the manifest and the configuration.
    fn keep_documents(&self, plan: &Plan) -> JoinHandle<Result<(), StoreError>> {
        let store = self.clone();
        let documents = [
            (plan.manifest.config.digest, plan.config_bytes.clone()),
            (plan.digest, plan.manifest_bytes.clone()),
        ];
        self.inner.tracker.spawn_blocking(move || {
            let layout = &store.inner.layout;
            documents
                .iter()
                .try_for_each(|(digest, bytes)| layout.keep_blob(*digest, bytes))
        })
    }

    /// Gives the disk its final name: all else has its own.
    async fn publish_image(
        &self,
        plan: Plan,
        disk: NewDisk,
        expected: ExpectedFile,
    ) -> Result<BuiltImage, StoreError> {
        let store = self.clone();
        joined(self.inner.tracker.spawn_blocking(move || {
            store.publish_disk(plan.digest, disk, expected)?;
            store.describe(plan.digest, &plan.manifest, plan.config)
        }))
        .await?
    }
}

impl ImageStore {
    /// Gives the disk its name, and before it the record of its layers: alone that says nothing. Blocks.
    fn publish_disk(
        &self,
        manifest: Digest,
        disk: NewDisk,
        expected: ExpectedFile,
    ) -> Result<(), StoreError> {
        let layout = &self.inner.layout;
        let (path, beside) = (layout.rootfs(manifest), layout.record(manifest));
        let named = disk.record.map(|record| record.persist(&beside));
        expected
            .name(disk.file)
            .map_err(StoreError::io("write", &path))?;
        match named.transpose() {
            Ok(Some(_)) => self.inner.records.add(layout, &beside, &disk.layers),
            Ok(None) => {}
            // Without it the layers are read again, that is all.
            Err(error) => tracing::warn!(%error, "an image's layers could not be recorded"),
        }
        Ok(())
    }
}

/// Brings the layers that are not ready, some at a time. After the first failure the others are stopped, and waited
/// for.
async fn bring_missing(
    bringing: &Bringing,
    wanted: &[WantedLayer],
    ready: &mut [Option<ReadyLayer>],
    (publishing, assembling): (&mut Publishing, &mut Assembling<'_>),
) -> Result<(), StoreError> {
    let mut failure = None;
    let missing = |number: &usize| ready[*number].is_none();
    let missing: Vec<usize> = (0..wanted.len()).filter(missing).collect();
    let mut waiting = missing.into_iter();
    let mut running = FuturesUnordered::new();
    let bring = async |number: usize| (number, bringing.bring(number, &wanted[number]).await);
    loop {
        while running.len() < bringing.line.at_once() && failure.is_none() {
            let Some(next) = waiting.next() else { break };
            running.push(bring(next));
        }
        if failure.is_none() {
            assembling.take(wanted, ready);
        }
        match running.next().await {
            None => break,
            Some((number, Ok(mut layer))) => {
                publishing.extend(layer.publishing.take());
                ready[number] = Some(layer);
            }
            Some((_, Err(error))) => {
                bringing.cancel.cancel();
                failure.get_or_insert(error);
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Writes the disk of layers, but for what others bring there. Blocks.
fn write_disk(
    Work {
        keys,
        layers,
        merged,
        uuid,
        flush,
        file,
    }: Work,
    tmp: &Path,
    (key, board): (&StageKey, &Board),
    cancel: &CancellationToken,
) -> Result<Converted<Written>, Ext4Error> {
    let (tree, _place) = match merged {
        Some(Merged { tree, place }) => (tree, Some(place)),
        None => (
            merge(layers.iter().map(|layer| &*layer.entries), cancel)?,
            None,
        ),
    };
    let lost = lost_layers(&tree);
    if !lost.is_empty() {
        return Ok(Converted::Lost(layers, lost, file));
    }
    board.start(key, Some(ext4::content_bytes(&tree)));
    let mut waiting = Waiting::new(tmp).map_err(Ext4Error::Write)?;
    let mut sources = Vec::with_capacity(layers.len());
    for (key, layer) in keys.into_iter().zip(layers) {
        let parked = waiting.push(key, &layer.entries, layer.cost);
        parked.map_err(Ext4Error::Write)?;
        sources.push(layer.source);
    }
    let spec = BaseSpec {
        tree,
        sources: &sources,
        uuid,
        flush,
    };
    let (placed, hidden) = ext4::write_base(spec, file.as_file(), cancel, &|bytes| {
        board.advance(key, bytes);
    })?;
    let record = record::write(&waiting, placed.into_places(), tmp);
    Ok(Converted::Disk(Written {
        file,
        hidden,
        record: record.map_err(Ext4Error::Write)?,
        layers: waiting.keys(),
    }))
}

impl Written {
    /// Makes the disk whole, once all is there. Blocks.
    fn finish(self, cancel: &CancellationToken) -> Result<NewDisk, Ext4Error> {
        let Self {
            file,
            hidden,
            record,
            layers,
        } = self;
        hidden.clear(file.as_file(), cancel)?;
        let record = record.map(|record| record.seal(file.as_file()));
        Ok(NewDisk {
            record: record.transpose().map_err(Ext4Error::Write)?,
            file,
            layers,
        })
    }
}

/// The layers of which files are needed that are nowhere.
fn lost_layers(tree: &Tree) -> BTreeSet<u32> {
    let lost = |node: &Node| match node {
        Node::File { layer, content, .. } if content.is_lost() => Some(*layer),
        _ => None,
    };
    let nodes = tree.visible().map(|(_, inode)| &inode.node);
    nodes.filter_map(lost).collect()
}

/// The file system's id: of its content, so that the same layers make the same disk.
fn disk_uuid(diff_ids: &[Digest]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for diff_id in diff_ids {
        hasher.update(diff_id.hex());
    }
    ext4::base_uuid(Digest::from_sha256(hasher.finalize().into()))
}
