//! Sending to the disk early what will be waited for at the end.

use std::fs::File;
use std::num::NonZeroU64;

use rustix::fs::{Advice, fadvise};

/// Bytes after which the kernel is told: what is left to the end is then little.
const STEP_BYTES: u64 = 8 << 20;

/// How far a file that is written from its beginning to its end was sent to the disk.
#[derive(Debug, Default)]
pub(crate) struct WriteBack {
    begun: u64,
}

impl WriteBack {
    /// Lets the kernel begin with what was written, once it is enough; `end` is where writing has come to. It does not
    /// wait (mm/fadvise.c, `DONTNEED`), and pages that are being written stay in memory. Only a hint: an error costs
    /// time alone.
    pub(crate) fn written(&mut self, file: &File, end: u64) {
        let len = end.saturating_sub(self.begun);
        if len >= STEP_BYTES {
            let _ = fadvise(file, self.begun, NonZeroU64::new(len), Advice::DontNeed);
            self.begun = end;
        }
    }
}
