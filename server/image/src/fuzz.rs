//! What readers of hostile bytes do, for fuzzers: each takes any bytes, and panics only on a defect.
//!
//! Behind the feature `fuzzing`; `fuzz/` has the targets of `cargo fuzz`, and a test of this crate runs the same
//! functions over the corpus. Checksums and compression keep a fuzzer from what lies behind them, so archives
//! are read once as they are and once with what guards them put right.

use std::fs::File;
use std::io::{Read, Seek, Write};

use banger_catalog::{Index, KernelManifest, SecretKey};
use banger_core::{Digest, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::bundle::{Expected, unpack};
use crate::document::{Document, ParsedConfig, choose};
use crate::ext4::{BaseSpec, Cursor, Ext4Error, Source, content_bytes, write_base};
use crate::flatten::Tree;
use crate::layer::{Destination, Kept, LayerSource, index_layer};
use crate::tar::{Budget, PackedEntries};
use crate::writeback::Flush;

/// Bytes of files beyond which no disk is made: it would only be slow.
const CONTENT_BYTES_MAX: u64 = 4 << 20;
const BLOCK: usize = 512;
/// Where a tar header has its checksum, and where it says that it is one.
const CHECKSUM: std::ops::Range<usize> = 148..156;
const MAGIC: std::ops::Range<usize> = 257..262;

/// A layer of an image: read, put on top of itself, made a disk, and the disk read again.
///
/// # Panics
/// If a layer that is accepted makes no disk, or one that is not right.
pub fn layer(bytes: &[u8]) {
    read_layer(bytes);
    read_layer(&with_checksums(bytes));
}

/// A bundle, compressed and not yet so.
pub fn bundle(bytes: &[u8]) {
    read_bundle(bytes);
    let compressed = zstd::encode_all(&*with_checksums(bytes), 1);
    read_bundle(&compressed.expect("memory takes every byte"));
}

/// A catalog as it is served, and its index behind the signature; an index that is read says the same when it is
/// written and read again.
///
/// # Panics
/// If it does not.
pub fn catalog_index(bytes: &[u8]) {
    let key = SecretKey::from_random(&[7; 32]);
    let now = Timestamp::now();
    let _ = banger_catalog::open(bytes, &key.public(), None, now);
    let _ = KernelManifest::parse(bytes);
    if let Ok(index) = Index::parse(bytes) {
        let sealed =
            banger_catalog::seal(&index, &[key]).expect("a parsed index is within its bounds");
        let key = SecretKey::from_random(&[7; 32]).public();
        match banger_catalog::open(&sealed, &key, None, now) {
            Ok(opened) => assert_eq!(opened.index, index),
            Err(error) => assert!(
                matches!(error, banger_catalog::CatalogError::Expired { .. }),
                "{error}"
            ),
        }
    }
}

/// A manifest, an index and a configuration of an image.
pub fn documents(bytes: &[u8]) {
    let platform = "linux/amd64".parse().expect("a platform");
    if let Ok(Document::Index(entries)) = Document::parse(bytes) {
        let _ = choose(&entries, &platform);
    }
    if let Ok(config) = ParsedConfig::parse(bytes) {
        let _ = config.check(1, &platform);
        let again = ParsedConfig::parse(&config.to_json()).expect("what we write we read");
        assert_eq!(again.config.cmd, config.config.cmd);
    }
}

/// A kernel's file: a vmlinux, a bzImage, or a configuration.
///
/// # Panics
/// If what is extracted is no kernel.
pub fn kernel(bytes: &[u8]) {
    crate::kernel::fuzz::kernel(bytes);
}

/// A tar of a kernel's modules directory.
///
/// # Panics
/// If a module is chosen twice.
pub fn kernel_modules(bytes: &[u8]) {
    crate::kernel::fuzz::modules(bytes);
    crate::kernel::fuzz::modules(&with_checksums(bytes));
}

/// A kernel bundle, compressed and not yet so.
pub fn kernel_bundle(bytes: &[u8]) {
    crate::kernel::fuzz::bundle(bytes);
    let compressed = zstd::encode_all(&*with_checksums(bytes), 1);
    crate::kernel::fuzz::bundle(&compressed.expect("memory takes every byte"));
}

/// One small input for each thing that the readers of kernels know: the target, a name, the bytes.
///
/// # Panics
/// If there is no memory.
#[must_use]
pub fn kernel_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    crate::kernel::fuzz::seeds()
}

