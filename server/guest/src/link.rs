//! HTTP/2 over one channel: the connection, its end, and what the generated client calls it through.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use banger_core::guest::BoxedChannel;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::{Status, Streaming};
use tower::Service;

use crate::limits::{
    CONNECTION_WINDOW_BYTES, FRAME_MAX_BYTES, HEADERS_MAX_BYTES, SEND_BUFFER_BYTES,
    STREAM_WINDOW_BYTES,
};

/// How long a stream of content may keep its reader waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// For anything.
    pub(crate) silence: Duration,
    /// For content.
    pub(crate) taking: Duration,
}

/// Runs hyper's tasks on a tracker.
#[derive(Debug, Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// One connection. It ends with the last holder of it, with the channel, or when the guest breaks HTTP/2.
#[derive(Debug)]
pub(crate) struct Link {
    requests: SendRequest<Body>,
    ended: CancellationToken,
    hold: Hold,
    _stop: DropGuard,
}

impl Link {
    /// Starts HTTP/2 on `channel`. It asks by itself of no guest whether it is alive: one that is held is not dead. Each
    /// wait on a guest has its own limit, by [`Link::within`].
    pub(crate) async fn open(
        channel: BoxedChannel,
        tasks: &TaskTracker,
    ) -> Result<Self, hyper::Error> {
        let (requests, connection) = Builder::new(Tracked(tasks.clone()))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_MAX_BYTES)
            .max_header_list_size(HEADERS_MAX_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .handshake(TokioIo::new(channel))
            .await?;
        let stop = CancellationToken::new();
        let ended = CancellationToken::new();
        let (stopped, end) = (stop.clone(), ended.clone().drop_guard());
        tasks.spawn(async move {
            tokio::select! {
                // cancel-safe: dropping the connection is how it is ended
                result = connection => {
                    if let Err(error) = result {
                        tracing::debug!(error = %banger_core::chain(&error), "agent connection ended");
                    }
                }
                () = stopped.cancelled() => {}
            }
            drop(end);
        });
        Ok(Self {
            requests,
            ended,
            hold: Hold::default(),
            _stop: stop.drop_guard(),
        })
    }

    /// What the generated client calls.
    pub(crate) fn requests(&self) -> Requests {
        Requests(self.requests.clone())
    }

    /// The guest stands still, or goes on.
    pub(crate) fn set_held(&self, is_held: bool) {
        self.hold.set(is_held);
    }

    /// Whether the guest stands still.
    pub(crate) fn hold(&self) -> Hold {
        self.hold.clone()
    }

    /// What comes within `limit`, as [`Hold::within`] has it.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        coming: impl Future<Output = T>,
    ) -> Option<T> {
        self.hold.within(limit, coming).await
    }

    /// The next message of a stream that a disk may hold up, of which the guest beats: `is_beat` says of what says nothing
    /// else. Where nothing comes in time, the limit that was missed.
    pub(crate) async fn content<M>(
        &self,
        messages: &mut Streaming<M>,
        waits: Waits,
        is_beat: impl Fn(&M) -> bool,
    ) -> Result<Result<Option<M>, Status>, Duration> {
        let coming = async {
            loop {
                match self.within(waits.silence, messages.message()).await {
                    None => return Err(waits.silence),
                    Some(Ok(Some(message))) if is_beat(&message) => {}
                    Some(come) => return Ok(come),
                }
            }
        };
        let come = self.within(waits.taking, coming).await;
        come.unwrap_or(Err(waits.taking))
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Resolves when it has ended.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// Whether the guest stands still because it was told to.
#[derive(Debug, Clone)]
pub(crate) struct Hold(watch::Sender<bool>);

impl Default for Hold {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Hold {
    /// The guest stands still, or goes on.
    pub(crate) fn set(&self, is_held: bool) {
        self.0
            .send_if_modified(|held| std::mem::replace(held, is_held) != is_held);
    }

    /// What comes within `limit`; nothing if that long a silence says that the guest is dead. While it is held, time
    /// stands still for it. Safe to drop if `coming` is.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        coming: impl Future<Output = T>,
    ) -> Option<T> {
        let mut held = self.0.subscribe();
        let mut coming = pin!(coming);
        loop {
            let is_held = *held.borrow_and_update();
            tokio::select! {
                biased; // what came is not late
                // stays pinned
                come = &mut coming => return Some(come),
                // cancel-safe: looks at a level. The sender lives as long as `self`.
                _ = held.changed() => {}
                // cancel-safe: holds no state
                () = sleep(limit), if !is_held => return None,
            }
        }
    }
}

/// A connection as a service.
#[derive(Debug, Clone)]
pub(crate) struct Requests(SendRequest<Body>);

impl Service<Request<Body>> for Requests {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
