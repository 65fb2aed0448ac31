//! `FileService`.

mod transfer;

use banger_core::file::{Links, Removal, Replacing, TreeOwners, WatchEvent};
use banger_proto::v1;
use banger_proto::v1::file_service_server::FileService;
use futures::stream::{self, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::convert::{field, file};
use super::request::{self, RequestError};
use super::stream::{Answers, first, served};
use super::{Api, refused};

#[tonic::async_trait]
impl FileService for Api {
    type ReadFileStream = Answers<v1::ReadFileResponse>;

    async fn read_file(
        &self,
        request: Request<v1::ReadFileRequest>,
    ) -> Result<Response<Self::ReadFileStream>, Status> {
        use v1::read_file_response::Message;
        let request = request.into_inner();
        let vm = field::named("vm", &request.vm)?;
        let place = file::place("path", &request.path, request.user)?;
        let range = file::range(request.offset, request.length)?;
        let read = self.app.files.read(vm, &place, range).await;
        let (found, content) = read.map_err(refused)?;
        let message = |message| v1::ReadFileResponse {
            message: Some(message),
        };
        let first = stream::iter([Ok(message(Message::File(file::info(&found))))]);
        let chunks = content.map(move |chunk| {
            let chunk = chunk.map_err(refused)?;
            Ok(message(Message::Chunk(chunk)))
        });
        let beat = || v1::ReadFileResponse {
            message: Some(Message::Heartbeat(v1::Heartbeat {})),
        };
        let answers = served(first.chain(chunks), self.drain.over.clone(), beat);
        Ok(Response::new(answers))
    }

    type WriteFileStream = Answers<v1::WriteFileResponse>;

    async fn write_file(
        &self,
        request: Request<Streaming<v1::WriteFileRequest>>,
    ) -> Result<Response<Self::WriteFileStream>, Status> {
        use v1::write_file_request::Message;
        let mut messages = request.into_inner();
        let Some(Message::Start(start)) = first(&mut messages).await?.message else {
            return Err(RequestError::invalid("start", "does not come first").into());
        };
        let vm = field::named("start.vm", &start.vm)?.to_owned();
        let (place, write) = file::write(start)?;
        let (source, incoming) = transfer::source(messages, transfer::write_chunk);
        let app = self.app.clone();
        let work = async move { app.files.write(&vm, &place, &write, source).await };
        Ok(Response::new(transfer::answers(
            work,
            incoming,
            &self.drain,
        )))
    }

    async fn stat_file(
        &self,
        request: Request<v1::StatFileRequest>,
    ) -> Result<Response<v1::StatFileResponse>, Status> {
        let request = request.into_inner();
        let vm = field::named("vm", &request.vm)?;
        let place = file::place("path", &request.path, request.user)?;
        let links = match request.follow {
            true => Links::Follow,
            false => Links::Keep,
        };
        let found = self.app.files.stat(vm, &place, links).await;
        Ok(Response::new(v1::StatFileResponse {
            file: Some(file::info(&found.map_err(refused)?)),
        }))
    }

    async fn list_files(
        &self,
        request: Request<v1::ListFilesRequest>,
    ) -> Result<Response<v1::ListFilesResponse>, Status> {
        let request = request.into_inner();
        let vm = field::named("vm", &request.vm)?;
        let place = file::place("path", &request.path, request.user)?;
        let listing = file::listing(request.depth, request.page_size, &request.page_token)?;
        let listed = self.app.files.list(vm, &place, &listing).await;
        let (files, has_more) = listed.map_err(refused)?;
        Ok(Response::new(file::listed(&files, has_more)))
    }

    async fn make_directory(
        &self,
        request: Request<v1::MakeDirectoryRequest>,
    ) -> Result<Response<v1::MakeDirectoryResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.FileService/MakeDirectory", &id, &request)?;
        let vm = field::named("vm", &request.vm)?.to_owned();
        let place = file::place("path", &request.path, request.user)?;
        let permissions = file::permissions("permissions", request.permissions)?;
        let app = self.app.clone();
        let work = async move {
            let parents = request.make_parents;
            let made = app.files.make_directory(&vm, &place, permissions, parents);
            let file = Some(file::info(&made.await?));
            Ok(v1::MakeDirectoryResponse { file })
        };
        self.once.answer(&self.app, key, work).await
    }

    async fn remove_file(
        &self,
        request: Request<v1::RemoveFileRequest>,
    ) -> Result<Response<v1::RemoveFileResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.FileService/RemoveFile", &id, &request)?;
        let vm = field::named("vm", &request.vm)?.to_owned();
        let place = file::place("path", &request.path, request.user)?;
        let removal = Removal {
            recursive: request.recursive,
            allow_missing: request.allow_missing,
        };
        let app = self.app.clone();
        let work = async move {
            let removed = app.files.remove(&vm, &place, removal).await?;
            Ok(v1::RemoveFileResponse {
                removed_count: field::int(removed),
            })
        };
        self.once.answer(&self.app, key, work).await
    }

    async fn rename_file(
        &self,
        request: Request<v1::RenameFileRequest>,
    ) -> Result<Response<v1::RenameFileResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.FileService/RenameFile", &id, &request)?;
        let vm = field::named("vm", &request.vm)?.to_owned();
        let from = file::place("path", &request.path, request.user)?;
        let to = file::path("new_path", &request.new_path)?;
        let replacing = match request.no_replace {
            true => Replacing::Refused,
            false => Replacing::Allowed,
        };
        let app = self.app.clone();
        let work = async move {
            let renamed = app.files.rename(&vm, &from, &to, replacing).await?;
            let file = Some(file::info(&renamed));
            Ok(v1::RenameFileResponse { file })
        };
        self.once.answer(&self.app, key, work).await
    }

    async fn set_file_attributes(
        &self,
        request: Request<v1::SetFileAttributesRequest>,
    ) -> Result<Response<v1::SetFileAttributesResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.FileService/SetFileAttributes", &id, &request)?;
        let vm = field::named("vm", &request.vm)?.to_owned();
        let place = file::place("path", &request.path, request.user)?;
        let fields = ["permissions", "owner", "mtime"];
        let wanted = file::attributes(fields, request.permissions, request.owner, request.mtime)?;
        let links = match request.no_follow {
            true => Links::Keep,
            false => Links::Follow,
        };
        let app = self.app.clone();
        let work = async move {
            let set = app
                .files
                .set_attributes(&vm, &place, links, &wanted)
                .await?;
            let file = Some(file::info(&set));
            Ok(v1::SetFileAttributesResponse { file })
        };
        self.once.answer(&self.app, key, work).await
    }

    async fn make_symlink(
        &self,
        request: Request<v1::MakeSymlinkRequest>,
    ) -> Result<Response<v1::MakeSymlinkResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.FileService/MakeSymlink", &id, &request)?;
        let vm = field::named("vm", &request.vm)?.to_owned();
        let place = file::place("path", &request.path, request.user)?;
        let target = file::target(&request.target)?.to_vec();
        let replacing = match request.replace {
            true => Replacing::Allowed,
            false => Replacing::Refused,
        };
        let app = self.app.clone();
        let work = async move {
            let made = app.files.make_symlink(&vm, &place, &target, replacing);
            let file = Some(file::info(&made.await?));
            Ok(v1::MakeSymlinkResponse { file })
        };
        self.once.answer(&self.app, key, work).await
    }

    type WatchFilesStream = Answers<v1::WatchFilesResponse>;

    async fn watch_files(
        &self,
        request: Request<v1::WatchFilesRequest>,
    ) -> Result<Response<Self::WatchFilesStream>, Status> {
        let request = request.into_inner();
        let vm = field::named("vm", &request.vm)?;
        let place = file::place("path", &request.path, request.user)?;
        let events = self.app.files.watch(vm, &place, request.recursive).await;
        let answers = events
            .map_err(refused)?
            .map(|event| Ok(file::watched(event.map_err(refused)?)));
        let beat = || file::watched(WatchEvent::Heartbeat);
        let answers = served(answers, self.drain.begun.clone(), beat);
        Ok(Response::new(answers))
    }

    type UploadFilesStream = Answers<v1::UploadFilesResponse>;

    async fn upload_files(
        &self,
        request: Request<Streaming<v1::UploadFilesRequest>>,
    ) -> Result<Response<Self::UploadFilesStream>, Status> {
        use v1::upload_files_request::Message;
        let mut messages = request.into_inner();
        let Some(Message::Start(start)) = first(&mut messages).await?.message else {
            return Err(RequestError::invalid("start", "does not come first").into());
        };
        let vm = field::named("start.vm", &start.vm)?.to_owned();
        let place = file::place("start.path", &start.path, start.user)?;
        let owners = match start.keep_owners {
            true => TreeOwners::Kept,
            false => TreeOwners::User,
        };
        let (source, incoming) = transfer::source(messages, transfer::upload_chunk);
        let app = self.app.clone();
        let names_entry = start.names_entry;
        let work = async move {
            let files = &app.files;
            files.upload(&vm, &place, names_entry, owners, source).await
        };
        Ok(Response::new(transfer::answers(
            work,
            incoming,
            &self.drain,
        )))
    }

    type DownloadFilesStream = Answers<v1::DownloadFilesResponse>;

    async fn download_files(
        &self,
        request: Request<v1::DownloadFilesRequest>,
    ) -> Result<Response<Self::DownloadFilesStream>, Status> {
        let request = request.into_inner();
        let vm = field::named("vm", &request.vm)?;
        let place = file::place("path", &request.path, request.user)?;
        let archive = self.app.files.download(vm, &place).await.map_err(refused)?;
        Ok(Response::new(transfer::archive(archive, &self.drain)))
    }
}
