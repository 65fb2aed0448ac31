//! Finding what a name means in the catalogs.

use banger_catalog::{BundleEntry, BundleName, BundleVersion, Index, KernelEntry};
use banger_core::catalog::Catalog;
use banger_core::image::Platform;
use banger_core::{Digest, Explain as _, Name, Timestamp};

use super::{Catalogs, parse, refused};
use crate::error::AppError;
use crate::operation::OperationTask;
use crate::pull_time::PullTime;

/// Where a catalog is that has something. Its index is not held on to: it may be large, and a pull long.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its name here.
    pub(crate) name: Name,
    pub(crate) url: String,
    /// Of the index in which it was found.
    version: u64,
}

impl From<Catalog> for Place {
    fn from(catalog: Catalog) -> Self {
        Self {
            name: catalog.name,
            url: catalog.url,
            version: catalog.version,
        }
    }
}

/// An image that a catalog has.
#[derive(Debug, Clone)]
pub(crate) struct FoundBundle {
    pub(crate) catalog: Place,
    pub(crate) entry: BundleEntry,
}

/// A kernel that a catalog has.
#[derive(Debug, Clone)]
pub(crate) struct FoundKernel {
    pub(crate) catalog: Place,
    pub(crate) entry: KernelEntry,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// An image.
    Bundle,
    /// A kernel.
    Kernel,
}

/// What a catalog offers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The catalog's name here.
    pub catalog: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its name.
    pub name: String,
    /// A bundle's version, a kernel's release.
    pub version: String,
    /// e.g. `amd64`.
    pub architecture: String,
    /// For people.
    pub description: String,
    /// Of the file that is fetched.
    pub size_bytes: u64,
    /// Of the file that is fetched.
    pub digest: Digest,
    /// A bundle's kernel; empty for none.
    pub kernel: String,
    /// Of a bundle's base disk; 0 for a kernel.
    pub rootfs_size_bytes: u64,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// Of this catalog only; empty means all.
    pub catalog: String,
    /// Words that an entry must have; empty means any.
    pub query: String,
    /// Of this kind only.
    pub kind: Option<EntryKind>,
    /// For this architecture only; empty means any.
    pub architecture: String,
}

/// What a caller wrote: `[catalog/]name[:version]`.
struct Wanted<'a> {
    catalog: Option<Name>,
    name: &'a str,
    version: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Absent where it cannot name anything in a catalog: a registry, several directories, a digest.
    fn parse(named: &'a str) -> Option<Self> {
        let (catalog, rest) = match named.split_once('/') {
            Some((catalog, rest)) => (Some(catalog.parse().ok()?), rest),
            None => (None, named),
        };
        let (name, version) = match rest.split_once(':') {
            Some((name, version)) => (name, Some(version)),
            None => (rest, None),
        };
        (!rest.contains(['/', '@'])).then_some(Self {
            catalog,
            name,
            version,
        })
    }

    fn is_of(&self, catalog: &Name) -> bool {
        self.catalog.as_ref().is_none_or(|name| name == catalog)
    }
}

impl Catalogs {
    /// The image that `named` means: of the first catalog that has one.
    pub(crate) async fn find_bundle(
        &self,
        named: &str,
        platform: &Platform,
    ) -> Result<Option<FoundBundle>, AppError> {
        let Some(wanted) = Wanted::parse(named) else {
            return Ok(None);
        };
        let version = wanted.version.map(str::parse::<BundleVersion>).transpose();
        let (Ok(name), Ok(version)) = (wanted.name.parse::<BundleName>(), version) else {
            return Ok(None);
        };
        let find = |index: &Index| index.bundle(&name, version.as_ref(), platform).cloned();
        let found = self.first(&wanted, find).await?;
        Ok(found.map(|(catalog, entry)| FoundBundle { catalog, entry }))
    }

    /// The kernel that `named` means: of the first catalog that has one, or of `within`.
    pub(crate) async fn find_kernel(
        &self,
        named: &str,
        within: Option<&Name>,
        platform: &Platform,
    ) -> Result<Option<FoundKernel>, AppError> {
        let Some(mut wanted) = Wanted::parse(named).filter(|wanted| wanted.version.is_none())
        else {
            return Ok(None);
        };
        wanted.catalog = wanted.catalog.or(within.cloned());
        let Ok(name) = wanted.name.parse::<Name>() else {
            return Ok(None);
        };
        let find = |index: &Index| index.kernel(&name, platform).cloned();
        let found = self.first(&wanted, find).await?;
        Ok(found.map(|(catalog, entry)| FoundKernel { catalog, entry }))
    }

    /// The first that `find` finds, in an index that may still be used.
    async fn first<T>(
        &self,
        wanted: &Wanted<'_>,
        find: impl Fn(&Index) -> Option<T>,
    ) -> Result<Option<(Place, T)>, AppError> {
        let names = self.context.store.catalog_names().await?;
        for name in names.into_iter().filter(|name| wanted.is_of(name)) {
            // One that was removed meanwhile has nothing.
            let Some(catalog) = self.context.store.find_catalog(&name).await? else {
                continue;
            };
            let index = parse(&catalog)?;
            let Some(found) = find(&index) else { continue };
            let Err(expired) = banger_catalog::check_time(&index, Timestamp::now()) else {
                return Ok(Some((catalog.into(), found)));
            };
            // It may be newer there.
            let Some(renewed) = self.renew(&catalog).await else {
                return Err(refused(catalog.name.as_str())(expired));
            };
            if let Some(found) = find(&parse(&renewed)?) {
                return Ok(Some((renewed.into(), found)));
            }
        }
        Ok(None)
    }

