//! A guest that says what it is told to say.

use std::sync::Arc;
use std::time::Duration;

use banger_core::SessionId;
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::agent_service_server::{AgentService, AgentServiceServer};
use banger_proto::guest::v1::attach_session_response::Message;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::DuplexStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status, Streaming};

use super::Events;

/// How often it says that it is alive.
const BEAT_EVERY: Duration = Duration::from_millis(100);

/// What to say.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) generation: i32,
    pub(crate) messages: Vec<Message>,
    /// Where its reader begins, as it says with each of them.
    pub(crate) start_offset: i64,
    pub(crate) hangs: bool,
    pub(crate) listed: usize,
    pub(crate) refusal: Option<(&'static str, String)>,
    /// How often it says that it is alive before the last piece of a tree.
    pub(crate) beats: usize,
    /// What a tree is made of.
    pub(crate) pieces: Vec<proto::TreePiece>,
    /// What the guest uses.
    pub(crate) stats: proto::GetStatsResponse,
    /// What a tunnel says.
    pub(crate) tunnel: Vec<proto::open_tunnel_response::Message>,
    /// Who listens.
    pub(crate) ports: proto::ListPortsResponse,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            generation: 2,
            messages: Vec::new(),
            start_offset: 0,
            hangs: false,
            listed: 0,
            refusal: None,
            beats: 0,
            pieces: Vec::new(),
            stats: proto::GetStatsResponse::default(),
            tunnel: Vec::new(),
            ports: proto::ListPortsResponse::default(),
        }
    }
}

pub(crate) struct Liar(pub(crate) Arc<Script>);

