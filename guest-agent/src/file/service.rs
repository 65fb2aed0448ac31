//! The answers to the host's calls about files.

use std::sync::Arc;

use banger_proto::guest::v1::file_service_server::FileService;
use banger_proto::guest::v1::write_file_request::Message;
use banger_proto::guest::v1::{self as proto, WriteFileRequest, WriteFileStart};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, Streaming};

use super::write::Writer;
use super::{Lasting, MESSAGES_AHEAD, as_user, change, list, read, remove, stream_as_user, watch};
use crate::agent::Agent;
use crate::refusal::Refusal;
use crate::service::Events;

type Answer<T> = Result<Response<T>, Status>;

/// The part of the guest protocol about files, over an [`Agent`].
#[derive(Debug)]
pub(crate) struct GuestFileService {
    agent: Arc<Agent>,
}

impl GuestFileService {
    /// Answers for `agent`.
    pub(crate) fn new(agent: Arc<Agent>) -> Self {
        Self { agent }
    }
}

#[tonic::async_trait]
impl FileService for GuestFileService {
    type ReadFileStream = Events<proto::ReadFileResponse>;

    async fn read_file(
        &self,
        request: Request<proto::ReadFileRequest>,
    ) -> Answer<Self::ReadFileStream> {
        let request = request.into_inner();
        let user = request.user.clone();
        let work =
            move |here: &_, deliver: &mut dyn FnMut(_) -> bool| read::read(here, &request, deliver);
        let answers = stream_as_user(&self.agent, user, Lasting::Call, work).await?;
        Ok(Response::new(answers))
    }

    async fn write_file(
        &self,
        request: Request<Streaming<WriteFileRequest>>,
    ) -> Answer<proto::WriteFileResponse> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|first| first.message);
        let Some(Message::Start(start)) = first else {
            return Err(Refusal::invalid("the first message is not `start`").into());
        };
        let file = Some(write(&self.agent, start, incoming).await?);
        Ok(Response::new(proto::WriteFileResponse { file }))
    }

    async fn stat_file(
        &self,
        request: Request<proto::StatFileRequest>,
    ) -> Answer<proto::StatFileResponse> {
        let request = request.into_inner();
        let user = request.user.clone();
        let work = move |here: &super::Here| here.look(&request.path, request.follow);
        let file = Some(as_user(&self.agent, user, work).await?);
        Ok(Response::new(proto::StatFileResponse { file }))
    }

    async fn list_files(
        &self,
        request: Request<proto::ListFilesRequest>,
    ) -> Answer<proto::ListFilesResponse> {
        let request = request.into_inner();
        let user = request.user.clone();
        let listed = as_user(&self.agent, user, move |here| list::list(here, &request)).await?;
        Ok(Response::new(listed))
    }

    async fn make_directory(
        &self,
        request: Request<proto::MakeDirectoryRequest>,
    ) -> Answer<proto::MakeDirectoryResponse> {
        let request = request.into_inner();
        let user = request.user.clone();
        let work = move |here: &_| change::make_directory(here, &request);
        let file = Some(as_user(&self.agent, user, work).await?);
        Ok(Response::new(proto::MakeDirectoryResponse { file }))
    }

    async fn remove_file(
        &self,
        request: Request<proto::RemoveFileRequest>,
    ) -> Answer<proto::RemoveFileResponse> {
        let request = request.into_inner();
        let user = request.user.clone();
        let work = move |here: &_| remove::remove(here, &request);
        let removed = as_user(&self.agent, user, work).await?;
        Ok(Response::new(proto::RemoveFileResponse { removed }))
    }

    async fn rename_file(
        &self,
        request: Request<proto::RenameFileRequest>,
    ) -> Answer<proto::RenameFileResponse> {
        let request = request.into_inner();
        let user = request.user.clone();
        let work = move |here: &_| change::rename(here, &request);
        let file = Some(as_user(&self.agent, user, work).await?);
        Ok(Response::new(proto::RenameFileResponse { file }))
    }

    async fn set_file_attributes(
        &self,
        request: Request<proto::SetFileAttributesRequest>,
    ) -> Answer<proto::SetFileAttributesResponse> {
        let request = request.into_inner();
        let user = request.user.clone();
        let work = move |here: &_| change::set_attributes(here, &request);
        let file = Some(as_user(&self.agent, user, work).await?);
        Ok(Response::new(proto::SetFileAttributesResponse { file }))
    }

    async fn make_symlink(
        &self,
        request: Request<proto::MakeSymlinkRequest>,
    ) -> Answer<proto::MakeSymlinkResponse> {
        let request = request.into_inner();
        let user = request.user.clone();
        let work = move |here: &_| change::make_symlink(here, &request);
        let file = Some(as_user(&self.agent, user, work).await?);
        Ok(Response::new(proto::MakeSymlinkResponse { file }))
    }

    type WatchFilesStream = Events<proto::WatchFilesResponse>;

    async fn watch_files(
        &self,
        request: Request<proto::WatchFilesRequest>,
    ) -> Answer<Self::WatchFilesStream> {
        let request = request.into_inner();
        let user = request.user.clone();
        let work = move |here: &_, deliver: &mut dyn FnMut(_) -> bool| {
            watch::watch(here, &request, deliver)
        };
        let answers = stream_as_user(&self.agent, user, Lasting::Watch, work).await?;
        Ok(Response::new(answers))
    }
}

/// Writes what comes; a stream that ends without saying that it is whole was given up.
async fn write(
    agent: &Arc<Agent>,
    start: WriteFileStart,
    mut incoming: Streaming<WriteFileRequest>,
) -> Result<proto::FileInfo, Status> {
    let (sender, mut pieces) = mpsc::channel::<Bytes>(MESSAGES_AHEAD);
    let (done, is_done) = oneshot::channel();
    let user = start.user.clone();
    let work = as_user(agent, user, move |here| {
        let mut writer = Writer::open(here, &start)?;
        while let Some(piece) = pieces.blocking_recv() {
            writer.data(&piece)?;
        }
        match is_done.blocking_recv() {
            Ok(()) => writer.finish(),
            Err(_) => Err(Refusal::invalid("the content was cut short")),
        }
    });
    let feed = async {
        loop {
            let Some(request) = incoming.message().await? else {
                return Err(Refusal::invalid("the content was cut short").into());
            };
            let data = match request.message {
                Some(Message::Data(data)) => data,
                Some(Message::End(_)) => break,
                Some(Message::Start(_)) | None => {
                    return Err(Refusal::invalid("a message is not content").into());
                }
            };
            if sender.send(data).await.is_err() {
                return Ok(()); // The work has failed and says why.
            }
        }
        // Whoever waits for it has gone only if the work has failed.
        let _ = done.send(());
        drop(sender);
        Ok::<(), Status>(())
    };
    let (fed, written) = tokio::join!(feed, work);
    let written = written?;
    fed.map(|()| written)
}
