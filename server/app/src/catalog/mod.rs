//! Catalogs: where bundles and kernels are fetched from by name.
//!
//! A catalog is added with the key that must sign it. Its last index that was believed is kept; a refresh puts a
//! newer one in its place or changes nothing. An index that has expired is not used: it is refreshed first, and
//! refused if that fails.

mod kernel;
mod lookup;
mod turns;

use std::sync::Arc;
use std::time::Instant;

use banger_catalog::{Index, PublicKey, Seen};
use banger_core::catalog::Catalog;
use banger_core::{Digest, Name, Timestamp};
use banger_image::{CatalogAddress, CatalogSource, ImageStore, SourceOptions};
use banger_store::{CatalogOutcome, StoreError};
use tokio::sync::Mutex;

use crate::Context;
use crate::error::AppError;
use crate::kernel::Kernels;
use crate::operation::Operations;

pub(crate) use kernel::Ensured;
pub use kernel::PullKernelRequest;
pub use lookup::{Entry, EntryFilter, EntryKind};
pub(crate) use lookup::{FoundBundle, FoundKernel};
use turns::{Shared, Turns};

/// The most catalogs: each is asked for every name that none before it has.
const CATALOGS_MAX: usize = 64;

/// The catalogs of this host.
pub struct Catalogs {
    context: Arc<Context>,
    operations: Arc<Operations>,
    kernels: Arc<Kernels>,
    /// Where what is fetched is staged.
    files: ImageStore,
    /// One catalog is added at a time: there may be so many.
    adding: Mutex<()>,
    /// One refresh of a catalog at a time, and when the last one of those who wait for their turn ended.
    refreshing: Turns<Option<Instant>>,
    /// One kernel of a name is fetched at a time: whoever wants the same one finds it then.
    fetching: Turns<()>,
    /// Kernels that images on their way count on: they outlast the pull they came with.
    counted: Mutex<Shared<()>>,
}

impl std::fmt::Debug for Catalogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalogs").finish_non_exhaustive()
    }
}

/// What to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddRequest {
    /// What to call it; empty means what it calls itself.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// The key that must sign it.
    pub public_key: String,
}

/// A catalog, with what is inside its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogView {
    /// As it is kept.
    pub catalog: Catalog,
    /// How much its index offers.
    pub entry_count: usize,
}

impl Catalogs {
    pub(crate) fn new(
        context: &Arc<Context>,
        operations: &Arc<Operations>,
        kernels: &Arc<Kernels>,
        files: &ImageStore,
    ) -> Self {
        Self {
            context: context.clone(),
            operations: operations.clone(),
            kernels: kernels.clone(),
            files: files.clone(),
            adding: Mutex::default(),
            refreshing: Turns::default(),
            fetching: Turns::default(),
            counted: Mutex::default(),
        }
    }

    /// Adds a catalog, after its index was read and believed.
    ///
    /// # Errors
    /// If the request is wrong, or the index does not come or is not believed.
    pub async fn add(&self, request: AddRequest) -> Result<CatalogView, AppError> {
        let address: CatalogAddress = request.url.parse()?;
        let key: PublicKey = request
            .public_key
            .parse()
            .map_err(|error| AppError::Invalid {
                field: "public_key",
                problem: format!("cannot be used: {error}"),
            })?;
        let name = match request.name.as_str() {
            "" => None,
            name => Some(parse_name("name", name)?),
        };
        self.refuse_too_many().await?;
        let shown = name.as_ref().map_or(request.url, Name::to_string);
        let now = Timestamp::now();
        let bytes = self.fetch(&shown, &address).await?;
        let opened = banger_catalog::open(&bytes, &key, None, now).map_err(refused(&shown))?;
        let catalog = Catalog {
            name: name.unwrap_or_else(|| opened.index.name.clone()),
            url: address.to_string(),
            public_key: key.to_string(),
            version: opened.index.version,
            payload: opened.payload,
            expire_time: opened.index.expire_time,
            create_time: now,
            refresh_time: now,
            refresh_error: None,
        };
        let _adding = self.adding.lock().await;
        // Others may have come while the index did.
        self.refuse_too_many().await?;
        let inserted = self.context.store.insert_catalog(&catalog).await;
        inserted.map_err(|error| match error {
            StoreError::NameTaken { name, .. } => AppError::NameTaken {
                resource: "catalog",
                name,
            },
            other => other.into(),
        })?;
        view(catalog)
    }

    async fn refuse_too_many(&self) -> Result<(), AppError> {
        let kept = self.context.store.catalog_names().await?;
        match kept.len() >= CATALOGS_MAX {
            true => Err(AppError::TooManyCatalogs {
                limit: CATALOGS_MAX,
            }),
            false => Ok(()),
        }
    }

