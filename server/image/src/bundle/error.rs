//! What can be wrong with a bundle.

use std::io;

use banger_catalog::DocumentProblem;
use banger_core::{Digest, Explain, FailureKind};

use banger_core::host_io::{io_kind, io_reason, io_remedy};

/// A bundle that is refused, or could not be kept or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not zstd, or broken inside.
    #[error("the bundle's compression is damaged")]
    Damaged(#[source] io::Error),
    /// The file or the archive in it ends too early.
    #[error("the bundle is cut short")]
    Truncated,
    /// Decompressing it would take too much memory.
    #[error("the bundle's zstd window is larger than {limit} bytes")]
    Window {
        /// The bound.
        limit: u64,
    },
    /// It grows beyond reason.
    #[error("the bundle holds more data than {limit} times its size: it looks like a bomb")]
    Bomb {
        /// The bound.
        limit: u64,
    },
    /// Something after the end of the archive.
    #[error("the bundle goes on after the end of its archive")]
    Trailing,
    /// A header that is none.
    #[error("the bundle's archive has a header that makes no sense: its {field} is wrong")]
    Header {
        /// Which part of it.
        field: &'static str,
    },
    /// A member that is no regular file.
    #[error("the bundle's member `{member}` is {kind}, and only regular files may be in a bundle")]
    Kind {
        /// Its name, cut.
        member: String,
        /// What it is.
        kind: String,
    },
    /// A member's name that leads out of the bundle.
    #[error("the bundle's member `{member}` has {problem}")]
    Path {
        /// Its name, cut.
        member: String,
        /// `an absolute path`, `a path through ..` or `a name that is not text`.
        problem: &'static str,
    },
    /// A member that does not belong there.
    #[error(
        "the bundle has a member `{member}`, and only manifest.json and rootfs.ext4 may be there"
    )]
    Unexpected {
        /// Its name, cut.
        member: String,
    },
    /// A member that is there twice.
    #[error("the bundle has two members `{member}`")]
    Duplicate {
        /// Its name.
        member: &'static str,
    },
    /// A member that is not there.
    #[error("the bundle has no member `{member}`")]
    Missing {
        /// Its name.
        member: &'static str,
    },
    /// A member over its bound.
    #[error(
        "the bundle's `{member}` has {size_bytes} bytes, more than the {limit} that are allowed"
    )]
    TooLarge {
        /// Its name.
        member: &'static str,
        /// What the archive says.
        size_bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// A manifest that is none.
    #[error("the bundle's manifest.json is not right")]
    Manifest(#[source] DocumentProblem),
    /// The base disk has another length.
    #[error("the bundle's rootfs.ext4 has {actual} bytes, and should have {expected}")]
    RootfsSize {
        /// By manifest or catalog.
        expected: u64,
        /// By the archive.
        actual: u64,
    },
    /// The base disk has another content.
    #[error("the bundle's rootfs.ext4 is {actual}, and its manifest says {expected}")]
    RootfsDigest {
        /// By the manifest.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The base disk is none.
    #[error("the bundle's rootfs.ext4 is not an ext4 file system: its {field} is wrong")]
    NotExt4 {
        /// Which part of the superblock.
        field: &'static str,
    },
    /// The base disk was not unmounted: some of it is in its journal alone.
    #[error("the rootfs.ext4 was not unmounted cleanly: its journal has to be replayed first")]
    JournalFull,
    /// For another machine.
    #[error("the bundle is for {actual}, not for {wanted}")]
    Platform {
        /// What was wanted.
        wanted: String,
        /// What it is for.
        actual: String,
    },
    /// The file has another length.
    #[error("the bundle's file has {actual} bytes, and its catalog says {expected}")]
    FileSize {
        /// By the catalog.
        expected: u64,
        /// What came, as far as it was read.
        actual: u64,
    },
    /// The file has another content.
    #[error("the bundle's file is {actual}, and its catalog says {expected}")]
    FileDigest {
        /// By the catalog.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The manifest says something else than the catalog.
    #[error("the bundle's manifest and its catalog disagree about its {field}")]
    Disagreement {
        /// About what.
        field: &'static str,
    },
    /// The host's own files.
    #[error("could not {step}")]
    Store {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Nobody wants it any more.
    #[error("the reading of the bundle was given up")]
    GivenUp,
    /// A base disk that is not what was written once.
    #[error(
        "the base disk of the image has changed since it was written: it is {actual} instead of {expected}"
    )]
    DiskChanged {
        /// By the image's manifest.
        expected: Digest,
        /// What was read.
        actual: Digest,
    },
}

impl BundleError {
    /// The host's own files, for `map_err`.
    pub(crate) fn store(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Store { step, source }
    }

    /// Whether other bytes than the right ones explain it.
    pub(super) const fn is_of_content(&self) -> bool {
        !matches!(
            self,
            Self::Store { .. } | Self::Bomb { .. } | Self::FileSize { .. } | Self::GivenUp
        )
    }
}

impl Explain for BundleError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Store { source, .. } => io_kind(source),
            Self::GivenUp => FailureKind::Cancelled,
            Self::FileSize { .. }
            | Self::FileDigest { .. }
            | Self::RootfsDigest { .. }
            | Self::DiskChanged { .. }
            | Self::Truncated
            | Self::Damaged(_) => FailureKind::DataLoss {
                resource: "bundle".into(),
                name: String::new(),
            },
            _ => FailureKind::FailedPrecondition {
                subject: "bundle".into(),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Damaged(_) => "BUNDLE_DAMAGED",
            Self::Truncated => "BUNDLE_TRUNCATED",
            Self::Window { .. } => "BUNDLE_WINDOW_TOO_LARGE",
            Self::Bomb { .. } => "BUNDLE_BOMB",
            Self::Trailing => "BUNDLE_TRAILING_DATA",
            Self::Header { .. } => "BUNDLE_HEADER_INVALID",
            Self::Kind { .. } => "BUNDLE_MEMBER_NOT_A_FILE",
            Self::Path { .. } => "BUNDLE_MEMBER_ESCAPES",
            Self::Unexpected { .. } => "BUNDLE_MEMBER_UNEXPECTED",
            Self::Duplicate { .. } => "BUNDLE_MEMBER_TWICE",
            Self::Missing { .. } => "BUNDLE_MEMBER_MISSING",
            Self::TooLarge { .. } => "BUNDLE_MEMBER_TOO_LARGE",
            Self::Manifest(_) => "BUNDLE_MANIFEST_INVALID",
            Self::RootfsSize { .. } => "BUNDLE_ROOTFS_SIZE",
            Self::RootfsDigest { .. } => "BUNDLE_ROOTFS_DIGEST",
            Self::NotExt4 { .. } => "BUNDLE_ROOTFS_NOT_EXT4",
            Self::JournalFull => "BUNDLE_ROOTFS_UNCLEAN",
            Self::Platform { .. } => "BUNDLE_PLATFORM",
            Self::FileSize { .. } => "BUNDLE_FILE_SIZE",
            Self::FileDigest { .. } => "BUNDLE_FILE_DIGEST",
            Self::Disagreement { .. } => "BUNDLE_DISAGREES",
            Self::Store { source, .. } => io_reason(source, "IMAGE_STORE_IO"),
            Self::GivenUp => "CANCELLED",
            Self::DiskChanged { .. } => "IMAGE_DISK_CHANGED",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Store { source, .. } => return io_remedy(source),
            Self::GivenUp => return None,
            Self::Damaged(_)
            | Self::Truncated
            | Self::FileSize { .. }
            | Self::FileDigest { .. } => {
                "Fetch it again; if it repeats, its maker has to publish it again."
            }
            Self::Platform { .. } => "Ask for a bundle of this host's architecture.",
            Self::Disagreement { .. } => {
                "The catalog's maker has to build it again with `banger catalog build`."
            }
            Self::JournalFull => {
                "Unmount the file system it was copied from, or run `e2fsck -f -p` over it; then import or export it again."
            }
            Self::DiskChanged { .. } => {
                "Check the host's disk, then remove the image and pull it again."
            }
            _ => "Use another bundle, or make it again with `banger image export`.",
        };
        Some(text.into())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Window { limit } | Self::Bomb { limit } => vec![("limit", limit.to_string())],
            Self::Header { field } | Self::NotExt4 { field } | Self::Disagreement { field } => {
                vec![("field", (*field).to_owned())]
            }
            Self::Kind { member, kind } => vec![("member", member.clone()), ("kind", kind.clone())],
            Self::Path { member, .. } | Self::Unexpected { member } => {
                vec![("member", member.clone())]
            }
            Self::Duplicate { member } | Self::Missing { member } => {
                vec![("member", (*member).to_owned())]
            }
            Self::TooLarge {
                member,
                size_bytes,
                limit,
            } => vec![
                ("member", (*member).to_owned()),
                ("size_bytes", size_bytes.to_string()),
                ("limit", limit.to_string()),
            ],
            Self::RootfsSize { expected, actual } | Self::FileSize { expected, actual } => vec![
                ("expected", expected.to_string()),
                ("actual", actual.to_string()),
            ],
            Self::RootfsDigest { expected, actual }
            | Self::FileDigest { expected, actual }
            | Self::DiskChanged { expected, actual } => vec![
                ("expected", expected.to_string()),
                ("actual", actual.to_string()),
            ],
            Self::Platform { wanted, actual } => {
                vec![("wanted", wanted.clone()), ("actual", actual.clone())]
            }
            Self::Store { step, .. } => vec![("step", (*step).to_owned())],
            Self::Damaged(_)
            | Self::Truncated
            | Self::Trailing
            | Self::Manifest(_)
            | Self::JournalFull
            | Self::GivenUp => Vec::new(),
        }
    }
}
