//! Why no kernel was built.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A build that did not end well. What it has done stays for the next one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// The options cannot be read.
    #[error("could not read the options `{}`", path.display())]
    ReadOptions {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A line of the options is none.
    #[error("line {line} of the options is none: `{text}`")]
    BadOption { line: usize, text: String },
    /// The kernel's sources do not take these options.
    #[error("the kernel's configuration did not keep {}", lost.join(", "))]
    OptionsLost { lost: Vec<String> },
    /// What a build needs is not installed.
    #[error("building a kernel needs {}", missing.join(", "))]
    ToolsMissing {
        missing: Vec<String>,
        packages: Vec<&'static str>,
    },
    /// A program could not be started.
    #[error("could not start `{program}`")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("`{program}` failed ({status}): {output}")]
    Tool {
        program: String,
        status: String,
        output: String,
    },
    /// The compilation failed.
    #[error("the kernel did not compile ({status}): {output}")]
    Make {
        status: String,
        output: String,
        log: PathBuf,
    },
    /// A program took too long.
    #[error("`{program}` did not end within {} min", limit.as_secs() / 60)]
    Late { program: String, limit: Duration },
    /// Our own files.
    #[error("could not {step} `{}`", path.display())]
    Files {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// No kernel's sources.
    #[error("`{}` holds no kernel's sources", path.display())]
    NoSource { path: PathBuf },
    /// There is no place for the build.
    #[error("neither XDG_CACHE_HOME nor HOME says where a build can be kept")]
    NoCache,
    /// Another build is at work.
    #[error("another build is at work in `{}`", path.display())]
    Busy { path: PathBuf },
    /// A signal asked us to end.
    #[error("interrupted; the next build goes on from here")]
    Interrupted { signal: i32 },
}

impl BuildError {
    pub(super) fn files(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Files { step, path, source }
    }

    /// The word for programs.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::ReadOptions { .. } => "KERNEL_OPTIONS_UNREADABLE",
            Self::BadOption { .. } => "KERNEL_OPTIONS_INVALID",
            Self::OptionsLost { .. } => "KERNEL_OPTIONS_LOST",
            Self::ToolsMissing { .. } => "BUILD_TOOLS_MISSING",
            Self::Start { .. } => "BUILD_TOOL_NOT_STARTED",
            Self::Tool { .. } => "BUILD_TOOL_FAILED",
            Self::Make { .. } => "KERNEL_BUILD_FAILED",
            Self::Late { .. } => "BUILD_DEADLINE",
            Self::Files { .. } => "BUILD_FILES_FAILED",
            Self::NoSource { .. } => "KERNEL_SOURCE_INVALID",
            Self::NoCache => "BUILD_WITHOUT_CACHE",
            Self::Busy { .. } => "BUILD_IN_PROGRESS",
            Self::Interrupted { .. } => "INTERRUPTED",
        }
    }

    /// What to do.
    pub(crate) fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::ToolsMissing { packages, .. } => {
                format!("Install them: apt-get install {}", packages.join(" "))
            }
            Self::OptionsLost { .. } => {
                "These sources do not know the options, or others forbid them: \
                 take them out of the options file (--options), or build other sources (--source)."
                    .into()
            }
            Self::BadOption { .. } | Self::ReadOptions { .. } => {
                "Begin with the built-in options: banger kernel build --show-options".into()
            }
            Self::Start { program, .. } | Self::Tool { program, .. }
                if program.starts_with("apt") =>
            {
                "Check the package sources (apt-get update), or give the sources: --source TAR"
                    .into()
            }
            Self::Make { log, .. } => format!("Read {}", log.display()),
            Self::NoSource { .. } => {
                "Give a kernel's source archive or its unpacked directory: --source PATH".into()
            }
            Self::NoCache => "Set XDG_CACHE_HOME to a directory with 3 GiB of space.".into(),
            Self::Busy { .. } => "Wait for it, or end it.".into(),
            _ => return None,
        })
    }

    /// What the message has in it, by name.
    pub(crate) fn metadata(&self) -> Vec<(String, String)> {
        let pairs: Vec<(&str, String)> = match self {
            Self::ReadOptions { path, .. }
            | Self::Files { path, .. }
            | Self::NoSource { path }
            | Self::Busy { path } => vec![("path", path.display().to_string())],
            Self::BadOption { line, text } => {
                vec![("line", line.to_string()), ("text", text.clone())]
            }
            Self::OptionsLost { lost } => vec![("options", lost.join(","))],
            Self::ToolsMissing { missing, packages } => {
                vec![
                    ("missing", missing.join(",")),
                    ("packages", packages.join(",")),
                ]
            }
            Self::Start { program, .. }
            | Self::Late { program, .. }
            | Self::Tool { program, .. } => {
                vec![("program", program.clone())]
            }
            Self::Make { log, .. } => vec![("log", log.display().to_string())],
            Self::NoCache | Self::Interrupted { .. } => Vec::new(),
        };
        pairs
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }
}
