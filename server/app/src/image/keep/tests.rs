use banger_core::image::{ImageConfig, Platform};

use super::*;

fn image(content: &str, create: i64) -> Image {
    Image {
        id: ImageId::new(),
        references: Vec::new(),
        digest: Digest::of(content.as_bytes()),
        platform: Platform::host(),
        config: ImageConfig::default(),
        layers: Vec::new(),
        rootfs_size_bytes: 0,
        rootfs_allocated_bytes: 0,
        origin: String::new(),
        kernel: None,
        create_time: Timestamp::new(create, 0).unwrap(),
    }
}

fn file(path: &str, kind: KeptKind, bytes: u64) -> KeptFile {
    KeptFile {
        path: path.into(),
        kind,
        bytes,
    }
}

#[test]
fn what_two_images_share_is_counted_once_and_freed_by_neither() {
    let (a, b) = (image("a", 1), image("b", 2));
    let of = HashMap::from([
        (
            a.digest,
            vec![
                file("rootfs/a", KeptKind::Rootfs, 100),
                file("blobs/common", KeptKind::Blob, 30),
                file("blobs/a", KeptKind::Blob, 5),
            ],
        ),
        (
            b.digest,
            vec![
                file("rootfs/b", KeptKind::Rootfs, 200),
                file("blobs/common", KeptKind::Blob, 30),
            ],
        ),
    ]);
    let files = Files::new(&[a.clone(), b.clone()], of);
    let usage = files.usage(&a, Vec::new());
    assert_eq!((usage.rootfs_bytes, usage.blob_bytes), (100, 35));
    assert_eq!((usage.shared_bytes, usage.reclaimable_bytes), (30, 105));
    assert_eq!(usage.shared_with, vec![b.id]);
    let total = files.total(7);
    assert_eq!((total.rootfs_bytes, total.blob_bytes), (300, 35));
    assert_eq!(total.unreferenced_bytes, 7);
}

#[test]
fn one_content_kept_for_two_platforms_frees_nothing_alone() {
    let (a, mut b) = (image("a", 1), image("a", 2));
    b.platform.variant = Some("v8".into());
    let of = HashMap::from([(a.digest, vec![file("rootfs/a", KeptKind::Rootfs, 100)])]);
    let files = Files::new(&[a.clone(), b.clone()], of);
    let usage = files.usage(&a, Vec::new());
    assert_eq!((usage.shared_bytes, usage.reclaimable_bytes), (100, 0));
    assert_eq!(usage.shared_with, vec![b.id]);
}
