//! Who calls, and the handlers that are theirs: each call is served by services that are as its caller sees them, so
//! that no handler can look beyond.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use banger_core::Identity;
use futures::future::Either;
use http::{Extensions, Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::access::AccessError;
use super::{Api, status};

/// Who calls, as the connection that carries the call says.
pub(crate) fn identity(extensions: &Extensions) -> Option<&Arc<Identity>> {
    extensions.get()
}

/// A service of the API whose handlers are made for each call, for its caller.
#[derive(Debug, Clone)]
pub struct PerCaller<S> {
    api: Api,
    serve: fn(Api) -> S,
}

impl<S> PerCaller<S> {
    /// Makes each call's service of `api` with `serve`.
    #[must_use]
    pub const fn new(api: Api, serve: fn(Api) -> S) -> Self {
        Self { api, serve }
    }
}

impl<S: NamedService> NamedService for PerCaller<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for PerCaller<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, std::future::Ready<Result<Response<Body>, Infallible>>>;

    // The services of the API are always ready: they hold nothing that a call could wait for.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match identity(request.extensions()) {
            Some(caller) => {
                let mut service = (self.serve)(self.api.seen_by(caller));
                Either::Left(service.call(request))
            }
            None => {
                let refused = status::explain(&AccessError::CallerUnknown).into_http();
                Either::Right(std::future::ready(Ok(refused)))
            }
        }
    }
}
