//! Bringing one layer in: fetched once, verified, kept, decompressed and indexed, all at the same time.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use banger_core::Digest;
use banger_core::operation::{Progress, StageKey};
use bytes::Bytes;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::line::Line;
use super::record::{LayerKey, RecordedLayer};
use super::source::{BlobSource, Region};
use super::{ImageStore, StoreError};
use crate::document::Descriptor;
use crate::ext4::Source;
use crate::layer::{
    self, BlobWriter, ChunkReader, ChunkSender, Gathered, IndexedLayer, Kept, LayerError, Now,
    VerifiedBlob,
};
use crate::registry::BlobStream;
use crate::tar::{Budget, Cost, PackedEntries};

/// A layer ready to go into a disk.
#[derive(Debug)]
pub(super) struct ReadyLayer {
    pub(super) entries: Arc<PackedEntries>,
    /// What they took of the budget.
    pub(super) cost: Cost,
    /// Where its files' bytes are. As it is brought, it is what the entries' places refer to.
    pub(super) source: Source,
    /// The blob on its way to its final name; absent where it had it already.
    pub(super) publishing: Option<JoinHandle<Result<(), StoreError>>>,
}

/// What all layers of one image share.
#[derive(Debug)]
pub(super) struct Bringing {
    pub(super) store: ImageStore,
    pub(super) source: BlobSource,
    pub(super) budget: std::sync::Arc<Budget>,
    pub(super) board: std::sync::Arc<super::flight::Board>,
    pub(super) line: Line,
    pub(super) cancel: CancellationToken,
}

/// A layer as its manifest and configuration name it.
#[derive(Debug, Clone)]
pub(super) struct WantedLayer {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) records: FromRecords,
}

/// Whether a layer may come from the disk of another image that has it. Where it may not, because files that are needed are
/// not there, the layers above have been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FromRecords {
    Allowed,
    Avoided,
}

impl WantedLayer {
    pub(super) const fn key(&self) -> LayerKey {
        LayerKey {
            blob: self.descriptor.digest,
            diff_id: self.diff_id,
        }
    }
}

impl Bringing {
    /// Brings one layer, which is the `number`th from below. When it returns, no thread works for it any more, except on
    /// its publishing.
    pub(super) async fn bring(
        &self,
        number: usize,
        wanted: &WantedLayer,
    ) -> Result<ReadyLayer, StoreError> {
        let Descriptor { digest, size, .. } = wanted.descriptor;
        let key = StageKey::item("fetch", digest.short());
        self.board.start(&key, Some(size));
        let inner = &self.store.inner;
        let waiting = async {
            // Whoever fetches the same blob goes first; then it is there.
            let turn = inner.blobs.lock(digest).await;
            let of_registry = inner.of_registry.acquire(self.source.name()).await;
            let slot = inner.layer_jobs.acquire().await.expect("never closed");
            (turn, (of_registry, slot))
        };
        // cancel-safe: all three give up their place in the queue
        let (turn, slot) = tokio::select! {
            () = self.cancel.cancelled() => return Err(StoreError::Cancelled),
            held = waiting => held,
        };
        let path = inner.layout.blob(digest);
        let unreadable = |source| LayerError::Store { digest, source };
        let (indexed, blob, publishing) = match File::open(&path) {
            Ok(blob) if blob.metadata().is_ok_and(|metadata| metadata.len() == size) => {
                self.board.advance(&key, size);
                if let Some((layer, blocks)) = self.recorded(wanted).await? {
                    self.line.read(number, blocks);
                    self.board.finish(&key);
                    return Ok(layer);
                }
                // Who waits in the line holds nothing that another image's layers may wait for.
                drop((turn, slot));
                let indexed = self.index_in_line(number, &blob, wanted).await?;
                (indexed, blob, None)
            }
            _ if self.line.is_turn(number) => {
                let (indexed, blob) = self.fetch(&key, wanted, Decode::Now { number }).await?;
                let indexed = self.checked(indexed.expect("it was decoded"), wanted)?;
                let file = blob.reopen().map_err(unreadable)?;
                (indexed, file, Some(self.publish(blob, path, turn)))
            }
            _ => {
                let (_, blob) = self.fetch(&key, wanted, Decode::Later).await?;
                let file = blob.reopen().map_err(unreadable)?;
                let publishing = self.publish(blob, path, turn);
                drop(slot);
                match self.index_in_line(number, &file, wanted).await {
                    Ok(indexed) => (indexed, file, Some(publishing)),
                    Err(error) => {
                        // It is whole, whatever is wrong with what is in it.
                        joined(publishing).await??;
                        return Err(error);
                    }
                }
            }
        };
        self.line.read(number, indexed.file_blocks);
        self.board.finish(&key);
        Ok(ReadyLayer {
            cost: indexed.entries.cost(),
            entries: Arc::new(indexed.entries),
            source: match indexed.kept {
                Kept::Disk => Source::Placed,
                Kept::Archive(spool) => Source::Archive(spool),
                Kept::Blob => Source::Archive(blob),
            },
            publishing,
        })
    }

