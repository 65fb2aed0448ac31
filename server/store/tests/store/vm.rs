use std::collections::BTreeMap;

use banger_core::vm::{Phase, RestartPolicy, VmState};
use banger_core::{Explain as _, FailureKind, ImageId, VmId};
use banger_store::{CasOutcome, Page, StoreError, VmCounts};
use proptest::prelude::*;
use sqlx::Row as _;

use crate::support::{Scratch, at, failure, image, kernel, name, raw, vm};

#[tokio::test]
async fn a_vm_comes_back_as_it_went_in_every_state() {
    let scratch = Scratch::new().await;
    let states = [
        VmState::Creating,
        VmState::Starting,
        VmState::Running,
        VmState::Pausing,
        VmState::Paused,
        VmState::Resuming,
        VmState::Stopping,
        VmState::Stopped,
        VmState::Failed(Box::new(failure())),
        VmState::Deleting,
    ];
    assert_eq!(states.len(), Phase::ALL.len());
    for (index, state) in states.into_iter().enumerate() {
        let mut vm = vm(&format!("vm-{index}"));
        vm.state = state;
        scratch.store.insert_vm(&vm).await.unwrap();
        assert_eq!(scratch.store.get_vm(vm.id).await.unwrap(), Some(vm.clone()));
        let found = scratch.store.find_vm(&vm.spec.name).await.unwrap();
        assert_eq!(found, Some(vm));
    }
}

#[tokio::test]
async fn a_name_is_taken_until_its_vm_is_deleted() {
    let scratch = Scratch::new().await;
    let (first, second) = (vm("web"), vm("web"));
    scratch.store.insert_vm(&first).await.unwrap();
    let error = scratch.store.insert_vm(&second).await.unwrap_err();
    assert_eq!(error.reason(), "NAME_TAKEN");
    assert_eq!(
        error.kind(),
        FailureKind::AlreadyExists {
            resource: "vm".into(),
            name: "web".into()
        }
    );
    assert!(scratch.store.delete_vm(first.id).await.unwrap());
    assert!(!scratch.store.delete_vm(first.id).await.unwrap());
    scratch.store.insert_vm(&second).await.unwrap();
    let found = scratch.store.find_vm(&name("web")).await.unwrap();
    assert_eq!(found.map(|vm| vm.id), Some(second.id));
}

#[tokio::test]
async fn an_id_is_used_once() {
    let scratch = Scratch::new().await;
    let first = vm("a");
    let mut second = vm("b");
    second.id = first.id;
    scratch.store.insert_vm(&first).await.unwrap();
    let error = scratch.store.insert_vm(&second).await.unwrap_err();
    assert_eq!(error.reason(), "ID_TAKEN");
}

#[tokio::test]
async fn only_the_next_generation_changes_a_vm() {
    let scratch = Scratch::new().await;
    let mut vm = vm("a");
    assert_eq!(
        scratch.store.update_vm(&vm).await.unwrap(),
        CasOutcome::Missing
    );
    scratch.store.insert_vm(&vm).await.unwrap();
    for (generation, outcome) in [
        (0, CasOutcome::Stale),
        (1, CasOutcome::Stale),
        (3, CasOutcome::Stale),
        (2, CasOutcome::Updated),
        (2, CasOutcome::Stale),
        (3, CasOutcome::Updated),
    ] {
        vm.generation = generation;
        vm.stop_time = Some(at(i64::try_from(generation).unwrap()));
        assert_eq!(
            scratch.store.update_vm(&vm).await.unwrap(),
            outcome,
            "{generation}"
        );
    }
    assert_eq!(scratch.store.get_vm(vm.id).await.unwrap(), Some(vm));
}

