//! The two calls that carry output, without the copy that encoding a message would make of it.
//!
//! The generated service encodes each message into a buffer. Here a message of output becomes two pieces
//! of the body: everything up to the bytes, and the bytes themselves, as they were read from the process.
//! On an emulated processor each copy of the output costs as much as the channel itself.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use banger_proto::guest::v1::agent_service_server::{AgentService, AgentServiceServer};
use banger_proto::guest::v1::attach_session_response::Message as Attached;
use banger_proto::guest::v1::read_session_log_response::Message as Logged;
use banger_proto::guest::v1::{
    AttachSessionRequest, AttachSessionResponse, Output, ReadSessionLogRequest,
    ReadSessionLogResponse,
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{Stream, StreamExt};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use prost::Message;
use prost::encoding::encode_varint;
use tonic::body::Body;
use tonic::codec::Codec;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::serve::MESSAGE_MAX_BYTES;
use crate::service::GuestService;

const ATTACH: &str = "/banger.guest.v1.AgentService/AttachSession";
const READ_LOG: &str = "/banger.guest.v1.AgentService/ReadSessionLog";
/// Bytes before each message: whether it is compressed, and its length.
const GRPC_HEADER_BYTES: usize = 5;
/// Field 2, the output, in both responses, as a tag of protobuf.
const OUTPUT_TAG: u8 = 2 << 3 | 2;
/// Field 4, the bytes, of an output.
const DATA_TAG: u8 = 4 << 3 | 2;
/// Room for the rest of a message of output.
const PREFIX_BYTES: usize = 64;

/// All calls of the guest protocol.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    service: Arc<GuestService>,
    generated: AgentServiceServer<GuestService>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Calls {
    pub(crate) fn new(service: GuestService) -> Self {
        let service = Arc::new(service);
        Self {
            generated: AgentServiceServer::from_arc(Arc::clone(&service))
                .max_decoding_message_size(MESSAGE_MAX_BYTES),
            service,
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let service = Arc::clone(&self.service);
        match request.uri().path() {
            ATTACH => Box::pin(async move {
                let requests = requests::<AttachSessionRequest>(request.into_body());
                Ok(answer(
                    service.attach_session(tonic::Request::new(requests)).await,
                ))
            }),
            READ_LOG => {
                Box::pin(async move { Ok(answer(read_log(&service, request.into_body()).await)) })
            }
            _ => {
                let mut generated = self.generated.clone();
                tonic::codegen::Service::call(&mut generated, request)
            }
        }
    }
}

async fn read_log(
    service: &GuestService,
    body: Incoming,
) -> Result<tonic::Response<<GuestService as AgentService>::ReadSessionLogStream>, Status> {
    let request = requests::<ReadSessionLogRequest>(body).message().await?;
    let request = request.ok_or_else(|| Status::invalid_argument("the request is missing"))?;
    service.read_session_log(tonic::Request::new(request)).await
}

fn requests<T: Message + Default + Send + 'static>(body: Incoming) -> Streaming<T> {
    let decoder = ProstCodec::<(), T>::default().decoder();
    Streaming::new_request(decoder, body, None, Some(MESSAGE_MAX_BYTES))
}

fn answer<M, S>(answered: Result<tonic::Response<S>, Status>) -> Response<Body>
where
    M: Carrier,
    S: Stream<Item = Result<M, Status>> + Send + Unpin + 'static,
{
    match answered {
        Ok(response) => {
            let mut response = Response::new(Body::new(Events {
                messages: response.into_inner(),
                data: Bytes::new(),
                is_ended: false,
            }));
            let grpc = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(CONTENT_TYPE, grpc);
            response
        }
        Err(status) => status.into_http(),
    }
}

/// A message that may carry output.
trait Carrier: Message + Send + 'static {
    /// Takes the output's bytes out, leaving the rest of it.
    fn output(&mut self) -> Option<(&Output, Bytes)>;
}

/// Leaves an output without its bytes.
fn split(output: &mut Output) -> (&Output, Bytes) {
    let data = std::mem::take(&mut output.data);
    (output, data)
}

