//! Uploads: what a caller streams in, as a file below `tmp/` that goes when it is let go.

use std::path::{Path, PathBuf};

use banger_core::OperationId;
use bytes::Bytes;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::Context;
use crate::error::AppError;

/// The most bytes of one upload: a large image with room to spare.
const UPLOAD_BYTES_MAX: u64 = 64 << 30;

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
#[derive(Debug)]
pub struct Upload {
    file: File,
    path: Temporary,
    length: u64,
}

/// An upload that is whole.
#[derive(Debug)]
pub struct Uploaded {
    path: Temporary,
    length: u64,
}

impl Upload {
    pub(crate) async fn begin(context: &Context) -> Result<Self, AppError> {
        let path = context
            .paths
            .tmp()
            .join(format!("upload-{}", OperationId::new()));
        let made = File::create_new(&path).await;
        let file = made.map_err(|source| AppError::StoreUpload { source })?;
        Ok(Self {
            file,
            path: Temporary(path),
            length: 0,
        })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// If the disk is full or the upload too large.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), AppError> {
        self.length += bytes.len() as u64;
        if self.length > UPLOAD_BYTES_MAX {
            return Err(AppError::Invalid {
                field: "chunk",
                problem: format!("makes the upload larger than {UPLOAD_BYTES_MAX} bytes"),
            });
        }
        self.file
            .write_all(&bytes)
            .await
            .map_err(|source| AppError::StoreUpload { source })
    }

    /// Ends the upload.
    ///
    /// # Errors
    /// If the disk is full.
    pub async fn finish(mut self) -> Result<Uploaded, AppError> {
        self.file
            .flush()
            .await
            .map_err(|source| AppError::StoreUpload { source })?;
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