    /// A catalog by name.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn get(&self, named: &str) -> Result<CatalogView, AppError> {
        view(self.find(named).await?)
    }

    /// All catalogs without their payloads, in the order in which names are looked up.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn list(&self) -> Result<Vec<CatalogView>, AppError> {
        let mut views = Vec::new();
        for name in self.context.store.catalog_names().await? {
            let Some(catalog) = self.context.store.find_catalog(&name).await? else {
                continue;
            };
            let mut shown = view(catalog)?;
            // All of them at once may be large.
            shown.catalog.payload = Vec::new();
            views.push(shown);
        }
        Ok(views)
    }

    /// Reads a catalog again. On failure the index that was there stays, and why is remembered with it.
    ///
    /// # Errors
    /// If it does not exist, or its index does not come or is not believed.
    pub async fn refresh(&self, named: &str) -> Result<CatalogView, AppError> {
        let catalog = self.find(named).await?;
        let mut turn = self.refreshing.of(&catalog.name).await;
        view(self.refresh_in_turn(&catalog.name, &mut turn).await?)
    }

    /// A catalog whose index has expired, read again; `None` where that fails. Whoever waited for another who did the
    /// same takes what came of that.
    async fn renew(&self, expired: &Catalog) -> Option<Catalog> {
        let asked = Instant::now();
        let mut turn = self.refreshing.of(&expired.name).await;
        if turn.is_some_and(|ended| ended >= asked) {
            let found = self.context.store.find_catalog(&expired.name).await;
            let is_newer = |found: &Catalog| found.refresh_time > expired.refresh_time;
            return found.ok().flatten().filter(is_newer);
        }
        let refreshed = self.refresh_in_turn(&expired.name, &mut turn).await;
        refreshed.ok()
    }

    async fn refresh_in_turn(
        &self,
        name: &Name,
        turn: &mut Option<Instant>,
    ) -> Result<Catalog, AppError> {
        let catalog = self.find(name.as_str()).await?;
        let refreshed = self.refreshed(&catalog).await;
        *turn = Some(Instant::now());
        if let Err(error) = &refreshed {
            let failure = error.to_failure();
            let store = &self.context.store;
            store.set_refresh_error(&catalog.name, &failure).await?;
        }
        refreshed
    }

    async fn refreshed(&self, catalog: &Catalog) -> Result<Catalog, AppError> {
        let shown = catalog.name.to_string();
        let address: CatalogAddress = catalog.url.parse()?;
        let key: PublicKey = catalog
            .public_key
            .parse()
            .map_err(|_| AppError::Interrupted)?;
        let seen = Seen {
            name: parse(catalog)?.name,
            version: catalog.version,
            digest: Digest::of(&catalog.payload),
        };
        let now = Timestamp::now();
        let bytes = self.fetch(&shown, &address).await?;
        let opened =
            banger_catalog::open(&bytes, &key, Some(&seen), now).map_err(refused(&shown))?;
        let refreshed = Catalog {
            version: opened.index.version,
            payload: opened.payload,
            expire_time: opened.index.expire_time,
            refresh_time: now,
            refresh_error: None,
            ..catalog.clone()
        };
        match self.context.store.keep_index(&refreshed).await? {
            CatalogOutcome::Kept => Ok(refreshed),
            CatalogOutcome::Overtaken => Err(AppError::GivenUp {
                why: "the catalog was removed or changed meanwhile",
            }),
        }
    }

    /// Forgets a catalog. What was pulled from it stays.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn remove(&self, named: &str) -> Result<(), AppError> {
        let catalog = self.find(named).await?;
        self.context.store.delete_catalog(&catalog.name).await?;
        Ok(())
    }

    async fn find(&self, named: &str) -> Result<Catalog, AppError> {
        let missing = || AppError::NotFound {
            resource: "catalog",
            name: named.chars().take(128).collect(),
        };
        let name: Name = named.parse().map_err(|_| missing())?;
        let found = self.context.store.find_catalog(&name).await?;
        found.ok_or_else(missing)
    }

    async fn fetch(&self, shown: &str, address: &CatalogAddress) -> Result<Vec<u8>, AppError> {
        let source = self.source_at(address)?;
        let come = source.catalog_json().await;
        come.map_err(|source| AppError::CatalogAway {
            catalog: shown.to_owned(),
            source,
        })
    }

    /// Where a catalog's files come from.
    pub(crate) fn source(&self, url: &str) -> Result<CatalogSource, AppError> {
        self.source_at(&url.parse()?)
    }

    fn source_at(&self, address: &CatalogAddress) -> Result<CatalogSource, AppError> {
        let pull = &self.context.config.pull;
        let options = SourceOptions {
            hosts: pull.catalogs.clone(),
            stall_timeout: pull.stall_timeout,
            index_timeout: pull.timeout,
            ..SourceOptions::default()
        };
        Ok(CatalogSource::new(address, &options)?)
    }
}

/// The index of a catalog, which was believed when it came.
fn parse(catalog: &Catalog) -> Result<Index, AppError> {
    let invalid = banger_catalog::CatalogError::Invalid;
    Index::parse(&catalog.payload)
        .map_err(|problem| refused(catalog.name.as_str())(invalid(problem)))
}

fn view(catalog: Catalog) -> Result<CatalogView, AppError> {
    let index = parse(&catalog)?;
    Ok(CatalogView {
        catalog,
        entry_count: index.bundles.len() + index.kernels.len(),
    })
}

fn refused(shown: &str) -> impl FnOnce(banger_catalog::CatalogError) -> AppError {
    let catalog = shown.to_owned();
    move |source| AppError::CatalogRefused { catalog, source }
}

fn parse_name(field: &'static str, text: &str) -> Result<Name, AppError> {
    text.parse().map_err(|error| AppError::Invalid {
        field,
        problem: format!("is not a name: {error}"),
    })
}
