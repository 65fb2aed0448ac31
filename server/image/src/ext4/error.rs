//! What can go wrong while a disk is written.

use std::io;
use std::path::PathBuf;

use banger_core::{Explain, FailureKind};
use tokio_util::sync::CancellationToken;

use crate::flatten::FlattenError;
use banger_core::host_io::{io_kind, io_reason, io_remedy};

/// A disk that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    /// The disk's file could not be created.
    #[error("could not create the disk `{}`", path.display())]
    Create {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk's file could not be written.
    #[error("could not write the disk")]
    Write(#[source] io::Error),
    /// The tree holds what this disk cannot.
    #[error(transparent)]
    Tree(#[from] FlattenError),
    /// An access control list that is not in the kernel's format.
    #[error("entry `{entry}` has a malformed access control list")]
    BadAcl {
        /// Its path.
        entry: String,
    },
    /// The writer refused the tree.
    #[error("could not lay out the disk: {reason}")]
    Layout {
        /// What it said.
        reason: String,
    },
    /// A size no ext4 disk of ours can have.
    #[error(
        "a disk of {size_bytes} bytes cannot be made: from {} to {} bytes, in steps of 4096",
        super::upper::UPPER_BYTES_MIN,
        super::upper::UPPER_BYTES_MAX
    )]
    BadSize {
        /// What was asked for.
        size_bytes: u64,
    },
    /// The caller gave up.
    #[error("the work was cancelled")]
    Cancelled,
}

impl Ext4Error {
    /// [`Self::Cancelled`], once it is.
    pub(super) fn unless(cancel: &CancellationToken) -> Result<(), Self> {
        match cancel.is_cancelled() {
            true => Err(Self::Cancelled),
            false => Ok(()),
        }
    }

    /// From the writer: its I/O errors are the disk's, the rest is about the tree.
    pub(super) fn from_writer(error: mkext4::Error) -> Self {
        match error {
            mkext4::Error::Io(source) => Self::Write(source),
            other => Self::Layout {
                reason: other.to_string(),
            },
        }
    }
}

impl Explain for Ext4Error {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Create { source, .. } | Self::Write(source) => io_kind(source),
            Self::Tree(error) => error.kind(),
            Self::BadAcl { .. } => FailureKind::FailedPrecondition {
                subject: "image/layer".into(),
            },
            Self::Layout { .. } => FailureKind::FailedPrecondition {
                subject: "image".into(),
            },
            Self::BadSize { .. } => FailureKind::InvalidArgument {
                field: "disk_mib".into(),
            },
            Self::Cancelled => FailureKind::Cancelled,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Create { source, .. } => io_reason(source, "DISK_CREATE"),
            Self::Write(source) => io_reason(source, "DISK_WRITE"),
            Self::Tree(error) => error.reason(),
            Self::BadAcl { .. } => "LAYER_BAD_ACL",
            Self::Layout { .. } => "IMAGE_DOES_NOT_FIT_EXT4",
            Self::BadSize { .. } => "DISK_SIZE_INVALID",
            Self::Cancelled => "CANCELLED",
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Create { source, .. } | Self::Write(source) => io_remedy(source),
            Self::Tree(error) => error.remedy(),
            Self::BadAcl { .. } | Self::Layout { .. } => {
                Some("Rebuild the image, or use another one.".into())
            }
            Self::BadSize { .. } => Some("Ask for a disk size within the limits.".into()),
            Self::Cancelled => None,
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Create { path, .. } => vec![("path", path.display().to_string())],
            Self::Tree(error) => error.metadata(),
            Self::BadAcl { entry } => vec![("entry", entry.clone())],
            Self::Layout { reason } => vec![("detail", reason.clone())],
            Self::BadSize { size_bytes } => vec![("size_bytes", size_bytes.to_string())],
            Self::Write(_) | Self::Cancelled => Vec::new(),
        }
    }
}
