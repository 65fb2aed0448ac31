//! The archive in a bundle: plain ustar headers, regular files, and an end. Nothing else is read, so that nothing
//! else can be meant.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::BundleError;
use crate::watched::GivenUp;

/// A tar archive's unit.
pub(super) const BLOCK_BYTES: usize = 512;
/// Zeros that may follow the end mark: what tools pad archives with is 10 KiB, or what a user asked for.
const PADDING_BYTES_MAX: u64 = 1 << 20;
/// Characters of a foreign name that are repeated in an error.
const SHOWN_CHARS_MAX: usize = 100;

/// A member that may be in a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) size_bytes: u64,
}

impl Member {
    /// Zeros up to the next header.
    pub(super) fn padding_bytes(&self) -> u64 {
        self.size_bytes.next_multiple_of(BLOCK_BYTES as u64) - self.size_bytes
    }
}

/// Reads the next header; `None` at the end mark.
pub(super) fn next_member(archive: &mut impl Read) -> Result<Option<Member>, BundleError> {
    let mut block = [0; BLOCK_BYTES];
    read_exact(archive, &mut block)?;
    if block == [0; BLOCK_BYTES] {
        read_exact(archive, &mut block)?;
        if block != [0; BLOCK_BYTES] {
            return Err(BundleError::Header { field: "end mark" });
        }
        return Ok(None);
    }
    let header = Header::from_byte_slice(&block);
    let wrong = |field| move |_| BundleError::Header { field };
    let checksum = header.cksum().map_err(wrong("checksum"))?;
    if checksum != sum(&block) {
        return Err(BundleError::Header { field: "checksum" });
    }
    let name = header.path_bytes();
    let shown = || {
        let text = String::from_utf8_lossy(&name);
        text.chars().take(SHOWN_CHARS_MAX).collect::<String>()
    };
    let kind = header.entry_type();
    if !matches!(kind, EntryType::Regular) {
        return Err(BundleError::Kind {
            member: shown(),
            kind: describe(kind),
        });
    }
    let escapes = |problem| BundleError::Path {
        member: shown(),
        problem,
    };
    let Ok(text) = std::str::from_utf8(&name) else {
        return Err(escapes("a name that is not text"));
    };
    if text.starts_with('/') {
        return Err(escapes("an absolute path"));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(escapes("a path through `..`"));
    }
    Ok(Some(Member {
        name: text.to_owned(),
        size_bytes: header.entry_size().map_err(wrong("size"))?,
    }))
}

/// Reads what follows the end mark, which must be nothing or zeros.
pub(super) fn finish(archive: &mut impl Read) -> Result<(), BundleError> {
    let mut block = [0; 16 << 10];
    let mut padding = 0;
    loop {
        let read = match archive.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // zstd tells this by its text alone (`ZSTD_error_prefix_unknown`): the frame has ended, and no other begins.
            Err(error) if error.to_string().contains("frame descriptor") => {
                return Err(BundleError::Trailing);
            }
            Err(error) => return Err(judge(error)),
        };
        padding += read as u64;
        if padding > PADDING_BYTES_MAX || block[..read].iter().any(|byte| *byte != 0) {
            return Err(BundleError::Trailing);
        }
    }
}

/// Fills `buffer`.
pub(super) fn read_exact(archive: &mut impl Read, buffer: &mut [u8]) -> Result<(), BundleError> {
    archive.read_exact(buffer).map_err(judge)
}

/// A failed read of the decompressed archive.
pub(super) fn judge(error: io::Error) -> BundleError {
    if GivenUp::is_in(&error) {
        return BundleError::GivenUp;
    }
    // zstd tells this by its text alone (`ZSTD_error_frameParameter_windowTooLarge`).
    if error.to_string().contains("too much memory") {
        return BundleError::Window {
            limit: 1 << super::unpack::WINDOW_LOG_MAX,
        };
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BundleError::Truncated,
        _ => BundleError::Damaged(error),
    }
}

/// POSIX.1-2017, pax, "ustar Interchange Format": all bytes, those of the checksum itself as spaces.
fn sum(block: &[u8; BLOCK_BYTES]) -> u32 {
    let own = 148..156;
    let bytes = block.iter().enumerate();
    bytes.fold(0, |sum, (at, byte)| {
        sum + if own.contains(&at) {
            32
        } else {
            u32::from(*byte)
        }
    })
}

fn describe(kind: EntryType) -> String {
    let text = match kind {
        EntryType::Link => "a hard link",
        EntryType::Symlink => "a symbolic link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Directory => "a directory",
        EntryType::Fifo => "a FIFO",
        EntryType::GNUSparse => "a sparse file of GNU tar",
        EntryType::GNULongName | EntryType::GNULongLink => "a long name of GNU tar",
        EntryType::XHeader | EntryType::XGlobalHeader => "a pax header",
        other => return format!("of type {:?}", char::from(other.as_byte())),
    };
    text.to_owned()
}
