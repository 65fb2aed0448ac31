//! Brings a database to this version's schema.
//!
//! Owns the list of migrations. A migration that was ever released is never edited: the hash of each file
//! is pinned by a test, and the hash of each applied one is kept in the database and compared at every start.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{SqlSafeStr, SqlitePool};

use crate::StoreError;

/// Version, name and text of each migration, in order. A new one goes to the end.
pub(crate) const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "initial", include_str!("../migrations/0001_initial.sql")),
    (
        2,
        "catalogs",
        include_str!("../migrations/0002_catalogs.sql"),
    ),
];

/// The version of the newest migration known here.
pub(crate) const fn latest() -> i64 {
    MIGRATIONS[MIGRATIONS.len() - 1].0
}

/// Applies what is not applied yet, each migration in a transaction of its own.
pub(crate) async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let migrations = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(
            version,
            name.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(migrations.to_vec())
        .run(pool)
        .await
        .map_err(StoreError::migrate)
}

#[cfg(test)]
mod tests {
    use banger_core::Digest;

    use super::*;

    /// One line for each released migration. Lines are added, never changed.
    const RELEASED: [(i64, &str); 2] = [
        (
            1,
            "sha256:fb51f13ab487e48d74ca357e315a52b4e68ae56374127f852136567c8cfd5af5",
        ),
        (
            2,
            "sha256:794efdd4917ecef2fb89ade2b783686f7d8346f52b42707bc165d64fbd1c7e7e",
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
    fn versions_rise_by_one_from_one() {
        let versions: Vec<i64> = MIGRATIONS.iter().map(|(version, ..)| *version).collect();
        let expected: Vec<i64> = (1..=latest()).collect();
        assert_eq!(versions, expected);
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
