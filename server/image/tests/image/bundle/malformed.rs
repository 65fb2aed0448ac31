//! Every way not to be a bundle has its own reason, and leaves nothing.

use banger_core::Explain;
use banger_image::{ImageStore, RegisterSource};

use super::made::{Made, Member, archive, bundle, compress, made, member};
use super::{assert_empty, register};

async fn reason(bytes: Vec<u8>) -> &'static str {
    let (state, uploads) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = ImageStore::open(state.path()).unwrap();
    let path = uploads.path().join("x.tar.zst");
    std::fs::write(&path, bytes).unwrap();
    let error = register(&store, RegisterSource::Bundle { path })
        .await
        .unwrap_err();
    assert_empty(state.path());
    assert!(error.remedy().is_some(), "{error}");
    error.reason()
}

fn parts() -> (Member<'static>, Member<'static>) {
    let Made { manifest, disk, .. } = made();
    (
        member("manifest.json", manifest),
        member("rootfs.ext4", disk),
    )
}

/// The manifest, changed.
fn manifest_with(from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(made().manifest.clone()).unwrap();
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into_bytes()
}

#[tokio::test]
async fn either_order_of_the_members_is_right() {
    let (manifest, rootfs) = parts();
    for members in [[manifest.clone(), rootfs.clone()], [rootfs, manifest]] {
        let state = tempfile::tempdir().unwrap();
        let store = ImageStore::open(state.path()).unwrap();
        let path = state.path().join("x");
        std::fs::write(&path, bundle(&members)).unwrap();
        let image = register(&store, RegisterSource::Bundle { path })
            .await
            .unwrap();
        assert_eq!(image.digest, made().entry.digest);
    }
}

#[tokio::test]
async fn only_the_two_members_may_be_there_and_each_once() {
    let (manifest, rootfs) = parts();
    let with = |extra: Member<'static>| bundle(&[manifest.clone(), rootfs.clone(), extra]);
    for (bytes, expected) in [
        (with(member("passwd", b"x")), "BUNDLE_MEMBER_UNEXPECTED"),
        (
            with(member("./manifest.json", b"x")),
            "BUNDLE_MEMBER_UNEXPECTED",
        ),
        (with(member("", b"x")), "BUNDLE_MEMBER_UNEXPECTED"),
        (with(member("/etc/passwd", b"x")), "BUNDLE_MEMBER_ESCAPES"),
        (
            with(member("../rootfs.ext4", b"x")),
            "BUNDLE_MEMBER_ESCAPES",
        ),
        (with(member("a/../../b", b"x")), "BUNDLE_MEMBER_ESCAPES"),
        (
            with(Member {
                name: b"\xff",
                ..member("", b"")
            }),
            "BUNDLE_MEMBER_ESCAPES",
        ),
        (with(manifest.clone()), "BUNDLE_MEMBER_TWICE"),
        (with(rootfs.clone()), "BUNDLE_MEMBER_TWICE"),
        (
            bundle(std::slice::from_ref(&manifest)),
            "BUNDLE_MEMBER_MISSING",
        ),
        (
            bundle(std::slice::from_ref(&rootfs)),
            "BUNDLE_MEMBER_MISSING",
        ),
        (bundle(&[]), "BUNDLE_MEMBER_MISSING"),
    ] {
        assert_eq!(reason(bytes).await, expected);
    }
}

#[tokio::test]
async fn nothing_but_regular_files_may_be_there() {
    let (manifest, rootfs) = parts();
    // Hard link, symbolic link, devices, directory, FIFO, pax headers, GNU's long names and sparse files, and what
    // nobody knows.
    for kind in *b"123456xgLKSZ" {
        let odd = Member {
            kind,
            ..rootfs.clone()
        };
        let bytes = bundle(&[manifest.clone(), odd]);
        assert_eq!(
            reason(bytes).await,
            "BUNDLE_MEMBER_NOT_A_FILE",
            "{}",
            char::from(kind)
        );
    }
}

#[tokio::test]
async fn what_is_not_whole_is_not_taken() {
    let (manifest, rootfs) = parts();
    let whole = &made().bundle;
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x55;
    let open_ended = compress(&archive(&[manifest.clone(), rootfs.clone()]));
    let mut half_end = archive(&[manifest.clone(), rootfs.clone()]);
    half_end.extend([0; 512]);
    half_end.extend([1; 512]);
    let lying = Member {
        size: Some(1 << 20),
        ..manifest.clone()
    };
    for (bytes, expected) in [
        (Vec::new(), "BUNDLE_TRUNCATED"),
        (whole[..whole.len() / 2].to_vec(), "BUNDLE_TRUNCATED"),
        (open_ended, "BUNDLE_TRUNCATED"),
        (compress(&archive(&[lying])), "BUNDLE_TRUNCATED"),
        (flipped, "BUNDLE_DAMAGED"),
        (b"PK\x03\x04 this is no bundle".to_vec(), "BUNDLE_DAMAGED"),
        (compress(&half_end), "BUNDLE_HEADER_INVALID"),
    ] {
        assert_eq!(reason(bytes).await, expected);
    }
}

