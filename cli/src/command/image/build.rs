//! `banger image build`: an image by a Dockerfile, or from Debian packages.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use banger_sdk::types::{self, build_log::Stream};
use banger_sdk::{AuthFiles, BuildImage, Source};
use clap::{Args, ValueEnum};
use clap_complete::ArgValueCandidates;

use crate::args::Format;
use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::long;
use crate::value::{self, Network};
use crate::view;

/// A line that is longer is shown in pieces.
const LINE_MAX_BYTES: usize = 64 << 10;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shown {
    /// Each step and its output, in lines.
    Plain,
    /// The stages, without output.
    Bars,
}

/// Make an image by a Dockerfile, or from Debian packages
#[derive(Debug, Args)]
#[command(after_help = "\
Each RUN is a command in a throw-away VM; nothing of it touches this host. Steps that were run before with the \
same input are taken from what was kept (`banger image prune --build-cache` throws that away). Prints the image's \
reference. Ctrl-C cancels the build and leaves nothing of it.

CONTEXT is the directory from which COPY and ADD take; what its .dockerignore names is not sent.

Credentials for the base images that the Dockerfile names come from the files of `docker login` and `podman login` \
(also through their credential helpers), else from the daemon's own files. They are sent to the daemon for this build \
and never stored.

With --debian the image is a root filesystem of Debian packages, made by mmdebstrap on the daemon's host.

Examples:
  banger image build -t app:1 .
  banger image build -t app:1 -f deploy/Dockerfile --target test --build-arg VERSION=3 .
  banger image build -t app:1 --network none --memory 2G .
  banger image build --debian bookworm --include git,python3 tools:1
  banger run app:1")]
pub(crate) struct Build {
    /// The context's directory, or - for a tar on standard input; with --debian, what to call the image
    #[arg(value_name = "CONTEXT|NAME")]
    place: Option<String>,
    /// What to call the image
    #[arg(short, long, value_name = "NAME")]
    tag: Option<String>,
    /// The Dockerfile; CONTEXT/Dockerfile without it
    #[arg(short, long, value_name = "FILE", conflicts_with = "debian")]
    file: Option<PathBuf>,
    /// Set a variable that the Dockerfile declares by ARG
    #[arg(long, value_name = "NAME=VALUE", value_parser = value::pair, conflicts_with = "debian")]
    build_arg: Vec<(String, String)>,
    /// Build this stage instead of the last
    #[arg(long, value_name = "STAGE", conflicts_with = "debian")]
    target: Option<String>,
    /// Run every step, whatever is kept of earlier builds
    #[arg(long)]
    no_cache: bool,
    /// Make a root filesystem of this Debian suite's packages, e.g. bookworm
    #[arg(long, value_name = "SUITE")]
    debian: Option<String>,
    /// Packages to include
    #[arg(
        long,
        value_name = "PACKAGE,…",
        value_delimiter = ',',
        requires = "debian"
    )]
    include: Vec<String>,
    /// How much of the distribution: essential, apt, minbase, standard, …
    #[arg(long, value_name = "VARIANT", requires = "debian")]
    variant: Option<String>,
    /// Memory of the VMs in which steps run, e.g. 512M or 2G
    #[arg(short, long, value_name = "SIZE", value_parser = value::mib)]
    memory: Option<i64>,
    /// Virtual CPUs of the VMs in which steps run
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    cpus: Option<i32>,
    /// Space for what the build adds, e.g. 20G
    #[arg(long, value_name = "SIZE", value_parser = value::mib)]
    disk: Option<i64>,
    /// The network of RUN; by itself that of any VM
    #[arg(long, value_enum, value_name = "MODE")]
    network: Option<Network>,
    /// Boot this kernel in the VMs in which steps run
    #[arg(short, long, value_name = "KERNEL", add = ArgValueCandidates::new(complete::kernels))]
    kernel: Option<String>,
    /// The platform: only the host's own can be built
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Look for credentials in this file of Docker's or Podman's, not in the usual ones
    #[arg(long, value_name = "FILE", conflicts_with_all = ["debian", "no_auth_file"])]
    auth_file: Option<PathBuf>,
    /// Send no credentials from your files
    #[arg(long)]
    no_auth_file: bool,
    /// How to show progress
    #[arg(long, value_enum, value_name = "HOW", default_value = "plain")]
    progress: Shown,
}