#[tokio::test]
async fn a_writer_whose_updates_failed_goes_on_from_what_it_knows() {
    let scratch = Scratch::new().await;
    let mut vm = vm("a");
    scratch.store.insert_vm(&vm).await.unwrap();
    for (generation, known, outcome) in [
        (5, 2, CasOutcome::Stale),
        (5, 1, CasOutcome::Updated),
        (5, 1, CasOutcome::Stale),
        (7, 5, CasOutcome::Updated),
    ] {
        vm.generation = generation;
        let updated = scratch.store.update_vm_since(&vm, known).await.unwrap();
        assert_eq!(updated, outcome, "{generation} since {known}");
    }
}

#[tokio::test]
async fn an_update_sets_everything_but_the_creation() {
    let scratch = Scratch::new().await;
    let before = vm("a");
    scratch.store.insert_vm(&before).await.unwrap();
    let image = scratch.store.insert_image(&image("i"), "i").await.unwrap();
    let kernel = scratch
        .store
        .insert_kernel(&kernel("k"), false)
        .await
        .unwrap();
    let mut after = before.clone();
    after.spec.name = name("b");
    after.spec.labels.clear();
    after.image = Some(image.id);
    after.kernel = Some(kernel.id);
    after.state = VmState::Failed(Box::new(failure()));
    after.generation = 2;
    after.boot_timing.clear();
    after.last_stop = None;
    after.start_time = None;
    after.stop_time = Some(at(9));
    scratch.store.update_vm(&after).await.unwrap();
    assert_eq!(
        scratch.store.get_vm(after.id).await.unwrap(),
        Some(after.clone())
    );
    let mut moved = after.clone();
    moved.generation = 3;
    moved.create_time = at(1);
    scratch.store.update_vm(&moved).await.unwrap();
    let stored = scratch.store.get_vm(after.id).await.unwrap().unwrap();
    assert_eq!(stored.create_time, before.create_time);
}

#[tokio::test]
async fn a_vm_of_an_image_that_is_gone_is_refused() {
    let scratch = Scratch::new().await;
    let mut vm = vm("a");
    vm.image = Some(ImageId::new());
    let error = scratch.store.insert_vm(&vm).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::PartMissing { resource: "image", id } if *id == vm.image.unwrap().to_string()),
        "{error:?}"
    );
    assert_eq!(scratch.store.count_vms().await.unwrap().total, 0);
}

