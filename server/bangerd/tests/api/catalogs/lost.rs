//! Images that were not on the disk when they were told to be here: synced later, or gone and told.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use banger_proto::v1;
use tonic::Code;

use super::{Shelf, files, pulled};
use crate::disk::{Calls, Trouble};
use crate::events;
use crate::rig::{Rig, assert_refused, creation};

/// A daemon that has pulled the image and the kernel of its VM `web`.
async fn pulled_and_started(shelf: &Shelf) -> (Rig, v1::Image) {
    let rig = Rig::start().await;
    rig.add_catalog(shelf).await.unwrap();
    let image = rig.pull(pulled("web:1")).await.unwrap();
    let mut request = creation("web");
    request.spec.as_mut().unwrap().kernel = "k".into();
    rig.create_as(request).await.unwrap();
    (rig, image)
}

/// The marks of what is not synced.
fn marks(state: &Path) -> HashSet<String> {
    let entries = |path: PathBuf| fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let boots = entries(state.join("unsynced"));
    let marks = boots.flat_map(|boot| entries(boot.path()));
    marks
        .map(|mark| mark.file_name().into_string().unwrap())
        .collect()
}

/// Says that an image's disk is not synced.
fn mark(boot: &Path, image: &v1::Image) {
    let hex = image.digest.strip_prefix("sha256:").unwrap();
    fs::write(boot.join(format!("{hex}-v3.ext4")), "").unwrap();
}

async fn images(rig: &Rig) -> Vec<v1::Image> {
    let request = v1::ListImagesRequest::default();
    rig.images()
        .list_images(request)
        .await
        .unwrap()
        .into_inner()
        .images
}

/// Checks that the VM `web` does not start without its image, and does once that was pulled again.
async fn assert_starts_after_a_pull(rig: &Rig, image: &v1::Image) {
    rig.stop_vm("web").await;
    let refused = rig.start_vm("web").await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "IMAGE_NOT_FOUND", None);
    assert!(refused.message().contains(&image.digest), "{refused:?}");
    let again = rig.pull(pulled("web:1")).await.unwrap();
    assert_eq!((&again.id, &again.digest), (&image.id, &image.digest));
    rig.start_vm("web").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_the_disk_does_not_take_is_gone_and_told() {
    let (shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    rig.add_catalog(&shelf).await.unwrap();
    let request = v1::WatchEventsRequest::default();
    let mut told = events::watch(&rig, request).await.unwrap();
    events::snapshot(&mut told).await;
    let rootfs = rig.dir.path().join("state/rootfs");
    let trouble = Trouble::fails(&rootfs, Calls::Flushes, libc::EIO, 1000, 1);
    let image = rig.pull(pulled("web:1")).await.unwrap();
    events::until(&mut told, v1::event::Kind::ImageRemoved).await;
    assert!(images(&rig).await.is_empty());
    assert_eq!(files(&rig, "rootfs"), 0);
    drop(trouble);
    let again = rig.pull(pulled("web:1")).await.unwrap();
    assert_eq!(again.digest, image.digest);
    let (dir, host) = rig.stopped().await;
    assert_eq!(marks(&dir.path().join("state")), HashSet::new());
    let rig = Rig::start_in(dir, host).await;
    assert_eq!(images(&rig).await.len(), 1);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_whose_image_the_disk_did_not_take_does_not_start_before_it_is_pulled_again() {
    let shelf = Shelf::furnished().await;
    let (rig, image) = pulled_and_started(&shelf).await;
    let (dir, host) = rig.stopped().await;
    let state = dir.path().join("state");
    // As if the daemon had died before it was on the disk.
    let boot = fs::read_dir(state.join("unsynced")).unwrap().next();
    mark(&boot.unwrap().unwrap().path(), &image);
    let trouble = Trouble::fails(&state.join("rootfs"), Calls::Flushes, libc::EIO, 1000, 1);
    let rig = Rig::start_in(dir, host).await;
    while files(&rig, "rootfs") > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(
        images(&rig).await,
        std::slice::from_ref(&image),
        "a VM uses it"
    );
    drop(trouble);
    assert_starts_after_a_pull(&rig, &image).await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_ended_before_an_image_was_on_the_disk_has_it_no_more() {
    let shelf = Shelf::furnished().await;
    let (rig, image) = pulled_and_started(&shelf).await;
    let other = rig.pull(pulled("web:2")).await.unwrap();
    let (dir, host) = rig.stopped().await;
    let state = dir.path().join("state");
    assert_eq!(marks(&state), HashSet::new(), "a daemon that ends syncs");
    let earlier = state.join("unsynced/an-earlier-boot");
    fs::create_dir(&earlier).unwrap();
    mark(&earlier, &image);
    mark(&earlier, &other);
    let rig = Rig::start_in(dir, host).await;
    assert_eq!(
        images(&rig).await,
        std::slice::from_ref(&image),
        "a VM uses it"
    );
    assert_starts_after_a_pull(&rig, &image).await;
    rig.pull(pulled("web:2")).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_stands_still_does_not_hold_up_the_end() {
    let shelf = Shelf::furnished().await;
    let rig = Rig::start_with(|config| config.undo_timeout = "200ms".parse().unwrap()).await;
    rig.add_catalog(&shelf).await.unwrap();
    rig.pull(pulled("web:1")).await.unwrap();
    let trouble = Trouble::holds(&rig.dir.path().join("state/rootfs"));
    let (dir, host) = rig.stopped().await;
    drop(trouble);
    let rig = Rig::start_in(dir, host).await;
    assert_eq!(images(&rig).await.len(), 1);
    rig.stopped().await;
}
