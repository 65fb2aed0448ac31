//! Whose calls are served: the peer's identity becomes each call's, and who is refused, asks too fast, or has too many
//! calls under way, is answered before anything else is done.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use super::{counted, status};
use crate::config::LimitsConfig;
use crate::connection::Peer;
use crate::listen::calls::{Call, Calls};
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

/// Lets calls in whose peers are not refused, do not ask too fast, and have not too many of them.
#[derive(Debug, Clone)]
pub struct AdmitLayer {
    rates: Arc<Rates>,
    calls: Calls,
}

impl AdmitLayer {
    /// Within these limits.
    #[must_use]
    pub fn new(limits: &LimitsConfig) -> Self {
        Self {
            rates: Arc::new(Rates::new(limits)),
            calls: Calls::new(limits.caller_calls_max),
        }
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit {
            inner,
            layer: self.clone(),
        }
    }
}

/// What answers a call that is counted, or refused.
type Counting = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// See [`AdmitLayer`].
#[derive(Debug, Clone)]
pub struct Admit<S> {
    inner: S,
    layer: AdmitLayer,
}

impl<S> Admit<S> {
    /// The call as it is counted, if it is.
    fn judge<B>(&self, request: &Request<B>) -> Result<Option<Call>, Refusal> {
        // Whoever put no peer there is inside of this process.
        let Some(peer) = request.extensions().get::<Peer>() else {
            return Ok(None);
        };
        match peer.known() {
            Ok(identity) => {
                self.layer.rates.count(identity)?;
                self.layer.calls.begin(identity)
            }
            Err(refusal) => Err(Refusal::clone(refusal)),
        }
    }
}

impl<S, B> Service<Request<B>> for Admit<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Counting>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.judge(&request) {
            Ok(None) => Either::Left(self.inner.call(request)),
            Ok(Some(call)) => {
                let answering = self.inner.call(request);
                Either::Right(Box::pin(async move {
                    Ok(counted::count(answering.await?, call))
                }))
            }
            Err(refusal) => {
                let answer = status::explain(&refusal).into_http();
                Either::Right(Box::pin(ready(Ok(answer))))
            }
        }
    }
}
