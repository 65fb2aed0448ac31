use std::path::Path;

use banger_core::Explain as _;
use banger_store::{Store, StoreError};
use sqlx::Connection as _;

use crate::support::{Scratch, file_in, raw, vm};

async fn refused(file: &Path) -> StoreError {
    match Store::open(file).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn what_was_stored_is_there_after_reopening() {
    let scratch = Scratch::new().await;
    let vm = vm("a");
    scratch.store.insert_vm(&vm).await.unwrap();
    scratch.store.close().await;
    let again = Store::open(&scratch.file()).await.unwrap();
    assert_eq!(again.all_vms().await.unwrap(), [vm]);
}

#[tokio::test]
async fn a_closed_store_leaves_one_file_and_refuses() {
    let scratch = Scratch::new().await;
    let vm = vm("a");
    scratch.store.insert_vm(&vm).await.unwrap();
    scratch.store.get_vm(vm.id).await.unwrap();
    scratch.store.close().await;
    let files = std::fs::read_dir(scratch.dir.path()).unwrap().count();
    assert_eq!(files, 1, "the log is folded into the database");
    let error = scratch.store.get_vm(vm.id).await.unwrap_err();
    assert_eq!(error.reason(), "STORE_CLOSED");
    let error = scratch.store.insert_vm(&vm).await.unwrap_err();
    assert_eq!(error.reason(), "STORE_CLOSED");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let text = "not a database, but long enough to look like one. ".repeat(100);
    std::fs::write(&file, &text).unwrap();
    let error = refused(&file).await;
    assert_eq!(error.reason(), "STORE_NOT_OURS");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn the_database_of_another_program_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    let scratch = Scratch::new().await;
    scratch.store.close().await;
    std::fs::copy(scratch.file(), &file).unwrap();
    let mut connection = raw(&file).await;
    sqlx::raw_sql("PRAGMA journal_mode = DELETE; PRAGMA application_id = 7")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let before = std::fs::read(&file).unwrap();
    let error = refused(&file).await;
    assert_eq!(error.reason(), "STORE_NOT_OURS");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn the_database_of_a_newer_version_is_refused() {
    let scratch = Scratch::new().await;
    scratch.store.close().await;
    let mut connection = raw(&scratch.file()).await;
    sqlx::query("UPDATE _sqlx_migrations SET version = version + 41")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let error = refused(&scratch.file()).await;
    assert!(
        matches!(
            error,
            StoreError::Newer {
                found: 48,
                known: 7,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_schema_that_another_text_made_is_refused() {
    let scratch = Scratch::new().await;
    scratch.store.close().await;
    let mut connection = raw(&scratch.file()).await;
    sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00'")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    assert_eq!(
        refused(&scratch.file()).await.reason(),
        "STORE_NOT_MIGRATED"
    );
}

#[tokio::test]
async fn a_database_that_was_created_but_not_yet_filled_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_in(dir.path());
    for sql in ["", "PRAGMA application_id = 0x626e6772"] {
        std::fs::write(&file, "").unwrap();
        let mut connection = raw(&file).await;
        sqlx::query(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let store = Store::open(&file).await.unwrap();
        store.close().await;
        std::fs::remove_file(&file).unwrap();
    }
}

#[tokio::test]
async fn a_missing_directory_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = refused(&dir.path().join("none/banger.db")).await;
    assert_eq!(error.reason(), "STORE_NOT_OPENED");
    assert!(error.remedy().is_some());
}

#[tokio::test]
async fn a_corrupt_word_is_named_by_table_column_and_id() {
    let scratch = Scratch::new().await;
    let vm = vm("a");
    scratch.store.insert_vm(&vm).await.unwrap();
    let mut connection = raw(&scratch.file()).await;
    for (column, value) in [
        ("phase", "'walking'"),
        ("failure", "'{}'"),
        ("boot_timing", "'[1'"),
        ("image_id", "'../..'"),
        ("generation", "-1"),
    ] {
        let before: String = format!("UPDATE vms SET {column} = {value}");
        let undo = format!("UPDATE vms SET {column} = (SELECT {column} FROM copy)");
        let sql = format!(
            "PRAGMA ignore_check_constraints = ON; DROP TABLE IF EXISTS copy; \
             CREATE TEMP TABLE copy AS SELECT * FROM vms; {before}"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
        let error = scratch.store.get_vm(vm.id).await.unwrap_err();
        assert_eq!(error.reason(), "STORE_VALUE_CORRUPT", "{column}");
        let metadata = error.metadata();
        assert!(metadata.contains(&("table", "vms".into())), "{metadata:?}");
        assert!(
            metadata.contains(&("column", column.into())),
            "{metadata:?}"
        );
        assert!(
            metadata.contains(&("id", vm.id.to_string())),
            "{metadata:?}"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(undo))
            .execute(&mut connection)
            .await
            .unwrap();
        assert!(scratch.store.get_vm(vm.id).await.is_ok(), "{column}");
    }
}

#[tokio::test]
async fn a_row_that_names_a_missing_one_is_a_fault_of_the_databases_health() {
    let scratch = Scratch::new().await;
    let health = scratch.store.check_health().await.unwrap();
    assert_eq!(health.faults, Vec::<String>::new());
    assert!(health.file_bytes > 0);
    let mut raw = raw(&scratch.file()).await;
    sqlx::query("INSERT INTO image_references VALUES ('a:1', 'no such image')")
        .execute(&mut raw)
        .await
        .unwrap();
    let health = scratch.store.check_health().await.unwrap();
    let fault = "a row of image_references names a row that is not there";
    assert_eq!(health.faults, [fault]);
}

#[tokio::test]
async fn a_damaged_page_is_found() {
    let scratch = Scratch::new().await;
    scratch.store.insert_vm(&vm("a")).await.unwrap();
    scratch.store.close().await;
    let mut connection = raw(&scratch.file()).await;
    let (page, size): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT rootpage FROM sqlite_schema WHERE name = 'vms'), (SELECT page_size FROM pragma_page_size)",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let mut bytes = std::fs::read(scratch.file()).unwrap();
    let (page, size) = (
        usize::try_from(page).unwrap(),
        usize::try_from(size).unwrap(),
    );
    bytes[(page - 1) * size..page * size].fill(0x5a);
    std::fs::write(scratch.file(), bytes).unwrap();
    let store = Store::open(&scratch.file()).await.unwrap();
    match store.check_health().await {
        Ok(health) => assert!(!health.faults.is_empty()),
        Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}"),
    }
}
