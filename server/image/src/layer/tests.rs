use std::io::{Read, Write};

use banger_core::Digest;
use tokio_util::sync::CancellationToken;

use super::*;
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
    let (to, cancel) = (Destination::Spool(tmp.path()), CancellationToken::new());
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
            use std::io::Seek;
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
    let mut endless = spool::SpoolInput::new(std::io::repeat(0), spool::Keep::Nothing, 1 << 20);
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
