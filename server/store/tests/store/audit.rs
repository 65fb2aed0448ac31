//! The audit log: it comes back as it went in, by pages and filters, and gets shorter by age and number.

use std::time::Duration;

use banger_core::audit::{AuditFilter, AuditRecord};
use banger_core::{Owner, Role};

use crate::support::{Scratch, at};

fn record(second: i64, uid: u32, code: i32) -> AuditRecord {
    AuditRecord {
        sequence: 0,
        time: at(second),
        duration: Duration::from_nanos(1_234),
        owner: Owner::of_uid(uid),
        role: Role::User,
        via: format!("unix:{uid}"),
        method: "banger.v1.VmService/StopVm".into(),
        object: "web".into(),
        request_id: "r".into(),
        code,
        reason: if code == 0 { "" } else { "WHY" }.into(),
        lost: 2,
    }
}

/// The sequences of what a filter finds, newest first.
async fn found(scratch: &Scratch, filter: &AuditFilter) -> Vec<u64> {
    let found = scratch.store.list_audit(100, None, filter).await.unwrap();
    found.into_iter().map(|record| record.sequence).collect()
}

#[tokio::test]
async fn records_come_back_as_they_went_in_and_by_filter() {
    let scratch = Scratch::new().await;
    let records = [record(1, 7, 0), record(2, 8, 5), record(3, 7, 0)];
    scratch.store.insert_audit(&records).await.unwrap();
    let all = AuditFilter::default();
    let back = scratch.store.list_audit(1, None, &all).await.unwrap();
    let expected = AuditRecord {
        sequence: 3,
        ..records[2].clone()
    };
    assert_eq!(back, [expected]);
    let older = scratch.store.list_audit(10, Some(3), &all).await.unwrap();
    assert_eq!(older.len(), 2);
    let of = |owner| AuditFilter {
        owner: Some(Owner::of_uid(owner)),
        ..AuditFilter::default()
    };
    assert_eq!(found(&scratch, &of(7)).await, [3, 1]);
    assert_eq!(found(&scratch, &of(9)).await, [0_u64; 0]);
    let since = AuditFilter {
        since: Some(at(2)),
        ..AuditFilter::default()
    };
    assert_eq!(found(&scratch, &since).await, [3, 2]);
    let failed = AuditFilter {
        failed: true,
        ..AuditFilter::default()
    };
    assert_eq!(found(&scratch, &failed).await, [2]);
    let method = AuditFilter {
        method: Some("banger.v1.VmService/KillVm".into()),
        ..AuditFilter::default()
    };
    assert_eq!(found(&scratch, &method).await, [0_u64; 0]);
}

#[tokio::test]
async fn the_old_and_the_many_go_and_no_sequence_comes_again() {
    let scratch = Scratch::new().await;
    let records: Vec<AuditRecord> = (0..10).map(|second| record(second, 7, 0)).collect();
    scratch.store.insert_audit(&records).await.unwrap();
    let all = AuditFilter::default();
    assert_eq!(scratch.store.prune_audit(at(2), 100).await.unwrap(), 2);
    assert_eq!(scratch.store.prune_audit(at(0), 3).await.unwrap(), 5);
    assert_eq!(found(&scratch, &all).await, [10, 9, 8]);
    assert_eq!(scratch.store.prune_audit(at(100), 3).await.unwrap(), 3);
    scratch.store.insert_audit(&records[..1]).await.unwrap();
    assert_eq!(found(&scratch, &all).await, [11]);
}

#[tokio::test]
async fn who_calls_much_makes_the_log_forget_its_own_calls_and_no_others() {
    let scratch = Scratch::new().await;
    let mut records = vec![record(1, 7, 0), record(2, 8, 0)];
    records.extend((3..100).map(|second| record(second, 8, 7)));
    scratch.store.insert_audit(&records).await.unwrap();
    assert_eq!(scratch.store.prune_audit(at(0), 10).await.unwrap(), 89);
    let of = |uid| AuditFilter {
        owner: Some(Owner::of_uid(uid)),
        ..AuditFilter::default()
    };
    assert_eq!(found(&scratch, &of(7)).await, [1]);
    // Its one change is not hidden by refusals either.
    assert_eq!(
        found(&scratch, &of(8)).await,
        [99, 98, 97, 96, 95, 94, 93, 92, 2]
    );
}
