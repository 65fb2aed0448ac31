//! The output of a build while it runs: a bounded log that any number of callers read at their own pace.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use banger_core::OperationId;
use bytes::Bytes;
use tokio::sync::watch;

/// Bytes that are kept for callers who read slowly, or come late.
const KEPT_BYTES: usize = 4 << 20;
/// Records that are kept: many small ones cost more than their bytes.
const KEPT_RECORDS: usize = 64 << 10;

/// Who wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// banger: what it does.
    Banger,
    /// A step's standard output.
    Stdout,
    /// A step's standard error.
    Stderr,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The step as in the operation's stages, e.g. `3/7`; empty between steps.
    pub step: Arc<str>,
    /// Who wrote.
    pub origin: Origin,
    /// What was written; cut anywhere.
    pub data: Bytes,
}

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Record>,
    bytes: usize,
    /// Number of the first kept record.
    first: u64,
    /// Bytes of all records before it.
    dropped: u64,
}

/// The log of one build.
#[derive(Debug)]
pub struct BuildLog {
    kept: Mutex<Kept>,
    /// The number of the next record.
    next: watch::Sender<u64>,
}

/// Where one caller reads.
#[derive(Debug)]
pub struct LogReader {
    log: Arc<BuildLog>,
    next: watch::Receiver<u64>,
    at: u64,
    /// Dropped bytes that this reader knows of.
    known: u64,
}

impl BuildLog {
    fn new() -> Self {
        Self {
            kept: Mutex::default(),
            next: watch::Sender::new(0),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Every section leaves it consistent.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a piece; the oldest ones go where there are too many.
    pub(super) fn write(&self, step: &Arc<str>, origin: Origin, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let mut kept = self.kept();
        kept.bytes += data.len();
        kept.records.push_back(Record {
            step: step.clone(),
            origin,
            data,
        });
        while kept.records.len() > 1
            && (kept.bytes > KEPT_BYTES || kept.records.len() > KEPT_RECORDS)
        {
            let Some(oldest) = kept.records.pop_front() else {
                break;
            };
            kept.bytes -= oldest.data.len();
            kept.dropped += oldest.data.len() as u64;
            kept.first += 1;
        }
        let next = kept.first + kept.records.len() as u64;
        drop(kept);
        self.next.send_replace(next);
    }

    /// Appends a line of banger's own.
    pub(super) fn say(&self, step: &Arc<str>, line: &str) {
        self.write(step, Origin::Banger, Bytes::from(format!("{line}\n")));
    }

    /// Reads from the oldest record that is kept.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> LogReader {
        LogReader {
            log: self.clone(),
            next: self.next.subscribe(),
            at: 0,
            known: 0,
        }
    }
}

impl LogReader {
    /// What can be read now: the next record, and how many bytes before it are lost.
    pub fn try_next(&mut self) -> Option<(Record, u64)> {
        let kept = self.log.kept();
        let at = self.at.max(kept.first);
        let record = kept.records.get(usize::try_from(at - kept.first).ok()?)?;
        let lost = if self.at < kept.first {
            kept.dropped - self.known
        } else {
            0
        };
        self.at = at + 1;
        // Those that this reader has had itself count as known.
        let before: usize = kept
            .records
            .iter()
            .take(usize::try_from(self.at - kept.first).unwrap_or(usize::MAX))
            .map(|record| record.data.len())
            .sum();
        self.known = kept.dropped + before as u64;
        Some((record.clone(), lost))
    }

    /// Waits until there may be more.
    pub async fn changed(&mut self) {
        // The log outlives its readers, so the sender cannot have gone.
        let at = self.at;
        let _ = self.next.wait_for(|next| *next > at).await;
    }
}

/// The logs of the builds that run.
#[derive(Debug, Default)]
pub(super) struct Logs(Mutex<HashMap<OperationId, Weak<BuildLog>>>);

impl Logs {
    /// A log for a build that begins; it is found as long as it lives.
    pub(super) fn open(&self, id: OperationId) -> Arc<BuildLog> {
        let log = Arc::new(BuildLog::new());
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logs.retain(|_, log| log.strong_count() > 0);
        logs.insert(id, Arc::downgrade(&log));
        log
    }

    pub(super) fn find(&self, id: OperationId) -> Option<Arc<BuildLog>> {
        let logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(&id)?.upgrade()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(log: &BuildLog, bytes: usize) {
        log.write(&"1/1".into(), Origin::Stdout, vec![b'x'; bytes].into());
    }

    #[tokio::test]
    async fn a_reader_gets_what_was_before_it_and_what_comes() {
        let log = Arc::new(BuildLog::new());
        log.say(&"".into(), "one");
        let mut reader = log.reader();
        reader.changed().await;
        let (record, lost) = reader.try_next().unwrap();
        assert_eq!((&record.data[..], lost), (&b"one\n"[..], 0));
        assert!(reader.try_next().is_none());
        write(&log, 3);
        reader.changed().await;
        assert_eq!(reader.try_next().unwrap().0.data.len(), 3);
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_lost() {
        let log = Arc::new(BuildLog::new());
        let mut reader = log.reader();
        write(&log, 10);
        assert_eq!(reader.try_next().unwrap().1, 0);
        for _ in 0..6 {
            write(&log, KEPT_BYTES / 4);
        }
        // Four of the six are kept; the first record had been read.
        assert_eq!(reader.try_next().unwrap().1, 2 * (KEPT_BYTES as u64 / 4));
        let rest = std::iter::from_fn(|| reader.try_next());
        assert!(rest.map(|(_, lost)| lost).eq([0, 0, 0]));
    }
}