    /// Whether it is worth looking again after `error`: a file was not there as it was listed, and the catalog has
    /// another index now.
    ///
    /// # Errors
    /// If it was given up, or its time was over, meanwhile.
    pub(crate) async fn has_newer(
        &self,
        place: &Place,
        error: &AppError,
        time: PullTime,
        task: &OperationTask,
    ) -> Result<bool, AppError> {
        let was_listed_otherwise = [
            "CATALOG_FILE_MISSING",
            "CATALOG_FILE_SIZE",
            "CATALOG_FILE_CHANGED",
            "BUNDLE_FILE_SIZE",
            "BUNDLE_FILE_DIGEST",
        ]
        .contains(&error.reason());
        if !was_listed_otherwise {
            return Ok(false);
        }
        let looking = async { Ok(self.refresh(place.name.as_str()).await) };
        let refreshed = time.within(task.cancelled(), looking).await?;
        Ok(refreshed.is_ok_and(|refreshed| refreshed.catalog.version > place.version))
    }

    /// What the catalogs offer, by catalog, kind, name and version. Of a catalog whose index has expired nothing is
    /// offered.
    ///
    /// # Errors
    /// If the store cannot be read, or the one catalog that is asked for does not exist or has expired.
    pub async fn entries(&self, filter: &EntryFilter) -> Result<Vec<Entry>, AppError> {
        let now = Timestamp::now();
        let mut entries = Vec::new();
        let names = match filter.catalog.as_str() {
            "" => self.context.store.catalog_names().await?,
            named => {
                let catalog = self.find(named).await?;
                let index = parse(&catalog)?;
                banger_catalog::check_time(&index, now).map_err(refused(named))?;
                vec![catalog.name]
            }
        };
        for name in names {
            let Some(catalog) = self.context.store.find_catalog(&name).await? else {
                continue;
            };
            let index = parse(&catalog)?;
            if banger_catalog::check_time(&index, now).is_err() {
                continue;
            }
            let bundles = index.bundles.iter().map(|entry| bundle(&catalog, entry));
            let kernels = index.kernels.iter().map(|entry| kernel(&catalog, entry));
            entries.extend(bundles.chain(kernels).filter(|entry| filter.fits(entry)));
        }
        entries.sort();
        Ok(entries)
    }
}

impl EntryFilter {
    fn fits(&self, entry: &Entry) -> bool {
        let text = format!("{}:{} {}", entry.name, entry.version, entry.description).to_lowercase();
        self.kind.is_none_or(|kind| kind == entry.kind)
            && (self.architecture.is_empty() || self.architecture == entry.architecture)
            && self
                .query
                .to_lowercase()
                .split_whitespace()
                .all(|word| text.contains(word))
    }
}

fn bundle(catalog: &Catalog, entry: &BundleEntry) -> Entry {
    Entry {
        catalog: catalog.name.to_string(),
        kind: EntryKind::Bundle,
        name: entry.name.to_string(),
        version: entry.version.to_string(),
        architecture: entry.platform.architecture.clone(),
        description: entry.description.clone(),
        size_bytes: entry.file.size_bytes,
        digest: entry.file.digest,
        kernel: entry
            .kernel
            .as_ref()
            .map(Name::to_string)
            .unwrap_or_default(),
        rootfs_size_bytes: entry.rootfs_size_bytes,
    }
}

fn kernel(catalog: &Catalog, entry: &KernelEntry) -> Entry {
    Entry {
        catalog: catalog.name.to_string(),
        kind: EntryKind::Kernel,
        name: entry.name.to_string(),
        version: entry.release.clone(),
        architecture: entry.platform.architecture.clone(),
        description: entry.description.clone(),
        size_bytes: entry.file.size_bytes,
        digest: entry.file.digest,
        kernel: String::new(),
        rootfs_size_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_bundles_name_is_looked_up() {
        let parts = |named| {
            let wanted = Wanted::parse(named)?;
            let catalog = wanted.catalog.map(|name| name.to_string());
            Some((
                catalog.unwrap_or_default(),
                wanted.name,
                wanted.version.unwrap_or_default(),
            ))
        };
        assert_eq!(parts("debian"), Some((String::new(), "debian", "")));
        assert_eq!(parts("debian:12"), Some((String::new(), "debian", "12")));
        assert_eq!(
            parts("acme/debian:12"),
            Some(("acme".into(), "debian", "12"))
        );
        for registry in [
            "docker.io/debian",
            "localhost:5000/debian",
            "a/b/c",
            "debian@sha256:00",
            "a/b@c",
        ] {
            assert_eq!(parts(registry), None, "{registry}");
        }
    }
}
