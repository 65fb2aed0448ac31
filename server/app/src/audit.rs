//! The audit log: records are taken at once and written together, so that no call waits for its own.
//!
//! ```text
//!   calls ──try_send──▶ a bounded queue ──▶ one writer ──a transaction for many──▶ store
//!              └ full: counted, and told by the next record
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use banger_core::audit::{AuditFilter, AuditRecord};
use banger_core::{SignedDuration, Timestamp, chain};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::Context;
use crate::error::AppError;
use crate::page::{self, Paged};

/// Records that wait to be written: some seconds of a busy host, and a few MiB.
const WAITING_MAX: usize = 8192;
/// The most records of one transaction.
const BATCH_MAX: usize = 512;
/// How long the first record of a batch waits for others.
const GATHER: Duration = Duration::from_millis(50);
/// At most between two prunings, of a log that is kept for longer than this.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// And at least, however short that is.
const PRUNE_REST: Duration = Duration::from_millis(100);
/// The log may grow by this part beyond what is kept before it is pruned: ranking all records is not for each new one.
const PRUNE_GROWTH: u32 = 10;
/// Records that a watcher takes from the store at once.
const WATCHED_AT_ONCE: u32 = 100;
/// How long a reader waits for what was queued before it.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// What the writer is sent.
enum Item {
    Record(AuditRecord),
    /// Everything before it is to be written before it is answered.
    Flush(oneshot::Sender<()>),
}

/// The audit log of this daemon.
pub struct Audit {
    context: Arc<Context>,
    queue: mpsc::Sender<Item>,
    lost: AtomicU64,
    /// Changes whenever records were written.
    written: watch::Sender<()>,
    /// Taken by the writer when it starts.
    waiting: Mutex<Option<mpsc::Receiver<Item>>>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

impl Audit {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        Self {
            context: context.clone(),
            queue,
            lost: AtomicU64::new(0),
            written: watch::Sender::new(()),
            waiting: Mutex::new(Some(waiting)),
        }
    }

    /// Takes a record, to be written soon. Never waits: one that does not fit is counted, and the next that is written
    /// tells how many were lost.
    pub fn record(&self, record: AuditRecord) {
        if let Err(refused) = self.queue.try_send(Item::Record(record)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            let is_full = matches!(refused, mpsc::error::TrySendError::Full(_));
            tracing::warn!(is_full, "a record of the audit log is lost");
        }
    }

    /// A page of the records, newest first, those that were taken before this call among them.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn list(
        &self,
        limit: u32,
        before: Option<u64>,
        filter: &AuditFilter,
    ) -> Result<Paged<AuditRecord>, AppError> {
        self.flush().await;
        let store = &self.context.store;
        let found = store.list_audit(limit + 1, before, filter).await?;
        Ok(page::cut(found, limit as usize))
    }

    /// The records from after the one of the sequence `after`, as they are written; without it those that are written
    /// from now on.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn watch(
        self: &Arc<Self>,
        after: Option<u64>,
        filter: AuditFilter,
    ) -> Result<AuditWatch, AppError> {
        // Before the store is looked at, so that nothing is written between.
        let written = self.written.subscribe();
        let after = match after {
            Some(after) => after,
            None => {
                self.flush().await;
                let (store, all) = (&self.context.store, AuditFilter::default());
                let newest = store.list_audit(1, None, &all);
                newest.await?.first().map_or(0, |record| record.sequence)
            }
        };
        Ok(AuditWatch {
            audit: self.clone(),
            written,
            filter,
            after,
            ready: VecDeque::new(),
        })
    }

    async fn flush(&self) {
        let (flushed, told) = oneshot::channel();
        let flushing = async {
            if self.queue.send(Item::Flush(flushed)).await.is_ok() {
                // A writer that is gone has written what it could.
                let _ = told.await;
            }
        };
        if tokio::time::timeout(FLUSH_WITHIN, flushing).await.is_err() {
            tracing::warn!(limit = ?FLUSH_WITHIN, "the audit log is behind");
        }
    }

    /// Writes what is taken until the daemon stops, and then what is left.
    pub(crate) fn keep_written(self: &Arc<Self>) {
        let taken = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waiting) = taken {
            let writer = Writer {
                audit: self.clone(),
                waiting,
                prune_at: Instant::now(),
                grown: 0,
            };
            self.context.tasks.spawn(writer.run());
        }
    }
}

