//! Guests that lie about workspaces.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use banger_core::VmId;
use banger_core::file::FilePlace;
use banger_core::guest::{Guest, GuestConnector as _, GuestError};
use banger_core::vmm::Accelerator;
use banger_core::workspace::{
    Base, Encoding, ExportEvent, PrepareEvent, WorkspacePreparation, WorkspaceProblem,
    WorkspaceView,
};
use banger_guest::Connector;
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::agent_service_server::AgentServiceServer;
use banger_proto::guest::v1::export_workspace_response::Message as Exported;
use banger_proto::guest::v1::prepare_workspace_response::Message as Told;
use banger_proto::guest::v1::workspace_service_server::{WorkspaceService, WorkspaceServiceServer};
use banger_workspace::wire::{
    Content, End, Entries, Entry, EntryKind, Known, KnownRepository, ManifestEnd, Needed, Note,
    NoteKind, PackData, Part, Piece, Ref, RefKind, Refs, Repository, RepositoryKind,
    RepositoryStatus, Status as WorkspaceStatus, part,
};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use hyper::body::Incoming;
use hyper::{Request as HttpRequest, Response as HttpResponse};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::duplex;
use tokio::task::JoinSet;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status, Streaming};

use super::deadlines;
use super::liar::{Liar, Script};

const ID: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

/// What a guest says of workspaces.
#[derive(Debug, Clone, Default)]
struct Lie {
    prepare: Vec<Told>,
    export: Vec<Part>,
    status: WorkspaceStatus,
    /// It ends no stream.
    hangs: bool,
    /// It refuses everything with this reason.
    refuses: Option<&'static str>,
}

struct WorkspaceLiar(Arc<Lie>);

type Answer<T> = Result<Response<T>, Status>;
type Messages<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

impl WorkspaceLiar {
    fn messages<T: Send + 'static>(&self, messages: Vec<T>) -> Answer<Messages<T>> {
        if let Some(reason) = self.0.refuses {
            let mut metadata = MetadataMap::new();
            metadata.insert("banger-reason", MetadataValue::from_static(reason));
            let words = MetadataValue::from_bytes("\u{1b}[2J/etc".repeat(100).as_bytes());
            metadata.insert_bin("banger-detail-bin", words);
            return Err(Status::with_metadata(Code::Internal, "no", metadata));
        }
        let messages = stream::iter(messages.into_iter().map(Ok));
        Ok(Response::new(match self.0.hangs {
            true => messages.chain(stream::pending()).boxed(),
            false => messages.boxed(),
        }))
    }
}

#[tonic::async_trait]
impl WorkspaceService for WorkspaceLiar {
    type PrepareWorkspaceStream = Messages<proto::PrepareWorkspaceResponse>;

    async fn prepare_workspace(
        &self,
        _: Request<Streaming<proto::PrepareWorkspaceRequest>>,
    ) -> Answer<Self::PrepareWorkspaceStream> {
        let message = |message| proto::PrepareWorkspaceResponse {
            message: Some(message),
        };
        self.messages(self.0.prepare.iter().cloned().map(message).collect())
    }

    type ExportWorkspaceStream = Messages<proto::ExportWorkspaceResponse>;

    async fn export_workspace(
        &self,
        _: Request<proto::ExportWorkspaceRequest>,
    ) -> Answer<Self::ExportWorkspaceStream> {
        let message = |part| proto::ExportWorkspaceResponse {
            message: Some(Exported::Part(part)),
        };
        self.messages(self.0.export.iter().cloned().map(message).collect())
    }

    async fn get_workspace_status(
        &self,
        _: Request<proto::GetWorkspaceStatusRequest>,
    ) -> Answer<proto::GetWorkspaceStatusResponse> {
        self.messages::<()>(Vec::new())?;
        Ok(Response::new(proto::GetWorkspaceStatusResponse {
            status: Some(self.0.status.clone()),
        }))
    }
}

/// Both services of a guest on one connection.
#[derive(Clone)]
struct Both {
    agent: AgentServiceServer<Liar>,
    workspaces: WorkspaceServiceServer<WorkspaceLiar>,
}

impl tower::Service<HttpRequest<Incoming>> for Both {
    type Response = HttpResponse<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Incoming>) -> Self::Future {
        match request.uri().path().contains("WorkspaceService") {
            true => tower::Service::call(&mut self.workspaces, request),
            false => tower::Service::call(&mut self.agent, request),
        }
    }
}

async fn lie(lie: Lie) -> (Arc<dyn Guest>, JoinSet<()>) {
    let (ours, theirs) = duplex(1 << 16);
    let both = Both {
        agent: AgentServiceServer::new(Liar(Arc::new(Script::default()))),
        workspaces: WorkspaceServiceServer::new(WorkspaceLiar(Arc::new(lie))),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(theirs), TowerToHyperService::new(both))
            .await;
    });
    let connected = Connector::new(deadlines())
        .connect(VmId::new(), Box::new(ours), Accelerator::Kvm)
        .await;
    (connected.unwrap().0, tasks)
}

