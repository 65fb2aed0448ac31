//! What is wrong with something that came.

use super::path::BadName;

/// What is wrong with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A name that is none.
    #[error("{source} (`{}`)", name.escape_ascii())]
    Name {
        /// The name, shortened.
        name: Vec<u8>,
        /// What is wrong with it.
        source: BadName,
    },
    /// A part that is not allowed where it comes.
    #[error("{what} is not allowed here")]
    Order {
        /// Which.
        what: &'static str,
    },
    /// A field that cannot be so.
    #[error("{what}")]
    Field {
        /// What is wrong.
        what: &'static str,
    },
    /// More than is allowed.
    #[error("there are more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The stream ended before the snapshot did.
    #[error("the snapshot was cut")]
    Cut,
}

impl Fault {
    pub(super) fn name(name: &[u8], source: BadName) -> Self {
        Self::Name {
            name: name[..name.len().min(256)].to_vec(),
            source,
        }
    }
}

/// Refuses more than `limit`.
pub(super) fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), Fault> {
    at_most_u64(what, count as u64, limit as u64)
}

/// The same of larger numbers.
pub(super) fn at_most_u64(what: &'static str, count: u64, limit: u64) -> Result<(), Fault> {
    match count > limit {
        true => Err(Fault::TooMany { what, limit }),
        false => Ok(()),
    }
}
