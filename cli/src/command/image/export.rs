//! `banger image export`: an image as one file.

use std::path::PathBuf;

use banger_sdk::BundleNames;
use clap::{Args, ValueEnum};
use clap_complete::ArgValueCandidates;

use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::received;

/// What an image is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// The finished root filesystem, for banger.
    Bundle,
    /// A tar of an OCI image layout, for other tools.
    OciLayout,
}

/// Write an image to one file, which `image import` takes elsewhere
#[derive(Debug, Args)]
#[command(after_help = "\
A bundle is the finished root filesystem, for banger. An OCI layout has the image's layers, for other tools; an \
image that came as a bundle has none. The same image always gives the same bytes.

Examples:
  banger image export debian:12 debian.tar --format oci-layout && skopeo inspect oci-archive:debian.tar
  banger image export debian:12 debian-12.tar.zst
  banger image export debian:12 - | ssh other banger image import - debian:12")]
pub(crate) struct Export {
    /// The image: a reference, a digest or an id
    #[arg(add = ArgValueCandidates::new(complete::images))]
    image: String,
    /// Where to: a file, which must not be there yet, or - for standard output
    file: PathBuf,
    /// What to write
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "bundle")]
    format: ExportFormat,
    /// Call the bundle this instead of by the image's reference
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Its version instead of the reference's tag
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// The kernel it is meant for instead of the image's own
    #[arg(long, value_name = "KERNEL", add = ArgValueCandidates::new(complete::kernels))]
    kernel: Option<String>,
    /// Take the place of a file that is there
    #[arg(long)]
    replace: bool,
}

impl Export {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let target = received::Target::new(&self.file, self.replace)?;
        let names = BundleNames {
            name: self.name.unwrap_or_default(),
            version: self.version.unwrap_or_default(),
            kernel: self.kernel.unwrap_or_default(),
        };
        let images = context.client().await?.images();
        let mut export = match self.format {
            ExportFormat::Bundle => images.export_bundle(self.image, names).await?,
            ExportFormat::OciLayout => images.export_oci_layout(self.image).await?,
        };
        target.take(&mut export, &context.progress()).await?;
        Ok(0)
    }
}
