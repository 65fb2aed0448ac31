//! An answer that counts among its caller's calls until it has ended.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::listen::calls::Call;

/// An answer's body. Whoever hangs up drops it.
struct Counted {
    body: Body,
    _call: Call,
}

/// Keeps `call` with `answer`.
pub(super) fn count(answer: Response<Body>, call: Call) -> Response<Body> {
    answer.map(|body| Body::new(Counted { body, _call: call }))
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(task)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
