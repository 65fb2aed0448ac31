//! Sending to the disk early what will be waited for at the end.

use std::fs::File;
use std::num::NonZeroU64;

use rustix::fs::{Advice, fadvise};

/// Bytes after which the kernel is told: what is left to the end is then little.
const STEP_BYTES: u64 = 8 << 20;

/// When what is written is to go to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Meanwhile: somebody waits for the disk at the end.
    Early,
    /// When the kernel thinks it time: nobody waits, and it would take from the processors.
    Late,
}

/// How far a file that is written from its beginning to its end was sent to the disk.
#[derive(Debug)]
pub(crate) struct WriteBack {
    begun: u64,
    flush: Flush,
}

impl WriteBack {
    /// Of a file of which nothing is written.
    pub(crate) const fn new(flush: Flush) -> Self {
        Self { begun: 0, flush }
    }

    /// Lets the kernel begin with what was written, once it is enough; `end` is where writing has come to. It does not
    /// wait (mm/fadvise.c, `DONTNEED`), and pages that are being written stay in memory. Only a hint: an error costs
    /// time alone.
    pub(crate) fn written(&mut self, file: &File, end: u64) {
        let len = end.saturating_sub(self.begun);
        if self.flush == Flush::Early && len >= STEP_BYTES {
            let _ = fadvise(file, self.begun, NonZeroU64::new(len), Advice::DontNeed);
            self.begun = end;
        }
    }
}
