//! Why a build failed: the recipe, what it copies, a step, or what surrounds them.

use std::io;
use std::path::PathBuf;

use banger_core::guest::GuestError;
use banger_core::host_io::{io_kind, io_reason, io_remedy};
use banger_core::{Explain, FailureKind};

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile is not one.
    #[error("{file}:{line}: {problem}")]
    Syntax {
        /// The Dockerfile's name.
        file: String,
        /// Counted from 1.
        line: u32,
        /// What is wrong, beginning with the instruction.
        problem: String,
    },
    /// The Dockerfile asks for what banger does not do.
    #[error("{file}:{line}: {instruction} {problem}")]
    Unsupported {
        /// The Dockerfile's name.
        file: String,
        /// Counted from 1.
        line: u32,
        /// e.g. `ONBUILD`.
        instruction: String,
        /// What is not supported.
        problem: String,
    },
    /// No stage has this name.
    #[error("{file}: there is no stage `{stage}`")]
    UnknownStage {
        /// The Dockerfile's name.
        file: String,
        /// As given.
        stage: String,
    },
    /// What is to be copied is not there.
    #[error("{file}:{line}: {instruction}: `{source_path}` is not in {place}")]
    SourceMissing {
        /// The Dockerfile's name.
        file: String,
        /// Counted from 1.
        line: u32,
        /// `COPY` or `ADD`.
        instruction: String,
        /// As written.
        source_path: String,
        /// The context, a stage or an image.
        place: String,
    },
    /// The context is no archive that can be read.
    #[error("the build context cannot be read: {detail}")]
    Context {
        /// Why.
        detail: String,
    },
    /// A command ended badly.
    #[error("{file}:{line}: `{command}` ended with {ended}{}", last(tail))]
    StepFailed {
        /// The Dockerfile's name.
        file: String,
        /// Counted from 1.
        line: u32,
        /// The command, shortened.
        command: String,
        /// e.g. `exit code 1`.
        ended: String,
        /// The last lines of its output.
        tail: String,
    },
    /// A step could not be carried out in the build's VM.
    #[error("{file}:{line}: {instruction}: {source}")]
    Guest {
        /// The Dockerfile's name.
        file: String,
        /// Counted from 1.
        line: u32,
        /// The instruction.
        instruction: String,
        /// What the VM answered.
        source: GuestError,
    },
    /// The state directory failed.
    #[error("could not {step} `{}`", path.display())]
    Io {
        /// What was to be done.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The tool that makes Debian root filesystems is missing.
    #[error("`{tool}` is not installed on the daemon's host")]
    ToolMissing {
        /// Its name.
        tool: &'static str,
    },
    /// The tool that makes Debian root filesystems failed.
    #[error("{tool} ended with {ended}{}", last(tail))]
    ToolFailed {
        /// Its name.
        tool: &'static str,
        /// e.g. `exit code 1`.
        ended: String,
        /// The last lines of its output.
        tail: String,
    },
    /// As many builds go on and wait as may be.
    #[error("{parallel} builds go on and {waiting} wait already, and no more may")]
    QueueFull {
        /// How many may go on.
        parallel: usize,
        /// How many may wait.
        waiting: usize,
    },
    /// The build took too long.
    #[error("the build did not end within {} s", limit.as_secs_f32())]
    TooLong {
        /// The limit.
        limit: std::time::Duration,
    },
    /// The tool took too long.
    #[error("{tool} did not finish within {} s", limit.as_secs())]
    ToolTimeout {
        /// Its name.
        tool: &'static str,
        /// The limit.
        limit: std::time::Duration,
    },
}

fn last(tail: &str) -> String {
    match tail {
        "" => String::new(),
        tail => format!("; its last output:\n{tail}"),
    }
}

impl BuildError {
    /// What is told of the failures that no recipe is to blame for.
    fn metadata_of_host(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Io { step, path, .. } => vec![
                ("step", (*step).to_owned()),
                ("path", path.display().to_string()),
            ],
            Self::ToolMissing { tool } => vec![("tool", (*tool).to_owned())],
            Self::ToolFailed { tool, ended, tail } => vec![
                ("tool", (*tool).to_owned()),
                ("ended", ended.clone()),
                ("tail", tail.clone()),
            ],
            Self::QueueFull { parallel, waiting } => vec![
                ("parallel", parallel.to_string()),
                ("waiting", waiting.to_string()),
            ],
            Self::TooLong { limit } => {
                vec![("limit_seconds", limit.as_secs_f32().to_string())]
            }
            Self::ToolTimeout { tool, limit } => vec![
                ("tool", (*tool).to_owned()),
                ("limit_s", limit.as_secs().to_string()),
            ],
            _ => Vec::new(),
        }
    }
}

