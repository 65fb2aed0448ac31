//! Brings a database to this version's schema.
//!
//! Owns the list of migrations. A migration that was ever released is never edited: the hash of each file
//! is pinned by a test, and the hash of each applied one is kept in the database and compared at every start.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{SqlSafeStr, SqlitePool};

use crate::StoreError;

/// Version, name and text of each migration, in order. A new one goes to the end.
pub(crate) const MIGRATIONS: [(i64, &str, &str); 7] = [
    (1, "initial", include_str!("../migrations/0001_initial.sql")),
    (
        2,
        "catalogs",
        include_str!("../migrations/0002_catalogs.sql"),
    ),
    (
        3,
        "vm_lifecycle",
        include_str!("../migrations/0003_vm_lifecycle.sql"),
    ),
    (4, "volumes", include_str!("../migrations/0004_volumes.sql")),
    (5, "access", include_str!("../migrations/0005_access.sql")),
    (
        6,
        "workspaces",
        include_str!("../migrations/0006_workspaces.sql"),
    ),
    (7, "answers", include_str!("../migrations/0007_answers.sql")),
];

/// The version of the newest migration known here.
pub(crate) const fn latest() -> i64 {
    MIGRATIONS[MIGRATIONS.len() - 1].0
}

/// Applies what is not applied yet, each migration in a transaction of its own.
pub(crate) async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    run(pool, &MIGRATIONS).await
}

async fn run(
    pool: &SqlitePool,
    migrations: &[(i64, &'static str, &'static str)],
) -> Result<(), StoreError> {
    let migration = |(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(
            *version,
            (*name).into(),
            MigrationType::Simple,
            (*sql).into_sql_str(),
            false,
        )
    };
    Migrator::with_migrations(migrations.iter().map(migration).collect())
        .run(pool)
        .await
        .map_err(StoreError::migrate)
}

#[cfg(test)]
mod tests {
    use banger_core::Digest;

    use super::*;

    /// One line for each released migration. Lines are added, never changed.
    const RELEASED: [(i64, &str); 7] = [
        (
            1,
            "sha256:fb51f13ab487e48d74ca357e315a52b4e68ae56374127f852136567c8cfd5af5",
        ),
        (
            2,
            "sha256:794efdd4917ecef2fb89ade2b783686f7d8346f52b42707bc165d64fbd1c7e7e",
        ),
        (
            3,
            "sha256:181109f8621ab9668b6ff1c7eb0fc3134fd7cacfed7232b5a3968c9e8d1ce171",
        ),
        (
            4,
            "sha256:4657e2d067c97c0566602c3ffafab1cfcc9a02e8ffe334dd16fa683f649e7a70",
        ),
        (
            5,
            "sha256:9a75e0eed6b5f37f4aac859ef2dbb0b6fa4fc2652118244ddbd59595bb2004ea",
        ),
        (
            6,
            "sha256:a7604247381fb287d52a8a5857ab65b9ac96e75cb88b39a5ad35ede9b3db1665",
        ),
        (
            7,
            "sha256:5b81a8f1f0a591afc33674c3c3d30508af14880cd9e3a6eac62ca281bd1d4dca",
        ),
    ];

    #[test]
    fn released_migrations_are_never_edited() {
        let actual =
            MIGRATIONS.map(|(version, _, sql)| (version, Digest::of(sql.as_bytes()).to_string()));
        let released = RELEASED.map(|(version, digest)| (version, digest.to_owned()));
        assert_eq!(actual, released);
    }

    #[test]
    fn versions_rise_by_one() {
        let versions = MIGRATIONS.map(|(version, ..)| version);
        assert!(versions.into_iter().eq(1..=latest()), "{versions:?}");
    }

    /// What a database of an earlier version holds is there after each migration.
    #[tokio::test]
    async fn rows_of_the_first_schema_survive() {
        let dir = tempfile::tempdir().unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(dir.path().join("banger.db"))
            .create_if_missing(true)
            .foreign_keys(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        run(&pool, &MIGRATIONS[..1]).await.unwrap();
        let rows = "INSERT INTO images VALUES ('01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f8e', 'sha256:' || hex(zeroblob(32)), \
             'linux', 'amd64', NULL, '{}', '[]', 1, 1, 5); \
             INSERT INTO operations VALUES ('01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f8f', 'pull_image', 't', 'succeeded', \
             NULL, '[]', 1, 2); \
             INSERT INTO requests VALUES ('r', 'm', 'b', '01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f8f', NULL, 3); \
             INSERT INTO vms VALUES ('01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f90', 'web', 7, 'running', NULL, \
             '{\"name\":\"web\"}', '01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f8e', NULL, '[]', NULL, 4, 5, NULL); \
             INSERT INTO vm_processes VALUES ('01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f90', 9, 8, X'2f71', 'boot'); \
             INSERT INTO sessions VALUES ('01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f91', \
             '01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f90');";
        sqlx::raw_sql(rows).execute(&pool).await.unwrap();
        migrate(&pool).await.unwrap();
        let found: (String, Option<String>, String, String) = sqlx::query_as(
            "SELECT images.origin, images.kernel, operations.kind, requests.operation_id \
             FROM images, operations, requests",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!((found.0.as_str(), found.1), ("", None));
        assert_eq!(found.2, "pull_image");
        assert_eq!(found.3, "01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f8f");
        let vm: (String, String, i64, i64, String) = sqlx::query_as(
            "SELECT vms.name, vms.owner, vms.restart_count, vm_processes.pid, sessions.id \
             FROM vms JOIN vm_processes ON vm_processes.vm_id = vms.id JOIN sessions ON sessions.vm_id = vms.id",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!(
            (vm.0.as_str(), vm.1.as_str(), vm.2, vm.3),
            ("web", "", 0, 9)
        );
        assert_eq!(vm.4, "01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f91");
        // What refers to a VM still goes with it.
        sqlx::raw_sql("DELETE FROM vms")
            .execute(&pool)
            .await
            .unwrap();
        let left: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM vm_processes) + (SELECT count(*) FROM sessions)",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!(left, 0);
        // What refers to an operation still goes with it.
        sqlx::raw_sql("DELETE FROM operations")
            .execute(&pool)
            .await
            .unwrap();
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM requests")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(left, 0);
    }

    #[test]
    fn every_file_is_in_the_list() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut files: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let listed = MIGRATIONS.map(|(version, name, _)| format!("{version:04}_{name}.sql"));
        assert_eq!(files, listed);
    }
}