/// Somebody who reads the audit log as it is written. What is not read waits in the store.
#[derive(Debug)]
pub struct AuditWatch {
    audit: Arc<Audit>,
    written: watch::Receiver<()>,
    filter: AuditFilter,
    after: u64,
    ready: VecDeque<AuditRecord>,
}

impl AuditWatch {
    /// The sequence of the last record that was told, or after which the watch began.
    #[must_use]
    pub const fn after(&self) -> u64 {
        self.after
    }

    /// The next record. Cancel-safe: none is lost when the wait is given up.
    ///
    /// # Errors
    /// If the store cannot be read, or the daemon ends.
    pub async fn next(&mut self) -> Result<AuditRecord, AppError> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                self.after = record.sequence;
                return Ok(record);
            }
            self.written.mark_unchanged();
            let store = &self.audit.context.store;
            let found = store.list_audit_after(WATCHED_AT_ONCE, self.after, &self.filter);
            self.ready.extend(found.await?);
            if self.ready.is_empty() {
                // The sender is of the log that is held here.
                let _ = self.written.changed().await;
            }
        }
    }
}

struct Writer {
    audit: Arc<Audit>,
    waiting: mpsc::Receiver<Item>,
    prune_at: Instant,
    /// Records that were written since the last pruning.
    grown: u64,
}

impl Writer {
    async fn run(mut self) {
        let shutdown = self.audit.context.shutdown.clone();
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                biased; // the end must come though calls go on
                // cancel-safe: holds no state
                () = shutdown.cancelled() => break,
                // cancel-safe: takes nothing when dropped
                _ = self.waiting.recv_many(&mut batch, 1) => {}
                // cancel-safe: holds no state. Records get old though no call comes.
                () = tokio::time::sleep_until(self.prune_at) => {
                    self.prune().await;
                    continue;
                }
            }
            // Where more than a batch waits, waiting longer would only lose what does not fit.
            let is_full = self.waiting.len() >= BATCH_MAX;
            if !is_full && !matches!(batch.first(), Some(Item::Flush(_))) {
                tokio::time::sleep(GATHER).await;
            }
            self.write(&mut batch).await;
            let growth_max = self.audit.context.config.audit_records_max / PRUNE_GROWTH;
            if self.grown > growth_max.into() || Instant::now() >= self.prune_at {
                self.prune().await;
            }
        }
        self.waiting.close();
        while !self.waiting.is_empty() {
            self.write(&mut batch).await;
        }
    }

    /// Writes what was taken and what waits, up to a batch.
    async fn write(&mut self, batch: &mut Vec<Item>) {
        while batch.len() < BATCH_MAX
            && let Ok(item) = self.waiting.try_recv()
        {
            batch.push(item);
        }
        let (mut records, mut flushes) = (Vec::with_capacity(batch.len()), Vec::new());
        for item in batch.drain(..) {
            match item {
                Item::Record(record) => records.push(record),
                Item::Flush(flush) => flushes.push(flush),
            }
        }
        if let Some(first) = records.first_mut() {
            first.lost = self.audit.lost.swap(0, Ordering::Relaxed);
            let count = records.len() as u64;
            let inserted = self.audit.context.store.insert_audit(&records).await;
            if let Err(error) = inserted {
                let lost = records[0].lost + count;
                self.audit.lost.fetch_add(lost, Ordering::Relaxed);
                tracing::error!(
                    count,
                    error = chain(&error),
                    "records of the audit log are lost"
                );
            } else {
                self.grown += count;
                self.audit.written.send_replace(());
            }
        }
        for flush in flushes {
            // Who waited may have gone.
            let _ = flush.send(());
        }
    }

    async fn prune(&mut self) {
        let config = &self.audit.context.config;
        self.prune_at = Instant::now() + config.audit_retention.clamp(PRUNE_REST, PRUNE_EVERY);
        self.grown = 0;
        let retention =
            SignedDuration::try_from(config.audit_retention).unwrap_or(SignedDuration::MAX);
        let before = Timestamp::now()
            .checked_sub(retention)
            .unwrap_or(Timestamp::MIN);
        let store = &self.audit.context.store;
        if let Err(error) = store.prune_audit(before, config.audit_records_max).await {
            tracing::warn!(
                error = chain(&error),
                "could not shorten the audit log; trying again"
            );
        }
    }
}
