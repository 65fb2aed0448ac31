//! The calls that carry output and files, without the copy that encoding a message would make of them.
//!
//! The generated services encode each message into a buffer. Here a message of content becomes two pieces
//! of the body: everything up to the bytes, and the bytes themselves, as they were read from the process or the file.
//! On an emulated processor each copy of the output costs as much as the channel itself.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use banger_proto::guest::v1::agent_service_server::{AgentService, AgentServiceServer};
use banger_proto::guest::v1::attach_session_response::Message as Attached;
use banger_proto::guest::v1::file_service_server::{FileService, FileServiceServer};
use banger_proto::guest::v1::read_session_log_response::Message as Logged;
use banger_proto::guest::v1::tree_piece::Piece;
use banger_proto::guest::v1::workspace_service_server::WorkspaceServiceServer;
use banger_proto::guest::v1::{
    AttachSessionRequest, AttachSessionResponse, Output, ReadFileResponse, ReadSessionLogResponse,
    TreePiece, read_file_response,
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

use crate::file::service::GuestFileService;
use crate::serve::MESSAGE_MAX_BYTES;
use crate::service::GuestService;
use crate::workspace::service::GuestWorkspaceService;

const ATTACH: &str = "/banger.guest.v1.AgentService/AttachSession";
const READ_LOG: &str = "/banger.guest.v1.AgentService/ReadSessionLog";
const GET_TREE: &str = "/banger.guest.v1.AgentService/GetTree";
const READ_FILE: &str = "/banger.guest.v1.FileService/ReadFile";
/// What calls about files begin with.
const FILES: &str = "/banger.guest.v1.FileService/";
/// What calls about workspaces begin with.
const WORKSPACES: &str = "/banger.guest.v1.WorkspaceService/";
/// Bytes before each message: whether it is compressed, and its length.
const GRPC_HEADER_BYTES: usize = 5;
/// Field 2, the output, in both responses, as a tag of protobuf.
const OUTPUT_TAG: u8 = 2 << 3 | 2;
/// Field 4, the bytes, of an output.
const DATA_TAG: u8 = 4 << 3 | 2;
/// Field 2, the content, of a read file and of a tree.
const CONTENT_TAG: u8 = 2 << 3 | 2;
/// Room for the rest of a message of output.
const PREFIX_BYTES: usize = 64;

/// All calls of the guest protocol.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    service: Arc<GuestService>,
    file_service: Arc<GuestFileService>,
    generated: AgentServiceServer<GuestService>,
    files: FileServiceServer<GuestFileService>,
    workspaces: WorkspaceServiceServer<GuestWorkspaceService>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Calls {
    pub(crate) fn new(
        service: GuestService,
        files: GuestFileService,
        workspaces: GuestWorkspaceService,
    ) -> Self {
        let (service, files) = (Arc::new(service), Arc::new(files));
        Self {
            files: FileServiceServer::from_arc(Arc::clone(&files))
                .max_decoding_message_size(MESSAGE_MAX_BYTES),
            file_service: files,
            workspaces: WorkspaceServiceServer::new(workspaces)
                .max_decoding_message_size(MESSAGE_MAX_BYTES),
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
            READ_LOG => Box::pin(async move {
                let answered = match only(request.into_body()).await {
                    Ok(request) => service.read_session_log(request).await,
                    Err(status) => Err(status),
                };
                Ok(answer(answered))
            }),
            GET_TREE => Box::pin(async move {
                let answered = match only(request.into_body()).await {
                    Ok(request) => service.get_tree(request).await,
                    Err(status) => Err(status),
                };
                Ok(answer(answered))
            }),
            READ_FILE => {
                let files = Arc::clone(&self.file_service);
                Box::pin(async move {
                    let answered = match only(request.into_body()).await {
                        Ok(request) => files.read_file(request).await,
                        Err(status) => Err(status),
                    };
                    Ok(answer(answered))
                })
            }
            path if path.starts_with(FILES) => {
                let mut files = self.files.clone();
                tonic::codegen::Service::call(&mut files, request)
            }
            path if path.starts_with(WORKSPACES) => {
                let mut workspaces = self.workspaces.clone();
                tonic::codegen::Service::call(&mut workspaces, request)
            }
            _ => {
                let mut generated = self.generated.clone();
                tonic::codegen::Service::call(&mut generated, request)
            }
        }
    }
}

/// The request of a call that has one.
async fn only<T: Message + Default + Send + 'static>(
    body: Incoming,
) -> Result<tonic::Request<T>, Status> {
    let request = requests::<T>(body).message().await?;
    let missing = || Status::invalid_argument("the request is missing");
    request.map(tonic::Request::new).ok_or_else(missing)
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

/// A message that may carry bytes which need not be copied.
trait Carrier: Message + Send + 'static {
    /// Takes the bytes out, and writes what comes before them in the message.
    fn carried(&mut self, before: &mut BytesMut) -> Option<Bytes>;
}

