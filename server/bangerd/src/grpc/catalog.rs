//! `CatalogService`.

use banger_proto::v1;
use banger_proto::v1::catalog_service_server::CatalogService;
use tonic::{Request, Response, Status};

use super::convert::{catalog, field};
use super::request;
use super::{Api, refused};

#[tonic::async_trait]
impl CatalogService for Api {
    async fn add_catalog(
        &self,
        request: Request<v1::AddCatalogRequest>,
    ) -> Result<Response<v1::AddCatalogResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.CatalogService/AddCatalog", &id, &request)?;
        let add = catalog::add(request)?;
        let catalogs = self.app.catalogs.clone();
        let work = async move {
            let added = catalogs.add(add).await?;
            Ok(v1::AddCatalogResponse {
                catalog: Some(catalog::catalog(&added)),
            })
        };
        self.once.answer(&self.app, key, work).await
    }

    async fn get_catalog(
        &self,
        request: Request<v1::GetCatalogRequest>,
    ) -> Result<Response<v1::GetCatalogResponse>, Status> {
        let named = field::named("catalog", &request.get_ref().catalog)?;
        let found = self.app.catalogs.get(named).await.map_err(refused)?;
        Ok(Response::new(v1::GetCatalogResponse {
            catalog: Some(catalog::catalog(&found)),
        }))
    }

    async fn list_catalogs(
        &self,
        request: Request<v1::ListCatalogsRequest>,
    ) -> Result<Response<v1::ListCatalogsResponse>, Status> {
        let request = request.into_inner();
        let all = self.app.catalogs.list().await.map_err(refused)?;
        let page = catalog::page(&all, request.page_size, &request.page_token)?;
        Ok(Response::new(v1::ListCatalogsResponse {
            catalogs: page.items.iter().map(catalog::catalog).collect(),
            next_page_token: page.next,
        }))
    }

    async fn refresh_catalog(
        &self,
        request: Request<v1::RefreshCatalogRequest>,
    ) -> Result<Response<v1::RefreshCatalogResponse>, Status> {
        let named = field::named("catalog", &request.get_ref().catalog)?.to_owned();
        let catalogs = self.app.catalogs.clone();
        let work = async move {
            let refreshed = catalogs.refresh(&named).await?;
            Ok(v1::RefreshCatalogResponse {
                catalog: Some(catalog::catalog(&refreshed)),
            })
        };
        // Without an id of its own it is not repeated, but it does go to its end.
        self.once.answer(&self.app, None, work).await
    }

    async fn remove_catalog(
        &self,
        request: Request<v1::RemoveCatalogRequest>,
    ) -> Result<Response<v1::RemoveCatalogResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.CatalogService/RemoveCatalog", &id, &request)?;
        let named = field::named("catalog", &request.catalog)?.to_owned();
        let catalogs = self.app.catalogs.clone();
        let work = async move {
            catalogs.remove(&named).await?;
            Ok(v1::RemoveCatalogResponse {})
        };
        self.once.answer(&self.app, key, work).await
    }

    async fn list_catalog_entries(
        &self,
        request: Request<v1::ListCatalogEntriesRequest>,
    ) -> Result<Response<v1::ListCatalogEntriesResponse>, Status> {
        let request = request.into_inner();
        let (size, token) = (request.page_size, request.page_token.clone());
        let filter = catalog::filter(request)?;
        let all = self.app.catalogs.entries(&filter).await.map_err(refused)?;
        let page = catalog::page(&all, size, &token)?;
        Ok(Response::new(v1::ListCatalogEntriesResponse {
            entries: page.items.iter().map(catalog::entry).collect(),
            next_page_token: page.next,
        }))
    }
}
