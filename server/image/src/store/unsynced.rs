//! Files that have their names and may not be on the disk yet.
//!
//! What can be fetched again is not waited for: a pull ends once its files have their names, and they are synced soon
//! after. Each has a mark, which is on the disk before the file has its name, and goes once the file is there too:
//!
//! ```text
//! <state dir>/unsynced/<boot of the host>/<name of the file>    empty
//! ```
//! A daemon that dies takes nothing with it: the kernel has what was written, and the next daemon syncs it. With the host
//! that is lost. Of a file that has a mark of another boot nobody knows whether it is whole: it goes, with its mark.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_core::Digest;
use tempfile::NamedTempFile;
use tokio::sync::Notify;

use super::bring::joined;
use super::layout::{Layout, RECORD_EXTENSION, sync_directory};
use super::{ImageStore, StoreError};
use crate::limits::SYNC_DELAY;

/// What tells one boot of the host from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// An image whose files are gone, because they were not known to be whole.
#[derive(Debug)]
pub struct LostImage {
    /// Of the image.
    pub digest: Digest,
    /// Why.
    pub cause: LossCause,
}

/// Why an image's files are not known to be whole.
#[derive(Debug, thiserror::Error)]
pub enum LossCause {
    /// The host ended before they were on its disk.
    #[error("the host ended before it was on the disk")]
    HostEnded,
    /// The disk did not take them.
    #[error("the disk did not take it")]
    NotWritten(#[source] Arc<StoreError>),
}

/// The marks of one store.
#[derive(Debug)]
pub(super) struct Unsynced {
    /// Of this boot.
    directory: PathBuf,
    marks: Mutex<HashMap<PathBuf, Mark>>,
    /// One sync after the other, since the kernel tells of an error once.
    syncing: Mutex<()>,
    /// Not told yet: at most one for each mark.
    losses: Mutex<Vec<LostImage>>,
    lost: Notify,
}

#[derive(Debug, Default)]
struct Mark {
    /// How many are about to give a file this name.
    expected: usize,
    /// The file that has it, open since it was written: so the kernel tells of all errors.
    named: Option<Arc<File>>,
}

/// A name that has a mark, so that a file may get it before it is on the disk.
#[derive(Debug)]
pub(super) struct ExpectedFile {
    store: ImageStore,
    path: PathBuf,
}

impl ExpectedFile {
    /// Gives the file its name; it still has to be synced. Blocks.
    pub(super) fn name(self, file: NamedTempFile) -> io::Result<()> {
        let name = |mark: &mut Mark| {
            let file = file.persist(&self.path).map_err(|error| error.error)?;
            mark.named = Some(Arc::new(file));
            Ok(())
        };
        let named = self.store.inner.unsynced.change(&self.path, name);
        named.expect("it is expected")
    }
}

impl Drop for ExpectedFile {
    fn drop(&mut self) {
        let unsynced = &self.store.inner.unsynced;
        unsynced.change(&self.path, |mark| mark.expected -= 1);
    }
}

/// A file that is to be synced.
#[derive(Debug)]
struct Waiting {
    path: PathBuf,
    file: Arc<File>,
}

impl Unsynced {
    /// Takes up the marks that an earlier daemon left.
    pub(super) fn open(layout: &Layout) -> Result<Self, StoreError> {
        let boot = fs::read_to_string(BOOT_ID).map_err(StoreError::io("read", BOOT_ID.as_ref()))?;
        let all = layout.unsynced();
        let directory = all.join(boot.trim());
        let unsynced = Self {
            directory,
            marks: Mutex::default(),
            syncing: Mutex::default(),
            losses: Mutex::default(),
            lost: Notify::new(),
        };
        for boot in entries(all)? {
            if boot != unsynced.directory {
                unsynced.distrust(layout, &boot)?;
            }
        }
        if !unsynced.directory.exists() {
            fs::create_dir(&unsynced.directory)
                .and_then(|()| sync_directory(&unsynced.directory))
                .and_then(|()| sync_directory(all))
                .map_err(StoreError::io("create the directory", &unsynced.directory))?;
        }
        for mark in entries(&unsynced.directory)? {
            unsynced.take_up(layout, &mark)?;
        }
        Ok(unsynced)
    }

