//! Catalogs: add, refresh, remove, search.

use banger_proto::v1;
use v1::catalog_service_client::CatalogServiceClient;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::stream::{Pages, pages};

/// Asked for per page.
const PAGE_SIZE: i32 = 1000;

/// Catalogs.
#[derive(Debug, Clone)]
pub struct Catalogs {
    client: Client,
}

/// What to search for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Words that name, version or description must have; empty means any.
    pub query: String,
    /// Of this catalog only; empty means all.
    pub catalog: String,
    /// For this architecture only; empty means any.
    pub architecture: String,
}

impl Catalogs {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    fn rpc(&self) -> CatalogServiceClient<tonic::transport::Channel> {
        CatalogServiceClient::new(self.client.channel())
    }

    /// Adds the catalog at `url`, which `public_key` must have signed. An empty name means the one it has itself.
    pub fn add(
        &self,
        name: impl Into<String>,
        url: impl Into<String>,
        public_key: impl Into<String>,
    ) -> Request<v1::Catalog> {
        const CALL: &str = "AddCatalog";
        let (this, name, url, public_key) =
            (self.clone(), name.into(), url.into(), public_key.into());
        Request::new(move |request_id| async move {
            let request = v1::AddCatalogRequest {
                name,
                url,
                public_key,
                request_id,
            };
            let call = || async { this.rpc().add_catalog(request.clone()).await };
            present(this.client.repeat(CALL, call).await?.catalog, CALL)
        })
    }

    /// The catalog with this name.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked.
    pub async fn get(&self, catalog: impl Into<String>) -> Result<v1::Catalog> {
        const CALL: &str = "GetCatalog";
        let request = v1::GetCatalogRequest {
            catalog: catalog.into(),
        };
        let call = || async { self.rpc().get_catalog(request.clone()).await };
        present(self.client.repeat(CALL, call).await?.catalog, CALL)
    }

    /// All catalogs, in the order in which names are looked up.
    #[must_use]
    pub fn list(&self) -> Pages<v1::Catalog> {
        let this = self.clone();
        pages(move |page_token| {
            let this = this.clone();
            async move {
                let request = v1::ListCatalogsRequest {
                    page_size: PAGE_SIZE,
                    page_token,
                };
                let call = || async { this.rpc().list_catalogs(request.clone()).await };
                let page = this.client.repeat("ListCatalogs", call).await?;
                Ok((page.catalogs, page.next_page_token))
            }
        })
    }

    /// Reads a catalog again. Where that fails the index that was there stays.
    ///
    /// # Errors
    /// When there is none, when its index does not come or is not believed, or the daemon cannot be asked.
    pub async fn refresh(&self, catalog: impl Into<String>) -> Result<v1::Catalog> {
        const CALL: &str = "RefreshCatalog";
        let request = v1::RefreshCatalogRequest {
            catalog: catalog.into(),
        };
        let call = || async { self.rpc().refresh_catalog(request.clone()).await };
        present(self.client.repeat(CALL, call).await?.catalog, CALL)
    }

    /// Forgets a catalog. What was pulled from it stays.
    pub fn remove(&self, catalog: impl Into<String>) -> Request<()> {
        let (this, catalog) = (self.clone(), catalog.into());
        Request::new(move |request_id| async move {
            let request = v1::RemoveCatalogRequest {
                catalog,
                request_id,
            };
            let call = || async { this.rpc().remove_catalog(request.clone()).await };
            this.client.repeat("RemoveCatalog", call).await.map(drop)
        })
    }

    /// What the catalogs offer, by catalog, kind, name and version.
    #[must_use]
    pub fn search(&self, search: Search) -> Pages<v1::CatalogEntry> {
        let this = self.clone();
        pages(move |page_token| {
            let (this, search) = (this.clone(), search.clone());
            async move {
                let request = v1::ListCatalogEntriesRequest {
                    page_size: PAGE_SIZE,
                    page_token,
                    catalog: search.catalog,
                    query: search.query,
                    kind: 0,
                    architecture: search.architecture,
                };
                let call = || async { this.rpc().list_catalog_entries(request.clone()).await };
                let page = this.client.repeat("ListCatalogEntries", call).await?;
                Ok((page.entries, page.next_page_token))
            }
        })
    }
}

fn present(catalog: Option<v1::Catalog>, during: &'static str) -> Result<v1::Catalog> {
    catalog.ok_or(Error::Protocol {
        during,
        detail: "no catalog",
    })
}
