//! Why credentials were not given. The words are those of callers: where a source lies is the daemon's own affair.

use std::io;

use banger_core::{Explain, FailureKind, Name};

/// Why a VM was not given its credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// There is no such profile for this caller.
    #[error(
        "there is no credential profile `{profile}` for you; {}",
        listed(known)
    )]
    Unknown {
        /// As asked for.
        profile: Name,
        /// Those that the caller may have.
        known: Vec<Name>,
    },
    /// A source cannot be read.
    #[error("the source of `{path}` in credential profile `{profile}` cannot be read")]
    Read {
        /// The profile.
        profile: Name,
        /// In the guest.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A source is not kept as a secret.
    #[error("the source of `{path}` in credential profile `{profile}` {problem}")]
    Unsafe {
        /// The profile.
        profile: Name,
        /// In the guest.
        path: String,
        /// What is wrong, as the end of a sentence.
        problem: String,
    },
    /// A source is too large.
    #[error("the source of `{path}` in credential profile `{profile}` has more than {limit} bytes")]
    TooLarge {
        /// The profile.
        profile: Name,
        /// In the guest.
        path: String,
        /// What was left of the bound.
        limit: u64,
    },
}

fn listed(known: &[Name]) -> String {
    match known {
        [] => "there are none".to_owned(),
        known => format!("there are: {}", joined(known)),
    }
}

fn joined(names: &[Name]) -> String {
    let names: Vec<&str> = names.iter().map(Name::as_str).collect();
    names.join(", ")
}

impl Explain for CredentialError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Unknown { profile, .. } => FailureKind::NotFound {
                resource: "credentials".into(),
                name: profile.to_string(),
            },
            Self::Read { profile, .. }
            | Self::Unsafe { profile, .. }
            | Self::TooLarge { profile, .. } => FailureKind::FailedPrecondition {
                subject: format!("credentials/{profile}"),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "CREDENTIALS_NOT_FOUND",
            Self::Read { .. } => "CREDENTIALS_UNREADABLE",
            Self::Unsafe { .. } => "CREDENTIALS_UNSAFE",
            Self::TooLarge { .. } => "CREDENTIALS_TOO_LARGE",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Unknown { .. } => {
                "Name one of those there are. Profiles, and who may use them, are in the daemon's configuration, under [credentials.NAME]."
            }
            Self::Read { .. } => {
                "See to it that the file that the profile names in the daemon's configuration exists, is no symbolic link, and that the daemon may read it."
            }
            Self::Unsafe { .. } => {
                "Make the source an ordinary file of root's or of the daemon's user, with mode 0600 or 0640."
            }
            Self::TooLarge { .. } => "Name smaller files, or fewer, in the profile.",
        };
        Some(text.to_owned())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Unknown { profile, known } => {
                vec![("profile", profile.to_string()), ("known", joined(known))]
            }
            Self::Read { profile, path, .. } => {
                vec![("profile", profile.to_string()), ("path", path.clone())]
            }
            Self::Unsafe {
                profile,
                path,
                problem,
            } => vec![
                ("profile", profile.to_string()),
                ("path", path.clone()),
                ("problem", problem.clone()),
            ],
            Self::TooLarge {
                profile,
                path,
                limit,
            } => vec![
                ("profile", profile.to_string()),
                ("path", path.clone()),
                ("limit", limit.to_string()),
            ],
        }
    }
}