    /// Removes the files that have marks of another boot, and then the marks.
    fn distrust(&self, layout: &Layout, boot: &Path) -> Result<(), StoreError> {
        for mark in entries(boot)? {
            let path = layout.file_of(&mark);
            let is_gone = remove(&path).map_err(StoreError::io("remove", &path))?;
            remove(&path.with_extension(RECORD_EXTENSION))
                .map_err(StoreError::io("remove", &path))?;
            if let Some(digest) = layout.image_of(&path).filter(|_| is_gone) {
                self.tell(digest, LossCause::HostEnded);
            }
        }
        // Else the next crash could bring back a file alone.
        sync_names(layout)?;
        fs::remove_dir_all(boot).map_err(StoreError::io("remove", boot))
    }

    /// What an earlier daemon of this boot did not come to sync, this one does.
    fn take_up(&self, layout: &Layout, mark: &Path) -> Result<(), StoreError> {
        let path = layout.file_of(mark);
        match File::open(&path) {
            Ok(file) => {
                let named = Some(Arc::new(file));
                lock(&self.marks).insert(path, Mark { expected: 0, named });
                Ok(())
            }
            // It was only expected.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::remove_file(mark).map_err(StoreError::io("remove", mark))
            }
            Err(error) => Err(StoreError::io("open", &path)(error)),
        }
    }

    fn mark_of(&self, path: &Path) -> PathBuf {
        self.directory
            .join(path.file_name().expect("files have names"))
    }

    /// Marks `path`. Blocks until the mark is on the disk.
    fn expect(&self, path: &Path) -> io::Result<()> {
        {
            // Whoever removes a mark has the lock too.
            let mut marks = lock(&self.marks);
            File::create(self.mark_of(path))?;
            marks.entry(path.to_owned()).or_default().expected += 1;
        }
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .inspect_err(|_| {
                self.change(path, |mark| mark.expected -= 1);
            })
    }

    /// Forgets a file that was removed.
    pub(super) fn forget(&self, path: &Path) {
        self.change(path, |mark| mark.named = None);
    }

    /// Changes what is known of a name; its mark goes with the last reason for it.
    fn change<T>(&self, path: &Path, change: impl FnOnce(&mut Mark) -> T) -> Option<T> {
        let mut marks = lock(&self.marks);
        let mark = marks.get_mut(path)?;
        let changed = change(mark);
        if mark.expected == 0 && mark.named.is_none() {
            marks.remove(path);
            // One that stays costs a file that was whole, after a crash of the host.
            if let Err(error) = fs::remove_file(self.mark_of(path)) {
                tracing::warn!(path = %path.display(), %error, "could not remove the mark of a file that was not synced");
            }
        }
        Some(changed)
    }

    /// What is to be synced, of what is `wanted`.
    fn waiting(&self, wanted: impl Fn(&Path) -> bool) -> Vec<Waiting> {
        let marks = lock(&self.marks);
        let named = marks.iter().filter(|(path, _)| wanted(path));
        let waiting = named.filter_map(|(path, mark)| {
            Some(Waiting {
                path: path.clone(),
                file: mark.named.clone()?,
            })
        });
        waiting.collect()
    }

    /// Takes the mark of a file that is on the disk.
    fn is_synced(&self, synced: &Waiting) {
        self.change(&synced.path, |mark| {
            mark.named.take_if(|file| Arc::ptr_eq(file, &synced.file));
        });
    }

    /// Removes a file that the disk did not take, unless another has its name by now.
    fn discard(&self, bad: &Waiting) {
        self.change(&bad.path, |mark| {
            let removed = mark.named.take_if(|file| Arc::ptr_eq(file, &bad.file));
            if removed.is_none() {
                return;
            }
            for path in [bad.path.clone(), bad.path.with_extension(RECORD_EXTENSION)] {
                if let Err(error) = remove(&path) {
                    tracing::error!(path = %path.display(), %error, "could not remove a file that the disk did not take");
                }
            }
        });
    }

