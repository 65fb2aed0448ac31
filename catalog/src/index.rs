//! The index of a catalog: which bundles and kernels it has, and where their files lie.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use banger_core::image::Platform;
use banger_core::{Digest, Name, Timestamp};
use serde::{Deserialize, Serialize};

use crate::document::{self, DocumentProblem, check_size, check_word};
use crate::limits::{
    CATALOG_BYTES_MAX, DESCRIPTION_CHARS_MAX, ENTRIES_MAX, FILE_BYTES_MAX, ROOTFS_BYTES_MAX,
};
use crate::text::{ArtifactPath, BundleName, BundleVersion};
use crate::version;

const FORMAT: &str = "banger.catalog.v1";

/// What a catalog has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    format: String,
    /// What its maker calls the catalog; the same in every version.
    pub name: Name,
    /// Grows with every change, from 1.
    pub version: u64,
    /// When this version was made.
    pub create_time: Timestamp,
    /// From when on this version is not believed any more.
    pub expire_time: Timestamp,
    /// Images.
    pub bundles: Vec<BundleEntry>,
    /// Kernels.
    pub kernels: Vec<KernelEntry>,
}

/// An image that can be pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleEntry {
    /// What it is called.
    pub name: BundleName,
    /// Which of that name.
    pub version: BundleVersion,
    /// What it runs on.
    #[serde(with = "document::platform")]
    pub platform: Platform,
    /// Of the bundle's manifest: the image's digest.
    pub digest: Digest,
    /// The kernel it is meant for, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Name>,
    /// Length of the base disk.
    pub rootfs_size_bytes: u64,
    /// The bundle.
    pub file: FilePart,
    /// For people, one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A kernel that can be pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelEntry {
    /// What it is called.
    pub name: Name,
    /// The release it reports.
    pub release: String,
    /// What it runs on.
    #[serde(with = "document::platform")]
    pub platform: Platform,
    /// Of the kernel bundle's manifest.
    pub digest: Digest,
    /// The kernel bundle.
    pub file: FilePart,
    /// For people, one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A file below the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePart {
    /// Where.
    pub path: ArtifactPath,
    /// Its length.
    pub size_bytes: u64,
    /// Of its bytes.
    pub digest: Digest,
}

impl Index {
    /// Of `name`, with no entries yet. Order and bounds are checked when it is sealed.
    #[must_use]
    pub fn new(name: Name, version: u64, create_time: Timestamp, expire_time: Timestamp) -> Self {
        Self {
            format: FORMAT.to_owned(),
            name,
            version,
            create_time,
            expire_time,
            bundles: Vec::new(),
            kernels: Vec::new(),
        }
    }

    /// Parses an index **that was opened before**: nothing here tells who wrote it.
    ///
    /// # Errors
    /// If it is no index, or outside its bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentProblem> {
        let index: Self = document::parse(bytes, FORMAT, CATALOG_BYTES_MAX)?;
        index.check()?;
        Ok(index)
    }

    /// Its bytes, if it is within all bounds.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, DocumentProblem> {
        self.check()?;
        Ok(document::write(self))
    }

    /// The image of `name` for `platform`: of `version`, or of the newest there is.
    #[must_use]
    pub fn bundle(
        &self,
        name: &BundleName,
        version: Option<&BundleVersion>,
        platform: &Platform,
    ) -> Option<&BundleEntry> {
        let named = |entry: &&BundleEntry| entry.name == *name && fits(&entry.platform, platform);
        let found = self.bundles.iter().filter(named);
        match version {
            Some(version) => found.into_iter().find(|entry| entry.version == *version),
            None => found.max_by(|left, right| newer(left, right)),
        }
    }

    /// The kernel of `name` for `platform`.
    #[must_use]
    pub fn kernel(&self, name: &Name, platform: &Platform) -> Option<&KernelEntry> {
        self.kernels
            .iter()
            .find(|entry| entry.name == *name && fits(&entry.platform, platform))
    }

    fn check(&self) -> Result<(), DocumentProblem> {
        if self.version == 0 {
            return Err(DocumentProblem::field("version", "is 0, and begins at 1"));
        }
        if self.expire_time <= self.create_time {
            return Err(DocumentProblem::field(
                "expire_time",
                "is not after its create_time",
            ));
        }
        if self.bundles.len() > ENTRIES_MAX || self.kernels.len() > ENTRIES_MAX {
            return Err(DocumentProblem::field(
                "bundles",
                format!("or `kernels` are more than {ENTRIES_MAX}"),
            ));
        }
        let (mut bundles, mut kernels) = (BTreeSet::new(), BTreeSet::new());
        for entry in &self.bundles {
            check_size(
                "rootfs_size_bytes",
                entry.rootfs_size_bytes,
                ROOTFS_BYTES_MAX,
            )?;
            check_entry(&entry.file, &entry.description)?;
            if !bundles.insert((&entry.name, &entry.version, entry.platform.to_string())) {
                let problem = format!("has {}:{} twice", entry.name, entry.version);
                return Err(DocumentProblem::field("bundles", problem));
            }
        }
        for entry in &self.kernels {
            check_word("release", &entry.release)?;
            check_entry(&entry.file, &entry.description)?;
            if !kernels.insert((&entry.name, entry.platform.to_string())) {
                return Err(DocumentProblem::field(
                    "kernels",
                    format!("has {} twice", entry.name),
                ));
            }
        }
        Ok(())
    }
}

