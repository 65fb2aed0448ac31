//! Files: the way from a caller to the files of a running VM. Nothing of them is kept here, and no path of a guest's ever
//! becomes one of the host's.

mod download;
mod error;
mod upload;

use std::sync::Arc;

use banger_core::Owner;
use banger_core::file::{
    FileAttributes, FileInfo, FileListing, FilePlace, FileRange, FileSource, FileWrite, Links,
    Removal, Replacing, TreeMoved, TreeOwners, WatchEvent, WriteMode,
};
use banger_core::guest::{Guest, GuestError};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::time::timeout;

pub use download::{Archive, ArchivePart};
pub use error::{FileError, Written};

use crate::Context;
use crate::error::AppError;
use crate::turns::Turns;
use crate::vm::{Use, Vms};
use error::Change;

/// Uploads of archives that are read at once, each by a thread; more wait, and not for ever.
const UPLOADS_MAX: usize = 64;
/// Of these, the most of one owner.
const UPLOADS_PER_OWNER_MAX: usize = 32;

/// A stream of what a guest says, which is used as long as it lasts.
pub type Told<T> = BoxStream<'static, Result<T, AppError>>;

/// The files of this host's VMs.
pub struct Files {
    context: Arc<Context>,
    vms: Arc<Vms>,
    uploads: Turns,
    /// Who asks.
    caller: Owner,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

/// The error of a call that changes files as `change` says.
fn failed(change: Change) -> impl Fn(GuestError) -> AppError + Copy + Send {
    move |source| AppError::File(Box::new(FileError::guest(change, source)))
}

/// `stream` as callers see it; the VM counts as used while it lasts.
fn told<T: Send + 'static>(
    stream: BoxStream<'static, Result<T, GuestError>>,
    used: Use,
) -> Told<T> {
    let judged = stream.map(|item| item.map_err(failed(Change::None)));
    stream::unfold((judged, used), async |(mut judged, used)| {
        let item = judged.next().await?;
        Some((item, (judged, used)))
    })
    .boxed()
}

impl Files {
    pub(crate) fn new(context: &Arc<Context>, vms: &Arc<Vms>) -> Self {
        Self {
            context: context.clone(),
            vms: vms.clone(),
            uploads: Turns::new(UPLOADS_MAX, UPLOADS_PER_OWNER_MAX),
            caller: Owner::daemon(),
        }
    }

    /// The same files for `caller`, who sees `vms`.
    pub(crate) fn seen_by(&self, caller: &Owner, vms: &Arc<Vms>) -> Self {
        Self {
            context: self.context.clone(),
            vms: vms.clone(),
            uploads: self.uploads.clone(),
            caller: caller.clone(),
        }
    }

    async fn guest(&self, vm: &str) -> Result<(Arc<dyn Guest>, Use), AppError> {
        let (_, guest, used) = self.vms.running(vm).await?;
        Ok((guest, used))
    }

    /// A file, and a part of its content.
    ///
    /// # Errors
    /// If the VM does not run, or the user may not read the file.
    pub async fn read(
        &self,
        vm: &str,
        place: &FilePlace,
        range: FileRange,
    ) -> Result<(FileInfo, Told<Bytes>), AppError> {
        let (guest, used) = self.guest(vm).await?;
        let read = guest.read_file(place, range).await;
        let (file, content) = read.map_err(failed(Change::None))?;
        Ok((file, told(content, used)))
    }

    /// Writes a file. A source that breaks off must never end; dropping this is how it is given up.
    ///
    /// # Errors
    /// If the VM does not run, or the user may not write the file.
    pub async fn write(
        &self,
        vm: &str,
        place: &FilePlace,
        write: &FileWrite,
        source: FileSource,
    ) -> Result<FileInfo, AppError> {
        let (guest, _used) = self.guest(vm).await?;
        let change = match write.mode {
            WriteMode::Replace | WriteMode::Create if !write.make_parents => Change::AtOnce,
            WriteMode::Replace | WriteMode::Create => Change::Stepwise,
            WriteMode::Append | WriteMode::At { .. } => Change::Stepwise,
        };
        let written = guest.write_file(place, write, source).await;
        written.map_err(failed(change))
    }

    /// What is at a path.
    ///
    /// # Errors
    /// If the VM does not run, or nothing is there.
    pub async fn stat(
        &self,
        vm: &str,
        place: &FilePlace,
        links: Links,
    ) -> Result<FileInfo, AppError> {
        let (guest, _used) = self.guest(vm).await?;
        let found = guest.stat_file(place, links).await;
        found.map_err(failed(Change::None))
    }

