use std::io::{Read, Seek, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use banger_core::Digest;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ext4::Cursor;
use crate::tar::Budget;
use crate::writeback::Flush;

fn archive() -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let data: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    header.set_size(data.len() as u64);
    builder.append_data(&mut header, "file", &*data).unwrap();
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn index(bytes: &[u8]) -> Result<IndexedLayer, LayerError> {
    let tmp = tempfile::tempdir().unwrap();
    let source = LayerSource {
        reader: bytes,
        digest: Digest::of(bytes),
        size_bytes: bytes.len() as u64,
    };
    let (to, cancel) = (
        Destination::Spool(tmp.path().to_owned()),
        CancellationToken::new(),
    );
    let result = index_layer(source, to, &Budget::default(), &cancel);
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
    result
}

#[test]
fn each_compression_gives_the_same_archive() {
    let plain = archive();
    let zstd = zstd::encode_all(&*plain, 3).unwrap();
    for bytes in [
        plain.clone(),
        gzip(&plain),
        zstd,
        [gzip(&plain[..1000]), gzip(&plain[1000..])].concat(),
    ] {
        let layer = index(&bytes).unwrap();
        assert_eq!(layer.diff_id, Digest::of(&plain));
        assert_eq!(layer.entries.len(), 1);
        if let Kept::Archive(mut spool) = layer.kept {
            spool.rewind().unwrap();
            let mut kept = Vec::new();
            spool.read_to_end(&mut kept).unwrap();
            assert!(kept == plain);
        }
    }
}

#[test]
fn what_follows_the_archive_belongs_to_its_digest() {
    let mut plain = archive();
    plain.extend([0; 4096]);
    assert_eq!(index(&gzip(&plain)).unwrap().diff_id, Digest::of(&plain));
}

#[test]
fn broken_compression_is_told_from_a_broken_archive() {
    let plain = archive();
    let whole = gzip(&plain);
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    let zstd = zstd::encode_all(&*plain, 3).unwrap();
    assert!(matches!(
        index(&whole[..whole.len() / 2]),
        Err(LayerError::TruncatedCompression { .. })
    ));
    assert!(matches!(
        index(&zstd[..zstd.len() / 2]),
        Err(LayerError::TruncatedCompression { .. })
    ));
    assert!(matches!(
        index(&damaged),
        Err(LayerError::BadCompression { .. })
    ));
    assert!(matches!(
        index(&plain[..1000]),
        Err(LayerError::Archive { .. })
    ));
    assert!(matches!(
        index(&gzip(&plain[..1000])),
        Err(LayerError::Archive { .. })
    ));
    assert!(matches!(
        index(b"\xfd7zXZ\0"),
        Err(LayerError::UnsupportedCompression { format: "xz", .. })
    ));
}

#[test]
fn a_layer_may_not_grow_without_bound() {
    use crate::limits::{RATIO_FREE_BYTES, RATIO_MAX, UNCOMPRESSED_BYTES_MAX};
    use crate::tar::TarInput;
    assert_eq!(spool::bytes_max(1000), RATIO_FREE_BYTES);
    assert_eq!(spool::bytes_max(100 << 20), (100 << 20) * RATIO_MAX);
    assert_eq!(spool::bytes_max(u64::MAX), UNCOMPRESSED_BYTES_MAX);
    let nothing = spool::Keeping::Known(spool::Keep::Nothing);
    let mut endless = spool::SpoolInput::new(std::io::repeat(0), nothing, 1 << 20);
    let error = endless.skip(2 << 20).unwrap_err();
    assert!(error.get_ref().unwrap().is::<spool::TooLarge>());
}

#[test]
fn a_blob_must_have_its_size_and_digest_and_leaves_nothing_otherwise() {
    let tmp = tempfile::tempdir().unwrap();
    let digest = Digest::of(b"abcdef");
    let receive = |bytes: &[u8], size| {
        let mut writer = BlobWriter::new(tmp.path(), digest, size, Flush::Early)?;
        writer.write(bytes)?;
        writer.finish()
    };
    assert!(matches!(
        receive(b"abcde", 6),
        Err(LayerError::TooShort {
            expected: 6,
            actual: 5,
            ..
        })
    ));
    assert!(matches!(
        receive(b"abcdefg", 6),
        Err(LayerError::TooLong { expected: 6, .. })
    ));
    let wrong = receive(b"abcdeX", 6).unwrap_err();
    assert!(matches!(wrong, LayerError::WrongDigest { .. }));
    assert_eq!(
        wrong.to_string(),
        format!(
            "blob {digest} was received with the digest {}",
            Digest::of(b"abcdeX")
        )
    );
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
    let kept = receive(b"abcdef", 6).unwrap().into_file();
    assert_eq!(std::fs::read(kept.path()).unwrap(), b"abcdef");
}

/// Reads `bytes`, and counts how many of them were asked for.
struct Counted<'a> {
    bytes: &'a [u8],
    read: &'a AtomicUsize,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let read = self.bytes.read(buf)?;
        self.read.fetch_add(read, Ordering::Relaxed);
        Ok(read)
    }
}

