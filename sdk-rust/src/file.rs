//! Files of a VM: read, write, look, list, change, watch, and whole trees in and out.

use std::future::IntoFuture;

use banger_proto::v1;
use futures::future::{BoxFuture, FutureExt};
use prost_types::Timestamp;
use uuid::Uuid;
use v1::file_service_client::FileServiceClient;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::stream::{Pages, pages};

mod download;
mod pack;
mod read;
mod unpack;
mod upload;
mod watch;
mod write;

pub use download::{Download, DownloadStream};
pub use pack::PackedTree;
pub use read::{FileContent, ReadFile};
pub use unpack::{Unpack, UnpackLimits, Unpacked};
pub use upload::Upload;
pub use watch::{WatchEvent, WatchFiles, Watcher};
pub use write::WriteFile;

/// Asked for per page.
const PAGE_SIZE: i32 = 500;

/// What a new name does where something has it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced.
    Replace,
    /// It stays, and the call is refused.
    Keep,
}

/// Files of one VM, used as one of its users.
#[derive(Debug, Clone)]
pub struct Files {
    client: Client,
    vm: String,
    user: String,
}

impl Files {
    pub(crate) const fn new(client: Client, vm: String) -> Self {
        Self {
            client,
            vm,
            user: String::new(),
        }
    }

    /// As this user: `user`, `uid`, `user:group` or `uid:gid`. Without it as the user that sessions get.
    #[must_use]
    pub fn as_user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    fn rpc(&self) -> FileServiceClient<tonic::transport::Channel> {
        FileServiceClient::new(self.client.channel())
    }

    /// Reads a file, or a part of it.
    pub fn read(&self, path: impl Into<String>) -> ReadFile {
        ReadFile::new(self.clone(), path.into())
    }

    /// Writes a file: by default it is replaced at once when its content is whole.
    pub fn write(&self, path: impl Into<String>) -> WriteFile {
        WriteFile::new(self.clone(), path.into())
    }

    /// What is at a path; a symbolic link is followed.
    ///
    /// # Errors
    /// When nothing is there, or the daemon cannot be asked.
    pub async fn stat(&self, path: impl Into<String>) -> Result<v1::FileInfo> {
        self.look(path.into(), true).await
    }

    /// What is at a path; of a symbolic link, the link itself.
    ///
    /// # Errors
    /// When nothing is there, or the daemon cannot be asked.
    pub async fn stat_link(&self, path: impl Into<String>) -> Result<v1::FileInfo> {
        self.look(path.into(), false).await
    }

    async fn look(&self, path: String, follow: bool) -> Result<v1::FileInfo> {
        const CALL: &str = "StatFile";
        let request = v1::StatFileRequest {
            vm: self.vm.clone(),
            user: self.user.clone(),
            path,
            follow,
        };
        let call = || async { self.rpc().stat_file(request.clone()).await };
        present(self.client.repeat(CALL, call).await?.file, CALL)
    }

    /// What is in a directory, and `depth` directories down; 1 means what is in it. Each directory comes before what
    /// is in it, names in the order of their bytes.
    #[must_use]
    pub fn list(&self, path: impl Into<String>, depth: i32) -> Pages<v1::FileInfo> {
        let (this, path) = (self.clone(), path.into());
        pages(move |page_token| {
            let request = v1::ListFilesRequest {
                vm: this.vm.clone(),
                user: this.user.clone(),
                path: path.clone(),
                depth,
                page_size: PAGE_SIZE,
                page_token,
            };
            let this = this.clone();
            async move {
                let call = || async { this.rpc().list_files(request.clone()).await };
                let page = this.client.repeat("ListFiles", call).await?;
                Ok((page.files, page.next_page_token))
            }
        })
    }

    /// Makes a directory.
    pub fn make_directory(&self, path: impl Into<String>) -> MakeDirectory {
        let request = v1::MakeDirectoryRequest {
            vm: self.vm.clone(),
            user: self.user.clone(),
            path: path.into(),
            request_id: Uuid::new_v4().to_string(),
            ..v1::MakeDirectoryRequest::default()
        };
        MakeDirectory {
            files: self.clone(),
            request,
        }
    }

    /// Removes a file or an empty directory.
    pub fn remove(&self, path: impl Into<String>) -> RemoveFile {
        let request = v1::RemoveFileRequest {
            vm: self.vm.clone(),
            user: self.user.clone(),
            path: path.into(),
            request_id: Uuid::new_v4().to_string(),
            ..v1::RemoveFileRequest::default()
        };
        RemoveFile {
            files: self.clone(),
            request,
        }
    }

    /// Gives a file another path.
    pub fn rename(
        &self,
        path: impl Into<String>,
        new_path: impl Into<String>,
        existing: Existing,
    ) -> Request<v1::FileInfo> {
        const CALL: &str = "RenameFile";
        let this = self.clone();
        let (path, new_path) = (path.into(), new_path.into());
        Request::new(move |request_id| async move {
            let request = v1::RenameFileRequest {
                vm: this.vm.clone(),
                user: this.user.clone(),
                path,
                new_path,
                no_replace: existing == Existing::Keep,
                request_id,
            };
            let call = || async { this.rpc().rename_file(request.clone()).await };
            present(this.client.repeat(CALL, call).await?.file, CALL)
        })
    }

