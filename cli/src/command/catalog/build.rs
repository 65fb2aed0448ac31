//! `banger catalog build`: a catalog of local images and kernels, as files that any web server serves.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_sdk::catalog_file::{
    self, ArtifactPath, BundleEntry, CATALOG_FILE, FilePart, ImageManifest, Index, KernelEntry,
    KernelManifest, SecretKey,
};
use banger_sdk::{BundleNames, Client, Export};
use clap::Args;
use clap_complete::ArgValueCandidates;
use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};

use super::{CatalogError, key};
use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::received::Target;
use crate::value;
use crate::view;

/// The label by which images describe themselves (OCI image specification, "Annotations").
const DESCRIPTION_LABEL: &str = "org.opencontainers.image.description";
/// Characters of a description: one line of a table.
const DESCRIPTION_CHARS: usize = 200;
/// Characters of a file's digest in its name: no two files of one catalog have the same ones.
const DIGEST_CHARS: usize = 12;
/// What builds keep for `FROM scratch`.
const SCRATCH: &str = "localhost/banger-scratch:latest";
/// What a file is called of which it is not known yet what it should be called.
const UNNAMED: &str = ".new";

/// Make a catalog of this host's images and kernels, for any web server to serve
#[derive(Debug, Args)]
#[command(after_help = "\
Writes DIR/images, DIR/kernels and DIR/catalog.json. Built again, the catalog gets a higher version; files whose
content is the same stay as they are, and files with other content get other names: older ones may go when nobody has
an older catalog any more. The key file is made where it is missing: keep it, and keep it secret. Sign
with an old and a new key (--key OLD --key NEW) for a while to change keys.

Examples:
  banger catalog build ./catalog --name acme --key acme.key
  banger catalog build ./catalog --key acme.key --image debian:12 --kernel small --expires 30d")]
pub(crate) struct Build {
    /// The directory of the catalog
    dir: PathBuf,
    /// The file of the key to sign with; several for several keys
    #[arg(long = "key", required = true, value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// What the catalog calls itself, always the same; needed the first time
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// An image to put in; all that have a tag without any
    #[arg(long = "image", value_name = "REFERENCE", add = ArgValueCandidates::new(complete::images))]
    images: Vec<String>,
    /// A kernel to put in; all without any. Those that the images are meant for are put in anyway
    #[arg(long = "kernel", value_name = "NAME", add = ArgValueCandidates::new(complete::kernels))]
    kernels: Vec<String>,
    /// How long users believe this version: 90d, 12h
    #[arg(long, default_value = "90d", value_parser = value::long_duration, value_name = "TIME")]
    expires: Duration,
}

/// A build under way.
struct Building<'a> {
    dir: &'a Path,
    client: &'a Client,
    progress: Progress,
}

/// Which image each name of the catalog stands for, and by which reference it came.
#[derive(Debug, Default)]
struct Taken(HashMap<String, (catalog_file::Digest, String)>);

impl Taken {
    /// Whether an image is not in yet. Two references of one image may make the same name.
    ///
    /// # Errors
    /// If another image has its name.
    fn take(&mut self, manifest: &ImageManifest, reference: &str) -> Result<bool, CatalogError> {
        let name = format!("{}:{}", manifest.name, manifest.version);
        let digest = catalog_file::Digest::of(&manifest.to_bytes());
        let key = format!("{name} {}", manifest.platform);
        match self.0.get(&key) {
            None => {
                self.0.insert(key, (digest, reference.to_owned()));
                Ok(true)
            }
            Some((known, _)) if *known == digest => Ok(false),
            Some((_, first)) => Err(CatalogError::NameTwice {
                name,
                first: first.clone(),
                second: reference.to_owned(),
            }),
        }
    }
}

