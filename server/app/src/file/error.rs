//! What can be wrong with a call about a VM's files, and whether anything was written before it was.

use banger_archive::TarError;
use banger_core::file::FileProblem;
use banger_core::guest::GuestError;
use banger_core::{Explain, FailureKind, chain};

/// Whether a call that failed may have changed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Nothing was changed.
    No,
    /// A part may be done, or all of it.
    Maybe,
}

impl Written {
    /// The word in an error's metadata.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Maybe => "maybe",
        }
    }
}

/// How a call changes files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Not at all.
    None,
    /// In one step: done, or not.
    AtOnce,
    /// In several steps.
    Stepwise,
}

/// Why a call about files failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The guest.
    #[error("{error}")]
    Guest {
        /// Whether anything was changed before.
        written: Written,
        /// Why.
        error: GuestError,
    },
    /// As many archives are being uploaded as may be.
    #[error(
        "{limit} archives of one owner, or as many as the host takes, are being uploaded already, and none of them ended in time"
    )]
    TooManyUploads {
        /// The bound of one owner.
        limit: usize,
    },
    /// What was uploaded is no archive, or one that is refused.
    #[error("the archive that was uploaded is refused")]
    Archive {
        /// Why.
        #[source]
        source: TarError,
    },
}

impl FileError {
    /// An error of the guest's in a call that changes files as `change` says.
    pub(super) fn guest(change: Change, error: GuestError) -> Self {
        let written = match (&error, change) {
            (_, Change::None)
            | (
                GuestError::UnknownUser { .. }
                | GuestError::TooManyFileCalls { .. }
                | GuestError::NotSetUp { .. },
                _,
            ) => Written::No,
            (GuestError::File { .. }, Change::AtOnce) if !is_done(&error) => Written::No,
            _ => Written::Maybe,
        };
        Self::Guest { written, error }
    }

    const fn written(&self) -> Written {
        match self {
            Self::Guest { written, .. } => *written,
            Self::TooManyUploads { .. } => Written::No,
            // What came before the fault is in the VM.
            Self::Archive { .. } => Written::Maybe,
        }
    }
}

/// Whether the guest says that what it did in one step did not last: it was done even so.
const fn is_done(error: &GuestError) -> bool {
    matches!(
        error,
        GuestError::File {
            problem: FileProblem::Changed,
            ..
        }
    )
}

impl Explain for FileError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Guest {
                error: GuestError::UnknownUser { .. },
                ..
            } => FailureKind::InvalidArgument {
                field: "user".into(),
            },
            Self::Guest { error, .. } => error.kind(),
            Self::TooManyUploads { .. } => FailureKind::ResourceExhausted {
                subject: "host/uploads".into(),
            },
            Self::Archive { .. } => FailureKind::InvalidArgument {
                field: "chunk".into(),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Guest { error, .. } => error.reason(),
            Self::TooManyUploads { .. } => "TOO_MANY_UPLOADS",
            Self::Archive { .. } => "ARCHIVE_INVALID",
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Guest {
                error:
                    GuestError::File {
                        problem: FileProblem::Busy | FileProblem::AccessDenied,
                        ..
                    },
                ..
            } => Some(
                "Do it as a user that may (--user root), or write into the file instead of replacing it (--in-place), which needs no right to its directory."
                    .into(),
            ),
            Self::Guest { error, .. } => error.remedy(),
            Self::TooManyUploads { .. } => {
                Some("Nothing was written. Upload again when some of them have ended.".into())
            }
            Self::Archive { .. } => Some(
                "Send a tar archive that is not compressed and holds no name that leads upwards; tar and the SDKs make such."
                    .into(),
            ),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        let mut metadata = match self {
            Self::Guest { error, .. } => error.metadata(),
            Self::TooManyUploads { limit } => vec![("limit", limit.to_string())],
            Self::Archive { source } => vec![("detail", chain(source))],
        };
        metadata.push(("written", self.written().as_str().to_owned()));
        metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(problem: FileProblem) -> GuestError {
        GuestError::File {
            problem,
            path: "/x".into(),
            detail: "no".into(),
        }
    }

    #[test]
    fn what_was_written_is_told_as_far_as_it_is_known() {
        let lost = GuestError::Lost { during: "write" };
        let user = GuestError::UnknownUser { user: "x".into() };
        for (change, error, written) in [
            (Change::None, lost.clone(), Written::No),
            (Change::AtOnce, file(FileProblem::Exists), Written::No),
            (Change::AtOnce, file(FileProblem::Changed), Written::Maybe),
            (Change::AtOnce, lost.clone(), Written::Maybe),
            (Change::Stepwise, file(FileProblem::NoSpace), Written::Maybe),
            (Change::Stepwise, user, Written::No),
        ] {
            let told = FileError::guest(change, error).metadata();
            let last = told.last().cloned();
            assert_eq!(last, Some(("written", written.as_str().to_owned())));
        }
    }

    #[test]
    fn the_problems_of_files_are_told_by_their_own_words() {
        let error = FileError::guest(Change::None, file(FileProblem::NotFound));
        assert_eq!(error.reason(), "FILE_NOT_FOUND");
        assert_eq!(error.to_string(), "`/x` in the VM: no");
        let source = TarError::Truncated { offset: 7 };
        let error = FileError::Archive { source };
        assert_eq!(error.reason(), "ARCHIVE_INVALID");
        assert_eq!(
            error.to_string(),
            "the archive that was uploaded is refused"
        );
    }
}