#[tokio::test]
async fn lists_are_newest_first_and_page_without_gap_or_repeat() {
    let scratch = Scratch::new().await;
    let mut ids = Vec::new();
    for index in 0..7 {
        let vm = vm(&format!("vm-{index}"));
        ids.push(vm.id);
        scratch.store.insert_vm(&vm).await.unwrap();
    }
    let oldest_first: Vec<VmId> = scratch
        .store
        .all_vms()
        .await
        .unwrap()
        .iter()
        .map(|vm| vm.id)
        .collect();
    assert_eq!(oldest_first, ids);
    ids.reverse();
    let mut seen = Vec::new();
    let mut page = Page::first(3);
    loop {
        let vms = scratch.store.list_vms(page).await.unwrap();
        let Some(last) = vms.last() else { break };
        assert!(vms.len() <= 3);
        page = Page::after(last.id, 3);
        seen.extend(vms.iter().map(|vm| vm.id));
    }
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn the_running_ones_are_counted() {
    let scratch = Scratch::new().await;
    for (index, state) in [VmState::Running, VmState::Stopped, VmState::Running]
        .into_iter()
        .enumerate()
    {
        let mut vm = vm(&format!("vm-{index}"));
        vm.state = state;
        scratch.store.insert_vm(&vm).await.unwrap();
    }
    assert_eq!(
        scratch.store.count_vms().await.unwrap(),
        VmCounts {
            total: 3,
            running: 2
        }
    );
}

#[tokio::test]
async fn the_largest_numbers_are_kept_or_refused() {
    let scratch = Scratch::new().await;
    let mut vm = vm("a");
    vm.generation = i64::MAX.unsigned_abs();
    vm.spec.memory_mib = u64::MAX;
    scratch.store.insert_vm(&vm).await.unwrap();
    assert_eq!(scratch.store.get_vm(vm.id).await.unwrap(), Some(vm.clone()));
    vm.generation += 1;
    let error = scratch.store.update_vm(&vm).await.unwrap_err();
    assert_eq!(error.reason(), "STORE_VALUE_OUT_OF_RANGE");
}

/// Rows of released versions must stay readable, so the stored form is fixed here.
#[tokio::test]
async fn the_stored_form_is_the_released_one() {
    let scratch = Scratch::new().await;
    let mut vm = vm("web");
    vm.state = VmState::Failed(Box::new(failure()));
    vm.spec.ttl = None;
    vm.spec.restart_policy = RestartPolicy::Never;
    scratch.store.insert_vm(&vm).await.unwrap();
    let row = sqlx::query(
        "SELECT spec, phase, failure, shape, boot_timing, last_stop, create_time FROM vms",
    )
    .fetch_one(&mut raw(&scratch.file()).await)
    .await
    .unwrap();
    assert_eq!(
        row.get::<&str, _>("shape"),
        r#"{"vcpu_count":1,"memory_mib":256,"disk_mib":8192}"#
    );
    assert_eq!(
        row.get::<&str, _>("spec"),
        r#"{"name":"web","labels":{"team":"a'b\"c"},"image":"docker.io/library/debian:12","vcpu_count":2,"memory_mib":512,"disk_mib":8192,"env":{"PATH":"/bin"},"network":"user","ephemeral":true}"#
    );
    assert_eq!(row.get::<&str, _>("phase"), "failed");
    assert_eq!(
        row.get::<&str, _>("failure"),
        r#"{"kind":"unavailable","retry_after":{"secs":3,"nanos":0},"reason":"VMM_GONE","message":"the VM's VMM is gone","remedy":"Start the VM again.","metadata":{"a":"b"}}"#
    );
    assert_eq!(
        row.get::<&str, _>("boot_timing"),
        r#"[{"key":{"name":"fetch","item":"abc"},"start_time":"1970-01-01T00:00:01.123456789Z","end_time":"1970-01-01T00:00:02.123456789Z","done_bytes":7,"total_bytes":8}]"#
    );
    assert_eq!(
        row.get::<&str, _>("last_stop"),
        r#"{"rung":"agent","took":{"secs":1,"nanos":234000000},"restart_time":"2023-11-14T22:13:25.123456789Z"}"#
    );
    assert_eq!(row.get::<i64, _>("create_time"), 1_700_000_000_123_456_789);
    // Rows from before a start by policy was planned in them.
    sqlx::query("UPDATE vms SET last_stop = '{\"rung\":\"agent\",\"took\":{\"secs\":1,\"nanos\":234000000}}'")
        .execute(&mut raw(&scratch.file()).await)
        .await
        .unwrap();
    let read = scratch.store.get_vm(vm.id).await.unwrap().unwrap();
    vm.last_stop.as_mut().unwrap().restart_time = None;
    assert_eq!(read.last_stop, vm.last_stop);
}

/// Text with quotes, control characters, NUL and everything else a `String` can hold.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![any::<char>(), Just('\0'), Just('\''), Just('"'), Just('\\')],
        0..40,
    )
    .prop_map(|characters| characters.into_iter().collect())
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(text(), text(), 0..6)
}

#[test]
fn odd_text_survives() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let scratch = runtime.block_on(Scratch::new());
    proptest!(ProptestConfig::with_cases(64), |(labels in map(), env in map(), image in text(), message in text())| {
        let mut vm = vm("odd");
        vm.spec.labels = labels;
        vm.spec.env = env;
        vm.spec.image = image;
        let mut failure = failure();
        failure.message = message;
        vm.state = VmState::Failed(Box::new(failure));
        let stored = runtime.block_on(async {
            scratch.store.insert_vm(&vm).await.unwrap();
            let stored = scratch.store.get_vm(vm.id).await.unwrap();
            scratch.store.delete_vm(vm.id).await.unwrap();
            stored
        });
        prop_assert_eq!(stored, Some(vm));
    });
}
