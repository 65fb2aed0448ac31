//! `banger image`: root filesystems.

mod build;
mod export;
mod keep;

use std::io;
use std::path::PathBuf;

use banger_sdk::{AuthFiles, Client, Source};
use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;

use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::long;
use crate::value::{ImageSource, ImportFormat};
use crate::view;

/// Get, keep, share and throw away images
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    Pull(Pull),
    Import(Import),
    Build(Box<build::Build>),
    Export(export::Export),
    #[command(visible_alias = "ls")]
    List(List),
    #[command(visible_alias = "show")]
    Inspect(Inspect),
    Tag(keep::Tag),
    #[command(visible_alias = "rm")]
    Remove(keep::Remove),
    Prune(keep::Prune),
    #[command(visible_alias = "du")]
    Usage(keep::Usage),
}

impl Image {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Pull(pull) => pull.run(context).await,
            Self::Import(import) => import.run(context).await,
            Self::Build(build) => build.run(context).await,
            Self::Export(export) => export.run(context).await,
            Self::List(list) => list.run(context).await,
            Self::Inspect(inspect) => inspect.run(context).await,
            Self::Tag(tag) => tag.run(context).await,
            Self::Remove(remove) => remove.run(context).await,
            Self::Prune(prune) => prune.run(context).await,
            Self::Usage(usage) => usage.run(context).await,
        }
    }
}

/// Pull an image from a catalog, or else from its registry
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the image's reference. Ctrl-C cancels the pull; the layers that have come whole are kept for the next try.
A name that a catalog has (NAME, NAME:VERSION or CATALOG/NAME:VERSION) is pulled from there, with the kernel it is meant
for.

Examples:
  banger image pull debian:bookworm
  banger image pull --source catalog debian --kernel small
  banger image pull --platform linux/arm64 registry:5000/team/app:1.2
  echo $TOKEN | banger image pull --username ci --password-stdin registry.example.com/app
  banger image pull --auth-file ./ci-auth.json registry.example.com/app
  banger image pull debian@sha256:…

Credentials come from --username, else from the files of `docker login` and `podman login` (also through their \
credential helpers), else from the daemon's own files. They are sent to the daemon for this pull and never stored.")]
pub(crate) struct Pull {
    /// The reference, e.g. debian:bookworm
    reference: String,
    /// The platform instead of the host's: os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Look there only
    #[arg(long, value_enum, value_name = "SOURCE")]
    source: Option<ImageSource>,
    /// The kernel that the image's VMs get, here or in a catalog, instead of the one it is meant for
    #[arg(long, value_name = "KERNEL", add = ArgValueCandidates::new(complete::kernels))]
    kernel: Option<String>,
    /// Import this vmlinux, bzImage or kernel bundle first, for the image's VMs
    #[arg(long, value_name = "FILE", conflicts_with = "kernel")]
    kernel_file: Option<PathBuf>,
    /// The modules of that kernel: a directory as /lib/modules/RELEASE, or a tar of it
    #[arg(long, value_name = "FILE", requires = "kernel_file")]
    modules_file: Option<PathBuf>,
    /// Take the name over from any other image; what a registry gave gives way without it
    #[arg(long)]
    replace: bool,
    /// User for the registry
    #[arg(long, value_name = "USER", requires = "password_stdin")]
    username: Option<String>,
    /// Read the user's password from the first line of standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Look for credentials in this file of Docker's or Podman's, not in the usual ones
    #[arg(long, value_name = "FILE", conflicts_with_all = ["username", "no_auth_file"])]
    auth_file: Option<PathBuf>,
    /// Send no credentials from your files
    #[arg(long)]
    no_auth_file: bool,
}

impl Pull {
    async fn run(mut self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let Some(file) = self.kernel_file.take() else {
            return self.pull(context, &client).await;
        };
        let import = client.kernels().import_file(file, self.modules_file.take());
        let imported = long::follow(context, &client, |told| import.progress(told)).await?;
        self.kernel = Some(imported.name.clone());
        let pulled = self.pull(context, &client).await;
        // It came for this image only, and would be in the way of the next try.
        if pulled.is_err()
            && let Err(error) = client.kernels().delete(imported.id).await
        {
            eprintln!(
                "banger: kernel `{}`, which came for the image, could not be removed again: {error}",
                imported.name
            );
        }
        pulled
    }

    async fn pull(self, context: &Context, client: &Client) -> Result<u8, Failure> {
        let mut pull = client.images().pull(self.reference);
        if let Some(kernel) = self.kernel {
            pull = pull.kernel(kernel);
        }
        if let Some(source) = self.source {
            pull = pull.source(source.into());
        }
        if self.replace {
            pull = pull.replace();
        }
        if let Some(platform) = self.platform {
            pull = pull.platform(platform);
        }
        if let Some(username) = self.username {
            let mut password = String::new();
            io::stdin()
                .read_line(&mut password)
                .map_err(Failure::Read)?;
            pull = pull.credentials(username, password.trim_end_matches(['\r', '\n']));
        } else if !self.no_auth_file {
            pull = pull.auth_files(match self.auth_file {
                Some(file) => AuthFiles::only(file),
                None => AuthFiles::of_user(|name| std::env::var_os(name)),
            });
        }
        let pulled = long::follow(context, client, |told| pull.progress(told)).await?;
        context.printer().changed(&view::Image::from(pulled))
    }
}

/// Make an image of an archive or a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Takes an OCI image layout (a directory or its tar), what `docker save` writes, a bundle of `banger image export`, an \
ext4 file system, or a root filesystem (a directory or its tar, plain, gzip or zstd).

Examples:
  docker save app:1 | banger image import - app:1
  banger image import ./oci-layout app:1
  banger image import rootfs.tar.zst base:1 --format rootfs-tar --kernel small")]
pub(crate) struct Import {
    /// The archive or the directory; - reads standard input
    file: PathBuf,
    /// What to call the image
    reference: String,
    /// The archive's format; found out from the content without it
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<ImportFormat>,
    /// The platform to choose from an archive of many: os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The image to take of an archive of several, by its name there
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Take the name over from another image
    #[arg(long)]
    replace: bool,
    /// The kernel that the image's VMs get, by name, instead of a bundle's own
    #[arg(long, value_name = "KERNEL", add = ArgValueCandidates::new(complete::kernels))]
    kernel: Option<String>,
}

impl Import {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let source = if self.file.as_os_str() == "-" {
            Source::reader(io::stdin())
        } else {
            Source::Path(self.file)
        };
        let mut register = client.images().register(self.reference, source);
        if let Some(format) = self.format {
            register = register.format(format.into());
        }
        if let Some(platform) = self.platform {
            register = register.platform(platform);
        }
        if let Some(image) = self.image {
            register = register.image(image);
        }
        if self.replace {
            register = register.replace();
        }
        if let Some(kernel) = self.kernel {
            register = register.kernel(kernel);
        }
        let registered = long::follow(context, &client, |told| register.progress(told)).await?;
        context.printer().changed(&view::Image::from(registered))
    }
}

/// List the images, newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger image list\n  banger image list --output json")]
pub(crate) struct List {}

impl List {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let images = context.client().await?.images().list();
        context.printer().list(images, view::Image::from).await
    }
}

/// Show all of an image
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger image inspect debian:bookworm --output json")]
pub(crate) struct Inspect {
    /// The image: a reference, a digest or an id
    #[arg(add = ArgValueCandidates::new(complete::images))]
    image: String,
}

impl Inspect {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let image = context.client().await?.images().get(self.image).await?;
        context.printer().one(&view::Image::from(image))
    }
}
