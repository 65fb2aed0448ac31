//! Operations.

use banger_proto::v1;
use futures::{StreamExt, stream};
use tonic::{Code, Request, Response, Status};
use v1::operation_service_server::OperationService;

use super::vm::page;
use super::{Answer, Daemon, refuse, time};

#[tonic::async_trait]
impl OperationService for Daemon {
    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::GetOperationResponse>, Status> {
        let id = request.into_inner().operation;
        let operation = self.operations.lock().unwrap().get(&id).cloned();
        let missing = || {
            refuse(
                Code::NotFound,
                "OPERATION_NOT_FOUND",
                "no such operation",
                &[],
            )
        };
        let operation = Some(operation.ok_or_else(missing)?);
        Ok(Response::new(v1::GetOperationResponse { operation }))
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        let all: Vec<_> = self
            .operations
            .lock()
            .unwrap()
            .values()
            .rev()
            .cloned()
            .collect();
        let (operations, next_page_token) = page(&all, &request.into_inner().page_token);
        Ok(Response::new(v1::ListOperationsResponse {
            operations,
            next_page_token,
        }))
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Result<Response<v1::CancelOperationResponse>, Status> {
        let id = request.into_inner().operation;
        let operation = self.operations.lock().unwrap().get(&id).cloned();
        Ok(Response::new(v1::CancelOperationResponse { operation }))
    }

    type WatchOperationStream = Answer<v1::WatchOperationResponse>;

    async fn watch_operation(
        &self,
        request: Request<v1::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let id = request.into_inner().operation;
        let running = self.operations.lock().unwrap().get(&id).cloned();
        let missing = || {
            refuse(
                Code::NotFound,
                "OPERATION_NOT_FOUND",
                "no such operation",
                &[],
            )
        };
        let running = running.ok_or_else(missing)?;
        let mut ended = running.clone();
        ended.set_state(v1::operation::State::Succeeded);
        ended.end_time = time(9);
        let message = |(sequence, operation)| {
            let message = Some(v1::watch_operation_response::Message::Operation(operation));
            Ok(v1::WatchOperationResponse { sequence, message })
        };
        let stream = stream::iter([(1, running), (2, ended)].map(message));
        Ok(Response::new(stream.boxed()))
    }
}
