//! Who may call what. Decided here, once, before any handler; whose things a caller then finds is decided by the
//! services that the caller is given ([`caller`](super::caller)).
//!
//! ```text
//! request ─▶ in the table? ─▶ role enough? ─▶ (changes something: note it, tell the audit log at the end) ─▶ handler
//! ```

mod described;
mod note;
pub mod table;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use banger_app::audit::Audit;
use banger_core::{Explain, FailureKind, Identity, Role};
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::{caller, status};
use note::Noted;
use table::{Effect, Rpc};

pub(crate) use described::warm_up;

/// Why a call is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccessError {
    /// Nothing of this name is served.
    #[error("there is no such method")]
    UnknownMethod,
    /// The connection does not say who calls.
    #[error("the caller is not known")]
    CallerUnknown,
    /// The caller may not.
    #[error("{what} needs the role {needed}, and the caller has {role}")]
    RoleTooLow {
        /// What was asked for: a method, or a part of one.
        what: String,
        /// The least that may.
        needed: Role,
        /// What the caller has.
        role: Role,
    },
}

impl Explain for AccessError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::UnknownMethod => FailureKind::Unimplemented,
            Self::CallerUnknown | Self::RoleTooLow { .. } => FailureKind::PermissionDenied,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::UnknownMethod => "UNKNOWN_METHOD",
            Self::CallerUnknown => "CALLER_UNKNOWN",
            Self::RoleTooLow { .. } => "ROLE_TOO_LOW",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::UnknownMethod => {
                "Look at what the daemon serves: server reflection lists it. It may be older than the client."
            }
            Self::CallerUnknown => "Connect again.",
            Self::RoleTooLow { .. } => {
                "Ask whoever runs the daemon for the role: `[access]` in its configuration gives it."
            }
        };
        Some(text.to_owned())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::UnknownMethod | Self::CallerUnknown => Vec::new(),
            Self::RoleTooLow { what, needed, role } => vec![
                ("what", what.clone()),
                ("needed", needed.to_string()),
                ("role", role.to_string()),
            ],
        }
    }
}

/// Refuses a part of a method that asks for more than the method does.
pub(crate) fn require(role: Role, needed: Role, what: &str) -> Result<(), Status> {
    if role >= needed {
        return Ok(());
    }
    let what = what.to_owned();
    Err(status::explain(&AccessError::RoleTooLow {
        what,
        needed,
        role,
    }))
}

/// Lets calls in whose callers may make them, and tells the audit log of those that change something.
#[derive(Debug, Clone)]
pub struct AccessLayer {
    audit: Arc<Audit>,
}

impl AccessLayer {
    /// Records go to `audit`.
    #[must_use]
    pub const fn new(audit: Arc<Audit>) -> Self {
        Self { audit }
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access {
            inner,
            audit: self.audit.clone(),
        }
    }
}

/// See [`AccessLayer`].
#[derive(Debug, Clone)]
pub struct Access<S> {
    inner: S,
    audit: Arc<Audit>,
}

/// What a request is, and who makes it.
type Known = (&'static Rpc, Arc<Identity>);

fn known<B>(request: &Request<B>) -> Result<Known, AccessError> {
    let rpc = table::find(request.uri().path()).ok_or(AccessError::UnknownMethod)?;
    let identity = caller::identity(request.extensions());
    let identity = identity.ok_or(AccessError::CallerUnknown)?;
    Ok((rpc, identity.clone()))
}

fn judge((rpc, identity): &Known) -> Result<(), AccessError> {
    if identity.role >= rpc.role {
        return Ok(());
    }
    let name = rpc.path.trim_start_matches('/');
    Err(AccessError::RoleTooLow {
        what: name.trim_start_matches("banger.v1.").to_owned(),
        needed: rpc.role,
        role: identity.role,
    })
}

fn refusal(error: &AccessError) -> Response<Body> {
    status::explain(error).into_http()
}

impl<S> Service<Request<Body>> for Access<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let known = match known(&request) {
            Ok(known) => known,
            Err(error) => return Box::pin(std::future::ready(Ok(refusal(&error)))),
        };
        let judged = judge(&known);
        let (rpc, identity) = known;
        let noted = match rpc.effect {
            Effect::Reads => None,
            Effect::Changes | Effect::ChangesIf(_) => {
                Some(Noted::new(self.audit.clone(), rpc, identity))
            }
        };
        if let Err(error) = judged {
            let answer = refusal(&error);
            return Box::pin(std::future::ready(Ok(match noted {
                Some(noted) => noted.answer(answer),
                None => answer,
            })));
        }
        match noted {
            None => Box::pin(self.inner.call(request)),
            Some(noted) => {
                let answered = self.inner.call(request.map(|body| noted.listen(body)));
                Box::pin(async move { Ok(noted.answer(answered.await?)) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_is_missing() {
        let low = AccessError::RoleTooLow {
            what: "VmService/StopVm".into(),
            needed: Role::User,
            role: Role::Viewer,
        };
        assert_eq!(
            low.to_string(),
            "VmService/StopVm needs the role user, and the caller has viewer"
        );
        assert_eq!(
            AccessError::UnknownMethod.to_string(),
            "there is no such method"
        );
        assert_eq!(
            AccessError::CallerUnknown.to_string(),
            "the caller is not known"
        );
    }
}