impl Build {
    pub(super) async fn run(self, context: &Context) -> Result<u8, Failure> {
        self.check_platform()?;
        let client = context.client().await?;
        let images = client.images();
        let name = self.name()?;
        let mut build = match &self.debian {
            Some(suite) => {
                let mut build = images.build_debian(&name, suite);
                for package in self.include.iter().filter(|name| !name.is_empty()) {
                    build = build.include(package);
                }
                match &self.variant {
                    Some(variant) => build.variant(variant),
                    None => build,
                }
            }
            None => self.by_dockerfile(&images, &name)?,
        };
        build = self.machine(build);
        let is_silent =
            context.quiet || (context.format == Format::Json && !io::stderr().is_terminal());
        if !is_silent && self.progress == Shown::Plain {
            let mut lines = Lines::default();
            build = build.log(move |log| lines.take(log));
        }
        // Lines and bars would write over each other: the log tells of each step.
        let built = match self.progress {
            Shown::Bars => long::follow(context, &client, |told| build.progress(told)).await?,
            Shown::Plain => long::follow_silently(&client, |told| build.progress(told)).await?,
        };
        context
            .printer()
            .changed(&view::Image::from(named_first(built, &name)))
    }

    /// What to call the image; with packages there is no context, so that the name may stand alone.
    fn name(&self) -> Result<String, Failure> {
        let alone = self.place.as_ref().filter(|_| self.debian.is_some());
        let name = self.tag.as_ref().or(alone);
        name.cloned()
            .ok_or_else(|| usage("what to call the image is missing: give --tag NAME"))
    }

    fn by_dockerfile(
        &self,
        images: &banger_sdk::Images,
        name: &str,
    ) -> Result<BuildImage, Failure> {
        let missing = || usage("the context is missing: give a directory, e.g. .");
        let place = self.place.as_ref().ok_or_else(missing)?;
        let source = match place.as_str() {
            "-" if self.file.is_none() => {
                return Err(usage("a context on standard input needs --file"));
            }
            "-" => Source::reader(io::stdin()),
            path => Source::Path(path.into()),
        };
        let mut build = images.build(name, source);
        if let Some(file) = &self.file {
            build = build.dockerfile(file);
        }
        for (name, value) in &self.build_arg {
            build = build.build_arg(name, value);
        }
        if let Some(stage) = &self.target {
            build = build.target(stage);
        }
        if !self.no_auth_file {
            build = build.auth_files(match &self.auth_file {
                Some(file) => AuthFiles::only(file.clone()),
                None => AuthFiles::of_user(|name| std::env::var_os(name)),
            });
        }
        Ok(build)
    }

    fn machine(&self, mut build: BuildImage) -> BuildImage {
        if self.no_cache {
            build = build.no_cache();
        }
        if let Some(mib) = self.memory {
            build = build.memory_mib(i32::try_from(mib).unwrap_or(i32::MAX));
        }
        if let Some(count) = self.cpus {
            build = build.vcpus(count);
        }
        if let Some(mib) = self.disk {
            build = build.disk_bytes(mib.saturating_mul(1 << 20));
        }
        if let Some(network) = self.network {
            build = build.network(network.into());
        }
        match &self.kernel {
            Some(kernel) => build.kernel(kernel),
            None => build,
        }
    }

