//! What every error judges alike: failures of the host's own I/O.

use std::io;

use crate::FailureKind;

/// A full disk is the caller's to solve; everything else on the host is a defect.
#[must_use]
pub fn io_kind(error: &io::Error) -> FailureKind {
    if is_full(error) {
        FailureKind::ResourceExhausted {
            subject: "host/disk".into(),
        }
    } else {
        FailureKind::Internal
    }
}

/// `DISK_FULL`, or what the step calls its own failure.
#[must_use]
pub fn io_reason(error: &io::Error, otherwise: &'static str) -> &'static str {
    if is_full(error) {
        "DISK_FULL"
    } else {
        otherwise
    }
}

/// What helps against a full disk.
#[must_use]
pub fn io_remedy(error: &io::Error) -> Option<String> {
    is_full(error)
        .then(|| "Free space on the file system of the state directory, or remove images with `banger image remove`.".into())
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
