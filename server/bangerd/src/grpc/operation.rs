//! `OperationService`.

use banger_core::OperationId;
use banger_proto::v1;
use banger_proto::v1::operation_service_server::OperationService;
use banger_proto::v1::watch_operation_response::Message;
use futures::StreamExt as _;
use tonic::{Request, Response, Status};

use super::convert::{field, operation, page};
use super::stream::{self, Answers};
use super::{Api, refused};

#[tonic::async_trait]
impl OperationService for Api {
    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::GetOperationResponse>, Status> {
        let id: OperationId = field::id("operation", &request.get_ref().operation)?;
        let found = self.app.operations.get(id).await.map_err(refused)?;
        Ok(Response::new(v1::GetOperationResponse {
            operation: Some(operation::operation(&found)),
        }))
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        let request = request.into_inner();
        let wanted = page::request(request.page_size, &request.page_token)?;
        let found = self
            .app
            .operations
            .list(wanted.size, wanted.before)
            .await
            .map_err(refused)?;
        Ok(Response::new(v1::ListOperationsResponse {
            operations: found
                .items
                .iter()
                .map(|item| operation::operation(item))
                .collect(),
            next_page_token: page::next(&found.items, found.has_more, |item| item.id.to_string()),
        }))
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Result<Response<v1::CancelOperationResponse>, Status> {
        let id: OperationId = field::id("operation", &request.get_ref().operation)?;
        let ended = self.app.operations.cancel(id).await.map_err(refused)?;
        Ok(Response::new(v1::CancelOperationResponse {
            operation: Some(operation::operation(&ended)),
        }))
    }

    type WatchOperationStream = Answers<v1::WatchOperationResponse>;

    async fn watch_operation(
        &self,
        request: Request<v1::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let id: OperationId = field::id("operation", &request.get_ref().operation)?;
        let changes = stream::changes(self.app.operations.watch(id).await.map_err(refused)?);
        let messages = changes
            .map(|change| change.map(|change| Message::Operation(operation::operation(&change))));
        let messages = stream::served(messages, self.drain.begun.clone(), || {
            Message::Heartbeat(v1::Heartbeat {})
        });
        let numbered = stream::numbered(messages, |sequence, message| v1::WatchOperationResponse {
            sequence,
            message: Some(message),
        });
        Ok(Response::new(numbered))
    }
}
