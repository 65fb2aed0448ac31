//! What surrounds every call: it is logged, and a panic in it is answered instead of ending the connection.

use std::any::Any;
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::classify::{GrpcErrorsAsFailures, SharedClassifier};
use tower_http::trace::{
    DefaultOnBodyChunk, DefaultOnRequest, MakeSpan, OnEos, OnFailure, OnResponse, TraceLayer,
};
use tracing::{Span, field};

use super::{caller, status};

/// The words with which methods begin that change something: these are logged at `info`, all others at
/// `debug`.
const VERBS_OF_CHANGE: [&str; 10] = [
    "Create", "Delete", "Exec", "Import", "Kill", "Pull", "Register", "Signal", "Start", "Stop",
];

/// What answers a panic.
type AnswerPanic = fn(Box<dyn Any + Send>) -> Response<Body>;

/// Turns a panic into INTERNAL.
#[must_use]
pub fn catch_panic() -> CatchPanicLayer<AnswerPanic> {
    CatchPanicLayer::custom(answer_panic as AnswerPanic)
}

// The panic's text was logged by the hook, with its place.
fn answer_panic(_: Box<dyn Any + Send>) -> Response<Body> {
    status::panicked().into_http()
}

/// Logs each call when it has ended: its method, who called, how long its answer took to begin
/// (`answered_ms`) and to end after that (`streamed_ms`), its code.
pub type LogLayer = TraceLayer<
    SharedClassifier<GrpcErrorsAsFailures>,
    CallSpan,
    DefaultOnRequest,
    LogEnd,
    DefaultOnBodyChunk,
    LogEnd,
    LogEnd,
>;

/// See [`LogLayer`].
#[must_use]
pub fn log() -> LogLayer {
    TraceLayer::new(SharedClassifier::new(GrpcErrorsAsFailures::new()))
        .make_span_with(CallSpan)
        .on_response(LogEnd)
        .on_eos(LogEnd)
        .on_failure(LogEnd)
}

/// A span with the method and the caller.
#[derive(Debug, Clone, Copy)]
pub struct CallSpan;

impl<B> MakeSpan<B> for CallSpan {
    fn make_span(&mut self, request: &Request<B>) -> Span {
        let method = request
            .uri()
            .path()
            .trim_start_matches('/')
            .trim_start_matches("banger.v1.");
        let identity = caller::identity(request.extensions());
        let caller = identity.map(|identity| identity.owner.as_str());
        let changes = method
            .split_once('/')
            .is_some_and(|(_, name)| VERBS_OF_CHANGE.iter().any(|verb| name.starts_with(verb)));
        // Who is refused changes nothing, and is not to fill the log.
        if changes && caller.is_some() {
            tracing::info_span!("call", method, caller, answered_ms = field::Empty)
        } else {
            tracing::debug_span!("call", method, caller, answered_ms = field::Empty)
        }
    }
}

/// Logs how a call ended.
#[derive(Debug, Clone, Copy)]
pub struct LogEnd;

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn ended(span: &Span, code: &str, streamed: Duration) {
    let streamed_ms = milliseconds(streamed);
    if span
        .metadata()
        .is_some_and(|span| *span.level() == tracing::Level::INFO)
    {
        tracing::info!(parent: span, code, streamed_ms, "call ended");
    } else {
        tracing::debug!(parent: span, code, streamed_ms, "call ended");
    }
}

fn code(headers: &HeaderMap) -> Option<&str> {
    headers
        .get("grpc-status")
        .and_then(|code| code.to_str().ok())
}

impl<B> OnResponse<B> for LogEnd {
    // A call that is refused has its code here; one that is served has it in the trailers.
    fn on_response(self, response: &Response<B>, latency: Duration, span: &Span) {
        // What follows the head is timed by itself.
        span.record("answered_ms", milliseconds(latency));
        match code(response.headers()) {
            Some(code) => ended(span, code, Duration::ZERO),
            None => tracing::trace!(parent: span, took_ms = milliseconds(latency), "answering"),
        }
    }
}

impl OnEos for LogEnd {
    fn on_eos(self, trailers: Option<&HeaderMap>, streamed: Duration, span: &Span) {
        ended(span, trailers.and_then(code).unwrap_or("none"), streamed);
    }
}

impl<F: std::fmt::Display> OnFailure<F> for LogEnd {
    // The status was logged where it was made, and the end is logged by the others.
    fn on_failure(&mut self, failure: F, _: Duration, span: &Span) {
        tracing::trace!(parent: span, failure = field::display(failure), "call failed");
    }
}
