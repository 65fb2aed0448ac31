//! One call for the audit log: what is heard of its request and its answer while they pass, told at its end.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use banger_app::audit::Audit;
use banger_core::audit::AuditRecord;
use banger_core::{Identity, Timestamp};
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::table::Rpc;
use super::wire::{self, Facts};

/// How much of the first message is looked at. What a call is about comes early in it.
const HEARD_MAX: usize = 64 << 10;
/// A message of gRPC begins with a byte for its compression and four for its length.
const HEAD: usize = 5;

/// A call that is noted.
pub(super) struct Noted {
    audit: Arc<Audit>,
    rpc: &'static Rpc,
    identity: Arc<Identity>,
    time: Timestamp,
    begin: Instant,
    heard: Arc<Mutex<Vec<u8>>>,
    is_told: bool,
}

impl Noted {
    pub(super) fn new(audit: Arc<Audit>, rpc: &'static Rpc, identity: Arc<Identity>) -> Self {
        Self {
            audit,
            rpc,
            identity,
            time: Timestamp::now(),
            begin: Instant::now(),
            heard: Arc::default(),
            is_told: false,
        }
    }

    /// The request's body, of which the first message is heard.
    pub(super) fn listen(&self, body: Body) -> Body {
        Body::new(Heard {
            body,
            heard: Some(self.heard.clone()),
        })
    }

    /// The answer, whose end is told to the audit log.
    pub(super) fn answer(mut self, answer: Response<Body>) -> Response<Body> {
        // One that is refused has its status in the head.
        if let Some(status) = Status::from_header_map(answer.headers()) {
            self.tell(&status);
            return answer;
        }
        answer.map(|body| {
            Body::new(Answered {
                body,
                noted: Some(self),
            })
        })
    }

    fn tell(&mut self, status: &Status) {
        self.is_told = true;
        let heard = std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        let message = heard.get(HEAD..).unwrap_or_default();
        let Facts { object, request_id } = wire::facts(wire::fields(self.rpc), message);
        let info = status.get_details_error_info();
        self.audit.record(AuditRecord {
            sequence: 0,
            time: self.time,
            duration: self.begin.elapsed(),
            owner: self.identity.owner.clone(),
            role: self.identity.role,
            via: self.identity.via.to_string(),
            method: self.rpc.path.trim_start_matches('/').to_owned(),
            object,
            request_id,
            code: i32::from(status.code()),
            reason: info.map(|info| info.reason).unwrap_or_default(),
            lost: 0,
        });
    }
}

/// What ends with no answer has its record too: the change goes on though nobody waits for it.
impl Drop for Noted {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        let code = match std::thread::panicking() {
            true => Code::Internal,
            false => Code::Cancelled,
        };
        self.tell(&Status::new(code, ""));
    }
}

/// A request's body.
struct Heard {
    body: Body,
    /// Until the first message is whole, or enough of it was heard.
    heard: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Heard {
    fn hear(&mut self, data: &Bytes) {
        let Some(shared) = &self.heard else { return };
        let mut heard = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let room = HEARD_MAX - heard.len().min(HEARD_MAX);
        heard.extend_from_slice(&data[..data.len().min(room)]);
        let whole = heard.get(1..HEAD).map(|mut length| length.get_u32());
        let whole = whole.map(|length| HEAD.saturating_add(length as usize));
        if let Some(whole) = whole
            && heard.len() >= whole.min(HEARD_MAX)
        {
            heard.truncate(whole);
            drop(heard);
            self.heard = None;
        }
    }
}

impl http_body::Body for Heard {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(task);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.hear(data);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. Dropped before its end, the caller has hung up, and the note says so.
struct Answered {
    body: Body,
    noted: Option<Noted>,
}

impl Answered {
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(mut noted) = self.noted.take() {
            let status = trailers.and_then(Status::from_header_map);
            noted.tell(&status.unwrap_or_else(|| Status::unknown("")));
        }
    }
}

impl http_body::Body for Answered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(task);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.end(Some(trailers));
                }
            }
            Poll::Ready(Some(Err(_)) | None) => self.end(None),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
