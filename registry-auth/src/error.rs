//! What can be wrong with auth files and helpers. No text here holds a part of a file's content.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Credentials that could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file cannot be read.
    #[error("could not read the auth file `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is longer than any auth file.
    #[error("the auth file `{}` has more than {limit} bytes", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// Not the JSON it should be.
    #[error("the auth file `{}` is malformed at line {line}, column {column}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where.
        line: usize,
        /// Where.
        column: usize,
    },
    /// An entry that holds no user and password.
    #[error("the entry `{key}` of the auth file `{}` holds no user and password in base64", path.display())]
    BadEntry {
        /// Which file.
        path: PathBuf,
        /// Which entry.
        key: String,
    },
    /// A helper's name that is part of no program's.
    #[error("the auth file `{}` names a credential helper by something that is no name", path.display())]
    BadHelper {
        /// Which file.
        path: PathBuf,
    },
    /// The helper could not be started.
    #[error("could not run the credential helper `{program}`")]
    HelperStart {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The helper did not end.
    #[error("the credential helper `{program}` did not answer within {} s", deadline.as_secs_f32())]
    HelperDeadline {
        /// Which.
        program: String,
        /// The limit.
        deadline: Duration,
    },
    /// The helper says no.
    #[error("the credential helper `{program}` failed: {problem}")]
    HelperFailed {
        /// Which.
        program: String,
        /// What it says, cut.
        problem: String,
    },
    /// The helper says what cannot be understood.
    #[error("the credential helper `{program}` answered in a way that is not its protocol's")]
    HelperAnswer {
        /// Which.
        program: String,
    },
}

impl AuthError {
    /// What to do.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Read { .. } => "Check the file's path and permissions.",
            Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::BadEntry { .. }
            | Self::BadHelper { .. } => {
                "Correct the file, or write it again with `docker login`, `podman login` or `skopeo login`."
            }
            Self::HelperStart { .. } => {
                "Install the helper where PATH finds it, or remove it from the auth file."
            }
            Self::HelperDeadline { .. } => {
                "Unlock what the helper waits for, such as a key ring, or give the credentials in the request."
            }
            Self::HelperFailed { .. } | Self::HelperAnswer { .. } => {
                "Run the helper by hand to see what is wrong: echo REGISTRY | docker-credential-NAME get"
            }
        }
    }
}
