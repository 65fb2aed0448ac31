//! Catalogs and what they offer.

use std::path::Path;

use banger_sdk::catalog_file::Index;
use banger_sdk::types;
use banger_sdk::types::catalog_entry::Kind;
use jiff::Timestamp;
use serde::Serialize;

use super::{Fault, age, bytes, timestamp};
use crate::output::Row;

/// A catalog.
#[derive(Debug, Serialize)]
pub(crate) struct Catalog {
    name: String,
    url: String,
    public_key: String,
    version: i64,
    entry_count: i32,
    expire_time: Option<Timestamp>,
    is_expired: bool,
    create_time: Option<Timestamp>,
    refresh_time: Option<Timestamp>,
    refresh_error: Option<Fault>,
}

impl From<types::Catalog> for Catalog {
    fn from(catalog: types::Catalog) -> Self {
        let expire_time = timestamp(catalog.expire_time);
        Self {
            name: catalog.name,
            url: catalog.url,
            public_key: catalog.public_key,
            version: catalog.version,
            entry_count: catalog.entry_count,
            is_expired: expire_time.is_some_and(|time| time <= Timestamp::now()),
            expire_time,
            create_time: timestamp(catalog.create_time),
            refresh_time: timestamp(catalog.refresh_time),
            refresh_error: catalog.refresh_error.as_ref().map(Fault::of),
        }
    }
}

impl Catalog {
    fn state(&self) -> &'static str {
        match (self.is_expired, &self.refresh_error) {
            (true, _) => "expired",
            (false, Some(_)) => "not refreshed",
            (false, None) => "good",
        }
    }

    fn expires(&self) -> String {
        self.expire_time
            .map(|time| time.to_string())
            .unwrap_or_default()
    }
}

impl Row for Catalog {
    const HEADINGS: &'static [&'static str] = &[
        "NAME",
        "URL",
        "VERSION",
        "ENTRIES",
        "STATE",
        "EXPIRES",
        "REFRESHED",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.url.clone(),
            self.version.to_string(),
            self.entry_count.to_string(),
            self.state().to_owned(),
            self.expires(),
            age(self.refresh_time),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("Name", self.name.clone()),
            ("Url", self.url.clone()),
            ("Key", self.public_key.clone()),
            ("Version", self.version.to_string()),
            ("Entries", self.entry_count.to_string()),
            ("State", self.state().to_owned()),
            ("Expires", self.expires()),
            ("Added", age(self.create_time)),
            ("Refreshed", age(self.refresh_time)),
            (
                "Last failure",
                self.refresh_error
                    .as_ref()
                    .map(Fault::text)
                    .unwrap_or_default(),
            ),
        ]
    }
}

/// Something that a catalog offers.
#[derive(Debug, Serialize)]
pub(crate) struct CatalogEntry {
    catalog: String,
    /// `image` or `kernel`.
    kind: &'static str,
    name: String,
    version: String,
    architecture: String,
    description: String,
    size_bytes: i64,
    sha256: String,
    kernel: String,
    rootfs_size_bytes: i64,
}

impl From<types::CatalogEntry> for CatalogEntry {
    fn from(entry: types::CatalogEntry) -> Self {
        Self {
            kind: match entry.kind() {
                Kind::Bundle => "image",
                Kind::Kernel => "kernel",
                Kind::Unspecified => "unknown",
            },
            catalog: entry.catalog,
            name: entry.name,
            version: entry.version,
            architecture: entry.architecture,
            description: entry.description,
            size_bytes: entry.size_bytes,
            sha256: entry.sha256,
            kernel: entry.kernel,
            rootfs_size_bytes: entry.rootfs_size_bytes,
        }
    }
}

impl CatalogEntry {
    /// What `image pull` or `kernel pull` takes.
    fn reference(&self) -> String {
        match self.kind {
            "image" => format!("{}:{}", self.name, self.version),
            _ => self.name.clone(),
        }
    }
}

impl Row for CatalogEntry {
    const HEADINGS: &'static [&'static str] = &[
        "CATALOG",
        "KIND",
        "NAME",
        "RELEASE",
        "ARCHITECTURE",
        "SIZE",
        "KERNEL",
        "DESCRIPTION",
    ];

    fn cells(&self) -> Vec<String> {
        let release = if self.kind == "image" {
            ""
        } else {
            &self.version
        };
        vec![
            self.catalog.clone(),
            self.kind.to_owned(),
            self.reference(),
            release.to_owned(),
            self.architecture.clone(),
            bytes(self.size_bytes),
            self.kernel.clone(),
            self.description.clone(),
        ]
    }

    fn name(&self) -> String {
        self.reference()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// A catalog that was made.
#[derive(Debug, Serialize)]
pub(crate) struct BuiltCatalog {
    directory: String,
    name: String,
    version: u64,
    images: usize,
    kernels: usize,
    expire_time: Timestamp,
    public_key: String,
    add_command: String,
}

impl BuiltCatalog {
    pub(crate) fn new(directory: &Path, index: &Index, public_key: &str) -> Self {
        Self {
            directory: directory.display().to_string(),
            name: index.name.to_string(),
            version: index.version,
            images: index.bundles.len(),
            kernels: index.kernels.len(),
            expire_time: index.expire_time,
            public_key: public_key.to_owned(),
            add_command: format!("banger catalog add URL --key {public_key}"),
        }
    }
}

impl Row for BuiltCatalog {
    const HEADINGS: &'static [&'static str] = &["NAME", "VERSION"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.version.to_string()]
    }

    fn name(&self) -> String {
        self.public_key.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "Catalog",
                format!("{}, version {}", self.name, self.version),
            ),
            ("Directory", self.directory.clone()),
            ("Images", self.images.to_string()),
            ("Kernels", self.kernels.to_string()),
            ("Expires", self.expire_time.to_string()),
            ("Public key", self.public_key.clone()),
            ("Users add it", self.add_command.clone()),
        ]
    }
}
