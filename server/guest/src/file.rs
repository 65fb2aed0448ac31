//! The calls about files. What a guest says of a file is checked field by field; where it says which file it speaks of,
//! that is not heard, because it was asked.

use std::sync::Arc;

use async_trait::async_trait;
use banger_core::file::{
    FileAttributes, FileContent, FileInfo, FileListing, FilePlace, FileRange, FileSource,
    FileWrite, GuestFiles, Links, Removal, Replacing, TreeMoved, TreeOwners, WatchEvents,
    WriteMode,
};
use banger_core::guest::{DownloadPieces, GuestError, TreeSource};
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::write_file_request::Message as Write;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tonic::{Response, Status};

mod check;
mod incoming;

use crate::convert::{offset, required, signed};
use crate::guest::{RemoteGuest, plain};
use crate::judge::{Asked, Call};
use crate::limits::{EVENT_MAX_BYTES, MESSAGE_MAX_BYTES};
use crate::pace::{Patience, paced};
use crate::tree;

/// A call that is done as a user.
fn by(during: &'static str, user: &str) -> Call {
    Call {
        asked: Some(Asked {
            user: user.to_owned(),
            program: String::new(),
            working_dir: String::new(),
        }),
        ..plain(during)
    }
}

fn bytes(path: &[u8]) -> Bytes {
    Bytes::copy_from_slice(path)
}

fn stamp((seconds, nanos): (i64, u32)) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds,
        nanos: i32::try_from(nanos).unwrap_or_default(),
    }
}

fn start(place: &FilePlace, write: &FileWrite) -> proto::WriteFileStart {
    let (mode, offset, truncate) = match write.mode {
        WriteMode::Replace => (proto::WriteMode::Replace, 0, false),
        WriteMode::Create => (proto::WriteMode::Create, 0, false),
        WriteMode::Append => (proto::WriteMode::Append, 0, false),
        WriteMode::At { offset, truncate } => (proto::WriteMode::At, offset, truncate),
    };
    proto::WriteFileStart {
        user: place.user.clone(),
        path: bytes(&place.path),
        mode: mode.into(),
        offset: signed(offset),
        truncate,
        permissions: write.attributes.permissions.map(u32::from),
        owner: write.attributes.owner.clone(),
        mtime: write.attributes.mtime.map(stamp),
        make_parents: write.make_parents,
    }
}

impl RemoteGuest {
    fn patience(&self) -> Patience {
        Patience {
            taking: self.deadlines.taking,
            answering: self.deadlines.flush,
        }
    }

    /// The answer of a call that gives one file.
    async fn file(
        &self,
        call: Call,
        path: &[u8],
        answer: impl Future<Output = Result<Response<Option<proto::FileInfo>>, Status>> + Send,
    ) -> Result<FileInfo, GuestError> {
        let answer = self.answer(call, Some(self.deadlines.call), answer).await?;
        check::info(required(answer, "the file")?, path.to_vec())
    }
}

#[async_trait]
impl GuestFiles for RemoteGuest {
    async fn read_file(
        &self,
        place: &FilePlace,
        range: FileRange,
    ) -> Result<(FileInfo, FileContent), GuestError> {
        let request = proto::ReadFileRequest {
            user: place.user.clone(),
            path: bytes(&place.path),
            offset: range.offset,
            length: range.length.map(signed),
        };
        let mut client = self.files(EVENT_MAX_BYTES);
        let answer = client.read_file(request);
        let call = by("read_file", &place.user);
        let messages = self.answer(call, Some(self.deadlines.call), answer).await?;
        let link = Arc::clone(&self.link);
        incoming::content(messages, place, range.length, self.waits(), link).await
    }

    async fn write_file(
        &self,
        place: &FilePlace,
        write: &FileWrite,
        source: FileSource,
    ) -> Result<FileInfo, GuestError> {
        let message = |message| proto::WriteFileRequest {
            message: Some(message),
        };
        let first = stream::iter([message(Write::Start(start(place, write)))]);
        let content = source.map(move |data| message(Write::Data(data)));
        let end = stream::iter([message(Write::End(proto::WriteFileEnd {}))]);
        let (source, pace) = paced(first.chain(content).chain(end), self.patience());
        let mut client = self.files(EVENT_MAX_BYTES);
        let answer = client.write_file(source);
        let answer = tokio::select! {
            // cancel-safe: dropping the call is how it is given up
            answer = self.answer(by("write_file", &place.user), None, answer) => answer?,
            // cancel-safe: holds no state
            lost = pace.lost("write_file", self.link.hold()) => return Err(lost),
        };
        check::info(required(answer.file, "the file")?, place.path.clone())
    }

    async fn stat_file(&self, place: &FilePlace, links: Links) -> Result<FileInfo, GuestError> {
        let request = proto::StatFileRequest {
            user: place.user.clone(),
            path: bytes(&place.path),
            follow: links == Links::Follow,
        };
        let mut client = self.files(EVENT_MAX_BYTES);
        let answer = async { Ok(client.stat_file(request).await?.map(|answer| answer.file)) };
        let call = by("stat_file", &place.user);
        self.file(call, &place.path, answer).await
    }

    async fn list_files(
        &self,
        place: &FilePlace,
        listing: &FileListing,
    ) -> Result<(Vec<FileInfo>, bool), GuestError> {
        let request = proto::ListFilesRequest {
            user: place.user.clone(),
            path: bytes(&place.path),
            depth: listing.depth,
            limit: listing.limit,
            after: bytes(&listing.after),
        };
        let mut client = self.files(MESSAGE_MAX_BYTES);
        let answer = client.list_files(request);
        let call = by("list_files", &place.user);
        // Its disk may be slow; the agent is not.
        let (limit, during) = (Some(self.deadlines.taking), call.during);
        let answer = tokio::select! {
            biased; // what came is not late
            // cancel-safe: dropping the call is how it is given up
            answer = self.answer(call, limit, answer) => answer?,
            // cancel-safe: holds no state
            limit = self.fallen_silent(self.deadlines.silence) => {
                return Err(GuestError::Deadline { during, limit });
            }
        };
        check::listed(answer, listing)
    }

