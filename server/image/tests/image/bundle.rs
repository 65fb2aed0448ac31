//! Bundles: written, read back, and every way not to be one; from files, directories and servers that lie.
mod fetch;
mod made;
mod malformed;

use std::path::Path;

use crate::support::{TestImage, leftovers};
use banger_core::operation::NoProgress;
use banger_core::{Digest, Explain};
use banger_image::{
    BuiltImage, BundleNames, ImageStore, RegisterOptions, RegisterSource, StoreError,
};
use made::{Made, made};
use tokio_util::sync::CancellationToken;

fn register_options() -> RegisterOptions {
    RegisterOptions {
        platform: "linux/amd64".parse().unwrap(),
    }
}

async fn register(store: &ImageStore, source: RegisterSource) -> Result<BuiltImage, StoreError> {
    let cancel = CancellationToken::new();
    store
        .register(source, &register_options(), &NoProgress, &cancel)
        .await
}

/// Asserts that nothing of an image is in the store.
fn assert_empty(state: &Path) {
    assert_eq!(leftovers(state), Vec::<std::path::PathBuf>::new());
    for directory in ["rootfs", "blobs/sha256"] {
        assert_eq!(
            std::fs::read_dir(state.join(directory)).unwrap().count(),
            0,
            "{directory}"
        );
    }
}

fn names(name: &str, version: &str) -> BundleNames {
    BundleNames {
        name: name.parse().unwrap(),
        version: version.parse().unwrap(),
        kernel: Some("cloud".parse().unwrap()),
    }
}

async fn export(store: &ImageStore, image: Digest, version: &str) -> Vec<u8> {
    let cancel = CancellationToken::new();
    let mut bytes = Vec::new();
    let plan = store
        .plan_export(image, names("noise", version), &cancel)
        .unwrap();
    plan.write(&mut bytes, &cancel).unwrap();
    bytes
}

#[tokio::test]
async fn an_image_survives_its_bundle_and_the_same_image_is_the_same_bytes() {
    let Made { bundle, entry, .. } = made();
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let file = state.path().join("x.tar.zst");
    std::fs::write(&file, bundle).unwrap();
    let path = file.clone();
    let config = Box::default();
    // Found out from its content.
    let image = register(
        &store,
        RegisterSource::Detect {
            path,
            config,
            image: None,
        },
    )
    .await
    .unwrap();
    assert_eq!(image.digest, entry.digest);
    assert_eq!(image.config.cmd, ["/bin/sh"]);
    assert_eq!(
        image.kernel.as_ref().map(banger_core::Name::as_str),
        Some("cloud")
    );
    assert!(image.rootfs_allocated_bytes < image.rootfs_size_bytes);
    assert_eq!(store.load(image.digest).unwrap(), image);
    assert_eq!(&export(&store, image.digest, "1").await, bundle);
    assert_ne!(&export(&store, image.digest, "2").await, bundle);
    // Nothing of it is pruned while it is referenced, and all of it afterwards.
    let keep = [image.digest].into();
    assert_eq!(
        store
            .prune(&keep, banger_image::Sweep::Remove)
            .unwrap()
            .files,
        0
    );
    store.remove(image.digest).unwrap();
    std::fs::remove_file(file).unwrap();
    assert_empty(state.path());
}

#[tokio::test]
async fn the_disk_of_a_bundle_is_the_disk_it_was_made_of() {
    let Made { bundle, disk, .. } = made();
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let path = state.path().join("x.tar.zst");
    std::fs::write(&path, bundle).unwrap();
    let image = register(&store, RegisterSource::Bundle { path })
        .await
        .unwrap();
    assert!(std::fs::read(image.rootfs_path).unwrap() == *disk);
}

#[tokio::test]
async fn a_bare_file_system_becomes_an_image_and_anything_else_does_not() {
    let Made { disk, .. } = made();
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let path = state.path().join("x.ext4");
    std::fs::write(&path, disk).unwrap();
    let config = Box::default();
    let detect = RegisterSource::Detect {
        path: path.clone(),
        config,
        image: None,
    };
    let image = register(&store, detect).await.unwrap();
    assert!(std::fs::read(&image.rootfs_path).unwrap() == *disk);
    assert!(image.rootfs_allocated_bytes < image.rootfs_size_bytes);
    let mut unclean = disk.clone();
    // The feature `needs_recovery` (kernel documentation, ext4, "The Super Block").
    unclean[1024 + 0x60] |= 0x4;
    std::fs::write(&path, unclean).unwrap();
    let source = RegisterSource::Ext4 {
        path: path.clone(),
        config: Box::default(),
    };
    let error = register(&store, source).await.unwrap_err();
    assert_eq!(error.reason(), "BUNDLE_ROOTFS_UNCLEAN");
    assert!(error.remedy().unwrap().contains("e2fsck"));
    let mut broken = disk.clone();
    broken.truncate(disk.len() / 2);
    std::fs::write(&path, broken).unwrap();
    let config = Box::default();
    let error = register(&store, RegisterSource::Ext4 { path, config })
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "BUNDLE_ROOTFS_NOT_EXT4");
}

#[tokio::test]
async fn an_export_that_is_given_up_or_that_nobody_takes_ends() {
    struct Gone;
    impl std::io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let layout = state.path().join("layout");
    TestImage::simple(9, 8 << 20).write_layout(&layout);
    let source = RegisterSource::OciLayout {
        path: layout,
        image: None,
    };
    let image = register(&store, source).await.unwrap();
    let cancel = CancellationToken::new();
    let plan = || store.plan_export(image.digest, names("a", "1"), &cancel);
    assert!(plan().unwrap().write(&mut Gone, &cancel).is_err());
    let begun = plan().unwrap();
    cancel.cancel();
    assert!(begun.write(&mut Vec::new(), &cancel).is_err());
    assert!(plan().is_err());
}

#[tokio::test]
async fn a_base_disk_that_changed_is_not_exported_as_the_image() {
    let Made { bundle, .. } = made();
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let path = state.path().join("x.tar.zst");
    std::fs::write(&path, bundle).unwrap();
    let image = register(&store, RegisterSource::Bundle { path })
        .await
        .unwrap();
    let disk = std::fs::OpenOptions::new()
        .write(true)
        .open(&image.rootfs_path)
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&disk, b"rot", 5000).unwrap();
    let cancel = CancellationToken::new();
    let plan = store
        .plan_export(image.digest, names("a", "1"), &cancel)
        .unwrap();
    let error = plan.write(&mut Vec::new(), &cancel).unwrap_err();
    assert_eq!(error.reason(), "IMAGE_DISK_CHANGED");
}