impl Explain for BuildError {
    fn kind(&self) -> FailureKind {
        let precondition = |subject: &str| FailureKind::FailedPrecondition {
            subject: subject.to_owned(),
        };
        let invalid = |field: &str| FailureKind::InvalidArgument {
            field: field.to_owned(),
        };
        match self {
            Self::Syntax { .. } | Self::Unsupported { .. } => invalid("start.dockerfile.text"),
            Self::UnknownStage { .. } => invalid("start.dockerfile.target"),
            Self::SourceMissing { .. } | Self::Context { .. } => invalid("chunk"),
            Self::StepFailed { .. } => precondition("build/step"),
            Self::Guest { source, .. } => source.kind(),
            Self::Io { source, .. } => io_kind(source),
            Self::ToolMissing { .. } | Self::ToolFailed { .. } => precondition("host/tools"),
            Self::QueueFull { .. } => FailureKind::ResourceExhausted {
                subject: "host/builds".to_owned(),
            },
            Self::TooLong { .. } | Self::ToolTimeout { .. } => FailureKind::DeadlineExceeded,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "DOCKERFILE_INVALID",
            Self::Unsupported { .. } => "DOCKERFILE_UNSUPPORTED",
            Self::UnknownStage { .. } => "BUILD_STAGE_UNKNOWN",
            Self::SourceMissing { .. } => "BUILD_SOURCE_MISSING",
            Self::Context { .. } => "BUILD_CONTEXT_INVALID",
            Self::StepFailed { .. } => "BUILD_STEP_FAILED",
            Self::Guest { source, .. } => source.reason(),
            Self::Io { source, .. } => io_reason(source, "BUILD_FILES_FAILED"),
            Self::ToolMissing { .. } => "BUILD_TOOL_MISSING",
            Self::ToolFailed { .. } => "BUILD_TOOL_FAILED",
            Self::QueueFull { .. } => "BUILD_QUEUE_FULL",
            Self::TooLong { .. } => "BUILD_TIMEOUT",
            Self::ToolTimeout { .. } => "BUILD_TOOL_TIMEOUT",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Syntax { .. } => "Correct the line, and build again.",
            Self::Unsupported { .. } => {
                "Write the step without it; docs/building-images.md lists what is supported."
            }
            Self::UnknownStage { .. } => {
                "Give the name of a `FROM … AS name`, or a stage's number."
            }
            Self::SourceMissing { .. } => {
                "Check the path, which is relative to the context, and what .dockerignore leaves out."
            }
            Self::Context { .. } => "Send the context as a plain tar.",
            Self::StepFailed { .. } => {
                "Correct the command; the steps before it are kept, so the next build goes on from there."
            }
            Self::Guest { source, .. } => return source.remedy(),
            Self::Io { source, .. } => match io_remedy(source) {
                Some(remedy) => return Some(remedy),
                None => "Check the state directory's disk and permissions.",
            },
            Self::ToolMissing { .. } => {
                "Install it on the daemon's host: apt-get install mmdebstrap"
            }
            Self::ToolFailed { .. } => {
                "Check the suite's and the packages' names, and the apt sources of the daemon's host."
            }
            Self::QueueFull { .. } => {
                "Try again when some of the builds have ended. Or raise `build_queue_max` in the daemon's configuration."
            }
            Self::TooLong { .. } => {
                "See in the log which step hangs; the steps before it are kept. Or raise `build_timeout` in the daemon's configuration."
            }
            Self::ToolTimeout { .. } => "Check the network of the daemon's host, and build again.",
        };
        Some(text.to_owned())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Syntax {
                file,
                line,
                problem,
            } => vec![
                ("file", file.clone()),
                ("line", line.to_string()),
                ("problem", problem.clone()),
            ],
            Self::Unsupported {
                file,
                line,
                instruction,
                problem,
            } => vec![
                ("file", file.clone()),
                ("line", line.to_string()),
                ("instruction", instruction.clone()),
                ("problem", problem.clone()),
            ],
            Self::UnknownStage { file, stage } => {
                vec![("file", file.clone()), ("stage", stage.clone())]
            }
            Self::SourceMissing {
                file,
                line,
                instruction,
                source_path,
                place,
            } => vec![
                ("file", file.clone()),
                ("line", line.to_string()),
                ("instruction", instruction.clone()),
                ("source", source_path.clone()),
                ("place", place.clone()),
            ],
            Self::Context { detail } => vec![("detail", detail.clone())],
            Self::StepFailed {
                file,
                line,
                command,
                ended,
                tail,
            } => vec![
                ("file", file.clone()),
                ("line", line.to_string()),
                ("command", command.clone()),
                ("ended", ended.clone()),
                ("tail", tail.clone()),
            ],
            Self::Guest {
                file,
                line,
                instruction,
                source,
            } => {
                let mut metadata = source.metadata();
                metadata.extend([
                    ("file", file.clone()),
                    ("line", line.to_string()),
                    ("instruction", instruction.clone()),
                ]);
                metadata
            }
            _ => self.metadata_of_host(),
        }
    }
}
