//! `VolumeService`.

use banger_app::{App, AppError};
use banger_proto::v1;
use banger_proto::v1::create_volume_response::Message;
use banger_proto::v1::volume_service_server::VolumeService;
use tonic::{Request, Response, Status};

use super::convert::{field, page, volume};
use super::request;
use super::stream::{self, Answers, OperationMessage};
use super::{Api, refused};

#[tonic::async_trait]
impl VolumeService for Api {
    type CreateVolumeStream = Answers<v1::CreateVolumeResponse>;

    async fn create_volume(
        &self,
        request: Request<v1::CreateVolumeRequest>,
    ) -> Result<Response<Self::CreateVolumeStream>, Status> {
        let owner = self.app.caller().clone();
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.VolumeService/CreateVolume", &id, &request)?;
        let (app, create) = (self.app.clone(), volume::create(request, owner)?);
        let begun = async move { app.volumes.create(&create, key.as_ref()).await };
        let operation = request::to_its_end(&self.app, begun).await?;
        stream::operation(&self.app, &self.drain, operation).await
    }

    async fn get_volume(
        &self,
        request: Request<v1::GetVolumeRequest>,
    ) -> Result<Response<v1::GetVolumeResponse>, Status> {
        let named = field::named("volume", &request.get_ref().volume)?;
        let found = self.app.volumes.get(named).await.map_err(refused)?;
        Ok(Response::new(v1::GetVolumeResponse {
            volume: Some(volume::volume(&found)),
        }))
    }

    async fn list_volumes(
        &self,
        request: Request<v1::ListVolumesRequest>,
    ) -> Result<Response<v1::ListVolumesResponse>, Status> {
        let request = request.into_inner();
        let wanted = page::request(request.page_size, &request.page_token)?;
        let listed = self
            .app
            .volumes
            .list(wanted.size, wanted.before, &request.labels);
        let found = listed.await.map_err(refused)?;
        Ok(Response::new(v1::ListVolumesResponse {
            volumes: found.items.iter().map(volume::volume).collect(),
            next_page_token: page::next(&found.items, found.has_more, |item| {
                item.volume.id.to_string()
            }),
        }))
    }

    async fn update_volume(
        &self,
        request: Request<v1::UpdateVolumeRequest>,
    ) -> Result<Response<v1::UpdateVolumeResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.VolumeService/UpdateVolume", &id, &request)?;
        let named = field::named("volume", &request.volume)?.to_owned();
        let change = volume::change(request)?;
        let volumes = self.app.volumes.clone();
        let work = async move {
            let changed = volumes.update(&named, change).await?;
            Ok(v1::UpdateVolumeResponse {
                volume: Some(volume::volume(&changed)),
            })
        };
        self.once.answer(&self.app, key, work).await
    }

    async fn delete_volume(
        &self,
        request: Request<v1::DeleteVolumeRequest>,
    ) -> Result<Response<v1::DeleteVolumeResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.VolumeService/DeleteVolume", &id, &request)?;
        let named = field::named("volume", &request.volume)?.to_owned();
        let volumes = self.app.volumes.clone();
        let work = async move {
            volumes.delete(&named).await?;
            Ok(v1::DeleteVolumeResponse {})
        };
        self.once.answer(&self.app, key, work).await
    }
}

impl OperationMessage for v1::CreateVolumeResponse {
    fn operation(operation: v1::Operation) -> Self {
        Self {
            message: Some(Message::Operation(operation)),
        }
    }

    fn heartbeat() -> Self {
        Self {
            message: Some(Message::Heartbeat(v1::Heartbeat {})),
        }
    }

    async fn resource(app: &App, target: &str) -> Result<Self, AppError> {
        let found = volume::volume(&app.volumes.get(target).await?);
        Ok(Self {
            message: Some(Message::Volume(found)),
        })
    }
}
