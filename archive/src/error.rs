//! What can be wrong with an archive.

use std::io;

use banger_core::{Explain, FailureKind};

/// An archive that cannot be used, and which of its entries is to blame.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes could not be read.
    #[error("could not read the archive")]
    Read(#[source] io::Error),
    /// The archive ends in the middle of an entry.
    #[error("the archive ends in the middle of an entry, at byte {offset}")]
    Truncated {
        /// Where.
        offset: u64,
    },
    /// Not a tar header.
    #[error("there is no valid tar header at byte {offset}")]
    BadHeader {
        /// Where.
        offset: u64,
    },
    /// A header field that is not a number in its range.
    #[error("entry `{entry}` has a bad {field}")]
    BadField {
        /// The entry's name, escaped.
        entry: String,
        /// Which field.
        field: &'static str,
    },
    /// PAX records that do not follow their own lengths.
    #[error("the PAX header at byte {offset} is malformed")]
    BadPax {
        /// Where.
        offset: u64,
    },
    /// A sparse map that overlaps, runs backwards or past the file's end.
    #[error("entry `{entry}` has a malformed sparse map")]
    BadSparseMap {
        /// The entry's name, escaped.
        entry: String,
    },
    /// A PAX header or long name over the bound.
    #[error(
        "the header extension at byte {offset} has {bytes} bytes; at most {} are allowed",
        crate::limits::TAR_EXTENSION_BYTES_MAX
    )]
    ExtensionTooLong {
        /// Where.
        offset: u64,
        /// Its length.
        bytes: u64,
    },
    /// A kind of entry no image may hold (multi-volume, vendor's own).
    #[error("entry `{entry}` is of the unsupported type `{kind}`")]
    UnsupportedKind {
        /// The entry's name, escaped.
        entry: String,
        /// The type byte, escaped.
        kind: String,
    },
    /// A name with a NUL, which no file system has.
    #[error("entry `{entry}` has a NUL byte in its name or link target")]
    NulInName {
        /// The entry's name, escaped.
        entry: String,
    },
    /// An extended attribute's name that is no text, or of no length ext4 has.
    #[error("entry `{entry}` has an extended attribute with a bad name")]
    BadXattr {
        /// The entry's name, escaped.
        entry: String,
    },
    /// Two statements about one entry that differ: programs would disagree about what the archive holds.
    #[error("entry `{entry}` is ambiguous: {what}")]
    Ambiguous {
        /// The entry's name, escaped.
        entry: String,
        /// Which statements.
        what: &'static str,
    },
    /// `..` leads out of the image.
    #[error("entry `{entry}` leads out of the image")]
    Escapes {
        /// The entry's name, escaped.
        entry: String,
    },
    /// A path, name or depth over the bound.
    #[error("entry `{entry}` has a path that is too long or too deep")]
    PathTooLong {
        /// The entry's name, escaped and cut.
        entry: String,
    },
    /// An empty link target, or one over the bound.
    #[error("entry `{entry}` has an empty or overlong link target")]
    BadLinkTarget {
        /// The entry's name, escaped.
        entry: String,
    },
    /// A file over the bound.
    #[error(
        "entry `{entry}` has {bytes} bytes; at most {} are allowed",
        crate::limits::FILE_BYTES_MAX
    )]
    FileTooLong {
        /// The entry's name, escaped.
        entry: String,
        /// Its length.
        bytes: u64,
    },
    /// Extended attributes ext4 has no room for.
    #[error("entry `{entry}` has more extended attributes than ext4 can hold")]
    XattrsTooLong {
        /// The entry's name, escaped.
        entry: String,
    },
    /// More entries than any image needs.
    #[error("the archive has more than {} entries", crate::limits::ENTRIES_MAX)]
    TooManyEntries,
    /// More bytes of names and attributes than any image needs.
    #[error(
        "the archive has more than {} bytes of names and attributes",
        crate::limits::TEXT_BYTES_MAX
    )]
    TooMuchText,
}

