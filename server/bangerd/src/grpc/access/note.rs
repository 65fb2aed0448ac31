//! One call for the audit log: what is heard of its request and its answer while they pass, told at its end; of a call
//! that is a stream of messages also at its beginning, since it may go on for days.

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

use super::described::{self, Facts};
use super::table::{Effect, Rpc, Sends};

/// A message that is longer is refused before it is read.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// A message of gRPC begins with a byte for its compression and four for its length.
const HEAD: usize = 5;
/// The reason in a record that tells no end but a beginning.
const BEGUN: &str = "BEGUN";

/// What is known of a call from its beginning on.
#[derive(Debug)]
struct Call {
    audit: Arc<Audit>,
    rpc: &'static Rpc,
    identity: Arc<Identity>,
    time: Timestamp,
    begin: Instant,
    /// Of the first message, once that was whole.
    facts: Mutex<Option<Facts>>,
}

impl Call {
    /// The first message was heard.
    fn begun(&self, message: &[u8]) {
        let described = described::of(self.rpc);
        let facts = described.map(|described| described.facts(message));
        let facts = facts.unwrap_or_default();
        if self.rpc.effect == Effect::Changes && self.rpc.sends() == Sends::Many {
            self.tell(&facts, Code::Ok, BEGUN.to_owned());
        }
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
    }

    fn ended(&self, status: &Status) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let facts = facts.take().unwrap_or_default();
        if matches!(self.rpc.effect, Effect::ChangesIf(_)) && !facts.changes {
            return;
        }
        let info = status.get_details_error_info();
        let reason = info.map(|info| info.reason).unwrap_or_default();
        self.tell(&facts, status.code(), reason);
    }

    fn tell(&self, facts: &Facts, code: Code, reason: String) {
        self.audit.record(AuditRecord {
            sequence: 0,
            time: self.time,
            duration: self.begin.elapsed(),
            owner: self.identity.owner.clone(),
            role: self.identity.role,
            via: self.identity.via.to_string(),
            method: self.rpc.path.trim_start_matches('/').to_owned(),
            object: facts.object.clone(),
            request_id: facts.request_id.clone(),
            code: i32::from(code),
            reason,
            lost: 0,
        });
    }
}

/// A call that is noted.
pub(super) struct Noted {
    call: Arc<Call>,
    is_told: bool,
}

impl Noted {
    pub(super) fn new(audit: Arc<Audit>, rpc: &'static Rpc, identity: Arc<Identity>) -> Self {
        let call = Call {
            audit,
            rpc,
            identity,
            time: Timestamp::now(),
            begin: Instant::now(),
            facts: Mutex::default(),
        };
        Self {
            call: Arc::new(call),
            is_told: false,
        }
    }

    /// The request's body, of which the first message is heard.
    pub(super) fn listen(&self, body: Body) -> Body {
        Body::new(Heard {
            body,
            heard: Vec::new(),
            call: Some(self.call.clone()),
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
        self.call.ended(status);
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
    /// What was heard of the first message.
    heard: Vec<u8>,
    /// Until that is whole, or is none.
    call: Option<Arc<Call>>,
}

impl Heard {
    fn hear(&mut self, data: &Bytes) {
        let Some(call) = &self.call else { return };
        self.heard.extend_from_slice(data);
        let Some(mut length) = self.heard.get(1..HEAD) else {
            return;
        };
        let length = length.get_u32() as usize;
        let message = self.heard.get(HEAD..HEAD + length);
        if let Some(message) = message {
            call.begun(message);
        } else if length <= MESSAGE_BYTES_MAX {
            return;
        }
        self.call = None;
        self.heard = Vec::new();
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
