//! Serves the guest protocol over HTTP/2 on one stream after the other.

use std::sync::Arc;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;

use crate::agent::Agent;
use crate::events::Calls;
use crate::file::service::GuestFileService;
use crate::service::GuestService;
use crate::workspace::service::GuestWorkspaceService;

/// Bytes that the host may send on one call before the agent has taken them: standard input.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes that the host may send on all calls together: as many as HTTP/2 has, because one call whose
/// process does not read must not stop the others.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// Largest HTTP/2 frame that the agent takes.
const FRAME_MAX_BYTES: u32 = 256 << 10;
/// Bytes of one call that wait for the stream: two of the largest output frames.
const SEND_BUFFER_BYTES: usize = 512 << 10;
/// Calls at once: an attached reader and a waiter for each session, and some more.
const CALLS_MAX: u32 = 4096;
/// Bytes of the headers of a call.
const HEADERS_MAX_BYTES: u32 = 16 << 10;
/// Largest message that the agent takes: a command and an environment of 6 MiB together, with room.
pub(crate) const MESSAGE_MAX_BYTES: usize = 8 << 20;

/// Runs hyper's tasks on the agent's tracker.
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

/// Serves `stream` until either end has had enough.
///
/// # Errors
/// How HTTP/2 was broken.
pub async fn serve<S>(agent: &Arc<Agent>, stream: S) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let files = GuestFileService::new(Arc::clone(agent));
    let workspaces = GuestWorkspaceService::new(Arc::clone(agent));
    let calls = Calls::new(GuestService::new(Arc::clone(agent)), files, workspaces);
    http2::Builder::new(Tracked(agent.tasks.clone()))
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_MAX_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(CALLS_MAX)
        .max_header_list_size(HEADERS_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), calls)
        .await
}
