//! Callers of every kind: connections whose peers are whoever a test says, and calls by their path alone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use banger_core::{Identity, Role};
use banger_proto::v1;
use banger_proto::v1::host_service_client::HostServiceClient;
use banger_proto::v1::operation_service_client::OperationServiceClient;
use banger_proto::v1::session_service_client::SessionServiceClient;
use banger_proto::v1::vm_service_client::VmServiceClient;
use banger_proto::v1::volume_service_client::VolumeServiceClient;
use bangerd::connection::Connection;
use futures::stream::{self, BoxStream, StreamExt as _};
use http_body::Frame;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status, Streaming};
use tower::{Service as _, ServiceExt as _};

use crate::rig::{PATIENCE, Rig, drain};

/// What one side may have sent and the other not read.
const PIPE_BYTES: usize = 1 << 20;
/// How long a stream that says nothing is waited for, where nothing is expected. Long enough for an answer to a call
/// that is refused, and no test depends on it being short.
const SILENCE: Duration = Duration::from_secs(20);

/// A way to the daemon for callers who are made up.
#[derive(Debug, Clone)]
pub(crate) struct Door(pub(crate) mpsc::Sender<Connection>);

/// A caller.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) channel: Channel,
}

/// A user of this host with a role.
pub(crate) fn user(uid: u32, role: Role) -> Identity {
    Identity::of_uid(uid, role)
}

impl Door {
    pub(crate) async fn enter(&self, identity: Identity) -> Caller {
        let (identity, door) = (Arc::new(identity), self.0.clone());
        let connect = tower::service_fn(move |_: Uri| {
            let (identity, door) = (identity.clone(), door.clone());
            async move {
                let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
                let connection = Connection::new(theirs, identity);
                let entered = door.send(connection).await;
                entered.map_err(|_| std::io::Error::other("the daemon is gone"))?;
                Ok::<_, std::io::Error>(TokioIo::new(ours))
            }
        });
        let endpoint = Endpoint::from_static("http://daemon");
        let connected = tokio::time::timeout(PATIENCE, endpoint.connect_with_connector(connect));
        Caller {
            channel: connected.await.expect("in time").unwrap(),
        }
    }
}

impl Rig {
    /// A caller as one of the daemon's listeners would know it.
    pub(crate) async fn enter(&self, identity: Identity) -> Caller {
        self.door.enter(identity).await
    }
}

/// Messages as their bytes.
#[derive(Debug, Default, Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; bytes::Buf::remaining(buffer)];
        bytes::Buf::copy_to_slice(buffer, &mut item);
        Ok(Some(item))
    }
}

