//! Layers that do not make a tree.

use banger_core::{Explain, FailureKind};

use crate::limits::INODES_MAX;

/// An entry that cannot be placed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FlattenError {
    /// A hard link to nothing.
    #[error("entry `{entry}` is a hard link to `{target}`, which does not exist in the image")]
    MissingLinkTarget {
        /// Its path, escaped.
        entry: String,
        /// What it should link to, escaped.
        target: String,
    },
    /// A hard link to a directory.
    #[error("entry `{entry}` is a hard link to the directory `{target}`")]
    LinkToDirectory {
        /// Its path, escaped.
        entry: String,
        /// What it should link to, escaped.
        target: String,
    },
    /// More names for one file than ext4 allows.
    #[error("entry `{entry}` is one name too many for its file")]
    TooManyLinks {
        /// Its path, escaped.
        entry: String,
    },
    /// A file where a directory is needed.
    #[error("entry `{entry}` lies under `{parent}`, which is not a directory")]
    ParentNotDirectory {
        /// Its path, escaped.
        entry: String,
        /// The name that is in the way, escaped.
        parent: String,
    },
    /// Symbolic links that lead nowhere.
    #[error("entry `{entry}` lies under a loop of symbolic links")]
    SymlinkLoop {
        /// Its path, escaped.
        entry: String,
    },
    /// Links that lead deeper than any path may.
    #[error("entry `{entry}` lies too deep")]
    TooDeep {
        /// Its path, escaped.
        entry: String,
    },
    /// More files and directories than any image has, those no layer declares included.
    #[error("with entry `{entry}` the image has more than {INODES_MAX} files and directories")]
    TooManyFiles {
        /// Its path, escaped.
        entry: String,
    },
    /// Ways over symbolic links that are together longer than any image's.
    #[error("the ways over symbolic links, up to that of entry `{entry}`, are longer than allowed")]
    TooWinding {
        /// Its path, escaped.
        entry: String,
    },
    /// A whiteout of nothing, of `.` or of `..`.
    #[error("entry `{entry}` is not a valid whiteout")]
    BadWhiteout {
        /// Its path, escaped.
        entry: String,
    },
    /// The root as something else than a directory.
    #[error("the image's root is not a directory")]
    RootNotDirectory,
    /// Something of the image where ext4 keeps its own directory.
    #[error("the image has a `lost+found` of its own that is not an empty directory")]
    LostFoundTaken,
}

impl Explain for FlattenError {
    fn kind(&self) -> FailureKind {
        FailureKind::FailedPrecondition {
            subject: "image/layers".into(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::MissingLinkTarget { .. } => "LAYER_BAD_HARD_LINK",
            Self::LinkToDirectory { .. } => "LAYER_LINK_TO_DIRECTORY",
            Self::TooManyLinks { .. } => "LAYER_TOO_MANY_LINKS",
            Self::ParentNotDirectory { .. } => "LAYER_BAD_PARENT",
            Self::SymlinkLoop { .. } => "LAYER_SYMLINK_LOOP",
            Self::TooDeep { .. } => "LAYER_TOO_DEEP",
            Self::TooManyFiles { .. } => "LAYER_TOO_MANY_ENTRIES",
            Self::TooWinding { .. } => "LAYER_LINKS_TOO_LONG",
            Self::BadWhiteout { .. } => "LAYER_BAD_WHITEOUT",
            Self::RootNotDirectory => "LAYER_BAD_ROOT",
            Self::LostFoundTaken => "LAYER_LOST_FOUND_TAKEN",
        }
    }

    fn remedy(&self) -> Option<String> {
        Some("Rebuild the image: its layers do not fit on each other.".into())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::MissingLinkTarget { entry, target } | Self::LinkToDirectory { entry, target } => {
                vec![("entry", entry.clone()), ("target", target.clone())]
            }
            Self::ParentNotDirectory { entry, parent } => {
                vec![("entry", entry.clone()), ("parent", parent.clone())]
            }
            Self::TooManyLinks { entry }
            | Self::SymlinkLoop { entry }
            | Self::TooDeep { entry }
            | Self::TooManyFiles { entry }
            | Self::TooWinding { entry }
            | Self::BadWhiteout { entry } => vec![("entry", entry.clone())],
            Self::RootNotDirectory | Self::LostFoundTaken => Vec::new(),
        }
    }
}
