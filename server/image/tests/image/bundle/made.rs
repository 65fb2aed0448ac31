//! A bundle that is right, made once, and bundles put together by hand.

use std::sync::OnceLock;

use banger_catalog::{BundleEntry, FilePart, ImageManifest};
use banger_core::Digest;
use banger_image::{ImageStore, RegisterSource};

use super::{export, register};
use crate::support::TestImage;

pub(crate) struct Made {
    pub(crate) bundle: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) disk: Vec<u8>,
    pub(crate) entry: BundleEntry,
}

/// What every test starts from.
pub(crate) fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(make())
        });
        thread.join().unwrap()
    })
}

async fn make() -> Made {
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let layout = state.path().join("layout");
    TestImage::simple(7, 300_000).write_layout(&layout);
    let source = RegisterSource::OciLayout {
        path: layout,
        image: None,
    };
    let image = register(&store, source).await.unwrap();
    let disk = std::fs::read(&image.rootfs_path).unwrap();
    let bundle = export(&store, image.digest, "1").await;
    let plain = zstd::decode_all(&*bundle).unwrap();
    let size = usize::from_str_radix(std::str::from_utf8(&plain[124..135]).unwrap(), 8).unwrap();
    let manifest = plain[512..512 + size].to_vec();
    let parsed = ImageManifest::parse(&manifest).unwrap();
    let entry = BundleEntry {
        name: parsed.name,
        version: parsed.version,
        platform: parsed.platform,
        digest: Digest::of(&manifest),
        kernel: parsed.kernel,
        rootfs_size_bytes: parsed.rootfs.size_bytes,
        file: FilePart {
            path: "images/noise-1.tar.zst".parse().unwrap(),
            size_bytes: bundle.len() as u64,
            digest: Digest::of(&bundle),
        },
        description: String::new(),
    };
    Made {
        bundle,
        manifest,
        disk,
        entry,
    }
}

/// A member as no tool would write it.
#[derive(Clone)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) kind: u8,
    pub(crate) data: &'a [u8],
    /// What the header says of the length; that of the data when absent.
    pub(crate) size: Option<u64>,
}

pub(crate) fn member<'a>(name: &'a str, data: &'a [u8]) -> Member<'a> {
    Member {
        name: name.as_bytes(),
        kind: b'0',
        data,
        size: None,
    }
}

/// The archive without its end.
pub(crate) fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut plain = Vec::new();
    for member in members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..member.name.len()].copy_from_slice(member.name);
        header.set_entry_type(tar::EntryType::new(member.kind));
        header.set_mode(0o644);
        header.set_size(member.size.unwrap_or(member.data.len() as u64));
        header.set_cksum();
        plain.extend_from_slice(header.as_bytes());
        plain.extend_from_slice(member.data);
        plain.resize(plain.len().next_multiple_of(512), 0);
    }
    plain
}

/// A whole bundle.
pub(crate) fn bundle(members: &[Member<'_>]) -> Vec<u8> {
    let mut plain = archive(members);
    plain.extend([0; 1024]);
    compress(&plain)
}

pub(crate) fn compress(plain: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    std::io::Write::write_all(&mut encoder, plain).unwrap();
    encoder.finish().unwrap()
}

/// A bundle's beginning whose disk is nothing but zeros, in a few bytes: a zstd frame of blocks that repeat one byte
/// (RFC 8878 §3.1.1.2).
pub(crate) fn zeros(bytes: u64) -> Vec<u8> {
    const BLOCK: u32 = 128 << 10;
    let block = |kind: u32, size: u32| (size << 3 | kind << 1).to_le_bytes()[..3].to_vec();
    let mut header = tar::Header::new_ustar();
    header.set_path("rootfs.ext4").unwrap();
    header.as_old_mut().size.fill(0);
    header.set_size(bytes);
    header.set_cksum();
    // No checksum, no length, a window of one block.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3];
    frame.extend(block(0, 512));
    frame.extend(header.as_bytes());
    for _ in 0..bytes / u64::from(BLOCK) {
        frame.extend(block(1, BLOCK));
        frame.push(0);
    }
    frame
}
