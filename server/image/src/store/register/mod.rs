//! Images from files of this host: OCI layouts, Docker archives, root file system archives.
//!
//! What a file says is believed no more than a registry: the same checks, the same bounds. Links inside an
//! archive are names inside the archive; a layout directory is opened beneath itself, without following
//! links, so that nothing leads to other files of the host.

mod bundle;
mod docker;
mod oci;
mod rootfs;

use std::fs::File;
use std::path::{Path, PathBuf};

use banger_core::image::{ImageConfig, Platform};
use banger_core::operation::{Progress, StageKey};
use tokio_util::sync::CancellationToken;

use self::bundle::Bundle;
use super::bring::joined;
use super::plan::Plan;
use super::source::{BlobSource, Region};
use super::{BuiltImage, ImageStore, StoreError};
use crate::bundle::{looks_like_bundle, looks_like_ext4};
use crate::registry::ImageReference;
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
        /// Which image, by its name in the archive, where there are several.
        image: Option<String>,
    },
    /// An OCI image layout: a directory, or a tar archive of one.
    OciLayout {
        /// Of the directory or archive.
        path: PathBuf,
        /// Which image, by its `io.containerd.image.name` or `org.opencontainers.image.ref.name`, where there are
        /// several.
        image: Option<String>,
    },
    /// What `docker save` and `skopeo copy … docker-archive:` write.
    DockerArchive {
        /// Of the archive.
        path: PathBuf,
        /// Which image, by one of its tags, where there are several.
        image: Option<String>,
    },
    /// A bundle, as an export writes it.
    Bundle {
        /// Of the file.
        path: PathBuf,
    },
    /// A bare ext4 file system.
    Ext4 {
        /// Of the file.
        path: PathBuf,
        /// What the file system cannot say.
        config: Box<ImageConfig>,
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

/// Whether an archive's name for an image is the one that is wanted, or means the same reference.
fn is_name(name: &str, wanted: &str) -> bool {
    let reference = |text: &str| text.parse::<ImageReference>().ok();
    name == wanted || reference(name).is_some_and(|name| Some(name) == reference(wanted))
}

/// What an archive holds: the documents, and where the layers are.
type Found = (Plan, Vec<(Digest, Region)>);

/// What is to be done with a source.
enum Inspected {
    /// Layers to build an image of.
    Layers(Box<Plan>, Vec<(Digest, Region)>),
    /// A bundle, which says itself what it is.
    Bundle(PathBuf),
    /// A base disk.
    Ext4(PathBuf, Box<ImageConfig>),
}

impl RegisterSource {
    /// What a source to be detected turns out to be; what holds no image's documents is a root file system.
    ///
    /// # Errors
    /// If an image is named in what has no names.
    fn settled(self, tmp: &Path) -> Result<Self, StoreError> {
        let Self::Detect {
            path,
            config,
            image,
        } = self
        else {
            return Ok(self);
        };
        let settled = Self::detected(path.clone(), config, image.clone(), tmp);
        let has_names = matches!(settled, Self::OciLayout { .. } | Self::DockerArchive { .. });
        match image {
            Some(_) if !has_names => Err(StoreError::Unnamed { path }),
            _ => Ok(settled),
        }
    }

    fn detected(
        path: PathBuf,
        config: Box<ImageConfig>,
        image: Option<String>,
        tmp: &Path,
    ) -> Self {
        let looks =
            |like: fn(&mut File) -> bool| File::open(&path).is_ok_and(|mut file| like(&mut file));
        if looks(looks_like_bundle) {
            return Self::Bundle { path };
        }
        if looks(looks_like_ext4) {
            return Self::Ext4 { path, config };
        }
        let bundle = Bundle::open(&path, tmp).ok();
        let has = |name| {
            bundle
                .as_ref()
                .is_some_and(|bundle| bundle.get(name).is_ok_and(|found| found.is_some()))
        };
        if has(oci::MARKER) {
            Self::OciLayout { path, image }
        } else if has(docker::MANIFEST) {
            Self::DockerArchive { path, image }
        } else {
            Self::RootfsTar { path, config }
        }
    }

    /// Finds out what there is to do. Blocks.
    fn inspect(self, platform: &Platform, tmp: &Path) -> Result<Inspected, StoreError> {
        let (plan, files) = match self.settled(tmp)? {
            Self::Bundle { path } => return Ok(Inspected::Bundle(path)),
            Self::Ext4 { path, config } => return Ok(Inspected::Ext4(path, config)),
            Self::Detect { path, config, .. } | Self::RootfsTar { path, config } => {
                rootfs::inspect(&path, *config, platform, tmp)?
            }
            Self::OciLayout { path, image } => {
                oci::inspect(&path, image.as_deref(), platform, tmp)?
            }
            Self::DockerArchive { path, image } => {
                docker::inspect(&path, image.as_deref(), platform, tmp)?
            }
        };
        Ok(Inspected::Layers(Box::new(plan), files))
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
            .spawn_blocking(move || source.inspect(&platform, &tmp));
        // cancel-safe: the thread ends on its own, and leaves nothing with a name
        let found = tokio::select! {
            () = cancel.cancelled() => return Err(StoreError::Cancelled),
            found = joined(inspecting) => found??,
        };
        progress.finish(&key);
        let platform = options.platform.clone();
        let (plan, files) = match found {
            Inspected::Layers(plan, files) => (*plan, files),
            Inspected::Bundle(path) => {
                return self
                    .register_bundle(&path, platform, progress, cancel)
                    .await;
            }
            Inspected::Ext4(path, config) => {
                return self
                    .register_ext4(&path, *config, platform, progress, cancel)
                    .await;
            }
        };
        self.build_files(plan, BlobSource::Files(files), progress, cancel)
            .await
    }
}