#[tokio::test]
async fn nothing_may_come_after_the_end() {
    let (manifest, rootfs) = parts();
    let mut plain = archive(&[manifest.clone(), rootfs.clone()]);
    plain.extend([0; 10240]); // as tools pad
    let with = |tail: &[u8]| compress(&[&plain, tail].concat());
    let mut garbage = made().bundle.clone();
    garbage.extend(b"garbage");
    let mut second = made().bundle.clone();
    second.extend(compress(b"another frame"));
    for bytes in [with(b"x"), with(&vec![0; 2 << 20]), garbage, second] {
        assert_eq!(reason(bytes).await, "BUNDLE_TRAILING_DATA");
    }
}

#[tokio::test]
async fn a_header_must_make_sense() {
    let (manifest, rootfs) = parts();
    let with = |change: fn(&mut [u8])| {
        let mut plain = archive(&[manifest.clone(), rootfs.clone()]);
        change(&mut plain);
        plain.extend([0; 1024]);
        compress(&plain)
    };
    assert_eq!(
        reason(with(|plain| plain[148] ^= 1)).await,
        "BUNDLE_HEADER_INVALID"
    );
    assert_eq!(
        reason(with(|plain| plain[150] = b'z')).await,
        "BUNDLE_HEADER_INVALID"
    );
    assert_eq!(
        reason(with(|plain| plain[..512].fill(b'a'))).await,
        "BUNDLE_HEADER_INVALID"
    );
    let size = with(|plain| {
        plain[124..135].fill(b'9');
        let mut header = tar::Header::from_byte_slice(&plain[..512]).clone();
        header.set_cksum();
        plain[..512].copy_from_slice(header.as_bytes());
    });
    assert_eq!(reason(size).await, "BUNDLE_HEADER_INVALID");
}

#[tokio::test]
async fn lengths_beyond_reason_are_refused_before_their_bytes() {
    let (manifest, rootfs) = parts();
    let huge = |member: Member<'static>, size| Member {
        size: Some(size),
        ..member
    };
    for bytes in [
        bundle(&[huge(manifest.clone(), 5 << 20)]),
        bundle(&[huge(rootfs.clone(), 1 << 50)]),
        bundle(&[huge(rootfs.clone(), u64::MAX)]),
    ] {
        assert_eq!(reason(bytes).await, "BUNDLE_MEMBER_TOO_LARGE");
    }
}

#[tokio::test]
async fn a_window_beyond_reason_is_refused() {
    // RFC 8878 §3.1.1.1: no single segment, a window of 2^30, then one last raw block of 4 bytes.
    let frame = [
        0x28,
        0xb5,
        0x2f,
        0xfd,
        0x00,
        20 << 3,
        0x21,
        0x00,
        0x00,
        1,
        2,
        3,
        4,
    ];
    assert_eq!(reason(frame.to_vec()).await, "BUNDLE_WINDOW_TOO_LARGE");
}

#[tokio::test]
async fn the_manifest_must_be_right_and_the_disk_must_be_what_it_says() {
    let (manifest, rootfs) = parts();
    let size = made().disk.len();
    let digest = made().entry.digest.hex();
    let with = |manifest: Vec<u8>| bundle(&[member("manifest.json", &manifest), rootfs.clone()]);
    let turned = |manifest: Vec<u8>| bundle(&[rootfs.clone(), member("manifest.json", &manifest)]);
    let other_size = || manifest_with(&size.to_string(), &(size + 4096).to_string());
    let mut other_disk = made().disk.clone();
    other_disk[70_000] ^= 1;
    let noise = vec![0x41; size];
    let noise_manifest = {
        let text = String::from_utf8(made().manifest.clone()).unwrap();
        let old = text.split("sha256:").nth(1).unwrap()[..64].to_owned();
        text.replace(&old, &banger_core::Digest::of(&noise).hex())
            .into_bytes()
    };
    assert!(!digest.is_empty());
    for (bytes, expected) in [
        (with(b"{}".to_vec()), "BUNDLE_MANIFEST_INVALID"),
        (with(b"[".to_vec()), "BUNDLE_MANIFEST_INVALID"),
        (
            with(manifest_with("banger.image.v1", "banger.kernel.v1")),
            "BUNDLE_MANIFEST_INVALID",
        ),
        (
            with(manifest_with("{", "{\"extra\":1,")),
            "BUNDLE_MANIFEST_INVALID",
        ),
        (
            with(manifest_with("\"noise\"", "\"../noise\"")),
            "BUNDLE_MANIFEST_INVALID",
        ),
        (turned(b"nothing".to_vec()), "BUNDLE_MANIFEST_INVALID"),
        (with(other_size()), "BUNDLE_ROOTFS_SIZE"),
        (turned(other_size()), "BUNDLE_ROOTFS_SIZE"),
        (
            bundle(&[manifest.clone(), member("rootfs.ext4", &other_disk)]),
            "BUNDLE_ROOTFS_DIGEST",
        ),
        (
            bundle(&[
                member("manifest.json", &noise_manifest),
                member("rootfs.ext4", &noise),
            ]),
            "BUNDLE_ROOTFS_NOT_EXT4",
        ),
        (with(manifest_with("amd64", "arm64")), "BUNDLE_PLATFORM"),
    ] {
        assert_eq!(reason(bytes).await, expected);
    }
}