/// An archive with a file that has more bytes than are decompressed ahead.
fn large_archive() -> Vec<u8> {
    let noise: Vec<u8> = (0..1 << 20_u32)
        .flat_map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let data = noise.repeat(crate::limits::AHEAD_BYTES_MAX / noise.len() + 8);
    header.set_size(data.len() as u64);
    builder.append_data(&mut header, "large", &*data).unwrap();
    header.set_size(3);
    builder
        .append_data(&mut header, "small", &b"abc"[..])
        .unwrap();
    builder.into_inner().unwrap()
}

/// Indexes `bytes` in a thread, and lets `act` be somebody who may tell where its files go.
fn index_told(
    bytes: &[u8],
    act: impl FnOnce(SyncSender<Destination>, &AtomicUsize),
) -> Result<IndexedLayer, LayerError> {
    let (tell, told) = sync_channel(1);
    let read = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let indexing = scope.spawn(|| {
            let counted = Counted { bytes, read: &read };
            let source = LayerSource {
                reader: std::io::BufReader::with_capacity(1 << 10, counted),
                digest: Digest::of(bytes),
                size_bytes: bytes.len() as u64,
            };
            let (budget, cancel) = (Budget::default(), CancellationToken::new());
            index_layer(source, To::Told(told), &budget, &cancel)
        });
        act(tell, &read);
        indexing.join().unwrap()
    })
}

/// Waits until no more is read for some time; how much was.
fn settled(read: &AtomicUsize) -> usize {
    let mut last = (0, 0);
    loop {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let now = read.load(Ordering::Relaxed);
        last = if now == last.0 {
            (now, last.1 + 1)
        } else {
            (now, 0)
        };
        if last.1 == 10 {
            return now;
        }
    }
}

#[test]
fn as_much_as_may_be_is_decompressed_before_it_is_told_where_to() {
    let plain = large_archive();
    let bytes = gzip(&plain);
    let whole = Digest::of(&plain);
    let disk_of = |told: &dyn Fn(Destination) -> Result<IndexedLayer, LayerError>| {
        let disk = tempfile::tempfile().unwrap();
        let start = Cursor::new().behind(7);
        let to = Destination::Disk(disk.try_clone().unwrap(), start, Flush::Late);
        let layer = told(to).unwrap();
        assert_eq!((layer.diff_id, layer.entries.len()), (whole, 2));
        let mut written = Vec::new();
        (&disk).seek(std::io::SeekFrom::Start(0)).unwrap();
        (&disk).read_to_end(&mut written).unwrap();
        (written, layer.entries, layer.file_blocks)
    };
    let late = disk_of(&|to| {
        index_told(&bytes, |tell, read| {
            let ahead = settled(read);
            assert!(
                ahead > 0 && ahead < bytes.len(),
                "{ahead} of {}",
                bytes.len()
            );
            tell.send(to).unwrap();
        })
    });
    let known = disk_of(&|to| {
        let source = LayerSource {
            reader: &*bytes,
            digest: Digest::of(&bytes),
            size_bytes: bytes.len() as u64,
        };
        index_layer(source, to, &Budget::default(), &CancellationToken::new())
    });
    assert!(late == known);
}

#[test]
fn zstd_waits_until_it_is_told_where_to() {
    let plain = archive();
    let bytes = zstd::encode_all(&*plain, 3).unwrap();
    let layer = index_told(&bytes, |tell, read| {
        // No more than the first look at it.
        assert!(settled(read) <= 1 << 10);
        let to = Destination::Spool(std::env::temp_dir());
        tell.send(to).unwrap();
    });
    assert_eq!(layer.unwrap().diff_id, Digest::of(&plain));
}

#[test]
fn what_is_never_told_where_to_is_given_up_and_what_is_broken_does_not_wait() {
    let whole = gzip(&archive());
    index_told(&whole, |tell, read| {
        settled(read);
        drop(tell);
    })
    .unwrap_err();
    // Its sender is kept until the end.
    let (kept, broken) = (Mutex::new(None), &whole[..whole.len() / 2]);
    let error = index_told(broken, |tell, _| *kept.lock().unwrap() = Some(tell));
    // It waits for nobody who might tell, unless something is right with it.
    assert!(matches!(
        error,
        Err(LayerError::TruncatedCompression { .. })
    ));
}

#[test]
fn what_is_wrong_with_the_store_is_not_what_is_wrong_with_the_blob() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from_raw_os_error(5))
        }
    }
    let whole = gzip(&archive());
    for before in [&whole[..whole.len() / 2], b""] {
        let source = LayerSource {
            reader: std::io::BufReader::new(before.chain(BlobReader(Failing))),
            digest: Digest::of(&whole),
            size_bytes: whole.len() as u64,
        };
        let to = Destination::Spool(std::env::temp_dir());
        let error = index_layer(source, to, &Budget::default(), &CancellationToken::new());
        match error {
            Err(LayerError::Store { source, .. }) => assert_eq!(source.raw_os_error(), Some(5)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn only_what_takes_no_window_is_worth_a_place_ahead() {
    let plain = archive();
    let zstd = zstd::encode_all(&*plain, 3).unwrap();
    for (bytes, is_worth) in [
        (gzip(&plain), true),
        (zstd, false),
        (plain, false),
        (vec![], false),
    ] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        assert_eq!(is_worth_ahead(&file), is_worth);
    }
}