    fn tell(&self, digest: Digest, cause: LossCause) {
        lock(&self.losses).push(LostImage { digest, cause });
        self.lost.notify_one();
    }
}

impl ImageStore {
    /// Marks the name that a file will get. Blocks until the mark is on the disk.
    pub(super) fn expect(&self, path: PathBuf) -> Result<ExpectedFile, StoreError> {
        let unsynced = &self.inner.unsynced;
        let marked = unsynced.expect(&path);
        marked.map_err(StoreError::io("write", &path))?;
        Ok(ExpectedFile {
            store: self.clone(),
            path,
        })
    }

    /// Waits until an image is lost that nobody was told of. Cancel-safe; one may wait.
    pub async fn lost(&self) {
        self.inner.unsynced.lost.notified().await;
    }

    /// The images that were lost since this was asked, or since the store was opened.
    pub fn take_losses(&self) -> Vec<LostImage> {
        std::mem::take(&mut *lock(&self.inner.unsynced.losses))
    }

    /// Syncs what was not waited for, soon: until then the disk is left to those who are waited for.
    pub fn sync_soon(&self) {
        let (store, hurry) = (self.clone(), lock(&self.inner.hurry).clone());
        self.inner.tracker.spawn(async move {
            tokio::select! {
                () = hurry.cancelled() => {}
                () = tokio::time::sleep(SYNC_DELAY) => {}
            }
            let tracker = store.inner.tracker.clone();
            let syncing = tracker.spawn_blocking(move || store.sync_marked(|_| true));
            if let Err(error) = joined(syncing).await.and_then(|synced| synced) {
                tracing::error!(
                    error = banger_core::chain(&error),
                    "files of images are lost"
                );
            }
        });
    }

    /// Syncs what an image needs and was not waited for.
    pub(super) async fn sync_image(&self, image: Digest) -> Result<(), StoreError> {
        let store = self.clone();
        joined(self.inner.tracker.spawn_blocking(move || {
            let files = store.files_of(image).kept;
            store.sync_marked(|path| files.iter().any(|file| file.path == path))
        }))
        .await?
    }

    /// Syncs the files that have marks, of those that are `wanted`. If the disk does not take one of them none is kept: what
    /// fails now is not believed of what it took a moment ago. Blocks.
    fn sync_marked(&self, wanted: impl Fn(&Path) -> bool) -> Result<(), StoreError> {
        let (layout, unsynced) = (&self.inner.layout, &self.inner.unsynced);
        let _turn = lock(&unsynced.syncing);
        let waiting = unsynced.waiting(wanted);
        let Err(error) = sync(layout, &waiting) else {
            for file in &waiting {
                unsynced.is_synced(file);
            }
            return Ok(());
        };
        let error = Arc::new(error);
        for file in &waiting {
            unsynced.discard(file);
            if let Some(image) = layout.image_of(&file.path) {
                unsynced.tell(image, LossCause::NotWritten(Arc::clone(&error)));
            }
        }
        Err(StoreError::Shared(error))
    }
}

/// Syncs files, the records beside them, and their names. Blocks.
fn sync(layout: &Layout, waiting: &[Waiting]) -> Result<(), StoreError> {
    if waiting.is_empty() {
        return Ok(());
    }
    for Waiting { path, file } in waiting {
        file.sync_all().map_err(StoreError::io("write", path))?;
        let record = path.with_extension(RECORD_EXTENSION);
        match File::open(&record).and_then(|record| record.sync_all()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("write", &record)(error));
            }
            _ => {}
        }
    }
    sync_names(layout)
}

/// Makes the names of all files durable. Blocks.
fn sync_names(layout: &Layout) -> Result<(), StoreError> {
    for directory in [layout.blobs_directory(), layout.rootfs_directory()] {
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(StoreError::io("write the directory", directory))?;
    }
    Ok(())
}

/// Removes a file; false where there is none.
fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is in a directory.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = || StoreError::io("read the directory", directory);
    let entries = fs::read_dir(directory).map_err(failed())?;
    entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed()))
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
