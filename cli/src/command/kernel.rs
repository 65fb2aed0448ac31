//! `banger kernel`: what boots the guests.

mod build;
mod export;
mod keep;
mod pull;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;

pub(crate) use self::build::BuildError;
use self::keep::Keep;
use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::long;
use crate::view;

/// Import, build, look at, export and remove kernels
#[derive(Debug, Subcommand)]
pub(crate) enum Kernel {
    Import(Import),
    Pull(pull::Pull),
    Build(build::Build),
    Export(export::Export),
    #[command(visible_alias = "ls")]
    List(List),
    #[command(visible_alias = "show")]
    Inspect(Inspect),
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

impl Kernel {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Import(import) => import.run(context).await,
            Self::Pull(pull) => pull.run(context).await,
            Self::Build(build) => build.run(context).await,
            Self::Export(export) => export.run(context).await,
            Self::List(list) => list.run(context).await,
            Self::Inspect(inspect) => inspect.run(context).await,
            Self::Remove(remove) => remove.run(context).await,
        }
    }
}

/// Import a kernel from a file, a bundle or a Debian package
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the kernel's name. The first kernel becomes the default. What it has built in is read from the
configuration inside it, or the one given; a kernel that lacks what every guest needs is refused.

Examples:
  banger kernel import --debian-package linux-image-cloud-amd64 --default
  banger kernel import ./vmlinux --name mine
  banger kernel import small.kernel.tar.zst
  banger kernel import /boot/vmlinuz-6.1.0 --modules /lib/modules/6.1.0 --config /boot/config-6.1.0")]
pub(crate) struct Import {
    /// A vmlinux, a bzImage, a kernel bundle or a Debian package
    #[arg(
        required_unless_present = "debian_package",
        conflicts_with = "debian_package"
    )]
    file: Option<PathBuf>,
    /// The directory of its modules, as /lib/modules/RELEASE
    #[arg(long, value_name = "DIR", requires = "file")]
    modules: Option<PathBuf>,
    /// The configuration it was built with, as /boot/config-RELEASE, if it does not have it inside
    #[arg(long, value_name = "FILE", requires = "file")]
    config: Option<PathBuf>,
    /// Fetch this Debian package with the host's apt instead
    #[arg(long, value_name = "PACKAGE")]
    debian_package: Option<String>,
    #[command(flatten)]
    keep: Keep,
}

impl Import {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let kernels = client.kernels();
        let mut import = match (self.debian_package, self.file) {
            (Some(package), _) => kernels.import_debian_package(package),
            (None, file) => kernels.import_file(file.unwrap_or_default(), self.modules),
        };
        if let Some(config) = self.config {
            import = import.config(config);
        }
        let import = self.keep.apply(import);
        let imported = long::follow(context, &client, |told| import.progress(told)).await?;
        context.printer().changed(&view::Kernel::from(imported))
    }
}

/// List the kernels, newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger kernel list\n  banger kernel list --output json")]
pub(crate) struct List {}

impl List {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let kernels = context.client().await?.kernels().list();
        context.printer().list(kernels, view::Kernel::from).await
    }
}

/// Show all of a kernel, and what it has of what guests need
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger kernel inspect mine")]
pub(crate) struct Inspect {
    /// The kernel's name or id
    #[arg(add = ArgValueCandidates::new(complete::kernels))]
    kernel: String,
}

impl Inspect {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let kernel = context.client().await?.kernels().get(self.kernel).await?;
        context.printer().one(&view::Kernel::from(kernel))
    }
}

/// Remove kernels that no VM uses
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger kernel remove mine")]
pub(crate) struct Remove {
    /// The kernels' names or ids
    #[arg(required = true, value_name = "KERNEL", add = ArgValueCandidates::new(complete::kernels))]
    kernels: Vec<String>,
}

impl Remove {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        for kernel in self.kernels {
            client.kernels().delete(&kernel).await?;
            context.printer().removed(&kernel)?;
        }
        Ok(0)
    }
}