/// An output, up to its bytes.
fn output(output: &mut Output, before: &mut BytesMut) -> Bytes {
    let data = std::mem::take(&mut output.data);
    let inner = output.encoded_len() + 1 + varint_bytes(data.len()) + data.len();
    before.put_u8(OUTPUT_TAG);
    encode_varint(inner as u64, before);
    // The buffer grows, so there is always room.
    let _ = output.encode(before);
    before.put_u8(DATA_TAG);
    encode_varint(data.len() as u64, before);
    data
}

/// Content of a file, which is all of its message.
fn content(data: &mut Bytes, before: &mut BytesMut) -> Bytes {
    let data = std::mem::take(data);
    before.put_u8(CONTENT_TAG);
    encode_varint(data.len() as u64, before);
    data
}

impl Carrier for AttachSessionResponse {
    fn carried(&mut self, before: &mut BytesMut) -> Option<Bytes> {
        match &mut self.message {
            Some(Attached::Output(found)) => Some(output(found, before)),
            _ => None,
        }
    }
}

impl Carrier for ReadSessionLogResponse {
    fn carried(&mut self, before: &mut BytesMut) -> Option<Bytes> {
        match &mut self.message {
            Some(Logged::Output(found)) => Some(output(found, before)),
            _ => None,
        }
    }
}

impl Carrier for ReadFileResponse {
    fn carried(&mut self, before: &mut BytesMut) -> Option<Bytes> {
        match &mut self.message {
            Some(read_file_response::Message::Data(data)) => Some(content(data, before)),
            _ => None,
        }
    }
}

impl Carrier for TreePiece {
    fn carried(&mut self, before: &mut BytesMut) -> Option<Bytes> {
        match &mut self.piece {
            Some(Piece::Data(data)) => Some(content(data, before)),
            _ => None,
        }
    }
}

/// Bytes of a varint: seven bits in each.
fn varint_bytes(value: usize) -> usize {
    let bits = usize::BITS - value.leading_zeros();
    usize::try_from(bits.div_ceil(7).max(1)).unwrap_or(usize::MAX)
}

/// What of a message comes before its bytes, and those.
fn encode<M: Carrier>(mut message: M) -> (Bytes, Bytes) {
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES);
    let mut before = BytesMut::new();
    if let Some(data) = message.carried(&mut before) {
        grpc_header(&mut buffer, before.len() + data.len());
        buffer.extend_from_slice(&before);
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
                writer_offset: None,
                start_offset: 0,
                message: Some(Attached::Output(output.clone())),
            };
            assert_eq!(joined(&attached), expected(&attached), "{length}");
            let logged = ReadSessionLogResponse {
                start_offset: 0,
                message: Some(Logged::Output(output)),
            };
            assert_eq!(joined(&logged), expected(&logged), "{length}");
        }
    }

    #[test]
    fn content_is_encoded_as_the_codec_does() {
        for length in [1, 127, 128, 16_383, 16_384, 300_000] {
            let data = Bytes::from(vec![7; length]);
            let read = ReadFileResponse {
                message: Some(read_file_response::Message::Data(data.clone())),
            };
            assert_eq!(joined(&read), expected(&read), "{length}");
            let piece = TreePiece {
                piece: Some(Piece::Data(data)),
            };
            assert_eq!(joined(&piece), expected(&piece), "{length}");
        }
    }

    #[test]
    fn other_messages_are_encoded_as_the_codec_does() {
        let message = AttachSessionResponse {
            writer_offset: None,
            start_offset: 0,
            message: Some(Attached::Heartbeat(Heartbeat {})),
        };
        assert_eq!(joined(&message), expected(&message));
    }
}
