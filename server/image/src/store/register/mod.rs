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

/// How archives are read.
struct Reading {
    /// Where what is decompressed goes, as files without names.
    tmp: PathBuf,
    /// Nobody wants it any more.
    cancel: CancellationToken,
}

impl RegisterSource {
    /// What a source to be detected turns out to be, opened as far as it had to be; what holds no image's documents is
    /// a root file system.
    ///
    /// # Errors
    /// If an image is named in what has no names.
    fn settled(self, reading: &Reading) -> Result<(Self, Option<Bundle>), StoreError> {
        let Self::Detect {
            path,
            config,
            image,
        } = self
        else {
            return Ok((self, None));
        };
        let (settled, opened) = Self::detected(path.clone(), config, image.clone(), reading);
        let has_names = matches!(settled, Self::OciLayout { .. } | Self::DockerArchive { .. });
        match image {
            Some(_) if !has_names => Err(StoreError::Unnamed { path }),
            _ => Ok((settled, opened)),
        }
    }

    fn detected(
        path: PathBuf,
        config: Box<ImageConfig>,
        image: Option<String>,
        reading: &Reading,
    ) -> (Self, Option<Bundle>) {
        let looks =
            |like: fn(&mut File) -> bool| File::open(&path).is_ok_and(|mut file| like(&mut file));
        if looks(looks_like_bundle) {
            return (Self::Bundle { path }, None);
        }
        if looks(looks_like_ext4) {
            return (Self::Ext4 { path, config }, None);
        }
        let bundle = Bundle::open(&path, reading).ok();
        let has = |name| {
            bundle
                .as_ref()
                .is_some_and(|bundle| bundle.get(name).is_ok_and(|found| found.is_some()))
        };
        let source = if has(oci::MARKER) {
            Self::OciLayout { path, image }
        } else if has(docker::MANIFEST) {
            Self::DockerArchive { path, image }
        } else {
            Self::RootfsTar { path, config }
        };
        (source, bundle)
    }

    /// Finds out what there is to do. Blocks.
    fn inspect(self, platform: &Platform, reading: &Reading) -> Result<Inspected, StoreError> {
        let (source, opened) = self.settled(reading)?;
        let open = |path: &Path, opened: Option<Bundle>| match opened {
            Some(bundle) => Ok(bundle),
            None => Bundle::open(path, reading),
        };
        let (plan, files) = match source {
            Self::Bundle { path } => return Ok(Inspected::Bundle(path)),
            Self::Ext4 { path, config } => return Ok(Inspected::Ext4(path, config)),
            Self::Detect { path, config, .. } | Self::RootfsTar { path, config } => {
                let known = opened.and_then(Bundle::into_measured);
                rootfs::inspect(&path, *config, platform, known, reading)?
            }
            Self::OciLayout { path, image } => {
                oci::inspect(&open(&path, opened)?, image.as_deref(), platform)?
            }
            Self::DockerArchive { path, image } => {
                docker::inspect(&open(&path, opened)?, image.as_deref(), platform, reading)?
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
        let place = self.reading_place(cancel).await?;
        let key = StageKey::new(INSPECT);
        progress.start(&key, None);
        let platform = options.platform.clone();
        let reading = Reading {
            tmp: self.inner.layout.tmp().to_owned(),
            cancel: cancel.child_token(),
        };
        // Ends the thread too when this is dropped.
        let _dropped = reading.cancel.clone().drop_guard();
        let inspecting = self
            .inner
            .tracker
            .spawn_blocking(move || source.inspect(&platform, &reading));
        // Waited for whatever happens, so that nobody reads what is removed then.
        let found = match joined(inspecting).await? {
            Err(_) if cancel.is_cancelled() => return Err(StoreError::Cancelled),
            found => found?,
        };
        drop(place);
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::compose::TarWriter;

    #[test]
    fn what_decompresses_can_be_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let plain = TarWriter::new(Vec::new()).finish().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let path = dir.path().join("archive");
        std::fs::write(&path, gzip.finish().unwrap()).unwrap();
        let reading = Reading {
            tmp: dir.path().to_owned(),
            cancel: CancellationToken::new(),
        };
        let sources = || {
            let (path, image, config) = (path.clone(), None, Box::default());
            [
                RegisterSource::Detect {
                    path: path.clone(),
                    config,
                    image: None,
                },
                RegisterSource::RootfsTar {
                    path: path.clone(),
                    config: Box::default(),
                },
                RegisterSource::DockerArchive { path, image },
            ]
        };
        let inspected = |source: RegisterSource| {
            let inspected = source.inspect(&Platform::host(), &reading);
            inspected.map(drop)
        };
        let [detected, root, _] = sources();
        inspected(detected).unwrap();
        inspected(root).unwrap();
        reading.cancel.cancel();
        for source in sources() {
            let told = format!("{source:?}");
            let error = inspected(source).expect_err(&told);
            let said = banger_core::chain(&error).to_string();
            assert!(said.contains("it was given up"), "{told}: {said}");
        }
    }
}