impl Build {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut keys = Vec::new();
        for path in &self.keys {
            keys.push(key::load_or_make(path)?.0);
        }
        let mut index = self.begin(&keys)?;
        let client = context.client().await?;
        let building = Building {
            dir: &self.dir,
            client: &client,
            progress: context.progress(),
        };
        let (images, kernels) = self.chosen(&client).await?;
        let mut wanted: BTreeSet<String> = kernels.into_iter().collect();
        let mut taken = Taken::default();
        for image in images {
            let Some(entry) = building.image(&image, &mut taken).await? else {
                continue;
            };
            if let Some(kernel) = &entry.kernel {
                building.need_kernel(&image, kernel.as_str()).await?;
                wanted.insert(kernel.to_string());
            }
            index.bundles.push(entry);
        }
        for kernel in wanted {
            index.kernels.push(building.kernel(&kernel).await?);
        }
        if index.bundles.is_empty() && index.kernels.is_empty() {
            return Err(CatalogError::Empty.into());
        }
        let bytes = catalog_file::seal(&index, &keys).map_err(CatalogError::Index)?;
        write(&self.dir.join(CATALOG_FILE), &bytes)?;
        let built = view::BuiltCatalog::new(&self.dir, &index, &keys[0].public().to_string());
        context.printer().one(&built)
    }

    /// The next version of what is in the directory, or the first.
    fn begin(&self, keys: &[SecretKey]) -> Result<Index, CatalogError> {
        fs::create_dir_all(&self.dir).map_err(io("make the directory", &self.dir))?;
        let previous = self.previous(keys)?;
        let name = match (&self.name, &previous) {
            (Some(name), _) => name.parse().map_err(|_| CatalogError::Nameless)?,
            (None, Some(previous)) => previous.name.clone(),
            (None, None) => return Err(CatalogError::Nameless),
        };
        let version = previous.map_or(1, |previous| previous.version + 1);
        let now = Timestamp::now();
        // Whole seconds are enough, and read better.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let expires = SignedDuration::try_from(self.expires).unwrap_or(SignedDuration::MAX);
        let expire_time = now.checked_add(expires).unwrap_or(Timestamp::MAX);
        Ok(Index::new(name, version, now, expire_time))
    }

    /// What was built before, which one of the keys must have signed: otherwise its users would refuse this.
    fn previous(&self, keys: &[SecretKey]) -> Result<Option<Index>, CatalogError> {
        let path = self.dir.join(CATALOG_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("read", &path)(error)),
        };
        let mut refused = None;
        for key in keys {
            // Whether it has expired does not matter to its maker.
            match catalog_file::open(&bytes, &key.public(), None, Timestamp::MIN) {
                Ok(opened) => return Ok(Some(opened.index)),
                Err(source) => refused = Some(source),
            }
        }
        Err(CatalogError::Existing {
            path,
            source: refused.unwrap_or(catalog_file::CatalogError::Unsigned),
        })
    }

    /// The references of the images and the names of the kernels that go in.
    async fn chosen(&self, client: &Client) -> Result<(Vec<String>, Vec<String>), Failure> {
        if !self.images.is_empty() || !self.kernels.is_empty() {
            return Ok((self.images.clone(), self.kernels.clone()));
        }
        let images: Vec<_> = client.images().list().try_collect().await?;
        let kernels: Vec<_> = client.kernels().list().try_collect().await?;
        // Each by its references: what has none has no name to be found by.
        let references = images.into_iter().rev().flat_map(|image| image.references);
        let references = references.filter(|reference| is_for_others(reference));
        Ok((
            references.collect(),
            kernels
                .into_iter()
                .rev()
                .map(|kernel| kernel.name)
                .collect(),
        ))
    }
}

/// Whether a reference names an image that somebody could want: by a tag, and not for builds alone.
fn is_for_others(reference: &str) -> bool {
    let named = reference.split('@').next().unwrap_or(reference);
    let last = named.rsplit('/').next().unwrap_or(named);
    last.contains(':') && reference != SCRATCH
}

