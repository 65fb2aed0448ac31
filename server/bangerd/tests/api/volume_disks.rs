//! Volumes on a disk that stands still or fails: who asks is told in bounded time, others are not held up, and nothing is
//! left over.

use banger_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::disk::{Calls, Trouble};
use crate::rig::{PATIENCE, Rig, assert_refused, drain, mask};
use crate::stop::until;
use crate::volumes::{delete, disk, get, grow, halves, make, names, request, with};

/// A daemon whose patience with the disk is short.
async fn impatient() -> Rig {
    Rig::start_with(|config| {
        config.volume_timeout = "300ms".parse().unwrap();
        config.remove_timeout = "300ms".parse().unwrap();
    })
    .await
}

/// Volumes that are promised room.
async fn promised(rig: &Rig) -> i64 {
    let usage = rig.hosts().get_usage(v1::GetUsageRequest {}).await;
    let promises = usage.unwrap().into_inner().usage.unwrap().promises;
    promises.unwrap().volumes.unwrap().promised
}

async fn nothing_is_left(rig: &Rig) {
    until("nothing is left", async || {
        halves(rig).is_empty() && names(rig, "volumes").is_empty() && promised(rig).await == 0
    })
    .await;
}

async fn label(rig: &Rig, volume: &str) -> Result<(), Status> {
    let request = v1::UpdateVolumeRequest {
        volume: volume.into(),
        labels: [("team".to_owned(), "web".to_owned())].into(),
        update_mask: Some(mask(&["labels"])),
        ..Default::default()
    };
    rig.volumes().update_volume(request).await.map(drop)
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

fn is_silent(status: &Status) {
    assert_refused(status, Code::DeadlineExceeded, "VOLUME_DISK_SILENT", None);
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert!(info.metadata.contains_key("remedy"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_whose_disk_stands_still_is_told_and_leaves_nothing() {
    let rig = impatient().await;
    let trouble = Trouble::holds(&rig.dir.path().join("state/tmp"));
    for _ in 0..2 {
        is_silent(&in_time(make(&rig, request("data"))).await.unwrap_err());
    }
    assert_eq!(promised(&rig).await, 2, "what may take room counts");
    drop(trouble);
    nothing_is_left(&rig).await;
    make(&rig, request("data")).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_whose_disk_stands_still_can_be_cancelled() {
    let rig = Rig::start().await;
    let trouble = Trouble::holds(&rig.dir.path().join("state/tmp"));
    let answers = rig.volumes().create_volume(request("data")).await;
    let mut answers = answers.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap().message;
    let Some(v1::create_volume_response::Message::Operation(operation)) = first else {
        panic!("{first:?}");
    };
    until("it is made", async || trouble.hit() > 0).await;
    let request = v1::CancelOperationRequest {
        operation: operation.id,
    };
    in_time(rig.operations().cancel_operation(request))
        .await
        .unwrap();
    let ended = in_time(drain(answers)).await.unwrap_err();
    assert_refused(&ended, Code::Cancelled, "OPERATION_CANCELLED", None);
    drop(trouble);
    nothing_is_left(&rig).await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_growth_whose_disk_stands_still_is_told_goes_on_and_holds_up_no_other_volume() {
    let rig = impatient().await;
    rig.furnish().await;
    let data = make(&rig, request("data")).await.unwrap().0;
    make(&rig, request("other")).await.unwrap();
    let file = disk(&rig, &data);
    let trouble = Trouble::holds(file.parent().unwrap());
    let growing = async {
        let told = in_time(grow(&rig, "data", 128)).await.unwrap_err();
        is_silent(&told);
        is_silent(&in_time(label(&rig, "data")).await.unwrap_err());
    };
    let meanwhile = async {
        until("it grows", async || trouble.hit() > 0).await;
        in_time(grow(&rig, "other", 128)).await.unwrap();
        in_time(label(&rig, "other")).await.unwrap();
        in_time(make(&rig, request("third"))).await.unwrap();
        in_time(delete(&rig, "third")).await.unwrap();
    };
    tokio::join!(growing, meanwhile);
    assert_eq!(get(&rig, "data").await.unwrap().size_mib, 128);
    let refused = rig.create_as(with("web", &["data:/data"])).await;
    let refused = refused.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "VOLUME_ATTACHED", None);
    drop(trouble);
    until("it has grown", async || {
        std::fs::metadata(&file).unwrap().len() == 128 << 20
    })
    .await;
    label(&rig, "data").await.unwrap();
    rig.create_as(with("web", &["data:/data"])).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_that_cannot_be_looked_at_are_shown_without_what_they_take() {
    let rig = Rig::start().await;
    let made = make(&rig, request("data")).await.unwrap().0;
    assert!(made.allocated_bytes > 0);
    let trouble = Trouble::holds_looks(&rig.dir.path().join("state/volumes"));
    let shown = in_time(get(&rig, "data")).await.unwrap();
    assert_eq!((shown.size_mib, shown.allocated_bytes), (64, 0));
    let request = v1::ListVolumesRequest::default();
    let listed = in_time(rig.volumes().list_volumes(request)).await.unwrap();
    assert_eq!(listed.into_inner().volumes[0].allocated_bytes, 0);
    drop(trouble);
    assert_eq!(get(&rig, "data").await.unwrap(), made);
    rig.stopped().await;
}

fn cause(status: &Status) -> Option<String> {
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    info.metadata.get("cause").cloned()
}

fn broken_removals(rig: &Rig, place: &str) -> Trouble {
    let place = rig.dir.path().join("state").join(place);
    Trouble::fails(&place, Calls::Removals, libc::EIO, 1000, 1)
}

/// It is gone, or it was when somebody asked.
fn is_gone(answer: Result<(), Status>) {
    if let Err(error) = answer {
        assert_refused(&error, Code::NotFound, "VOLUME_NOT_FOUND", None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_fails_is_told_counts_and_is_tried_at_once_by_who_asks_again() {
    let rig = impatient().await;
    let made = make(&rig, request("data")).await.unwrap().0;
    let trouble = broken_removals(&rig, "volumes");
    for named in ["data", &made.id] {
        let told = delete(&rig, named).await.unwrap_err();
        assert_refused(&told, Code::DeadlineExceeded, "VOLUME_NOT_REMOVED", None);
        assert_eq!(cause(&told).as_deref(), Some("STATE_DIRECTORY_FAILED"));
        assert!(told.message().contains("could not remove"), "{told:?}");
        assert_eq!(promised(&rig).await, 1, "it takes the host's disk");
    }
    let gone = get(&rig, "data").await.unwrap_err();
    assert_refused(&gone, Code::NotFound, "VOLUME_NOT_FOUND", None);
    // The name is free meanwhile; the new volume is another.
    make(&rig, request("data")).await.unwrap();
    assert_eq!(promised(&rig).await, 2);
    drop(trouble);
    is_gone(delete(&rig, &made.id).await);
    assert_eq!(promised(&rig).await, 1);
    delete(&rig, "data").await.unwrap();
    nothing_is_left(&rig).await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_fails_works_at_last_without_anybody_asking() {
    let rig = impatient().await;
    make(&rig, request("data")).await.unwrap();
    let trouble = broken_removals(&rig, "volumes");
    delete(&rig, "data").await.unwrap_err();
    drop(trouble);
    nothing_is_left(&rig).await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_hangs_is_told_and_goes_on() {
    let rig = impatient().await;
    make(&rig, request("data")).await.unwrap();
    let trouble = Trouble::holds_removals(&rig.dir.path().join("state/volumes"));
    for _ in 0..2 {
        let told = in_time(delete(&rig, "data")).await.unwrap_err();
        assert_refused(&told, Code::DeadlineExceeded, "VOLUME_NOT_REMOVED", None);
        assert_eq!(cause(&told), None);
    }
    drop(trouble);
    nothing_is_left(&rig).await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_creation_that_failed_has_made_counts_until_it_is_gone() {
    let rig = impatient().await;
    let volumes = rig.dir.path().join("state/volumes");
    let published = Trouble::fails(&volumes, Calls::Changes, libc::EIO, 1000, 1);
    let removed = broken_removals(&rig, "tmp");
    let failed = make(&rig, request("data")).await.unwrap_err();
    assert_refused(&failed, Code::Internal, "VOLUME_FILE", None);
    assert_eq!((promised(&rig).await, halves(&rig).len()), (1, 1));
    drop(published);
    make(&rig, request("data")).await.expect("the name is free");
    drop(removed);
    until("nothing is left of it", async || {
        halves(&rig).is_empty() && promised(&rig).await == 1
    })
    .await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_removed_keep_no_daemon_from_serving_and_go_when_they_can() {
    let rig = impatient().await;
    make(&rig, request("data")).await.unwrap();
    let trouble = broken_removals(&rig, "volumes");
    delete(&rig, "data").await.unwrap_err();
    let (dir, host) = rig.stopped().await;
    let rig = Rig::start_in(dir, host).await;
    make(&rig, request("data")).await.unwrap();
    assert_eq!(names(&rig, "volumes").len(), 2);
    drop(trouble);
    until("it is swept", async || names(&rig, "volumes").len() == 1).await;
    delete(&rig, "data").await.unwrap();
    rig.stopped().await;
}
