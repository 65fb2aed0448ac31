use banger_core::{Explain, Failure, VmId};
use banger_store::StoreError;

use crate::support::name;

fn database_error() -> sqlx::Error {
    sqlx::Error::PoolTimedOut
}

fn all() -> Vec<(StoreError, &'static str)> {
    let mut all = of_the_database();
    all.extend(of_values());
    all
}

fn of_the_database() -> Vec<(StoreError, &'static str)> {
    let path = || "/s/banger.db".into();
    let source = database_error;
    let during = "insert the VM";
    vec![
        (
            StoreError::Open {
                path: path(),
                source: source(),
            },
            "could not open the database `/s/banger.db`",
        ),
        (
            StoreError::NotOurs { path: path() },
            "`/s/banger.db` is not a database of banger",
        ),
        (
            StoreError::Newer {
                path: path(),
                found: 7,
                known: 3,
            },
            "the database `/s/banger.db` has schema 7, and this version knows up to 3",
        ),
        (
            StoreError::Migrate {
                source: sqlx::migrate::MigrateError::Dirty(1),
            },
            "could not bring the database's schema up to date",
        ),
        (
            StoreError::Busy {
                during,
                source: source(),
            },
            "the database was busy for too long to insert the VM",
        ),
        (
            StoreError::DiskFull {
                during,
                source: source(),
            },
            "the disk is full: could not insert the VM",
        ),
        (
            StoreError::DiskFailed {
                during,
                source: source(),
            },
            "the disk of the database fails: could not insert the VM",
        ),
        (
            StoreError::Closed { during },
            "the store is closed: could not insert the VM",
        ),
        (
            StoreError::Damaged {
                during,
                source: source(),
            },
            "the database is damaged, or its disk fails: could not insert the VM",
        ),
        (
            StoreError::Query {
                during,
                source: source(),
            },
            "could not insert the VM",
        ),
    ]
}

fn of_values() -> Vec<(StoreError, &'static str)> {
    let id: VmId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
    vec![
        (
            StoreError::Corrupt {
                table: "vms",
                column: "phase",
                id: "x".into(),
                detail: "walking".into(),
            },
            "column phase of vms `x` holds no valid value (walking)",
        ),
        (
            StoreError::OutOfRange {
                column: "generation",
            },
            "generation is out of the range that can be stored",
        ),
        (
            StoreError::Encode {
                column: "spec",
                source: serde_json::from_str::<bool>("x").unwrap_err(),
            },
            "could not encode spec",
        ),
        (
            StoreError::NameTaken {
                resource: "vm",
                name: name("web"),
            },
            "the name `web` is taken by another vm",
        ),
        (
            StoreError::IdTaken {
                resource: "session",
                id: "x".into(),
            },
            "the id `x` is taken by another session",
        ),
        (
            StoreError::VmMissing { id },
            "VM `01890a5d-ac96-774b-bcce-b302099a8057` does not exist",
        ),
        (
            StoreError::PartMissing {
                resource: "image",
                id: "x".into(),
            },
            "the image `x` of the VM no longer exists",
        ),
    ]
}

#[test]
fn each_error_says_what_failed() {
    for (error, text) in all() {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn reasons_are_distinct_upper_snake() {
    let mut reasons: Vec<&str> = all().iter().map(|(error, _)| error.reason()).collect();
    for reason in &reasons {
        let upper_snake = |c: char| c.is_ascii_uppercase() || c == '_';
        assert!(
            reason.len() <= 63 && reason.chars().all(upper_snake),
            "{reason}"
        );
    }
    let count = reasons.len();
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), count);
}

#[test]
fn the_stored_failure_has_the_whole_chain() {
    let failure = Failure::of(&StoreError::Busy {
        during: "insert the VM",
        source: database_error(),
    });
    assert!(
        failure
            .message
            .starts_with("the database was busy for too long to insert the VM: "),
        "{failure}"
    );
}