fn read_layer(bytes: &[u8]) {
    let tmp = std::env::temp_dir();
    let source = LayerSource {
        reader: bytes,
        digest: Digest::of(b""),
        size_bytes: bytes.len() as u64,
    };
    let (to, cancel) = (Destination::Spool(tmp), CancellationToken::new());
    let Ok(layer) = index_layer(source, to, &Budget::default(), &cancel) else {
        return;
    };
    let archive = match layer.kept {
        Kept::Archive(archive) => archive,
        Kept::Blob | Kept::Disk => file_of(bytes),
    };
    let source = |file: &File| file.try_clone().expect("a file can be opened twice");
    let sources = [0, 1].map(|_| Source::Archive(source(&archive)));
    let copied = make_disk(&layer.entries, &sources, tempfile());
    // The same, both written while they are read.
    let disk = tempfile();
    let mut start = Cursor::new();
    for _ in 0..sources.len() {
        let to = Destination::Disk(source(&disk), start, Flush::Late);
        let again = LayerSource {
            reader: bytes,
            digest: Digest::of(b""),
            size_bytes: bytes.len() as u64,
        };
        let again =
            index_layer(again, to, &Budget::default(), &cancel).expect("it was read before");
        start = start.behind(again.file_blocks);
    }
    let placed = make_disk(&layer.entries, &[Source::Placed, Source::Placed], disk);
    match (copied, placed) {
        (Some(copied), Some(placed)) => assert!(all_of(&copied) == all_of(&placed)),
        (copied, placed) => assert_eq!(copied.is_some(), placed.is_some()),
    }
}

fn tempfile() -> File {
    tempfile::tempfile().expect("a place for a disk")
}

fn all_of(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("a file can be read twice");
    file.read_to_end(&mut bytes).expect("our disk can be read");
    bytes
}

fn make_disk(entries: &PackedEntries, sources: &[Source], disk: File) -> Option<File> {
    let mut tree = Tree::new();
    if tree.apply(entries).is_err() || tree.apply(entries).is_err() {
        return None;
    }
    if content_bytes(&tree) > CONTENT_BYTES_MAX {
        return None;
    }
    let spec = BaseSpec {
        tree,
        sources,
        uuid: [7; 16],
        flush: Flush::Late,
    };
    let cancel = CancellationToken::new();
    match write_base(spec, &disk, &cancel, &|_| {}) {
        Ok((_, hidden)) => {
            let cleared = hidden.clear(&disk, &cancel);
            cleared.expect("our disk can be written");
            let fs = mkext4::reader::Fs::open(&disk).expect("our disk can be read");
            let issues = fs.verify().expect("our disk can be read");
            assert!(issues.is_empty(), "{issues:?}");
            Some(disk)
        }
        Err(Ext4Error::Tree(_) | Ext4Error::BadAcl { .. }) => None,
        Err(error) => panic!("a tree that was accepted makes no disk: {error}"),
    }
}

fn read_bundle(bytes: &[u8]) {
    let expected = Expected {
        entry: None,
        platform: "linux/amd64".parse().expect("a platform"),
    };
    let cancel = CancellationToken::new();
    let _ = unpack(bytes, &expected, &std::env::temp_dir(), &cancel);
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a place for an archive");
    file.write_all(bytes).expect("a place for an archive");
    file.rewind().expect("a file");
    file
}

/// The archive with the right checksum in each block that looks like a header.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK) {
        if &block[MAGIC] == b"ustar" {
            block[CHECKSUM].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}
