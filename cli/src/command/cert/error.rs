//! What can go wrong with an authority.

use std::io;
use std::path::PathBuf;

/// Why a certificate was not made, or revoked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertError {
    /// There is none.
    #[error("there is no authority in `{}`", path.display())]
    NoAuthority {
        /// Where.
        path: PathBuf,
    },
    /// There is one already, or something else.
    #[error("`{}` is there already", path.display())]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// A file cannot be read, written or made.
    #[error("could not {step} `{}`", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read the key.
    #[error("others may read the authority's key `{}`", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
    },
    /// A file of the authority is damaged.
    #[error("`{}` is damaged", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A name is none.
    #[error("`{name}` is no name {whose}")]
    Name {
        /// The name.
        name: String,
        /// Whose it should be.
        whose: &'static str,
    },
    /// A certificate cannot be made.
    #[error("could not make the certificate")]
    Make(#[source] rcgen::Error),
    /// It would outlive who vouches for it.
    #[error("the authority ends at {end}, before a certificate of {days} days does")]
    OutlivesAuthority {
        /// When it ends.
        end: jiff::Timestamp,
        /// How long the certificate was to be valid.
        days: u32,
    },
    /// No certificate fits.
    #[error("no certificate that is not revoked has the serial number or name `{certificate}`")]
    NotFound {
        /// What was asked for.
        certificate: String,
    },
}

impl CertError {
    /// The stable word.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::NoAuthority { .. } => "CERT_NO_AUTHORITY",
            Self::Exists { .. } => "CERT_EXISTS",
            Self::Io { .. } => "CERT_FILE",
            Self::Exposed { .. } => "CERT_KEY_EXPOSED",
            Self::Damaged { .. } => "CERT_DAMAGED",
            Self::Name { .. } => "CERT_NAME_INVALID",
            Self::Make(_) => "CERT_NOT_MADE",
            Self::OutlivesAuthority { .. } => "CERT_OUTLIVES_AUTHORITY",
            Self::NotFound { .. } => "CERT_NOT_FOUND",
        }
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::NoAuthority { .. } => {
                "Make one with banger cert init, or name another with --dir."
            }
            Self::Exists { .. } => {
                "Name another directory; files of a certificate are replaced with --replace, an authority never."
            }
            Self::Io { .. } => "Look at the rights of the directory, and at the room on its disk.",
            Self::Exposed { .. } => {
                "chmod it to 0600; if others may have read it, make another authority."
            }
            Self::Damaged { .. } => "Take the authority's directory from a backup.",
            Self::Name { .. } => {
                "For a client, give 1 to 64 letters, digits and `.`, `_`, `-`, `@`; for a daemon, a DNS name or an address."
            }
            Self::OutlivesAuthority { .. } => {
                "Give fewer --days, or make another authority and let daemons trust both."
            }
            Self::NotFound { .. } => "Look at what there is: banger cert list",
            Self::Make(_) => return None,
        };
        Some(text.to_owned())
    }
}
