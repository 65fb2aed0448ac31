//! `HostService`.

use banger_proto::v1;
use banger_proto::v1::host_service_server::HostService;
use tonic::{Request, Response, Status};

use super::{Api, convert, refused};

#[tonic::async_trait]
impl HostService for Api {
    async fn get_info(
        &self,
        _: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        let info = self.app.host_info().await.map_err(refused)?;
        Ok(Response::new(v1::GetInfoResponse {
            info: Some(convert::host::info(info)),
        }))
    }
}
