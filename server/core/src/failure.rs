//! Failures: what an error must be able to say of itself, and the form in which it is kept.
//!
//! Every error enum of the server implements [`Explain`]. At the edge (a gRPC answer, a stored
//! operation, a VM's failure reason) it becomes a [`Failure`], which holds everything a caller may see.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What kind of failure, from the caller's side: decides the status code and whether to retry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum FailureKind {
    /// A field of the request is missing or wrong. Retrying the same request is pointless.
    InvalidArgument {
        /// The field's path in the request, e.g. `vm.memory_mib`.
        field: String,
    },
    /// The named resource does not exist.
    NotFound {
        /// `vm`, `image`, `kernel`, `session` or `operation`.
        resource: String,
        /// What was asked for.
        name: String,
    },
    /// The id or name is taken.
    AlreadyExists {
        /// The kind of resource.
        resource: String,
        /// The name that is taken.
        name: String,
    },
    /// The state of something forbids the verb; the remedy changes that state.
    FailedPrecondition {
        /// What is in the way, e.g. `vm/web-1`.
        subject: String,
    },
    /// Another change won a race: read again first.
    Aborted,
    /// Memory, disk, count or quota is used up.
    ResourceExhausted {
        /// Whose limit, e.g. `host/disk`.
        subject: String,
    },
    /// Too much was asked in a time, or at once; it passes by itself.
    Throttled {
        /// Whose limit, e.g. `requests/cert:ci`.
        subject: String,
        /// How long to wait before the next try.
        retry_after: Duration,
    },
    /// The caller is known, and may not.
    PermissionDenied,
    /// Something needed cannot be reached now: back off and retry.
    Unavailable {
        /// How long to wait before the next try.
        retry_after: Duration,
    },
    /// A time limit of our own ran out.
    DeadlineExceeded,
    /// The driver cannot do this at all.
    Unimplemented,
    /// Content does not have its digest. Never retry blindly.
    DataLoss {
        /// The kind of resource.
        resource: String,
        /// Its name or digest.
        name: String,
    },
    /// The caller gave up.
    Cancelled,
    /// A broken invariant or a fault of the host: a defect, logged with its chain.
    Internal,
}

/// What every error of the server can say of itself.
pub trait Explain: Error {
    /// The kind, with its details.
    fn kind(&self) -> FailureKind;

    /// A stable word for programs: UPPER_SNAKE, at most 63 characters, never reused for another meaning.
    fn reason(&self) -> &'static str;

    /// What the caller can do about it, as a sentence; `None` where nobody can know.
    fn remedy(&self) -> Option<String> {
        None
    }

    /// Each dynamic word of the message, so that no program has to parse the text.
    fn metadata(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// A failure as it is answered, stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind, with its details.
    #[serde(flatten)]
    pub kind: FailureKind,
    /// The stable word ([`Explain::reason`]).
    pub reason: String,
    /// What failed, with the whole chain of causes, joined by `: `.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The dynamic words of the message.
    pub metadata: BTreeMap<String, String>,
}

impl Failure {
    /// Everything `error` can say.
    #[must_use]
    pub fn of<E: Explain>(error: &E) -> Self {
        Self {
            kind: error.kind(),
            reason: error.reason().to_owned(),
            message: chain(error),
            remedy: error.remedy(),
            metadata: error
                .metadata()
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

/// An error with all its causes, joined by `: `; a cause whose text its parent already ends with is left out.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not read `{path}`")]
    struct Read {
        path: String,
        #[source]
        source: std::io::Error,
    }

    impl Explain for Read {
        fn kind(&self) -> FailureKind {
            FailureKind::Internal
        }

        fn reason(&self) -> &'static str {
            "READ"
        }

        fn metadata(&self) -> Vec<(&'static str, String)> {
            vec![("path", self.path.clone())]
        }
    }

    fn failure() -> Failure {
        Failure::of(&Read {
            path: "x".into(),
            source: std::io::Error::other("no such thing"),
        })
    }

    #[test]
    fn the_message_is_the_whole_chain_once() {
        assert_eq!(failure().message, "could not read `x`: no such thing");
    }

    #[test]
    fn a_failure_survives_json() {
        let text = serde_json::to_string(&failure()).unwrap();
        assert_eq!(serde_json::from_str::<Failure>(&text).unwrap(), failure());
    }
}