    /// A layer whose blob is in the store, as another image's record has it, and how many blocks its files take.
    async fn recorded(
        &self,
        wanted: &WantedLayer,
    ) -> Result<Option<(ReadyLayer, u64)>, StoreError> {
        if wanted.records == FromRecords::Avoided {
            return Ok(None);
        }
        let (store, key) = (self.store.clone(), wanted.key());
        let find = move || store.inner.records.find(&store.inner.layout, key);
        let found = joined(self.store.inner.tracker.spawn_blocking(find)).await?;
        let Some(RecordedLayer {
            entries,
            cost,
            file_blocks,
            disk,
        }) = found
        else {
            return Ok(None);
        };
        self.budget
            .spend(cost)
            .map_err(|source| LayerError::Archive {
                digest: wanted.descriptor.digest,
                source,
            })?;
        let layer = ReadyLayer {
            entries: Arc::new(entries),
            cost,
            source: Source::Disk(Arc::new(disk)),
            publishing: None,
        };
        Ok(Some((layer, file_blocks)))
    }

    /// Gives the blob its name, beside whatever comes next; the turn ends with it.
    fn publish(
        &self,
        blob: VerifiedBlob,
        path: PathBuf,
        turn: tokio::sync::OwnedMutexGuard<()>,
    ) -> JoinHandle<Result<(), StoreError>> {
        let store = self.store.clone();
        self.store.inner.tracker.spawn_blocking(move || {
            let _turn = turn;
            let named = store.expect(path.clone())?.name(blob.into_file());
            named.map_err(StoreError::io("write", &path))
        })
    }

    /// Fetches a blob. One that a registry's mirror serves wrongly comes from the next place that has it.
    async fn fetch(
        &self,
        key: &StageKey,
        wanted: &WantedLayer,
        decode: Decode,
    ) -> Result<(Option<IndexedLayer>, VerifiedBlob), StoreError> {
        let digest = wanted.descriptor.digest;
        let told = Told {
            board: &self.board,
            key,
            most: AtomicU64::new(0),
        };
        let registry = match &self.source {
            BlobSource::Registry(registry) => registry,
            BlobSource::Files(files) => {
                let found = files.iter().find(|(known, _)| *known == digest);
                let feed = Feed::File(found.map(|(_, region)| region));
                return self.fetch_from(feed, &told, wanted, decode).await;
            }
        };
        let mut stream = registry.blob(digest, wanted.descriptor.size);
        loop {
            let feed = Feed::Served(&mut stream);
            let error = match self.fetch_from(feed, &told, wanted, decode).await {
                Err(StoreError::Layer(error)) if error.is_of_sender() => error,
                fetched => return fetched,
            };
            match registry.blob_elsewhere(&stream, &error) {
                Some(other) => stream = other,
                None => return Err(error.into()),
            }
        }
    }

    /// Fetches a blob from one place, to its consumers.
    async fn fetch_from(
        &self,
        feed: Feed<'_, '_>,
        told: &Told<'_>,
        wanted: &WantedLayer,
        decode: Decode,
    ) -> Result<(Option<IndexedLayer>, VerifiedBlob), StoreError> {
        let Descriptor { digest, size, .. } = wanted.descriptor;
        let (to_writer, from_writer) = layer::channel();
        let given_up = self.cancel.child_token();
        let (to_decoder, decoder) = match decode {
            Decode::Now { number } => {
                let (to_decoder, from_decoder) = layer::channel();
                let to = self.destination(number, wanted)?;
                let decoder = self.index(from_decoder, wanted, to.into(), given_up.clone());
                (Some(to_decoder), Some(decoder))
            }
            Decode::Later => (None, None),
        };
        let writer = self.write(from_writer, digest, size);
        let mut taps = Taps {
            writer: Some(to_writer),
            decoder: to_decoder,
        };
        let come = AtomicU64::new(0);
        let progress = |bytes: u64| told.come(&come, bytes);
        let fed = match feed {
            Feed::Served(stream) => self.feed_served(stream, size, &mut taps, &progress).await,
            Feed::File(Some(region)) => self.feed_region(region, &mut taps, &progress).await,
            Feed::File(None) => Err(LayerError::TooShort {
                digest,
                expected: size,
                actual: 0,
            }
            .into()),
        };
        drop(taps);
        if fed.is_err() {
            // What does not come needs no memory.
            given_up.cancel();
        }
        // Both are waited for whatever happened, so that nothing of them is left.
        let written = joined(writer).await;
        let indexed = match decoder {
            Some(decoder) => joined(decoder).await.map(Some),
            None => Ok(None),
        };
        // What did not come rightly explains what could not be read.
        match (fed, written?, indexed?.transpose()) {
            (Ok(()), Ok(blob), Ok(indexed)) => Ok((indexed, blob)),
            (fed, written, indexed) => {
                if let Ok(Some(indexed)) = &indexed {
                    self.budget.refund(indexed.entries.cost());
                }
                fed?;
                written?;
                Err(match indexed.err() {
                    // What was given up is not what the reader makes of it.
                    _ if self.cancel.is_cancelled() => StoreError::Cancelled,
                    Some(error) => error.into(),
                    None => StoreError::Aborted,
                })
            }
        }
    }