fn place() -> FilePlace {
    FilePlace {
        user: "app".into(),
        path: b"/work".to_vec(),
    }
}

async fn exported(told: Lie) -> Vec<Result<ExportEvent, GuestError>> {
    let (guest, _tasks) = lie(told).await;
    let view = WorkspaceView {
        place: place(),
        base: Base::default(),
        had_git: true,
        max_bytes: 1 << 20,
        encoding: Some(Encoding::Zlib),
    };
    match guest.export_workspace(&view).await {
        Ok(events) => events.collect().await,
        Err(error) => vec![Err(error)],
    }
}

async fn prepared(told: Lie) -> Vec<Result<PrepareEvent, GuestError>> {
    let (guest, _tasks) = lie(told).await;
    let preparation = WorkspacePreparation {
        place: place(),
        overwrite: false,
        replaceable_states: Vec::new(),
        author_name: String::new(),
        author_email: String::new(),
    };
    let parts = stream::pending().boxed();
    match guest.prepare_workspace(&preparation, parts).await {
        Ok(events) => events.collect().await,
        Err(error) => vec![Err(error)],
    }
}

fn is_broken<T>(last: Option<&Result<T, GuestError>>) -> bool {
    matches!(last, Some(Err(GuestError::Protocol { .. })))
}

fn own() -> Part {
    part(Piece::Repository(Repository {
        kind: RepositoryKind::Git.into(),
        head_ref: Bytes::from_static(b"refs/heads/main"),
        head_commit: ID.into(),
        ..Repository::default()
    }))
}

fn entry(path: &str, size: i64) -> Part {
    part(Piece::Entries(Entries {
        entries: vec![Entry {
            path: Bytes::copy_from_slice(path.as_bytes()),
            kind: EntryKind::File.into(),
            mode: 0o644,
            size,
            ..Entry::default()
        }],
    }))
}

fn manifest_end(entry_count: i64) -> Part {
    part(Piece::ManifestEnd(ManifestEnd { entry_count }))
}

fn content(entry: u32, data: &'static [u8]) -> Part {
    part(Piece::Content(Content {
        entry,
        data: Bytes::from_static(data),
        is_last: true,
        sha256: Bytes::from(vec![0; 32]),
        ..Content::default()
    }))
}

fn encoded(entry: u32, data: &'static [u8]) -> Part {
    let mut part = content(entry, data);
    if let Some(Piece::Content(content)) = &mut part.part {
        content.set_encoding(Encoding::Zlib);
    }
    part
}

fn end() -> Part {
    part(Piece::End(End::default()))
}

fn reference(name: &str, id: &str) -> Part {
    part(Piece::Refs(Refs {
        refs: vec![Ref {
            kind: RefKind::Ref.into(),
            name: Bytes::copy_from_slice(name.as_bytes()),
            object_id: id.into(),
            symbolic_target: Bytes::new(),
        }],
    }))
}

#[tokio::test]
async fn an_honest_snapshot_is_believed() {
    let export = vec![
        own(),
        reference("refs/heads/main", ID),
        entry("a", 2),
        manifest_end(1),
        content(0, b"hi"),
        part(Piece::Note(Note {
            kind: NoteKind::Moved.into(),
            detail: "\u{1b}[2Jmoved".into(),
            ..Note::default()
        })),
        end(),
    ];
    let events = exported(Lie {
        export,
        ..Lie::default()
    })
    .await;
    assert_eq!(events.len(), 7);
    for event in events {
        if let ExportEvent::Part(Part {
            part: Some(Piece::Note(note)),
        }) = event.unwrap()
        {
            assert!(!note.detail.contains('\u{1b}'));
        }
    }
}

#[tokio::test]
async fn each_lie_in_a_snapshot_breaks_the_protocol() {
    let lies = [
        vec![],
        vec![own(), manifest_end(0)],
        vec![end()],
        vec![own(), own(), manifest_end(0), end()],
        vec![own(), entry("../../etc/cron.d/x", 0), manifest_end(1)],
        vec![own(), entry("/etc/passwd", 0), manifest_end(1)],
        vec![own(), entry("a/.GIT/hooks/x", 0), manifest_end(1)],
        vec![own(), entry("git~1/config", 0), manifest_end(1)],
        vec![own(), entry("b", 0), entry("a", 0)],
        vec![own(), entry("a", 0), entry("a", 0)],
        vec![own(), entry("a", 100 << 30), manifest_end(1)],
        vec![own(), entry("a", -1), manifest_end(1)],
        vec![own(), entry("a", 1), manifest_end(2)],
        vec![own(), entry("a", 1), manifest_end(1), content(0, b"more")],
        vec![own(), entry("a", 1), manifest_end(1), content(1, b"x")],
        vec![own(), entry("a", 1), content(0, b"x")],
        // As it would be for a caller, who has asked for it.
        vec![own(), entry("a", 100), manifest_end(1), encoded(0, b"x")],
        vec![own(), reference("refs/heads/../../config", ID)],
        vec![own(), reference("HEAD", ID)],
        vec![own(), reference("refs/heads/x", "--upload-pack=x")],
        vec![own(), reference("refs/heads/x", &ID.to_uppercase())],
        vec![own(), entry("a", 0), reference("refs/heads/x", ID)],
        vec![
            own(),
            part(Piece::Pack(PackData {
                data: Bytes::from(vec![0; 600 << 10]),
                is_last: false,
            })),
            part(Piece::Pack(PackData {
                data: Bytes::from(vec![0; 600 << 10]),
                is_last: true,
            })),
        ],
        vec![own(), manifest_end(0), end(), end()],
        vec![Part::default()],
    ];
    for export in lies {
        let events = exported(Lie {
            export: export.clone(),
            ..Lie::default()
        })
        .await;
        assert!(
            is_broken(events.last()),
            "{export:?} gave {:?}",
            events.last()
        );
    }
}