impl Building<'_> {
    /// The entry of an image, whose file is written; none for one that is in already.
    async fn image(
        &self,
        reference: &str,
        taken: &mut Taken,
    ) -> Result<Option<BundleEntry>, Failure> {
        let described = self.client.images().get(reference).await?;
        let config = described.config.unwrap_or_default();
        let names = BundleNames::default();
        let export = self.client.images().export_bundle(reference, names).await?;
        let manifest =
            ImageManifest::parse(export.manifest()).map_err(|source| CatalogError::Manifest {
                item: reference.to_owned(),
                source,
            })?;
        if !taken.take(&manifest, reference)? {
            return Ok(None);
        }
        let stem = format!(
            "images/{}-{}-{}",
            manifest.name, manifest.version, manifest.platform.architecture
        );
        let (digest, file) = self.artifact(export, &stem, reference).await?;
        Ok(Some(BundleEntry {
            name: manifest.name,
            version: manifest.version,
            platform: manifest.platform,
            digest,
            kernel: manifest.kernel,
            rootfs_size_bytes: manifest.rootfs.size_bytes,
            file,
            description: one_line(
                config
                    .labels
                    .get(DESCRIPTION_LABEL)
                    .map_or("", String::as_str),
            ),
        }))
    }

    async fn kernel(&self, name: &str) -> Result<KernelEntry, Failure> {
        let export = self.client.kernels().export(name).await?;
        let manifest =
            KernelManifest::parse(export.manifest()).map_err(|source| CatalogError::Manifest {
                item: name.to_owned(),
                source,
            })?;
        let stem = format!(
            "kernels/{}-{}",
            manifest.name, manifest.platform.architecture
        );
        let (digest, file) = self.artifact(export, &stem, name).await?;
        Ok(KernelEntry {
            name: manifest.name,
            description: one_line(&manifest.origin),
            release: manifest.release,
            platform: manifest.platform,
            digest,
            file,
        })
    }

    async fn need_kernel(&self, image: &str, kernel: &str) -> Result<(), Failure> {
        match self.client.kernels().get(kernel).await {
            Ok(_) => Ok(()),
            Err(error) if error.reason() == "KERNEL_NOT_FOUND" => {
                Err(Failure::from(CatalogError::KernelMissing {
                    image: image.to_owned(),
                    kernel: kernel.to_owned(),
                }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes an export as a file of the catalog: under its name only when it is whole. The name has a part of the
    /// file's digest, so that whoever has an older index gets what that lists.
    async fn artifact(
        &self,
        mut export: Export,
        stem: &str,
        item: &str,
    ) -> Result<(catalog_file::Digest, FilePart), Failure> {
        let manifest = catalog_file::Digest::of(export.manifest());
        let file = self.dir.join(stem);
        let parent = file.parent().unwrap_or(self.dir);
        fs::create_dir_all(parent).map_err(io("make the directory", parent))?;
        let unnamed = parent.join(UNNAMED);
        let target = Target::new(&unnamed, true)?;
        target.take(&mut export, &self.progress).await?;
        let sha256 = export.sha256().unwrap_or_default();
        let digest =
            format!("sha256:{sha256}")
                .parse()
                .map_err(|_| banger_sdk::Error::Protocol {
                    during: "catalog build",
                    detail: "an export without a digest",
                })?;
        let path: ArtifactPath = format!("{stem}-{sha256:.DIGEST_CHARS$}.tar.zst")
            .parse()
            .map_err(|source| CatalogError::Name {
                item: item.to_owned(),
                source,
            })?;
        let file = self.dir.join(path.as_str());
        fs::rename(&unnamed, &file).map_err(io("write", &file))?;
        let part = FilePart {
            path,
            size_bytes: export.received_bytes(),
            digest,
        };
        Ok((manifest, part))
    }
}

/// A description without line ends or anything else that a terminal would obey.
fn one_line(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    let words: Vec<_> = plain.split_whitespace().collect();
    words.join(" ").chars().take(DESCRIPTION_CHARS).collect()
}

/// Writes a file so that a reader sees the old one or the new one, whole.
fn write(path: &Path, bytes: &[u8]) -> Result<(), CatalogError> {
    let part = path.with_extension("json.part");
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&part)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(io("write", path))
}

fn io(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CatalogError {
    let path = path.to_owned();
    move |source| CatalogError::Io { step, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(size_bytes: u64) -> ImageManifest {
        let digest = catalog_file::Digest::of(b"");
        let text = format!(
            r#"{{"format":"banger.image.v1","name":"app","version":"1",
                "platform":{{"os":"linux","architecture":"amd64"}},"config":{{}},
                "rootfs":{{"size_bytes":{size_bytes},"digest":"{digest}"}},"builder":"test"}}"#
        );
        ImageManifest::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn two_images_are_never_one_entry() {
        let mut taken = Taken::default();
        assert!(taken.take(&manifest(4096), "library/app:1").unwrap());
        assert!(!taken.take(&manifest(4096), "same/app:1").unwrap());
        let refused = taken.take(&manifest(8192), "ghcr.io/team/app:1");
        assert_eq!(
            refused.unwrap_err().to_string(),
            "`library/app:1` and `ghcr.io/team/app:1` are different images that would both be `app:1`"
        );
    }

    #[test]
    fn what_has_no_version_or_is_for_builds_alone_is_left_out() {
        let digest = catalog_file::Digest::of(b"");
        for (reference, is_in) in [
            ("docker.io/library/app:1".to_owned(), true),
            ("registry:5000/app:1".to_owned(), true),
            (format!("registry:5000/app@{digest}"), false),
            (format!("docker.io/library/app@{digest}"), false),
            (SCRATCH.to_owned(), false),
        ] {
            assert_eq!(is_for_others(&reference), is_in, "{reference}");
        }
    }

    #[test]
    fn a_description_is_one_harmless_line() {
        assert_eq!(one_line("a\nb\u{1b}[2J  c"), "a b [2J c");
        assert_eq!(one_line(&"x".repeat(500)).len(), DESCRIPTION_CHARS);
    }
}