/// Bytes as a caller chooses them.
struct Sent(BoxStream<'static, bytes::Bytes>);

impl http_body::Body for Sent {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        let next = self.0.poll_next_unpin(task);
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A message as gRPC frames it.
pub(crate) fn framed(message: &[u8]) -> bytes::Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat().into()
}

impl Caller {
    pub(crate) fn vms(&self) -> VmServiceClient<Channel> {
        VmServiceClient::new(self.channel.clone())
    }

    pub(crate) fn volumes(&self) -> VolumeServiceClient<Channel> {
        VolumeServiceClient::new(self.channel.clone())
    }

    pub(crate) fn operations(&self) -> OperationServiceClient<Channel> {
        OperationServiceClient::new(self.channel.clone())
    }

    pub(crate) fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel.clone())
    }

    pub(crate) fn hosts(&self) -> HostServiceClient<Channel> {
        HostServiceClient::new(self.channel.clone())
    }

    /// Calls a method by its path with one message, whose stream stays open after it, and takes the first answer.
    pub(crate) async fn call(&self, path: &str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
        let asked = async {
            let mut client = Grpc::new(self.channel.clone());
            client
                .ready()
                .await
                .map_err(|error| Status::unavailable(error.to_string()))?;
            let messages = stream::iter([message]);
            let path = path.parse().unwrap();
            let answers = client
                .streaming(Request::new(messages), path, Bytes)
                .await?;
            let mut answers: Streaming<Vec<u8>> = answers.into_inner();
            Ok(answers.message().await?.unwrap_or_default())
        };
        tokio::time::timeout(SILENCE, asked)
            .await
            .unwrap_or_else(|_| panic!("{path} neither answers nor refuses"))
    }

    /// The end of a call whose request is whatever bytes come.
    pub(crate) async fn end_of(
        &self,
        path: &str,
        sent: BoxStream<'static, bytes::Bytes>,
    ) -> Status {
        let request = http::Request::post(format!("http://daemon{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::new(Sent(sent)))
            .unwrap();
        let mut channel = self.channel.clone();
        let ending = async {
            let answered = channel.ready().await.unwrap().call(request).await.unwrap();
            if let Some(status) = Status::from_header_map(answered.headers()) {
                return status;
            }
            let mut body = answered.into_body();
            loop {
                let frame = std::future::poll_fn(|task| {
                    http_body::Body::poll_frame(Pin::new(&mut body), task)
                });
                let frame = frame.await.expect("it ends with a status").unwrap();
                if let Some(trailers) = frame.trailers_ref() {
                    return Status::from_header_map(trailers).unwrap();
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, ending).await;
        ended.unwrap_or_else(|_| panic!("{path} does not end"))
    }

    pub(crate) async fn create(&self, request: v1::CreateVmRequest) -> Result<v1::Vm, Status> {
        use v1::create_vm_response::Message;
        let answers = self.vms().create_vm(request).await?.into_inner();
        match drain(answers).await?.pop().and_then(|last| last.message) {
            Some(Message::Vm(vm)) => Ok(vm),
            other => panic!("the last message is {other:?}"),
        }
    }

    pub(crate) async fn create_volume(
        &self,
        request: v1::CreateVolumeRequest,
    ) -> Result<v1::Volume, Status> {
        use v1::create_volume_response::Message;
        let answers = self.volumes().create_volume(request).await?.into_inner();
        match drain(answers).await?.pop().and_then(|last| last.message) {
            Some(Message::Volume(volume)) => Ok(volume),
            other => panic!("the last message is {other:?}"),
        }
    }

    /// Attaches to a session, for as long as what is returned stays.
    pub(crate) async fn attach(
        &self,
        session: &v1::Session,
    ) -> (
        mpsc::Sender<v1::AttachSessionRequest>,
        Streaming<v1::AttachSessionResponse>,
    ) {
        let start = v1::attach_session_request::Message::Start(v1::AttachSessionStart {
            session: session.id.clone(),
            ..Default::default()
        });
        let start = v1::AttachSessionRequest {
            message: Some(start),
        };
        let (asking, asked) = mpsc::channel(1);
        asking.send(start).await.unwrap();
        let asked = ReceiverStream::new(asked);
        let attached = self.sessions().attach_session(asked).await.unwrap();
        (asking, attached.into_inner())
    }

    pub(crate) async fn start_session(&self, vm: &str) -> Result<v1::Session, Status> {
        let request = v1::StartSessionRequest {
            vm: vm.into(),
            spec: Some(v1::SessionSpec {
                command: vec!["sleep".into(), "5".into()],
                ..Default::default()
            }),
            request_id: String::new(),
        };
        let answer = self.sessions().start_session(request).await?;
        Ok(answer.into_inner().session.unwrap())
    }

    /// The kept events and the snapshot after them.
    pub(crate) async fn told(&self) -> (Vec<v1::Event>, v1::EventsSnapshot) {
        use v1::watch_events_request::Start;
        use v1::watch_events_response::Message;
        let request = v1::WatchEventsRequest {
            start: Some(Start::Kept(true)),
            ..Default::default()
        };
        let mut answers = self
            .hosts()
            .watch_events(request)
            .await
            .unwrap()
            .into_inner();
        let mut events = Vec::new();
        loop {
            let told = tokio::time::timeout(PATIENCE, answers.next());
            match told.await.unwrap().unwrap().unwrap().message.unwrap() {
                Message::Event(event) => events.push(event),
                Message::Snapshot(snapshot) => return (events, snapshot),
                Message::Heartbeat(_) => {}
            }
        }
    }
}