#[tokio::test]
async fn each_lie_in_a_preparation_breaks_the_protocol() {
    let known = |commit: &str| {
        Told::Known(Known {
            repositories: vec![KnownRepository {
                path: Bytes::new(),
                commits: vec![commit.into()],
            }],
            is_last: true,
            ..Known::default()
        })
    };
    let lies = [
        vec![],
        vec![known("main")],
        vec![known(ID), known(ID)],
        vec![Told::Needed(Needed::default())],
        vec![Told::ProgressBytes(-1)],
        vec![Told::ProgressBytes(2), Told::ProgressBytes(1)],
        vec![Told::Prepared(proto::PreparedWorkspace {
            path: Bytes::from_static(b"/work"),
            state: Bytes::from(vec![0; 32]),
            notes: Vec::new(),
        })],
    ];
    for prepare in lies {
        let events = prepared(Lie {
            prepare: prepare.clone(),
            ..Lie::default()
        })
        .await;
        assert!(
            is_broken(events.last()),
            "{prepare:?} gave {:?}",
            events.last()
        );
    }
}

#[tokio::test]
async fn each_lie_in_a_status_breaks_the_protocol() {
    let change = |change: fn(&mut RepositoryStatus)| {
        let mut repository = RepositoryStatus::default();
        change(&mut repository);
        WorkspaceStatus {
            exists: true,
            repositories: vec![repository],
            ..WorkspaceStatus::default()
        }
    };
    let lies = [
        change(|told| told.path = Bytes::from_static(b"../x")),
        change(|told| told.head_ref = Bytes::from_static(b"-x")),
        change(|told| told.head_commit = "x".into()),
        change(|told| told.ahead_count = -1),
        change(|told| told.changed_paths = vec![Bytes::from_static(b"/x")]),
        change(|told| told.changed_paths = vec![Bytes::from_static(b"x"); 1001]),
        WorkspaceStatus {
            notes: vec![Note::default()],
            ..WorkspaceStatus::default()
        },
    ];
    for status in lies {
        let (guest, _tasks) = lie(Lie {
            status: status.clone(),
            ..Lie::default()
        })
        .await;
        let view = WorkspaceView {
            place: place(),
            base: Base::default(),
            had_git: false,
            max_bytes: 0,
            encoding: None,
        };
        let answer = guest.workspace_status(&view).await;
        assert!(is_broken(Some(&answer)), "{status:?} gave {answer:?}");
    }
}

#[tokio::test]
async fn a_guest_that_is_silent_or_refuses_ends_in_our_words() {
    let silent = exported(Lie {
        export: vec![own()],
        hangs: true,
        ..Lie::default()
    })
    .await;
    assert!(matches!(
        silent.last(),
        Some(Err(GuestError::Deadline { .. }))
    ));
    for problem in WorkspaceProblem::ALL {
        let refused = prepared(Lie {
            refuses: Some(problem.reason()),
            ..Lie::default()
        })
        .await;
        let Some(Err(GuestError::Workspace {
            problem: told,
            detail,
            ..
        })) = refused.last()
        else {
            panic!("{refused:?}");
        };
        assert_eq!(*told, problem);
        assert!(detail.len() <= 1024 && !detail.contains('\u{1b}'));
    }
}

#[test]
fn both_ends_have_the_same_words() {
    use banger_workspace::guest::WorkError;
    let path = String::new;
    let errors = [
        WorkError::NoGit,
        WorkError::NotFound { path: path() },
        WorkError::Busy { path: path() },
        WorkError::MountPoint { path: path() },
        WorkError::TooLarge { limit: 1 },
        WorkError::Gone,
        WorkError::Content { path: path() },
        WorkError::Snapshot(banger_workspace::wire::Fault::Cut),
        WorkError::Occupied {
            path: path(),
            detail: path(),
        },
    ];
    for error in errors {
        let problem = WorkspaceProblem::from_reason(error.reason());
        assert!(problem.is_some(), "{}", error.reason());
    }
}
