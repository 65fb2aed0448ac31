//! Whose calls are served: the peer's identity becomes each call's, and who is refused, or asks too fast, is answered
//! before anything else is done.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use super::status;
use crate::connection::Peer;
use crate::listen::rate::Rates;
use crate::listen::refusal::Refusal;

/// Gives a call the identity of its peer. Outside of all layers that ask for it.
pub fn identify<B>(mut request: Request<B>) -> Request<B> {
    let identity = request.extensions().get::<Peer>().and_then(|peer| {
        peer.hear();
        peer.known().ok().cloned()
    });
    if let Some(identity) = identity {
        request.extensions_mut().insert(identity);
    }
    request
}

/// Lets calls in whose peers are not refused and do not ask too fast.
#[derive(Debug, Clone)]
pub struct AdmitLayer {
    rates: Arc<Rates>,
}

impl AdmitLayer {
    /// At these rates.
    #[must_use]
    pub fn new(rates: Rates) -> Self {
        Self {
            rates: Arc::new(rates),
        }
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit {
            inner,
            rates: self.rates.clone(),
        }
    }
}

/// See [`AdmitLayer`].
#[derive(Debug, Clone)]
pub struct Admit<S> {
    inner: S,
    rates: Arc<Rates>,
}

impl<S> Admit<S> {
    fn judge<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        // Whoever put no peer there is inside of this process.
        let Some(peer) = request.extensions().get::<Peer>() else {
            return Ok(());
        };
        match peer.known() {
            Ok(identity) => self.rates.count(identity),
            Err(refusal) => Err(Refusal::clone(refusal)),
        }
    }
}

impl<S, B> Service<Request<B>> for Admit<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.judge(&request) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(refusal) => {
                let answer = status::explain(&refusal).into_http();
                Either::Right(ready(Ok(answer)))
            }
        }
    }
}
