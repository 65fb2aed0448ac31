//! Images from files of this host: OCI layouts, Docker archives, root file system archives.
//!
//! What a file says is believed no more than a registry: the same checks, the same bounds. Links inside an
//! archive are names inside the archive; a layout directory is opened beneath itself, without following
//! links, so that nothing leads to other files of the host.

mod bundle;
mod docker;
mod oci;
mod rootfs;

use std::path::{Path, PathBuf};

use banger_core::image::{ImageConfig, Platform};
use banger_core::operation::{Progress, StageKey};
use tokio_util::sync::CancellationToken;

use self::bundle::Bundle;
use super::bring::joined;
use super::plan::Plan;
use super::source::{BlobSource, Region};
use super::{BuiltImage, ImageStore, StoreError};
use banger_core::Digest;

/// The stage in which the archive is read to find out what it holds.
const INSPECT: &str = "inspect";

/// What is to be registered.
#[derive(Debug, Clone)]
pub enum RegisterSource {
    /// One of the others, found out from what the archive holds.
    Detect {
        /// Of the archive.
        path: PathBuf,
        /// What a root file system's archive cannot say.
        config: Box<ImageConfig>,
    },
    /// An OCI image layout: a directory, or a tar archive of one.
    OciLayout {
        /// Of the directory or archive.
        path: PathBuf,
        /// Which image, by its `org.opencontainers.image.ref.name`, where there are several.
        image: Option<String>,
    },
    /// What `docker save` and `skopeo copy … docker-archive:` write.
    DockerArchive {
        /// Of the archive.
        path: PathBuf,
        /// Which image, by one of its tags, where there are several.
        image: Option<String>,
    },
    /// A tar archive of a root file system; plain, or compressed with gzip or zstd.
    RootfsTar {
        /// Of the archive.
        path: PathBuf,
        /// What the archive cannot say.
        config: Box<ImageConfig>,
    },
}

/// How an image is registered.
#[derive(Debug, Clone)]
pub struct RegisterOptions {
    /// Which variant of the image.
    pub platform: Platform,
}

impl Default for RegisterOptions {
    fn default() -> Self {
        Self {
            platform: Platform::host(),
        }
    }
}

/// What an archive holds: the documents, and where the layers are.
type Found = (Plan, Vec<(Digest, Region)>);

impl RegisterSource {
    /// What a source to be detected turns out to be; what holds no image's documents is a root file system.
    fn settled(self, tmp: &Path) -> Self {
        let Self::Detect { path, config } = self else {
            return self;
        };
        let bundle = Bundle::open(&path, tmp).ok();
        let has = |name| {
            bundle
                .as_ref()
                .is_some_and(|bundle| bundle.get(name).is_ok_and(|found| found.is_some()))
        };
        if has(oci::MARKER) {
            Self::OciLayout { path, image: None }
        } else if has(docker::MANIFEST) {
            Self::DockerArchive { path, image: None }
        } else {
            Self::RootfsTar { path, config }
        }
    }
}

impl ImageStore {
    /// Registers an image from files of this host. Stages: `inspect`, then those of [`ImageStore::pull`]
    /// without `resolve`. The result's `reference` is absent.
    ///
    /// # Errors
    /// What [`StoreError`] says; nothing but whole blobs is kept of a failed registration.
    pub async fn register(
        &self,
        source: RegisterSource,
        options: &RegisterOptions,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<BuiltImage, StoreError> {
        let key = StageKey::new(INSPECT);
        progress.start(&key, None);
        let (platform, tmp) = (options.platform.clone(), self.inner.layout.tmp().to_owned());
        let inspecting = self
            .inner
            .tracker
            .spawn_blocking(move || match source.settled(&tmp) {
                RegisterSource::Detect { path, config } => {
                    rootfs::inspect(&path, *config, &platform, &tmp)
                }
                RegisterSource::OciLayout { path, image } => {
                    oci::inspect(&path, image.as_deref(), &platform, &tmp)
                }
                RegisterSource::DockerArchive { path, image } => {
                    docker::inspect(&path, image.as_deref(), &platform, &tmp)
                }
                RegisterSource::RootfsTar { path, config } => {
                    rootfs::inspect(&path, *config, &platform, &tmp)
                }
            });
        // cancel-safe: the thread ends on its own, and leaves nothing with a name
        let (plan, files) = tokio::select! {
            () = cancel.cancelled() => return Err(StoreError::Cancelled),
            found = joined(inspecting) => found??,
        };
        progress.finish(&key);
        self.build_files(plan, BlobSource::Files(files), progress, cancel)
            .await
    }
}