impl Carrier for AttachSessionResponse {
    fn output(&mut self) -> Option<(&Output, Bytes)> {
        match &mut self.message {
            Some(Attached::Output(output)) => Some(split(output)),
            _ => None,
        }
    }
}

impl Carrier for ReadSessionLogResponse {
    fn output(&mut self) -> Option<(&Output, Bytes)> {
        match &mut self.message {
            Some(Logged::Output(output)) => Some(split(output)),
            _ => None,
        }
    }
}

/// Bytes of a varint: seven bits in each.
fn varint_bytes(value: usize) -> usize {
    let bits = usize::BITS - value.leading_zeros();
    usize::try_from(bits.div_ceil(7).max(1)).unwrap_or(usize::MAX)
}

/// What of a message comes before its bytes of output, and those.
fn encode<M: Carrier>(mut message: M) -> (Bytes, Bytes) {
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES);
    if let Some((rest, data)) = message.output() {
        let inner = rest.encoded_len() + 1 + varint_bytes(data.len()) + data.len();
        grpc_header(&mut buffer, 1 + varint_bytes(inner) + inner);
        buffer.put_u8(OUTPUT_TAG);
        encode_varint(inner as u64, &mut buffer);
        // The buffer grows, so there is always room.
        let _ = rest.encode(&mut buffer);
        buffer.put_u8(DATA_TAG);
        encode_varint(data.len() as u64, &mut buffer);
        return (buffer.freeze(), data);
    }
    grpc_header(&mut buffer, message.encoded_len());
    let _ = message.encode(&mut buffer);
    (buffer.freeze(), Bytes::new())
}

fn grpc_header(buffer: &mut BytesMut, length: usize) {
    buffer.reserve(GRPC_HEADER_BYTES + PREFIX_BYTES);
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// The body of an answer: the messages, then how the call ended.
struct Events<S> {
    messages: S,
    data: Bytes,
    is_ended: bool,
}

impl<M, S> HttpBody for Events<S>
where
    M: Carrier,
    S: Stream<Item = Result<M, Status>> + Send + Unpin + 'static,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.data.is_empty() {
            let data = std::mem::take(&mut self.data);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.is_ended {
            return Poll::Ready(None);
        }
        let status = match ready!(self.messages.poll_next_unpin(context)) {
            Some(Ok(message)) => {
                let (first, data) = encode(message);
                self.data = data;
                return Poll::Ready(Some(Ok(Frame::data(first))));
            }
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.is_ended = true;
        let mut trailers = HeaderMap::new();
        let added = status.add_header(&mut trailers);
        Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))))
    }
}

#[cfg(test)]
mod tests {
    use banger_proto::guest::v1::Heartbeat;

    use super::*;

    fn joined<M: Carrier + Clone>(message: &M) -> Vec<u8> {
        let (first, data) = encode(message.clone());
        [first, data].concat()
    }

    fn expected<M: Message>(message: &M) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
        bytes.extend(message.encode_to_vec());
        bytes
    }

    #[test]
    fn output_is_encoded_as_the_codec_does() {
        for length in [1, 127, 128, 16_383, 16_384, 300_000] {
            let output = Output {
                offset: 1 << 40,
                stream: 2,
                time: Some(prost_types::Timestamp {
                    seconds: 1,
                    nanos: 2,
                }),
                data: Bytes::from(vec![7; length]),
            };
            let attached = AttachSessionResponse {
                message: Some(Attached::Output(output.clone())),
            };
            assert_eq!(joined(&attached), expected(&attached), "{length}");
            let logged = ReadSessionLogResponse {
                message: Some(Logged::Output(output)),
            };
            assert_eq!(joined(&logged), expected(&logged), "{length}");
        }
    }

    #[test]
    fn other_messages_are_encoded_as_the_codec_does() {
        let message = AttachSessionResponse {
            message: Some(Attached::Heartbeat(Heartbeat {})),
        };
        assert_eq!(joined(&message), expected(&message));
    }
}
