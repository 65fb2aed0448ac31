//! What goes wrong on the owner's machine.

use std::io;
use std::path::PathBuf;

use crate::command::GitError;
use crate::wire::Fault;

/// The result of this half.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory here.
    #[error("could not {what} `{}`", path.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// With which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// git failed.
    #[error("could not {what}")]
    Git {
        /// What it was for.
        what: &'static str,
        /// How it failed.
        #[source]
        source: GitError,
    },
    /// git said something that this version of banger does not understand.
    #[error("git answered {what} in a way that is not understood")]
    Answer {
        /// To what.
        what: &'static str,
    },
    /// There is no repository at a path.
    #[error("`{}` is in no git repository", path.display())]
    NoRepository {
        /// Where.
        path: PathBuf,
    },
    /// A bare repository has no tree to carry.
    #[error("`{}` is a bare repository, which has no working tree", path.display())]
    Bare {
        /// Which.
        path: PathBuf,
    },
    /// A revision or branch does not exist.
    #[error("`{name}` is no commit of this repository")]
    Revision {
        /// As it was asked for.
        name: String,
    },
    /// A pattern is none.
    #[error("`{pattern}` is no pattern of paths")]
    Pattern {
        /// As it was given.
        pattern: String,
    },
    /// A file changed while it was sent.
    #[error("`{path}` changed while it was read")]
    Moved {
        /// Which, escaped.
        path: String,
    },
    /// What came is what no honest VM sends, or more than may come.
    #[error("the VM sent a workspace that cannot be taken")]
    Snapshot(#[from] Fault),
    /// Objects or references that came are damaged, or made to harm.
    #[error("{what} of `{repository}` that the VM sent are refused")]
    Objects {
        /// Which.
        what: &'static str,
        /// Of which repository, escaped; empty for the workspace's own.
        repository: String,
        /// What git says.
        #[source]
        source: GitError,
    },
    /// What came is not what it says it is.
    #[error("the VM sent `{name}`, which {problem}")]
    Unsafe {
        /// Its name, escaped.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Nothing has landed from this VM.
    #[error("nothing was exported from VM `{vm}` to this repository")]
    NothingLanded {
        /// Which VM.
        vm: String,
    },
    /// The name of a VM cannot be part of a reference's.
    #[error("`{vm}` is no name of a VM")]
    VmName {
        /// The name.
        vm: String,
    },
    /// Something of the owner's is in the way. Nothing was changed.
    #[error("{problem}")]
    Refused {
        /// What is in the way.
        problem: String,
        /// The ways out.
        remedy: String,
        /// The paths it is about, escaped.
        paths: Vec<String>,
    },
    /// An apply that had begun did not come to its end. What was there is kept.
    #[error("not all of the VM's work was applied, and some of it may have been")]
    Halfway {
        /// Commands that lead back.
        way_back: Vec<String>,
        /// What went wrong.
        #[source]
        source: Box<Error>,
    },
    /// Whoever takes what is collected has gone.
    #[error("nobody takes the workspace any more")]
    Gone,
}

impl Error {
    pub(super) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    pub(super) fn git(what: &'static str) -> impl Fn(GitError) -> Self {
        move |source| Self::Git { what, source }
    }

    /// With all of its causes, for a note.
    pub(super) fn told(&self) -> String {
        let first: &dyn std::error::Error = self;
        let causes = std::iter::successors(Some(first), |error| error.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        causes.join(": ")
    }

    /// Whether nobody wants it any more.
    pub(super) const fn is_given_up(&self) -> bool {
        let cancelled = matches!(
            self,
            Self::Git {
                source: GitError::Cancelled,
                ..
            } | Self::Objects {
                source: GitError::Cancelled,
                ..
            }
        );
        cancelled || matches!(self, Self::Gone)
    }

    /// A stable word for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Halfway { source, .. } => source.reason(),
            Self::File { .. } => "WORKSPACE_FILE_FAILED",
            Self::Git {
                source: GitError::NotFound,
                ..
            } => "GIT_MISSING",
            Self::Git { .. } | Self::Answer { .. } => "GIT_FAILED",
            Self::NoRepository { .. } | Self::Bare { .. } => "NO_REPOSITORY",
            Self::Revision { .. } => "REVISION_UNKNOWN",
            Self::Pattern { .. } => "PATTERN_INVALID",
            Self::Moved { .. } => "WORKSPACE_MOVED",
            Self::Snapshot(_) | Self::Unsafe { .. } => "WORKSPACE_UNSAFE",
            Self::Objects { .. } => "WORKSPACE_OBJECTS_REFUSED",
            Self::NothingLanded { .. } => "NOTHING_EXPORTED",
            Self::VmName { .. } => "VM_NAME_INVALID",
            Self::Refused { .. } => "APPLY_REFUSED",
            Self::Gone => "GIVEN_UP",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::File { .. } => {
                "See that the path can be read, and written where something lands, and that there is room."
            }
            Self::Git {
                source: GitError::NotFound,
                ..
            } => {
                "Install git on this machine. Files without a history are carried without it: `banger cp -r`."
            }
            Self::Git { .. } | Self::Answer { .. } => {
                "Run `git fsck` and `git status` in the repository."
            }
            Self::NoRepository { .. } => {
                "Name a directory of a git repository. To a directory without git its files are applied: `banger workspace apply VM DIRECTORY`, without options about commits."
            }
            Self::Bare { .. } => "Name a working tree of it (`git worktree add`).",
            Self::Revision { .. } => "`git branch` and `git log` show what there is.",
            Self::Pattern { .. } => "Give patterns such as `target/**` or `.env`.",
            Self::Moved { .. } => "Repeat the command when nothing writes to the directory.",
            Self::Snapshot(_) | Self::Unsafe { .. } | Self::Objects { .. } => {
                "Nothing of it is in your repository. Look at the workspace in the VM before you try again; single files come out by `banger cp`."
            }
            Self::NothingLanded { .. } => "Export first: `banger workspace export VM`.",
            Self::VmName { .. } => "Name the VM as `banger list` shows it.",
            Self::Refused { remedy, .. } => return Some(remedy.clone()),
            Self::Halfway { way_back, .. } => {
                let commands: Vec<String> = way_back.iter().map(|one| format!("`{one}`")).collect();
                return Some(format!(
                    "What was there is kept. The way back: {}.",
                    commands.join(", then ")
                ));
            }
            Self::Gone => return None,
        };
        Some(text.to_owned())
    }

    /// Commands that lead back, where something may have been changed.
    #[must_use]
    pub fn way_back(&self) -> &[String] {
        match self {
            Self::Halfway { way_back, .. } => way_back,
            _ => &[],
        }
    }

    /// The paths that it is about, where it has several.
    #[must_use]
    pub fn paths(&self) -> &[String] {
        match self {
            Self::Refused { paths, .. } => paths,
            _ => &[],
        }
    }
}
