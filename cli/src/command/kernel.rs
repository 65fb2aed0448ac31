//! `banger kernel`: what boots the guests.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;

use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::long;
use crate::view;

/// Import and remove kernels
#[derive(Debug, Subcommand)]
pub(crate) enum Kernel {
    Import(Import),
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
            Self::List(list) => list.run(context).await,
            Self::Inspect(inspect) => inspect.run(context).await,
            Self::Remove(remove) => remove.run(context).await,
        }
    }
}

/// Import a kernel from a file or a Debian package
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the kernel's name. The first kernel becomes the default.

Examples:
  banger kernel import --debian-package linux-image-cloud-amd64 --default
  banger kernel import ./vmlinux --name mine
  banger kernel import /boot/vmlinuz-6.1.0 --modules /lib/modules/6.1.0")]
pub(crate) struct Import {
    /// A vmlinux or bzImage
    #[arg(
        required_unless_present = "debian_package",
        conflicts_with = "debian_package"
    )]
    file: Option<PathBuf>,
    /// The directory of its modules, as /lib/modules/RELEASE
    #[arg(long, value_name = "DIR", requires = "file")]
    modules: Option<PathBuf>,
    /// Fetch this Debian package with the host's apt instead
    #[arg(long, value_name = "PACKAGE")]
    debian_package: Option<String>,
    /// Call it this instead of by its release
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// VMs get it that name no kernel
    #[arg(long)]
    default: bool,
    /// Take the place of a kernel of the same name
    #[arg(long)]
    replace: bool,
}

impl Import {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let kernels = client.kernels();
        let mut import = match (self.debian_package, self.file) {
            (Some(package), _) => kernels.import_debian_package(package),
            (None, file) => kernels.import_file(file.unwrap_or_default(), self.modules),
        };
        if let Some(name) = self.name {
            import = import.name(name);
        }
        if self.default {
            import = import.make_default();
        }
        if self.replace {
            import = import.replace();
        }
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

/// Show all of a kernel
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