    /// There is nothing that could run another platform's commands.
    fn check_platform(&self) -> Result<(), Failure> {
        let own = match std::env::consts::ARCH {
            "x86_64" => "linux/amd64",
            "aarch64" => "linux/arm64",
            other => other,
        };
        match self.platform.as_deref() {
            Some(platform) if platform != own => Err(usage(&format!(
                "--platform {platform} cannot be built here: steps run on {own}"
            ))),
            _ => Ok(()),
        }
    }
}

/// The image with the reference first that it was built as: it may have had others.
fn named_first(mut image: types::Image, name: &str) -> types::Image {
    let name = canonical(name);
    image.references.sort_by_key(|reference| *reference != name);
    image
}

/// A name as the daemon writes it: with its registry and a tag.
fn canonical(name: &str) -> String {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", name),
    };
    let library = match registry == "docker.io" && !repository.contains('/') {
        true => "library/",
        false => "",
    };
    let last = repository.rsplit('/').next().unwrap_or(repository);
    let tag = if last.contains([':', '@']) {
        ""
    } else {
        ":latest"
    };
    format!("{registry}/{library}{repository}{tag}")
}

fn usage(problem: &str) -> Failure {
    Failure::Usage {
        problem: problem.to_owned(),
    }
}

/// Shows output as it comes, each step's lines behind its number. What comes in pieces is shown line by line.
#[derive(Debug, Default)]
struct Lines {
    /// Of each step and stream, what has no line end yet.
    open: Vec<((String, Stream), Vec<u8>)>,
}

impl Lines {
    fn take(&mut self, log: &types::BuildLog) {
        if log.dropped_bytes > 0 {
            let lost = format!(
                "… {} bytes were dropped: this reader was too slow",
                log.dropped_bytes
            );
            show(&log.step, Stream::Stdout, lost.as_bytes());
        }
        let key = (log.step.clone(), log.stream());
        // A step is over when the next one speaks: its last line may have no end.
        let (over, open) = self
            .open
            .drain(..)
            .partition(|((step, _), _)| *step != log.step);
        self.open = open;
        over.iter().for_each(rest);
        let mut text = match self.open.iter().position(|(known, _)| *known == key) {
            Some(at) => self.open.swap_remove(at).1,
            None => Vec::new(),
        };
        text.extend_from_slice(&log.data);
        while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
            show(&log.step, key.1, &text[..end]);
            text.drain(..=end);
        }
        if text.len() > LINE_MAX_BYTES {
            show(&log.step, key.1, &std::mem::take(&mut text));
        }
        self.open.push((key, text));
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.open.iter().for_each(rest);
    }
}

fn rest(((step, stream), text): &((String, Stream), Vec<u8>)) {
    if !text.is_empty() {
        show(step, *stream, text);
    }
}

fn show(step: &str, stream: Stream, line: &[u8]) {
    // What a bar draws over itself is shown as it was last.
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = line.rsplit(|&byte| byte == b'\r').next().unwrap_or(line);
    let text: String = String::from_utf8_lossy(line)
        .chars()
        .filter(|c| *c == '\t' || !c.is_control())
        .collect();
    let line = match (step, stream) {
        ("", _) => text,
        (step, Stream::Unspecified) => format!("[{step}] {text}"),
        (step, _) => format!("[{step}]   {text}"),
    };
    // Output that cannot be shown is no fault of the build.
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_is_shown_by_the_name_it_was_built_as() {
        for (name, canonical) in [
            ("app", "docker.io/library/app:latest"),
            ("app:1", "docker.io/library/app:1"),
            ("team/app:1", "docker.io/team/app:1"),
            ("localhost/app", "localhost/app:latest"),
            ("registry:5000/app", "registry:5000/app:latest"),
        ] {
            assert_eq!(super::canonical(name), canonical);
        }
        let image = types::Image {
            references: vec![
                "docker.io/library/my-app:1".into(),
                "docker.io/library/app:1".into(),
            ],
            ..types::Image::default()
        };
        let first = named_first(image, "app:1").references.remove(0);
        assert_eq!(first, "docker.io/library/app:1");
    }
}