pub(crate) async fn serve(stream: DuplexStream, liar: Liar) {
    let service = TowerToHyperService::new(AgentServiceServer::new(liar));
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A session about which nothing is wrong.
pub(crate) fn session(id: SessionId) -> proto::Session {
    proto::Session {
        id: id.to_string(),
        spec: Some(proto::SessionSpec {
            command: vec!["true".into()],
            ..proto::SessionSpec::default()
        }),
        pid: 7,
        start_time: Some(prost_types::Timestamp::default()),
        ..proto::Session::default()
    }
}

type Pieces =
    std::pin::Pin<Box<dyn futures::Stream<Item = Result<proto::TreePiece, Status>> + Send>>;
type Told = std::pin::Pin<
    Box<dyn futures::Stream<Item = Result<proto::OpenTunnelResponse, Status>> + Send>,
>;
type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl AgentService for Liar {
    async fn hello(&self, _: Request<proto::HelloRequest>) -> Answer<proto::HelloResponse> {
        Ok(Response::new(proto::HelloResponse {
            generation: self.0.generation,
            ..proto::HelloResponse::default()
        }))
    }

    async fn get_session(
        &self,
        _: Request<proto::GetSessionRequest>,
    ) -> Answer<proto::GetSessionResponse> {
        if self.0.hangs {
            std::future::pending::<()>().await;
        }
        let Some((reason, text)) = &self.0.refusal else {
            return Ok(Response::new(proto::GetSessionResponse { session: None }));
        };
        let mut metadata = MetadataMap::new();
        if !reason.is_empty() {
            metadata.insert("banger-reason", MetadataValue::from_static(reason));
            let text = MetadataValue::from_bytes(text.as_bytes());
            metadata.insert_bin("banger-detail-bin", text);
        }
        Err(Status::with_metadata(Code::InvalidArgument, "no", metadata))
    }

    async fn list_sessions(
        &self,
        _: Request<proto::ListSessionsRequest>,
    ) -> Answer<proto::ListSessionsResponse> {
        let sessions = (0..self.0.listed).map(|_| session(SessionId::new()));
        Ok(Response::new(proto::ListSessionsResponse {
            sessions: sessions.collect(),
        }))
    }

    type AttachSessionStream = Events;

    async fn attach_session(
        &self,
        _: Request<Streaming<proto::AttachSessionRequest>>,
    ) -> Answer<Events> {
        if self.0.hangs {
            return Ok(Response::new(stream::pending().boxed()));
        }
        let start_offset = self.0.start_offset;
        let messages = self.0.messages.clone().into_iter().map(|message| {
            Ok(proto::AttachSessionResponse {
                start_offset,
                writer_offset: None,
                message: Some(message),
            })
        });
        Ok(Response::new(
            stream::iter(messages.collect::<Vec<_>>()).boxed(),
        ))
    }

    type ReadSessionLogStream = std::pin::Pin<
        Box<dyn futures::Stream<Item = Result<proto::ReadSessionLogResponse, Status>> + Send>,
    >;

    async fn read_session_log(
        &self,
        _: Request<proto::ReadSessionLogRequest>,
    ) -> Answer<Self::ReadSessionLogStream> {
        Ok(Response::new(stream::empty().boxed()))
    }

    async fn configure(
        &self,
        _: Request<proto::ConfigureRequest>,
    ) -> Answer<proto::ConfigureResponse> {
        std::future::pending().await
    }

    async fn start_session(
        &self,
        _: Request<proto::StartSessionRequest>,
    ) -> Answer<proto::StartSessionResponse> {
        std::future::pending().await
    }

    async fn wait_session(
        &self,
        _: Request<proto::WaitSessionRequest>,
    ) -> Answer<proto::WaitSessionResponse> {
        std::future::pending().await
    }

    async fn signal_session(
        &self,
        _: Request<proto::SignalSessionRequest>,
    ) -> Answer<proto::SignalSessionResponse> {
        std::future::pending().await
    }

    async fn delete_session(
        &self,
        _: Request<proto::DeleteSessionRequest>,
    ) -> Answer<proto::DeleteSessionResponse> {
        std::future::pending().await
    }

    async fn resolve_user(
        &self,
        _: Request<proto::ResolveUserRequest>,
    ) -> Answer<proto::ResolveUserResponse> {
        std::future::pending().await
    }

    async fn list_directory(
        &self,
        _: Request<proto::ListDirectoryRequest>,
    ) -> Answer<proto::ListDirectoryResponse> {
        Ok(Response::new(proto::ListDirectoryResponse {
            names: vec![Bytes::from_static(b"../../etc")],
            kind: proto::PathKind::Directory.into(),
        }))
    }

    async fn put_tree(
        &self,
        _: Request<Streaming<proto::PutTreeRequest>>,
    ) -> Answer<proto::PutTreeResponse> {
        std::future::pending().await
    }

    type GetTreeStream = Pieces;

    async fn get_tree(&self, _: Request<proto::GetTreeRequest>) -> Answer<Pieces> {
        let mut pieces: Vec<_> = self.0.pieces.clone().into_iter().map(Ok).collect();
        let last = pieces.pop();
        let beats = stream::iter(0..self.0.beats).then(async |_| {
            tokio::time::sleep(BEAT_EVERY).await;
            let data = proto::tree_piece::Piece::Data(Bytes::new());
            Ok(proto::TreePiece { piece: Some(data) })
        });
        let pieces = stream::iter(pieces).chain(beats).chain(stream::iter(last));
        Ok(Response::new(if self.0.hangs {
            pieces.chain(stream::pending()).boxed()
        } else {
            pieces.boxed()
        }))
    }

    type GetChangesStream = Pieces;

    async fn get_changes(&self, _: Request<proto::GetChangesRequest>) -> Answer<Pieces> {
        Ok(Response::new(stream::empty().boxed()))
    }

    type OpenTunnelStream = Told;

    async fn open_tunnel(
        &self,
        _: Request<Streaming<proto::OpenTunnelRequest>>,
    ) -> Answer<Self::OpenTunnelStream> {
        if let Some((reason, text)) = &self.0.refusal {
            let mut metadata = MetadataMap::new();
            metadata.insert("banger-reason", MetadataValue::from_static(reason));
            let text = MetadataValue::from_bytes(text.as_bytes());
            metadata.insert_bin("banger-detail-bin", text);
            let words = "the guest's own words";
            return Err(Status::with_metadata(Code::Internal, words, metadata));
        }
        let told = self.0.tunnel.clone().into_iter().map(|message| {
            Ok(proto::OpenTunnelResponse {
                message: Some(message),
            })
        });
        let told = stream::iter(told.collect::<Vec<_>>());
        Ok(Response::new(if self.0.hangs {
            told.chain(stream::pending()).boxed()
        } else {
            told.boxed()
        }))
    }

    async fn grow_disk(
        &self,
        _: Request<proto::GrowDiskRequest>,
    ) -> Answer<proto::GrowDiskResponse> {
        std::future::pending().await
    }

    async fn freeze_disk(
        &self,
        _: Request<proto::FreezeDiskRequest>,
    ) -> Answer<proto::FreezeDiskResponse> {
        std::future::pending().await
    }

    async fn get_stats(
        &self,
        _: Request<proto::GetStatsRequest>,
    ) -> Answer<proto::GetStatsResponse> {
        if self.0.hangs {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(self.0.stats.clone()))
    }

    async fn list_ports(
        &self,
        _: Request<proto::ListPortsRequest>,
    ) -> Answer<proto::ListPortsResponse> {
        if self.0.hangs {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(self.0.ports.clone()))
    }

    async fn set_identity(
        &self,
        _: Request<proto::SetIdentityRequest>,
    ) -> Answer<proto::SetIdentityResponse> {
        std::future::pending().await
    }

    async fn start_init(
        &self,
        _: Request<proto::StartInitRequest>,
    ) -> Answer<proto::StartInitResponse> {
        std::future::pending().await
    }

    async fn power_off(
        &self,
        _: Request<proto::PowerOffRequest>,
    ) -> Answer<proto::PowerOffResponse> {
        std::future::pending().await
    }
}
