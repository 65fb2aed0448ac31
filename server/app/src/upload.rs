//! Uploads: what a caller streams in, as a file below `tmp/` that goes when it is let go. Bounded in number, in
//! all and of each owner, in length and time, and never at the expense of the space that is kept free.

mod error;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use banger_core::{OperationId, Owner};
use bytes::Bytes;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

pub use self::error::UploadError;
use crate::Context;
use crate::error::AppError;
use crate::turns::{Full, Turn, Turns};

/// Uploads that come at the same time.
const UPLOADS_MAX: usize = 64;
/// Of these, the most of one owner.
const UPLOADS_PER_OWNER_MAX: usize = 32;
/// The free space is looked at once in so many bytes.
const LOOK_BYTES: u64 = 64 << 20;
/// Bytes of a kernel or a kernel bundle as it is uploaded: the kernel uncompressed, and its modules.
const KERNEL_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a tar of a modules directory: a distribution's whole one, uncompressed, several times over.
const MODULES_BYTES_MAX: u64 = 4 << 30;
/// Bytes of a kernel's configuration: a distribution's has a quarter of a megabyte.
const KERNEL_CONFIG_BYTES_MAX: u64 = 8 << 20;

/// How uploads may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadConfig {
    /// The most bytes of an archive of an image, and of a build's context.
    pub bytes_max: u64,
    /// A caller that sends nothing for this long has stalled.
    pub stall_timeout: Duration,
    /// The longest time for a whole upload.
    pub timeout: Duration,
}

impl Default for UploadConfig {
    fn default() -> Self {
        Self {
            bytes_max: 64 << 30,
            stall_timeout: Duration::from_secs(60),
            timeout: Duration::from_secs(2 * 3600),
        }
    }
}

/// What is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadKind {
    /// An archive of an image.
    Image,
    /// A build's context.
    Context,
    /// A kernel, or a kernel bundle.
    Kernel,
    /// A tar of a modules directory.
    Modules,
    /// A kernel's configuration.
    KernelConfig,
}

impl UploadKind {
    fn bytes_max(self, config: &UploadConfig) -> u64 {
        match self {
            Self::Image | Self::Context => config.bytes_max,
            Self::Kernel => KERNEL_BYTES_MAX,
            Self::Modules => MODULES_BYTES_MAX,
            Self::KernelConfig => KERNEL_CONFIG_BYTES_MAX,
        }
    }
}

/// Where callers stream to.
pub struct Uploads {
    context: Arc<Context>,
    turns: Turns,
}

impl std::fmt::Debug for Uploads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uploads").finish_non_exhaustive()
    }
}

impl Uploads {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        Self {
            context: context.clone(),
            turns: Turns::new(UPLOADS_MAX, UPLOADS_PER_OWNER_MAX),
        }
    }

    /// Begins an upload of `owner`'s.
    ///
    /// # Errors
    /// If there are as many as may be, or the disk has no space above its reserve.
    pub async fn begin(&self, kind: UploadKind, owner: &Owner) -> Result<Upload, AppError> {
        let context = self.context.clone();
        let turn = self.turns.try_take(owner).map_err(|full| match full {
            Full::All => UploadError::TooMany { limit: UPLOADS_MAX },
            Full::Owner => UploadError::TooManyOfOwner {
                owner: owner.clone(),
                limit: UPLOADS_PER_OWNER_MAX,
            },
        })?;
        crate::host::admit_disk(&context)?;
        let name = format!("upload-{}", OperationId::new());
        let path = Temporary(context.paths.tmp().join(name));
        // The file is made though the caller goes meanwhile, and goes then as what nobody takes.
        let making = tokio::task::spawn_blocking(move || {
            let file = std::fs::File::create_new(&path.0)?;
            Ok::<_, io::Error>((path, file))
        });
        let made = making.await.map_err(io::Error::other).flatten();
        let (path, file) = made.map_err(|source| UploadError::Store { source })?;
        Ok(Upload {
            file: File::from_std(file),
            path,
            kind,
            length: 0,
            look_at: LOOK_BYTES,
            begun: Instant::now(),
            context,
            _turn: turn,
        })
    }
}

/// A file that is removed when this is dropped.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What stays is swept at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An upload under way.
pub struct Upload {
    file: File,
    path: Temporary,
    kind: UploadKind,
    length: u64,
    /// The length at which the free space is looked at.
    look_at: u64,
    begun: Instant,
    context: Arc<Context>,
    _turn: Turn,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("kind", &self.kind)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// An upload that is whole.
#[derive(Debug)]
pub struct Uploaded {
    path: Temporary,
    length: u64,
}

impl Upload {
    /// Waits for what the caller sends next.
    ///
    /// # Errors
    /// If it does not come in time.
    pub async fn next<T>(&self, message: impl Future<Output = T>) -> Result<T, AppError> {
        let config = &self.context.config.upload;
        let left = config.timeout.saturating_sub(self.begun.elapsed());
        let late = match left < config.stall_timeout {
            true => UploadError::TooSlow {
                limit: config.timeout,
            },
            false => UploadError::Stalled {
                silence: config.stall_timeout,
            },
        };
        let come = tokio::time::timeout(left.min(config.stall_timeout), message).await;
        come.map_err(|_| late.into())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// If the disk is full up to its reserve, or the upload too large.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), AppError> {
        self.length += bytes.len() as u64;
        let limit = self.kind.bytes_max(&self.context.config.upload);
        if self.length > limit {
            return Err(UploadError::TooLarge { limit }.into());
        }
        if self.length >= self.look_at {
            self.look_at = self.length + LOOK_BYTES;
            crate::host::admit_disk(&self.context)?;
        }
        let written = self.file.write_all(&bytes).await;
        Ok(written.map_err(|source| UploadError::Store { source })?)
    }

    /// Ends the upload.
    ///
    /// # Errors
    /// If the disk is full.
    pub async fn finish(mut self) -> Result<Uploaded, AppError> {
        let flushed = self.file.flush().await;
        flushed.map_err(|source| UploadError::Store { source })?;
        Ok(Uploaded {
            path: self.path,
            length: self.length,
        })
    }
}

impl Uploaded {
    /// Where it is, as long as this lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path.0
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }
}
