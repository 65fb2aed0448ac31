//! `banger catalog`: where images and kernels are fetched from by name, and how one is made.

mod build;
mod error;
mod key;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use futures::TryStreamExt as _;

use banger_sdk::Search;

pub(crate) use self::error::CatalogError;
use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::view;

/// Use and make catalogs of images and kernels
#[derive(Debug, Subcommand)]
pub(crate) enum Catalog {
    Add(Add),
    #[command(visible_alias = "ls")]
    List(List),
    #[command(visible_alias = "show")]
    Inspect(Inspect),
    Refresh(Refresh),
    #[command(visible_alias = "rm")]
    Remove(Remove),
    Search(SearchFor),
    Build(Box<build::Build>),
}

impl Catalog {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Add(add) => add.run(context).await,
            Self::List(list) => list.run(context).await,
            Self::Inspect(inspect) => inspect.run(context).await,
            Self::Refresh(refresh) => refresh.run(context).await,
            Self::Remove(remove) => remove.run(context).await,
            Self::Search(search) => search.run(context).await,
            Self::Build(build) => build.run(context).await,
        }
    }
}

/// Add a catalog, with the key that must sign it
#[derive(Debug, Args)]
#[command(after_help = "\
The key is pinned: get it from the catalog's maker by a way you trust, not from where the catalog lies. From then on
`banger image pull NAME` looks into the catalogs, in the order they were added, before it asks a registry.

Examples:
  banger catalog add https://example.com/catalog --key ed25519:3q2+…
  banger catalog add /srv/catalog --key ed25519:3q2+… --name local")]
pub(crate) struct Add {
    /// An https URL, an http URL on this host's loopback, or a directory of the daemon's host
    url: String,
    /// The public key
    #[arg(long, value_name = "KEY")]
    key: String,
    /// Call it this instead of by the name it has itself
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Add {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let catalogs = context.client().await?.catalogs();
        let name = self.name.unwrap_or_default();
        let added = catalogs.add(name, self.url, self.key).await?;
        context.printer().changed(&view::Catalog::from(added))
    }
}

/// List the catalogs, in the order in which names are looked up
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger catalog list\n  banger catalog list --output json")]
pub(crate) struct List {}

impl List {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let catalogs = context.client().await?.catalogs().list();
        context.printer().list(catalogs, view::Catalog::from).await
    }
}

/// Show all of a catalog
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger catalog inspect acme")]
pub(crate) struct Inspect {
    /// The catalog's name
    #[arg(add = ArgValueCandidates::new(complete::catalogs))]
    catalog: String,
}

impl Inspect {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let found = context.client().await?.catalogs().get(self.catalog).await?;
        context.printer().one(&view::Catalog::from(found))
    }
}

/// Read catalogs again
#[derive(Debug, Args)]
#[command(after_help = "\
Where one cannot be read, or is not believed, what it had before stays and is used until it expires.

Examples:
  banger catalog refresh
  banger catalog refresh acme")]
pub(crate) struct Refresh {
    /// Their names; all without any
    #[arg(value_name = "CATALOG", add = ArgValueCandidates::new(complete::catalogs))]
    catalogs: Vec<String>,
}

impl Refresh {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let catalogs = context.client().await?.catalogs();
        let names = if self.catalogs.is_empty() {
            let all: Vec<_> = catalogs.list().try_collect().await?;
            all.into_iter().map(|catalog| catalog.name).collect()
        } else {
            self.catalogs
        };
        let mut last = None;
        for name in names {
            match catalogs.refresh(&name).await {
                Ok(refreshed) => {
                    context.printer().changed(&view::Catalog::from(refreshed))?;
                }
                Err(source) => {
                    let failure = Failure::from(CatalogError::NotRefreshed {
                        catalog: name,
                        source: Box::new(source),
                    });
                    // Each is told; the last decides the exit code.
                    if let Some(earlier) = last.replace(failure) {
                        context.report(&earlier);
                    }
                }
            }
        }
        last.map_or(Ok(0), Err)
    }
}

/// Forget catalogs; what was pulled from them stays
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger catalog remove acme")]
pub(crate) struct Remove {
    /// Their names
    #[arg(required = true, value_name = "CATALOG", add = ArgValueCandidates::new(complete::catalogs))]
    catalogs: Vec<String>,
}

impl Remove {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let catalogs = context.client().await?.catalogs();
        for name in self.catalogs {
            catalogs.remove(&name).await?;
            context.printer().removed(&name)?;
        }
        Ok(0)
    }
}

/// Search the catalogs for images and kernels
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger catalog search
  banger catalog search debian
  banger catalog search --catalog acme --output json")]
pub(crate) struct SearchFor {
    /// Words that name, version or description must have
    words: Vec<String>,
    /// In this catalog only
    #[arg(long, value_name = "CATALOG", add = ArgValueCandidates::new(complete::catalogs))]
    catalog: Option<String>,
    /// For this architecture only, e.g. amd64
    #[arg(long, value_name = "ARCHITECTURE")]
    architecture: Option<String>,
}

impl SearchFor {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let search = Search {
            query: self.words.join(" "),
            catalog: self.catalog.unwrap_or_default(),
            architecture: self.architecture.unwrap_or_default(),
        };
        let found = context.client().await?.catalogs().search(search);
        context
            .printer()
            .list(found, view::CatalogEntry::from)
            .await
    }
}
