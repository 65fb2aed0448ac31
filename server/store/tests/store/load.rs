use std::time::{Duration, Instant};

use banger_core::vm::VmState;
use banger_core::{Explain as _, FailureKind};
use banger_store::{CasOutcome, Page};

use crate::support::{Scratch, operation, raw, vm};

const WRITERS: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_and_readers_at_once_are_never_refused() {
    let scratch = Scratch::new().await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = scratch.store.clone();
        tasks.spawn(async move {
            for round in 0..4 {
                let mut vm = vm(&format!("vm-{writer}-{round}"));
                store.insert_vm(&vm).await.unwrap();
                vm.generation = 2;
                vm.state = VmState::Running;
                assert_eq!(store.update_vm(&vm).await.unwrap(), CasOutcome::Updated);
                store.insert_operation(&operation(), None).await.unwrap();
                assert_eq!(store.get_vm(vm.id).await.unwrap(), Some(vm));
                store.list_vms(Page::first(10)).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(scratch.store.count_vms().await.unwrap().running, 256);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_changes_exactly_one_wins() {
    let scratch = Scratch::new().await;
    let mut vm = vm("a");
    scratch.store.insert_vm(&vm).await.unwrap();
    vm.generation = 2;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (store, vm) = (scratch.store.clone(), vm.clone());
        tasks.spawn(async move { store.update_vm(&vm).await.unwrap() });
    }
    let outcomes = tasks.join_all().await;
    let won = outcomes
        .iter()
        .filter(|outcome| **outcome == CasOutcome::Updated)
        .count();
    assert_eq!(won, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_given_up_at_any_point_leave_the_writer_usable() {
    let scratch = Scratch::new().await;
    for round in 0..200_u64 {
        let store = scratch.store.clone();
        let vm = vm(&format!("vm-{round}"));
        let given_up = tokio::time::timeout(Duration::from_micros(round * 5), store.insert_vm(&vm));
        let finished = given_up.await.is_ok();
        let stored = scratch.store.get_vm(vm.id).await.unwrap();
        assert!(!finished || stored.is_some());
    }
    scratch.store.insert_vm(&vm("last")).await.unwrap();
    assert!(
        scratch
            .store
            .find_vm(&"last".parse().unwrap())
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn a_lock_of_another_program_is_unavailable_and_passes() {
    let scratch = Scratch::new().await;
    let mut other = raw(&scratch.file()).await;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let start = Instant::now();
    let error = scratch.store.insert_vm(&vm("a")).await.unwrap_err();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "it waits, but not for ever"
    );
    assert_eq!(error.reason(), "STORE_BUSY");
    assert!(matches!(error.kind(), FailureKind::Unavailable { .. }));
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    scratch.store.insert_vm(&vm("a")).await.unwrap();
}
