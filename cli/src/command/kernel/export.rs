//! `banger kernel export`: a kernel as one file.

use std::path::PathBuf;

use clap::Args;
use clap_complete::ArgValueCandidates;

use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::received;

/// Write a kernel and its modules to a bundle, which `kernel import` takes elsewhere
#[derive(Debug, Args)]
#[command(after_help = "\
The same kernel always gives the same bytes.

Examples:
  banger kernel export small small.kernel.tar.zst
  banger kernel export small - | ssh other banger kernel import /dev/stdin")]
pub(crate) struct Export {
    /// The kernel's name or id
    #[arg(add = ArgValueCandidates::new(complete::kernels))]
    kernel: String,
    /// Where to: a file, which must not be there yet, or - for standard output
    file: PathBuf,
    /// Take the place of a file that is there
    #[arg(long)]
    replace: bool,
}

impl Export {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let target = received::Target::new(&self.file, self.replace)?;
        let mut export = context
            .client()
            .await?
            .kernels()
            .export(self.kernel)
            .await?;
        target.take(&mut export, &context.progress()).await?;
        Ok(0)
    }
}