/// A name as it is shown: what is no text is escaped, and it is cut to what a person reads.
#[must_use]
pub fn shown(name: &[u8]) -> String {
    const SHOWN_CHARS_MAX: usize = 200;
    let mut text = String::new();
    // Escapes only lengthen, so that bytes beyond the bound are never shown.
    for chunk in name[..name.len().min(4 * SHOWN_CHARS_MAX)].utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() || char == '\\' {
                text.extend(char.escape_default());
            } else {
                text.push(char);
            }
        }
        text.extend(chunk.invalid().escape_ascii().map(char::from));
    }
    if text.chars().count() > SHOWN_CHARS_MAX || name.len() > 4 * SHOWN_CHARS_MAX {
        text = text.chars().take(SHOWN_CHARS_MAX).collect();
        text.push('…');
    }
    text
}

impl TarError {
    /// Whether what was read is no archive at all, rather than one that is damaged or holds what it may not.
    #[must_use]
    pub const fn is_no_archive(&self) -> bool {
        matches!(
            self,
            Self::Read(_) | Self::BadHeader { offset: 0 } | Self::Truncated { offset: 0 }
        )
    }

    fn entry(&self) -> Option<&str> {
        match self {
            Self::BadField { entry, .. }
            | Self::BadSparseMap { entry }
            | Self::UnsupportedKind { entry, .. }
            | Self::NulInName { entry }
            | Self::BadXattr { entry }
            | Self::Ambiguous { entry, .. }
            | Self::Escapes { entry }
            | Self::PathTooLong { entry }
            | Self::BadLinkTarget { entry }
            | Self::FileTooLong { entry, .. }
            | Self::XattrsTooLong { entry } => Some(entry),
            Self::Read(_)
            | Self::Truncated { .. }
            | Self::BadHeader { .. }
            | Self::BadPax { .. }
            | Self::ExtensionTooLong { .. }
            | Self::TooManyEntries
            | Self::TooMuchText => None,
        }
    }
}

impl Explain for TarError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Read(source) => banger_core::host_io::io_kind(source),
            _ => FailureKind::FailedPrecondition {
                subject: "image/layer".into(),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Read(source) => banger_core::host_io::io_reason(source, "LAYER_READ"),
            Self::Truncated { .. } => "LAYER_CUT_OFF",
            Self::BadHeader { .. } => "LAYER_BAD_HEADER",
            Self::BadField { .. } => "LAYER_BAD_FIELD",
            Self::BadPax { .. } => "LAYER_BAD_PAX",
            Self::BadSparseMap { .. } => "LAYER_BAD_SPARSE_MAP",
            Self::ExtensionTooLong { .. } => "LAYER_EXTENSION_TOO_LARGE",
            Self::UnsupportedKind { .. } => "LAYER_ENTRY_UNSUPPORTED",
            Self::NulInName { .. } => "LAYER_NAME_HAS_NUL",
            Self::BadXattr { .. } => "LAYER_BAD_XATTR",
            Self::Ambiguous { .. } => "LAYER_AMBIGUOUS",
            Self::Escapes { .. } => "LAYER_ENTRY_ESCAPES",
            Self::PathTooLong { .. } => "LAYER_PATH_TOO_LONG",
            Self::BadLinkTarget { .. } => "LAYER_BAD_LINK_TARGET",
            Self::FileTooLong { .. } => "LAYER_FILE_TOO_LARGE",
            Self::XattrsTooLong { .. } => "LAYER_XATTRS_TOO_LARGE",
            Self::TooManyEntries => "LAYER_TOO_MANY_ENTRIES",
            Self::TooMuchText => "LAYER_TOO_MUCH_TEXT",
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Read(source) => banger_core::host_io::io_remedy(source),
            Self::Escapes { .. } | Self::Ambiguous { .. } => {
                Some("Do not use this image: no honest tool makes such an entry. Rebuild it from its source.".into())
            }
            _ => Some("Rebuild the image with a current tool, or use another image.".into()),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        self.entry()
            .map(|entry| ("entry", entry.to_owned()))
            .into_iter()
            .collect()
    }
}
