//! Why a file is no kernel bundle.

use std::io;

use banger_catalog::DocumentProblem;
use banger_core::{Explain, FailureKind};

/// A file that is no kernel bundle.
#[derive(Debug, thiserror::Error)]
pub enum KernelBundleError {
    /// The compression or the archive is broken.
    #[error("the kernel bundle is damaged")]
    Damaged(#[source] io::Error),
    /// It ends before its members have all come.
    #[error("the kernel bundle ends before `{member}` is whole")]
    CutShort {
        /// What was being read.
        member: String,
    },
    /// A member that is no plain file.
    #[error("the kernel bundle's member `{member}` is no plain file")]
    NotAFile {
        /// Its name, cut.
        member: String,
    },
    /// A member that the manifest does not have, or has elsewhere.
    #[error("the kernel bundle has `{member}` where `{expected}` must be")]
    Unexpected {
        /// Its name, cut.
        member: String,
        /// What must come there.
        expected: String,
    },
    /// Something after the last member.
    #[error("the kernel bundle goes on after its last member")]
    Trailing,
    /// A manifest that is none.
    #[error("the kernel bundle's manifest is refused")]
    Manifest(#[source] DocumentProblem),
    /// A member of another length.
    #[error("the kernel bundle's `{member}` has {found} bytes, and its manifest says {stated}")]
    Size {
        /// Which.
        member: String,
        /// Its length.
        found: u64,
        /// What the manifest says.
        stated: u64,
    },
    /// A member with another content.
    #[error("the kernel bundle's `{member}` does not have the digest that its manifest says")]
    Digest {
        /// Which.
        member: String,
    },
    /// For another kind of machine.
    #[error("the kernel bundle is for {platform}")]
    Platform {
        /// Which.
        platform: String,
    },
    /// A `vmlinux` that is not what the manifest says.
    #[error("the kernel bundle's manifest says `{stated}`, and its kernel is `{found}`")]
    Release {
        /// What the manifest says.
        stated: String,
        /// What the kernel says.
        found: String,
    },
    /// Modules or a configuration beside a bundle or a package, which has its own.
    #[error(
        "a kernel bundle or package has its own modules and configuration, and others were given with it"
    )]
    GivenParts,
}

impl Explain for KernelBundleError {
    fn kind(&self) -> FailureKind {
        FailureKind::InvalidArgument {
            field: "source".into(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Damaged(_) => "KERNEL_BUNDLE_DAMAGED",
            Self::CutShort { .. } => "KERNEL_BUNDLE_CUT_SHORT",
            Self::NotAFile { .. } => "KERNEL_BUNDLE_MEMBER_NO_FILE",
            Self::Unexpected { .. } => "KERNEL_BUNDLE_MEMBER_UNEXPECTED",
            Self::Trailing => "KERNEL_BUNDLE_TRAILING_DATA",
            Self::Manifest(_) => "KERNEL_BUNDLE_MANIFEST_BAD",
            Self::Size { .. } => "KERNEL_BUNDLE_SIZE_MISMATCH",
            Self::Digest { .. } => "KERNEL_BUNDLE_DIGEST_MISMATCH",
            Self::Platform { .. } => "KERNEL_BUNDLE_WRONG_PLATFORM",
            Self::Release { .. } => "KERNEL_BUNDLE_RELEASE_MISMATCH",
            Self::GivenParts => "KERNEL_BUNDLE_WITH_PARTS",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Platform { .. } => "Get the bundle for linux/amd64.",
            Self::GivenParts => "Leave `--modules` and `--config` out.",
            Self::Damaged(_) | Self::CutShort { .. } | Self::Digest { .. } => {
                "Get the file again, or have it exported again: `banger kernel export`."
            }
            _ => "Have it written by `banger kernel export`.",
        };
        Some(text.into())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Damaged(_) | Self::Trailing | Self::Manifest(_) | Self::GivenParts => Vec::new(),
            Self::CutShort { member } | Self::NotAFile { member } | Self::Digest { member } => {
                vec![("member", member.clone())]
            }
            Self::Unexpected { member, expected } => {
                vec![("member", member.clone()), ("expected", expected.clone())]
            }
            Self::Size {
                member,
                found,
                stated,
            } => vec![
                ("member", member.clone()),
                ("found", found.to_string()),
                ("stated", stated.to_string()),
            ],
            Self::Platform { platform } => vec![("platform", platform.clone())],
            Self::Release { stated, found } => {
                vec![("stated", stated.clone()), ("found", found.clone())]
            }
        }
    }
}