fn newer(left: &BundleEntry, right: &BundleEntry) -> Ordering {
    version::compare(left.version.as_str(), right.version.as_str())
}

/// Whether what is made for `own` runs on `wanted`; a variant matters only where both name one.
fn fits(own: &Platform, wanted: &Platform) -> bool {
    own.os == wanted.os
        && own.architecture == wanted.architecture
        && (own.variant.is_none() || wanted.variant.is_none() || own.variant == wanted.variant)
}

fn check_entry(file: &FilePart, description: &str) -> Result<(), DocumentProblem> {
    check_size("file.size_bytes", file.size_bytes, FILE_BYTES_MAX)?;
    if description.chars().count() > DESCRIPTION_CHARS_MAX {
        let problem = format!("has more than {DESCRIPTION_CHARS_MAX} characters");
        return Err(DocumentProblem::field("description", problem));
    }
    if description.chars().any(char::is_control) {
        return Err(DocumentProblem::field(
            "description",
            "has control characters",
        ));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn bundle(name: &str, version: &str) -> BundleEntry {
        BundleEntry {
            name: name.parse().unwrap(),
            version: version.parse().unwrap(),
            platform: "linux/amd64".parse().unwrap(),
            digest: Digest::of(format!("{name}:{version}").as_bytes()),
            kernel: None,
            rootfs_size_bytes: 4096,
            file: FilePart {
                path: format!("images/{name}-{version}.tar.zst").parse().unwrap(),
                size_bytes: 100,
                digest: Digest::of(b"file"),
            },
            description: "An image".into(),
        }
    }

    pub(crate) fn index(version: u64) -> Index {
        let at = |text: &str| text.parse().unwrap();
        let (create, expire) = (at("2026-01-01T00:00:00Z"), at("2026-04-01T00:00:00Z"));
        let mut index = Index::new("acme".parse().unwrap(), version, create, expire);
        index.bundles = vec![
            bundle("debian", "12.9"),
            bundle("debian", "12.10"),
            bundle("alpine", "3"),
        ];
        index.kernels = vec![KernelEntry {
            name: "cloud".parse().unwrap(),
            release: "6.1".into(),
            platform: "linux/amd64".parse().unwrap(),
            digest: Digest::of(b"kernel"),
            file: FilePart {
                path: "kernels/cloud.tar.zst".parse().unwrap(),
                size_bytes: 10,
                digest: Digest::of(b"kernel file"),
            },
            description: String::new(),
        }];
        index
    }

    #[test]
    fn an_index_survives_its_bytes() {
        assert_eq!(
            Index::parse(&index(3).to_bytes().unwrap()).unwrap(),
            index(3)
        );
    }

    #[test]
    fn a_name_without_version_means_the_newest() {
        let index = index(1);
        let find = |name: &str, version: Option<&str>, platform: &str| {
            let version = version.map(|version| version.parse().unwrap());
            index
                .bundle(
                    &name.parse().unwrap(),
                    version.as_ref(),
                    &platform.parse().unwrap(),
                )
                .map(|entry| entry.version.to_string())
        };
        let host = "linux/amd64";
        assert_eq!(find("debian", None, host).as_deref(), Some("12.10"));
        assert_eq!(find("debian", Some("12.9"), host).as_deref(), Some("12.9"));
        assert_eq!(find("debian", Some("13"), host), None);
        assert_eq!(find("debian", None, "linux/arm64"), None);
        assert_eq!(find("fedora", None, host), None);
        let kernel = |name: &str| index.kernel(&name.parse().unwrap(), &host.parse().unwrap());
        assert!(kernel("cloud").is_some());
        assert!(kernel("other").is_none());
    }

    #[test]
    fn each_rule_of_an_index_has_its_error() {
        let error = |change: fn(&mut Index)| {
            let mut index = index(1);
            change(&mut index);
            index.to_bytes().unwrap_err().to_string()
        };
        assert_eq!(
            error(|index| index.version = 0),
            "its `version` is 0, and begins at 1"
        );
        assert_eq!(
            error(|index| index.expire_time = index.create_time),
            "its `expire_time` is not after its create_time"
        );
        assert_eq!(
            error(|index| index.bundles.push(bundle("debian", "12.9"))),
            "its `bundles` has debian:12.9 twice"
        );
        assert_eq!(
            error(|index| index.kernels.push(index.kernels[0].clone())),
            "its `kernels` has cloud twice"
        );
        assert_eq!(
            error(|index| index.bundles = vec![bundle("a", "1"); ENTRIES_MAX + 1]),
            "its `bundles` or `kernels` are more than 10000"
        );
        assert!(error(|index| index.bundles[0].file.size_bytes = 0).contains("file.size_bytes"));
        assert!(
            error(|index| index.bundles[0].rootfs_size_bytes = 1 << 60)
                .contains("rootfs_size_bytes")
        );
        assert!(
            error(|index| index.bundles[0].description = "x".repeat(2000))
                .contains("1024 characters")
        );
        assert!(
            error(|index| index.bundles[0].description = "\u{1b}[2J".into()).contains("control")
        );
    }
}
