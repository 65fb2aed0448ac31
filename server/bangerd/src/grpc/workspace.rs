//! `WorkspaceService`.

use banger_core::file::FilePlace;
use banger_core::workspace::{Base, ExportEvent, Part, PrepareEvent};
use banger_proto::v1;
use banger_proto::v1::workspace_service_server::WorkspaceService;
use futures::stream::{self, BoxStream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::convert::{file, workspace};
use super::request::RequestError;
use super::stream::{Answers, first, served};
use super::{Api, refused};

#[tonic::async_trait]
impl WorkspaceService for Api {
    type PrepareWorkspaceStream = Answers<v1::PrepareWorkspaceResponse>;

    async fn prepare_workspace(
        &self,
        request: Request<Streaming<v1::PrepareWorkspaceRequest>>,
    ) -> Result<Response<Self::PrepareWorkspaceStream>, Status> {
        use v1::prepare_workspace_request::Message;
        let mut messages = request.into_inner();
        let Some(Message::Start(start)) = first(&mut messages).await?.message else {
            return Err(RequestError::invalid("start", "does not come first").into());
        };
        let preparation = workspace::preparation(start)?;
        let events = self.app.workspaces.prepare(preparation, parts(messages));
        let events = events.await.map_err(refused)?;
        let answers = events.map(|event| Ok(workspace::prepared(event.map_err(refused)?)));
        let beat = || workspace::prepared(PrepareEvent::Heartbeat);
        let answers = served(answers, self.drain.over.clone(), beat);
        Ok(Response::new(answers))
    }

    type ExportWorkspaceStream = Answers<v1::ExportWorkspaceResponse>;

    async fn export_workspace(
        &self,
        request: Request<v1::ExportWorkspaceRequest>,
    ) -> Result<Response<Self::ExportWorkspaceStream>, Status> {
        let request = request.into_inner();
        let at = place(&request.path, request.user)?;
        let (base, accepted) = (request.base, request.accepted_encodings);
        let view = workspace::view(&request.vm, at, base, request.max_bytes, &accepted)?;
        let events = self.app.workspaces.export(view).await.map_err(refused)?;
        let answers = events.map(|event| Ok(workspace::exported(event.map_err(refused)?)));
        let beat = || workspace::exported(ExportEvent::Heartbeat);
        let answers = served(answers, self.drain.over.clone(), beat);
        Ok(Response::new(answers))
    }

    async fn get_workspace_status(
        &self,
        request: Request<v1::GetWorkspaceStatusRequest>,
    ) -> Result<Response<v1::GetWorkspaceStatusResponse>, Status> {
        let request = request.into_inner();
        let at = place(&request.path, request.user)?;
        let view = workspace::view(&request.vm, at, request.base, 0, &[])?;
        let (status, base): (_, Base) = self.app.workspaces.status(view).await.map_err(refused)?;
        Ok(Response::new(v1::GetWorkspaceStatusResponse {
            status: Some(status),
            base: Some(base),
        }))
    }
}

fn place(path: &str, user: String) -> Result<FilePlace, RequestError> {
    let mut place = file::place("path", path, user)?;
    workspace::tidy(&mut place.path);
    Ok(place)
}

/// The parts that a caller sends. Anything else ends them: a snapshot says itself where it ends.
fn parts(messages: Streaming<v1::PrepareWorkspaceRequest>) -> BoxStream<'static, Part> {
    use v1::prepare_workspace_request::Message;
    stream::unfold(messages, async |mut messages| {
        match messages.message().await {
            Ok(Some(message)) => match message.message {
                Some(Message::Part(part)) => Some((part, messages)),
                // A second start, or nothing: what comes then is none of a snapshot.
                _ => Some((Part::default(), messages)),
            },
            Ok(None) | Err(_) => None,
        }
    })
    .boxed()
}
