//! From whatever a kernel file is to an uncompressed ELF (Linux `Documentation/arch/x86/boot.rst`).

use std::fmt;
use std::io::Read;

use memchr::memmem;

use super::KernelError;
use super::elf::Elf;
use crate::limits::KERNEL_BYTES_MAX;

const SETUP_SECTORS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// Largest block of an LZ4 legacy frame, decompressed.
const LZ4_BLOCK_BYTES: usize = 8 << 20;
const LZ4_LEGACY_MAGIC: &[u8] = &[0x02, 0x21, 0x4c, 0x18];

/// A kernel that a VMM can enter.
#[derive(Debug)]
pub(super) struct Vmlinux {
    pub(super) bytes: Vec<u8>,
    /// e.g. `6.1.0-42-cloud-amd64`; empty where the file does not tell.
    pub(super) release: String,
    /// The whole line of which the release is a part; empty where the file does not tell.
    pub(super) banner: String,
    /// What the file was.
    pub(super) format: Format,
}

/// What a kernel came as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// An ELF file.
    Vmlinux,
    /// A boot image around a compressed ELF file.
    BzImage(Compression),
}

/// What the kernel inside a bzImage is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Xz,
    Zstd,
    Lz4,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmlinux => "vmlinux",
            Self::BzImage(Compression::Gzip) => "bzImage (gzip)",
            Self::BzImage(Compression::Xz) => "bzImage (xz)",
            Self::BzImage(Compression::Zstd) => "bzImage (zstd)",
            Self::BzImage(Compression::Lz4) => "bzImage (lz4)",
        })
    }
}

/// Takes the kernel out of `file`, and checks that it can be booted. Blocks.
pub(super) fn extract(file: Vec<u8>, origin: &str) -> Result<Vmlinux, KernelError> {
    let (bytes, format) = if Elf::is_elf(&file) {
        (file, Format::Vmlinux)
    } else {
        let (bytes, compression) = decompress(payload(&file, origin)?, origin)?;
        (bytes, Format::BzImage(compression))
    };
    let Some(elf) = Elf::parse(&bytes) else {
        return Err(KernelError::WrongArchitecture {
            origin: origin.to_owned(),
        });
    };
    if !elf.has_pvh_entry() {
        return Err(KernelError::NoPvhEntry {
            origin: origin.to_owned(),
        });
    }
    let banner = banner(&bytes);
    let release = banner.split(' ').nth(2).unwrap_or_default().to_owned();
    Ok(Vmlinux {
        bytes,
        release,
        banner,
        format,
    })
}

/// The compressed kernel in a bzImage.
fn payload<'a>(file: &'a [u8], origin: &str) -> Result<&'a [u8], KernelError> {
    let not = || KernelError::NotAKernel {
        origin: origin.to_owned(),
    };
    let word = |at: usize| {
        file.get(at..at + 4)
            .and_then(|word| Some(u32::from_le_bytes(word.try_into().ok()?)))
    };
    if file.get(HEADER_MAGIC..HEADER_MAGIC + 4) != Some(b"HdrS") {
        return Err(not());
    }
    let setup = match file[SETUP_SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let begin = usize::try_from(word(PAYLOAD_OFFSET).ok_or_else(not)?).map_err(|_| not())?
        + (setup + 1) * 512;
    let len = usize::try_from(word(PAYLOAD_LENGTH).ok_or_else(not)?).map_err(|_| not())?;
    begin
        .checked_add(len)
        .and_then(|end| file.get(begin..end))
        .ok_or_else(not)
}

/// Undoes the kernel build's compression. Except with gzip, the payload's last four bytes are the length.
fn decompress(payload: &[u8], origin: &str) -> Result<(Vec<u8>, Compression), KernelError> {
    let bad = |detail: String| KernelError::BadPayload {
        origin: origin.to_owned(),
        detail,
    };
    let data = payload
        .len()
        .checked_sub(4)
        .map(|end| &payload[..end])
        .ok_or_else(|| bad("it is empty".into()))?;
    let (bytes, compression) = match payload {
        [0x1f, 0x8b, ..] => (
            bounded(flate2::read::GzDecoder::new(payload), origin),
            Compression::Gzip,
        ),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => (
            bounded(liblzma::read::XzDecoder::new(data), origin),
            Compression::Xz,
        ),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder =
                zstd::stream::read::Decoder::new(data).map_err(|error| bad(error.to_string()))?;
            // The kernel's build compresses with the largest window there is.
            decoder
                .window_log_max(31)
                .map_err(|error| bad(error.to_string()))?;
            (bounded(decoder.single_frame(), origin), Compression::Zstd)
        }
        _ => match data.strip_prefix(LZ4_LEGACY_MAGIC) {
            Some(blocks) => (
                lz4_legacy(blocks).ok_or_else(|| bad("the LZ4 data is damaged".into())),
                Compression::Lz4,
            ),
            None => {
                return Err(bad(
                    "it is compressed with neither gzip, xz, zstd nor LZ4".into()
                ));
            }
        },
    };
    Ok((bytes?, compression))
}

fn bounded(mut from: impl Read, origin: &str) -> Result<Vec<u8>, KernelError> {
    let mut bytes = Vec::new();
    let read = from
        .by_ref()
        .take(KERNEL_BYTES_MAX + 1)
        .read_to_end(&mut bytes);
    read.map_err(|error| KernelError::BadPayload {
        origin: origin.to_owned(),
        detail: error.to_string(),
    })?;
    if bytes.len() as u64 > KERNEL_BYTES_MAX {
        return Err(KernelError::TooLarge {
            what: origin.to_owned(),
            limit: KERNEL_BYTES_MAX,
        });
    }
    Ok(bytes)
}

/// Blocks of a legacy frame: each a length and that many bytes, and each but the last makes a full block (LZ4 frame
/// format, "Legacy frame"). So their number is bounded by what they make.
fn lz4_legacy(mut blocks: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let block = rest.get(..length)?;
        let made = lz4_flex::block::decompress(block, LZ4_BLOCK_BYTES).ok()?;
        let is_behind_the_last = !bytes.len().is_multiple_of(LZ4_BLOCK_BYTES);
        if made.is_empty() || is_behind_the_last {
            return None;
        }
        bytes.extend(made);
        if bytes.len() as u64 > KERNEL_BYTES_MAX {
            return None;
        }
        blocks = &rest[length..];
    }
    Some(bytes)
}

/// The line that a kernel prints first, without its end. The format strings that begin alike are no banners.
fn banner(vmlinux: &[u8]) -> String {
    const BEGIN: &[u8] = b"Linux version ";
    const RELEASE_BYTES_MAX: usize = 64;
    const BANNER_BYTES_MAX: usize = 512;
    for at in memmem::find_iter(vmlinux, BEGIN) {
        let text = &vmlinux[at..vmlinux.len().min(at + BANNER_BYTES_MAX)];
        let line = text
            .split(|byte| matches!(byte, 0 | b'\n'))
            .next()
            .unwrap_or_default();
        let release = line[BEGIN.len()..]
            .split(|byte| *byte == b' ')
            .next()
            .unwrap_or_default();
        let is_banner = line.len() < text.len()
            && release.first().is_some_and(u8::is_ascii_digit)
            && release.len() < RELEASE_BYTES_MAX
            && line.iter().all(|byte| (b' '..=b'~').contains(byte));
        if is_banner {
            return String::from_utf8_lossy(line).into_owned();
        }
    }
    String::new()
}
