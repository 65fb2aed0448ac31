//! Reading one layer: decompressed and indexed by a thread, while its blob comes or from where it is kept.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::sync::mpsc;

use tokio::sync::SemaphorePermit;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::bring::{Bringing, FromRecords, WantedLayer, aborted, joined};
use super::source::Region;
use crate::document::Descriptor;
use crate::layer::{self, BlobReader, Destination, IndexedLayer, LayerError, LayerSource, To};
use crate::watched::Watched;

type Indexing = JoinHandle<Result<IndexedLayer, LayerError>>;

impl Bringing {
    /// Indexes a blob that is in the store, when its layer's turn has come. Some of it is decompressed before that, if there
    /// is memory for it.
    pub(super) async fn index_in_line(
        &self,
        number: usize,
        blob: &File,
        wanted: &WantedLayer,
    ) -> Result<IndexedLayer, StoreError> {
        let ahead = match self.line.is_turn(number) || !layer::is_worth_ahead(blob) {
            true => None,
            false => self.store.inner.ahead.try_acquire().ok(),
        };
        let (indexed, _slot) = if ahead.is_some() {
            let (tell, told) = mpsc::sync_channel(1);
            let mut indexing = self.index_blob(blob, wanted, To::Told(told))?;
            // cancel-safe: who is told nothing more gives up, and is waited for
            let slot = tokio::select! {
                // It cannot end well before it is told.
                ended = &mut indexing => return Err(self.ended(ended.map_err(aborted)?)),
                slot = self.tell(number, wanted, tell) => slot,
            };
            let indexed = joined(indexing).await?;
            (indexed, slot?)
        } else {
            let slot = self.turn(number).await?;
            let to = To::Known(self.destination(number, wanted)?);
            (joined(self.index_blob(blob, wanted, to)?).await?, slot)
        };
        match indexed {
            Ok(indexed) => self.checked(indexed, wanted),
            indexed => Err(self.ended(indexed)),
        }
    }

    /// Why a layer was not indexed.
    fn ended(&self, indexed: Result<IndexedLayer, LayerError>) -> StoreError {
        match indexed {
            // What was given up is not what the reader makes of it.
            _ if self.cancel.is_cancelled() => StoreError::Cancelled,
            Ok(_) => StoreError::Aborted,
            Err(error) => error.into(),
        }
    }

    /// Tells where a layer's files go, when its turn has come.
    async fn tell(
        &self,
        number: usize,
        wanted: &WantedLayer,
        tell: mpsc::SyncSender<Destination>,
    ) -> Result<SemaphorePermit<'_>, StoreError> {
        let slot = self.turn(number).await?;
        let to = self.destination(number, wanted)?;
        // Who is not there has failed, and says why.
        let _ = tell.send(to);
        Ok(slot)
    }

    /// Waits until it is a layer's turn to be decompressed, and for a place among those that are.
    async fn turn(&self, number: usize) -> Result<SemaphorePermit<'_>, StoreError> {
        let waiting = async {
            self.line.turn(number).await;
            let slot = self.store.inner.layer_jobs.acquire().await;
            slot.expect("never closed")
        };
        // cancel-safe: a place in the queue is given up
        tokio::select! {
            () = self.cancel.cancelled() => Err(StoreError::Cancelled),
            slot = waiting => Ok(slot),
        }
    }

    /// Where a layer's files go, as far as that is known.
    pub(super) fn destination(
        &self,
        number: usize,
        wanted: &WantedLayer,
    ) -> Result<Destination, LayerError> {
        let start = match wanted.records {
            FromRecords::Allowed => self.line.start(number),
            // The layers above have theirs already.
            FromRecords::Avoided => None,
        };
        let Some(start) = start else {
            return Ok(Destination::Spool(self.store.inner.layout.tmp().to_owned()));
        };
        let disk = self.line.disk().try_clone();
        let disk = disk.map_err(|source| LayerError::Store {
            digest: wanted.descriptor.digest,
            source,
        })?;
        Ok(Destination::Disk(disk, start, self.source.flush()))
    }

    /// Indexes a blob that is in the store.
    fn index_blob(
        &self,
        blob: &File,
        wanted: &WantedLayer,
        to: To,
    ) -> Result<Indexing, LayerError> {
        let Descriptor { digest, size, .. } = wanted.descriptor;
        let blob = blob.try_clone();
        let blob = blob.map_err(|source| LayerError::Store { digest, source })?;
        let region = Region::new(Arc::new(blob), 0, size);
        let reader = Watched::new(BlobReader(region.reader()), self.cancel.clone());
        let reader = BufReader::with_capacity(layer::READ_BYTES, reader);
        Ok(self.index(reader, wanted, to, self.cancel.clone()))
    }

    /// Indexes a blob, in a thread.
    pub(super) fn index<R: BufRead + Send + 'static>(
        &self,
        reader: R,
        wanted: &WantedLayer,
        to: To,
        cancel: CancellationToken,
    ) -> Indexing {
        let Descriptor { digest, size, .. } = wanted.descriptor;
        let budget = Arc::clone(&self.budget);
        self.store.inner.tracker.spawn_blocking(move || {
            let source = LayerSource {
                reader,
                digest,
                size_bytes: size,
            };
            layer::index_layer(source, to, &budget, &cancel)
        })
    }

    /// Refuses a layer that is not what the image's configuration says.
    pub(super) fn checked(
        &self,
        indexed: IndexedLayer,
        wanted: &WantedLayer,
    ) -> Result<IndexedLayer, StoreError> {
        if indexed.diff_id == wanted.diff_id {
            return Ok(indexed);
        }
        self.budget.refund(indexed.entries.cost());
        let error = LayerError::WrongDiffId {
            digest: wanted.descriptor.digest,
            expected: wanted.diff_id,
            actual: indexed.diff_id,
        };
        Err(error.into())
    }
}
