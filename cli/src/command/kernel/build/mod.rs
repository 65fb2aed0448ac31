//! `banger kernel build`: a guest's kernel out of the distribution's sources, on this machine.
//!
//! ```text
//! options ─▶ tools ─▶ sources ─▶ configure, check ─▶ compile ─▶ strip ─▶ import, or a file
//! ```
//! Each step leaves a stamp, and make knows what it has compiled: a build that was cut off goes on where it was.

mod compile;
mod error;
mod options;
mod place;
mod run;
mod show;
mod source;
mod tools;

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use clap::Args;

use self::compile::Built;
pub(crate) use self::error::BuildError;
use self::options::Options;
use self::place::Place;
use self::run::Runner;
use self::show::Show;
use self::source::Source;
use super::keep::Keep;
use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::long;
use crate::output;
use crate::view;

/// Build a small, fast-booting kernel for guests from source
#[derive(Debug, Args)]
#[command(after_help = "\
Takes the sources from the distribution's package linux-source, which apt downloads (no root needed), or from
--source; compiles them here, in $XDG_CACHE_HOME/banger/kernel (3 GiB; remove it when you like), and imports the
kernel into the daemon. Ctrl-C stops it, and the next build goes on from there.

Examples:
  banger kernel build --name small --default
  banger kernel build --source linux-6.12.tar.xz --jobs 8 --output-file vmlinux
  banger kernel build --show-options > my.config && banger kernel build --options my.config")]
pub(crate) struct Build {
    /// The kernel's sources: an archive, or a directory
    #[arg(long, value_name = "PATH")]
    source: Option<PathBuf>,
    /// Build with the options in this file instead of the built-in ones
    #[arg(long, value_name = "FILE")]
    options: Option<PathBuf>,
    /// Print the options and build nothing
    #[arg(long)]
    show_options: bool,
    /// Compile this many files at a time [default: one per processor]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Write the kernel to this file instead of importing it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "default", "replace"])]
    output_file: Option<PathBuf>,
    #[command(flatten)]
    keep: Keep,
}

impl Build {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let options = Options::load(self.options.as_deref())?;
        if self.show_options {
            output::lines(options.text().lines().map(str::to_owned))?;
            return Ok(0);
        }
        let show = Show::new(!context.is_silent());
        let mut runner = Runner::new(Interrupts::new()?);
        let built = self.build(&options, &mut runner, &show).await?;
        // From here on, signals are those of the import.
        drop(runner);
        match &self.output_file {
            Some(path) => Ok(write(&built.vmlinux, path).map(|()| 0)?),
            None => self.import(context, built).await,
        }
    }

    async fn build(
        &self,
        options: &Options,
        runner: &mut Runner,
        show: &Show,
    ) -> Result<Built, BuildError> {
        tools::check(runner, options).await?;
        let source = Source::find(runner, self.source.as_deref()).await?;
        let place = Place::take(&place::cache()?, &source.key())?;
        let step = show.step("fetch", None);
        let archive = source.fetch(runner, &place).await?;
        step.done();
        let step = show.step("unpack", None);
        let sources = source.unpack(runner, &place, archive.as_deref()).await?;
        step.done();
        let step = show.step("configure", None);
        compile::configure(runner, &place, &sources, options).await?;
        step.done();
        let jobs = self
            .jobs
            .or_else(|| std::thread::available_parallelism().ok())
            .map_or(1, NonZero::get);
        compile::compile(runner, &place, &sources, jobs, show).await
    }

    async fn import(self, context: &Context, built: Built) -> Result<u8, Failure> {
        let client = context.client().await?;
        let import = client
            .kernels()
            .import_file(built.vmlinux, None)
            .config(built.config);
        let import = self.keep.apply(import);
        let imported = long::follow(context, &client, |told| import.progress(told)).await?;
        context.printer().changed(&view::Kernel::from(imported))
    }
}

/// Copies the kernel to where it is wanted: whole or not at all.
fn write(vmlinux: &Path, to: &Path) -> Result<(), BuildError> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let part = to.with_file_name(format!(".{name}.part"));
    fs::copy(vmlinux, &part)
        .and_then(|_| fs::rename(&part, to))
        .map_err(BuildError::files("write", to))
}