    /// What is in a directory, and whether more follows.
    ///
    /// # Errors
    /// If the VM does not run, or there is no directory.
    pub async fn list(
        &self,
        vm: &str,
        place: &FilePlace,
        listing: &FileListing,
    ) -> Result<(Vec<FileInfo>, bool), AppError> {
        let (guest, _used) = self.guest(vm).await?;
        let listed = guest.list_files(place, listing).await;
        listed.map_err(failed(Change::None))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// If the VM does not run, or the user may not make it.
    pub async fn make_directory(
        &self,
        vm: &str,
        place: &FilePlace,
        permissions: Option<u16>,
        parents: bool,
    ) -> Result<FileInfo, AppError> {
        let (guest, _used) = self.guest(vm).await?;
        let made = guest.make_directory(place, permissions, parents).await;
        made.map_err(failed(match parents {
            true => Change::Stepwise,
            false => Change::AtOnce,
        }))
    }

    /// Removes a file or directory; how many names were removed.
    ///
    /// # Errors
    /// If the VM does not run, or the user may not remove it.
    pub async fn remove(
        &self,
        vm: &str,
        place: &FilePlace,
        removal: Removal,
    ) -> Result<u64, AppError> {
        let (guest, _used) = self.guest(vm).await?;
        let removed = guest.remove_file(place, removal).await;
        removed.map_err(failed(match removal.recursive {
            true => Change::Stepwise,
            false => Change::AtOnce,
        }))
    }

    /// Gives a file another path.
    ///
    /// # Errors
    /// If the VM does not run, or the user may not.
    pub async fn rename(
        &self,
        vm: &str,
        from: &FilePlace,
        to: &[u8],
        replacing: Replacing,
    ) -> Result<FileInfo, AppError> {
        let (guest, _used) = self.guest(vm).await?;
        let renamed = guest.rename_file(from, to, replacing).await;
        renamed.map_err(failed(Change::AtOnce))
    }

    /// Changes a file's attributes.
    ///
    /// # Errors
    /// If the VM does not run, or the user may not.
    pub async fn set_attributes(
        &self,
        vm: &str,
        place: &FilePlace,
        links: Links,
        attributes: &FileAttributes,
    ) -> Result<FileInfo, AppError> {
        let (guest, _used) = self.guest(vm).await?;
        let set = guest.set_file_attributes(place, links, attributes).await;
        set.map_err(failed(Change::Stepwise))
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// If the VM does not run, or the user may not.
    pub async fn make_symlink(
        &self,
        vm: &str,
        place: &FilePlace,
        target: &[u8],
        replacing: Replacing,
    ) -> Result<FileInfo, AppError> {
        let (guest, _used) = self.guest(vm).await?;
        let made = guest.make_symlink(place, target, replacing).await;
        made.map_err(failed(Change::AtOnce))
    }

    /// Tells what changes.
    ///
    /// # Errors
    /// If the VM does not run, or there is nothing to watch.
    pub async fn watch(
        &self,
        vm: &str,
        place: &FilePlace,
        recursive: bool,
    ) -> Result<Told<WatchEvent>, AppError> {
        let (guest, used) = self.guest(vm).await?;
        let events = guest.watch_files(place, recursive).await;
        Ok(told(events.map_err(failed(Change::None))?, used))
    }

    /// Puts a tar archive into a VM. A source that breaks off must never end; dropping this is how it is given up.
    ///
    /// # Errors
    /// If the VM does not run, the archive is none, or the user may not write what is in it.
    pub async fn upload(
        &self,
        vm: &str,
        place: &FilePlace,
        names_entry: bool,
        owners: TreeOwners,
        archive: FileSource,
    ) -> Result<TreeMoved, AppError> {
        let (guest, _used) = self.guest(vm).await?;
        let patience = self.context.config.upload_queue_timeout;
        let _turn = timeout(patience, self.uploads.take(&self.caller))
            .await
            .map_err(|_| {
                let limit = UPLOADS_PER_OWNER_MAX;
                AppError::File(Box::new(FileError::TooManyUploads { limit }))
            })?
            .ok_or(AppError::Interrupted)?;
        let (pieces, reading) = upload::read(&self.context.tasks, archive);
        tokio::select! {
            biased; // why reading failed says more than that the stream broke off
            // cancel-safe: the other arm returns
            source = reading => Err(AppError::File(Box::new(FileError::Archive { source }))),
            // cancel-safe: dropping the call is how it is given up
            put = guest.upload_files(place, names_entry, owners, pieces) => {
                put.map_err(failed(Change::Stepwise))
            }
        }
    }

    /// Gets what is at a path, with all that is beneath it, as a tar archive.
    ///
    /// # Errors
    /// If the VM does not run, or nothing is there.
    pub async fn download(&self, vm: &str, place: &FilePlace) -> Result<Archive, AppError> {
        let (guest, used) = self.guest(vm).await?;
        let pieces = guest.download_files(place).await;
        let pieces = told(pieces.map_err(failed(Change::None))?, used);
        Ok(Archive::new(pieces, &place.path))
    }
}