    async fn feed_served(
        &self,
        stream: &mut BlobStream<'_>,
        size: u64,
        taps: &mut Taps,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StoreError> {
        let mut received = 0;
        let mut gathered = Gathered::default();
        loop {
            // cancel-safe: a cancelled stream is given up
            let chunk = tokio::select! {
                biased; // giving up before more waiting
                () = self.cancel.cancelled() => return Err(StoreError::Cancelled),
                chunk = stream.next_chunk(&*self.board) => chunk?,
            };
            let Some(chunk) = chunk else {
                self.pass(taps, gathered.take()).await?;
                return Ok(());
            };
            received += chunk.len() as u64;
            progress(chunk.len() as u64);
            // One byte too many is enough to know.
            let is_too_long = received > size;
            let now = if is_too_long { Now::Pass } else { Now::Wait };
            let Some(piece) = gathered.add(chunk, now) else {
                continue;
            };
            // A writer that is gone has refused: it says why.
            if !self.pass(taps, piece).await? || is_too_long {
                return Ok(());
            }
        }
    }

    async fn feed_region(
        &self,
        region: &Region,
        taps: &mut Taps,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StoreError> {
        let mut reader = region.reader();
        loop {
            let (back, piece) = joined(self.store.inner.tracker.spawn_blocking(move || {
                let piece = reader.next_piece();
                (reader, piece)
            }))
            .await?;
            reader = back;
            let piece = piece.map_err(|source| StoreError::Io {
                step: "read",
                path: "the archive".into(),
                source,
            })?;
            let Some(piece) = piece else { return Ok(()) };
            progress(piece.len() as u64);
            if !self.pass(taps, piece).await? {
                return Ok(());
            }
        }
    }

    /// Passes a chunk on; false when nobody needs more.
    async fn pass(&self, taps: &mut Taps, chunk: Bytes) -> Result<bool, StoreError> {
        let passing = async {
            if let Some(decoder) = &taps.decoder
                && decoder.send(chunk.clone()).await.is_err()
            {
                // It has failed; but whether the blob is the right one decides what is told.
                taps.decoder = None;
            }
            match &taps.writer {
                Some(writer) => writer.send(chunk).await.is_ok(),
                None => taps.decoder.is_some(),
            }
        };
        // cancel-safe: a chunk may be lost, but then all is given up
        tokio::select! {
            biased; // giving up before more waiting
            () = self.cancel.cancelled() => Err(StoreError::Cancelled),
            wanted = passing => Ok(wanted),
        }
    }

    fn write(
        &self,
        mut chunks: ChunkReader,
        digest: Digest,
        size: u64,
    ) -> JoinHandle<Result<VerifiedBlob, LayerError>> {
        let tmp = self.store.inner.layout.tmp().to_owned();
        let flush = self.source.flush();
        self.store.inner.tracker.spawn_blocking(move || {
            let mut writer = BlobWriter::new(&tmp, digest, size, flush)?;
            while let Some(chunk) = chunks.next_chunk() {
                writer.write(&chunk)?;
            }
            writer.finish()
        })
    }
}

/// Whether a blob is decompressed while it comes.
#[derive(Debug, Clone, Copy)]
enum Decode {
    /// As the `number`th from below.
    Now {
        number: usize,
    },
    Later,
}

/// Where a blob's bytes come from.
enum Feed<'a, 'registry> {
    Served(&'a mut BlobStream<'registry>),
    /// None where the archive does not have it.
    File(Option<&'a Region>),
}

/// What watchers know of a blob's coming: what comes a second time is nothing new.
struct Told<'a> {
    board: &'a super::flight::Board,
    key: &'a StageKey,
    most: AtomicU64,
}

impl Told<'_> {
    /// Counts `bytes` to what has `come` this time.
    fn come(&self, come: &AtomicU64, bytes: u64) {
        let now = come.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let before = self.most.fetch_max(now, Ordering::Relaxed);
        if now > before {
            self.board.advance(self.key, now - before);
        }
    }
}

/// Who gets the chunks.
struct Taps {
    writer: Option<ChunkSender>,
    decoder: Option<ChunkSender>,
}

/// The result of a thread; a panic there is a defect, not ours to repeat.
pub(super) async fn joined<T>(handle: JoinHandle<T>) -> Result<T, StoreError> {
    handle.await.map_err(aborted)
}

/// Tells of the panic of a thread.
pub(super) fn aborted(error: JoinError) -> StoreError {
    tracing::error!(%error, "a thread of the image store ended unexpectedly");
    StoreError::Aborted
}
