//! A client of Firecracker's API: HTTP/1 with JSON over a unix socket.
//!
//! Our own, since it needs a dozen calls and three things that general clients lack: a bound on each answer, a
//! deadline on each call, and one connection that is kept. Firecracker is trusted less than ourselves (a guest
//! may have taken it over): an answer that is too large, too late or no JSON is an error of that call, and its
//! connection is not used again.

pub(super) mod model;

use std::io;
use std::time::Duration;

use banger_core::vmm::VmmError;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::model::Fault;
use crate::dir::VmDir;

/// Larger than any answer to our calls: the whole configuration of a VM with many drives.
const MAX_ANSWER: usize = 256 * 1024;

/// Larger than the headers of any answer. hyper refuses less than 8 KiB.
const MAX_HEADERS: usize = 16 * 1024;

/// The most of Firecracker's words that an error carries, in characters.
const MAX_WORDS: usize = 500;

/// A call: what it is called in errors, and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// The step, as errors name it.
    pub(super) during: &'static str,
    /// The request's path.
    pub(super) path: String,
    /// How long the answer may take.
    pub(super) limit: Duration,
}

/// A Firecracker that answers on a socket.
#[derive(Debug)]
pub(super) struct Api {
    dir: VmDir,
    socket: &'static str,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Holding it makes calls take turns. Empty until the first call, and after a call that failed.
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Api {
    /// A client of the socket in `dir`, whose connections live on `tracker` until `stop`.
    pub(super) fn new(
        dir: VmDir,
        socket: &'static str,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            dir,
            socket,
            tracker,
            stop,
            connection: Mutex::default(),
        }
    }

    /// Asks for something.
    pub(super) async fn get<T: DeserializeOwned>(&self, call: Call) -> Result<T, VmmError> {
        let during = call.during;
        let answer = self.call(Method::GET, call, Bytes::new()).await?;
        serde_json::from_slice(&answer).map_err(|error| VmmError::Control {
            during,
            source: error.into(),
        })
    }

    /// Makes something.
    pub(super) async fn put(&self, call: Call, body: &impl Serialize) -> Result<(), VmmError> {
        self.send(Method::PUT, call, body).await
    }

    /// Changes something.
    pub(super) async fn patch(&self, call: Call, body: &impl Serialize) -> Result<(), VmmError> {
        self.send(Method::PATCH, call, body).await
    }

    async fn send(
        &self,
        method: Method,
        call: Call,
        body: &impl Serialize,
    ) -> Result<(), VmmError> {
        let body = serde_json::to_vec(body).map_err(|error| VmmError::Control {
            during: call.during,
            source: error.into(),
        })?;
        self.call(method, call, body.into()).await.map(drop)
    }

    /// One call within its limit. Safe to drop: the connection of a call that nobody awaits is closed.
    async fn call(&self, method: Method, call: Call, body: Bytes) -> Result<Bytes, VmmError> {
        let Call {
            during,
            path,
            limit,
        } = call;
        let exchange = self.exchange(method, &path, body);
        let answered = tokio::time::timeout(limit, exchange).await;
        let answered = answered.map_err(|_elapsed| VmmError::Deadline { during, limit })?;
        let (status, answer) = answered.map_err(|source| VmmError::Control { during, source })?;
        match status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(answer),
            other => Err(VmmError::Refused {
                during,
                detail: words(other, &answer),
            }),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> io::Result<(StatusCode, Bytes)> {
        let mut slot = self.connection.lock().await;
        // Taken out, so that a call that fails or is dropped leaves no connection in an unknown state.
        let mut kept = slot.take();
        let is_open = match &mut kept {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        let mut connection = match kept {
            Some(connection) if is_open => connection,
            Some(_) | None => self.connect().await?,
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body));
        let request = request.map_err(io::Error::other)?;
        let response = connection
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(io::Error::other)?
            .to_bytes();
        *slot = Some(connection);
        Ok((status, answer))
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = self.dir.connect(self.socket).await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            // What is wrong with it, the call learns.
            stop.run_until_cancelled(connection).await;
        });
        Ok(sender)
    }
}

/// Firecracker's explanation, else its answer as it is; bounded, in one line.
fn words(status: StatusCode, answer: &[u8]) -> String {
    let text = match serde_json::from_slice::<Fault>(answer) {
        Ok(fault) => fault.text,
        Err(_) => String::from_utf8_lossy(answer).into_owned(),
    };
    let line = text
        .chars()
        .take(MAX_WORDS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>();
    match line.trim() {
        "" => format!("status {}", status.as_u16()),
        line => line.to_owned(),
    }
}

#[cfg(test)]
mod tests;