    async fn make_directory(
        &self,
        place: &FilePlace,
        permissions: Option<u16>,
        parents: bool,
    ) -> Result<FileInfo, GuestError> {
        let request = proto::MakeDirectoryRequest {
            user: place.user.clone(),
            path: bytes(&place.path),
            permissions: permissions.map(u32::from),
            make_parents: parents,
        };
        let mut client = self.files(EVENT_MAX_BYTES);
        let answer = async {
            let answer = client.make_directory(request).await?;
            Ok(answer.map(|answer| answer.file))
        };
        let call = by("make_directory", &place.user);
        self.file(call, &place.path, answer).await
    }

    async fn remove_file(&self, place: &FilePlace, removal: Removal) -> Result<u64, GuestError> {
        let request = proto::RemoveFileRequest {
            user: place.user.clone(),
            path: bytes(&place.path),
            recursive: removal.recursive,
            allow_missing: removal.allow_missing,
        };
        let mut client = self.files(EVENT_MAX_BYTES);
        let answer = client.remove_file(request);
        let call = by("remove_file", &place.user);
        // As many as there are: a tree takes its time.
        let answer = self.answer(call, Some(self.deadlines.put), answer).await?;
        offset(answer.removed, "how many were removed")
    }

    async fn rename_file(
        &self,
        from: &FilePlace,
        to: &[u8],
        replacing: Replacing,
    ) -> Result<FileInfo, GuestError> {
        let request = proto::RenameFileRequest {
            user: from.user.clone(),
            from: bytes(&from.path),
            to: bytes(to),
            no_replace: replacing == Replacing::Refused,
        };
        let mut client = self.files(EVENT_MAX_BYTES);
        let answer = async { Ok(client.rename_file(request).await?.map(|answer| answer.file)) };
        self.file(by("rename_file", &from.user), to, answer).await
    }

    async fn set_file_attributes(
        &self,
        place: &FilePlace,
        links: Links,
        attributes: &FileAttributes,
    ) -> Result<FileInfo, GuestError> {
        let request = proto::SetFileAttributesRequest {
            user: place.user.clone(),
            path: bytes(&place.path),
            no_follow: links == Links::Keep,
            permissions: attributes.permissions.map(u32::from),
            owner: attributes.owner.clone(),
            mtime: attributes.mtime.map(stamp),
        };
        let mut client = self.files(EVENT_MAX_BYTES);
        let answer = async {
            let answer = client.set_file_attributes(request).await?;
            Ok(answer.map(|answer| answer.file))
        };
        let call = by("set_file_attributes", &place.user);
        self.file(call, &place.path, answer).await
    }

    async fn make_symlink(
        &self,
        place: &FilePlace,
        target: &[u8],
        replacing: Replacing,
    ) -> Result<FileInfo, GuestError> {
        let request = proto::MakeSymlinkRequest {
            user: place.user.clone(),
            path: bytes(&place.path),
            target: bytes(target),
            replace: replacing == Replacing::Allowed,
        };
        let mut client = self.files(EVENT_MAX_BYTES);
        let answer = async {
            Ok(client
                .make_symlink(request)
                .await?
                .map(|answer| answer.file))
        };
        let call = by("make_symlink", &place.user);
        self.file(call, &place.path, answer).await
    }

    async fn watch_files(
        &self,
        place: &FilePlace,
        recursive: bool,
    ) -> Result<WatchEvents, GuestError> {
        let request = proto::WatchFilesRequest {
            user: place.user.clone(),
            path: bytes(&place.path),
            recursive,
        };
        let mut client = self.files(EVENT_MAX_BYTES);
        let answer = client.watch_files(request);
        let call = by("watch_files", &place.user);
        let messages = self.answer(call, Some(self.deadlines.call), answer).await?;
        let (link, silence) = (Arc::clone(&self.link), self.deadlines.silence);
        Ok(incoming::changes(messages, &place.user, silence, link))
    }

    async fn upload_files(
        &self,
        place: &FilePlace,
        names_entry: bool,
        owners: TreeOwners,
        source: TreeSource,
    ) -> Result<TreeMoved, GuestError> {
        let first = stream::iter([tree::start_as_user(place, names_entry, owners)]);
        let (source, pace) = paced(first.chain(source.map(tree::put)), self.patience());
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.put_tree(source);
        let answer = tokio::select! {
            // cancel-safe: dropping the call is how it is given up
            answer = self.answer(by("upload_files", &place.user), None, answer) => answer?,
            // cancel-safe: holds no state
            lost = pace.lost("upload_files", self.link.hold()) => return Err(lost),
        };
        Ok(TreeMoved {
            entries: offset(answer.entries, "how many entries came")?,
            bytes: offset(answer.bytes, "how many bytes came")?,
        })
    }

    async fn download_files(&self, place: &FilePlace) -> Result<DownloadPieces, GuestError> {
        let request = proto::GetTreeRequest {
            path: bytes(&place.path),
            user: Some(place.user.clone()),
            tell_omissions: true,
        };
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.get_tree(request);
        let call = by("download_files", &place.user);
        let pieces = self.answer(call, Some(self.deadlines.call), answer).await?;
        let top = tree::Top::Entry;
        Ok(tree::download(pieces, top, self.waits(), &self.link))
    }
}