    /// Makes a symbolic link at `path` that leads to `target`.
    pub fn symlink(
        &self,
        path: impl Into<String>,
        target: impl Into<String>,
        existing: Existing,
    ) -> Request<v1::FileInfo> {
        const CALL: &str = "MakeSymlink";
        let this = self.clone();
        let (path, target) = (path.into(), target.into());
        Request::new(move |request_id| async move {
            let request = v1::MakeSymlinkRequest {
                vm: this.vm.clone(),
                user: this.user.clone(),
                path,
                target,
                replace: existing == Existing::Replace,
                request_id,
            };
            let call = || async { this.rpc().make_symlink(request.clone()).await };
            present(this.client.repeat(CALL, call).await?.file, CALL)
        })
    }

    /// Changes a file's permissions, owner or time.
    pub fn set_attributes(&self, path: impl Into<String>) -> SetAttributes {
        let request = v1::SetFileAttributesRequest {
            vm: self.vm.clone(),
            user: self.user.clone(),
            path: path.into(),
            request_id: Uuid::new_v4().to_string(),
            ..v1::SetFileAttributesRequest::default()
        };
        SetAttributes {
            files: self.clone(),
            request,
        }
    }

    /// Watches a directory or a file.
    pub fn watch(&self, path: impl Into<String>) -> WatchFiles {
        WatchFiles::new(self.clone(), path.into())
    }

    /// Puts a tree of files into the VM.
    pub fn upload(&self, tree: impl Into<PackedTree>, path: impl Into<String>) -> Upload {
        Upload::new(self.clone(), tree.into(), path.into())
    }

    /// Gets a file, or a directory with all that is in it, out of the VM.
    pub fn download(&self, path: impl Into<String>) -> Download {
        Download::new(self.clone(), path.into())
    }
}

fn present(file: Option<v1::FileInfo>, during: &'static str) -> Result<v1::FileInfo> {
    file.ok_or(Error::Protocol {
        during,
        detail: "no file",
    })
}

/// A directory, made when this is awaited.
#[derive(Debug)]
#[must_use = "a directory is made when this is awaited"]
pub struct MakeDirectory {
    files: Files,
    request: v1::MakeDirectoryRequest,
}

impl MakeDirectory {
    /// With those that are missing on the way; one that is there already is no error.
    pub const fn parents(mut self) -> Self {
        self.request.make_parents = true;
        self
    }

    /// With these permission bits instead of 0755.
    pub const fn permissions(mut self, bits: u32) -> Self {
        self.request.permissions = Some(bits);
        self
    }

    async fn run(self) -> Result<v1::FileInfo> {
        const CALL: &str = "MakeDirectory";
        let call = || async { self.files.rpc().make_directory(self.request.clone()).await };
        present(self.files.client.repeat(CALL, call).await?.file, CALL)
    }
}

impl IntoFuture for MakeDirectory {
    type Output = Result<v1::FileInfo>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

/// A removal, done when it is awaited. Gives how many names were removed.
#[derive(Debug)]
#[must_use = "nothing is removed until this is awaited"]
pub struct RemoveFile {
    files: Files,
    request: v1::RemoveFileRequest,
}

impl RemoveFile {
    /// A directory with all that is in it.
    pub const fn recursive(mut self) -> Self {
        self.request.recursive = true;
        self
    }

    /// That there is nothing is no error.
    pub const fn allow_missing(mut self) -> Self {
        self.request.allow_missing = true;
        self
    }

    async fn run(self) -> Result<u64> {
        let call = || async { self.files.rpc().remove_file(self.request.clone()).await };
        let answer = self.files.client.repeat("RemoveFile", call).await?;
        Ok(u64::try_from(answer.removed_count).unwrap_or_default())
    }
}

impl IntoFuture for RemoveFile {
    type Output = Result<u64>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

/// A change of a file's attributes, made when it is awaited. What is not named stays.
#[derive(Debug)]
#[must_use = "nothing is changed until this is awaited"]
pub struct SetAttributes {
    files: Files,
    request: v1::SetFileAttributesRequest,
}

impl SetAttributes {
    /// Permission bits, with setuid, setgid and sticky.
    pub const fn permissions(mut self, bits: u32) -> Self {
        self.request.permissions = Some(bits);
        self
    }

    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.request.owner = owner.into();
        self
    }

    /// The time of the last change of content.
    pub const fn mtime(mut self, time: Timestamp) -> Self {
        self.request.mtime = Some(time);
        self
    }

    /// Of a symbolic link itself, and not of what it leads to.
    pub const fn no_follow(mut self) -> Self {
        self.request.no_follow = true;
        self
    }

    async fn run(self) -> Result<v1::FileInfo> {
        const CALL: &str = "SetFileAttributes";
        let call = || async {
            let mut rpc = self.files.rpc();
            rpc.set_file_attributes(self.request.clone()).await
        };
        present(self.files.client.repeat(CALL, call).await?.file, CALL)
    }
}

impl IntoFuture for SetAttributes {
    type Output = Result<v1::FileInfo>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}
