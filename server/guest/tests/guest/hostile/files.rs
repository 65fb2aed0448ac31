//! Guests that lie about files.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use banger_core::VmId;
use banger_core::file::{
    FileAttributes, FileListing, FilePlace, FileProblem, FileRange, FileWrite, Links, Removal,
    Replacing, TreeOwners, WatchEvent, WriteMode,
};
use banger_core::guest::{Guest, GuestConnector as _, GuestError};
use banger_core::vmm::Accelerator;
use banger_guest::Connector;
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::agent_service_server::AgentServiceServer;
use banger_proto::guest::v1::file_service_server::{FileService, FileServiceServer};
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

use super::liar::{Liar, Script};
use super::{SHORT, deadlines};

/// What a guest says of files.
#[derive(Debug, Clone, Default)]
struct Lie {
    /// Of one file.
    file: Option<proto::FileInfo>,
    /// What a read is made of.
    read: Vec<proto::ReadFileResponse>,
    list: proto::ListFilesResponse,
    removed: i64,
    watch: Vec<proto::WatchFilesResponse>,
    /// It answers nothing, and ends no stream.
    hangs: bool,
    /// It refuses everything with this reason.
    refuses: Option<&'static str>,
}

struct FileLiar(Arc<Lie>);

type Answer<T> = Result<Response<T>, Status>;
type Told<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

impl FileLiar {
    async fn turn(&self) -> Result<(), Status> {
        if self.0.hangs {
            std::future::pending::<()>().await;
        }
        let Some(reason) = self.0.refuses else {
            return Ok(());
        };
        let mut metadata = MetadataMap::new();
        metadata.insert("banger-reason", MetadataValue::from_static(reason));
        let words = MetadataValue::from_bytes("\u{1b}[2J/etc".repeat(100).as_bytes());
        metadata.insert_bin("banger-subject-bin", words.clone());
        metadata.insert_bin("banger-detail-bin", words);
        Err(Status::with_metadata(Code::Internal, "no", metadata))
    }

    fn told<T: Send + 'static>(&self, messages: Vec<T>) -> Told<T> {
        let messages = stream::iter(messages.into_iter().map(Ok));
        match self.0.hangs {
            true => messages.chain(stream::pending()).boxed(),
            false => messages.boxed(),
        }
    }
}

#[tonic::async_trait]
impl FileService for FileLiar {
    type ReadFileStream = Told<proto::ReadFileResponse>;

    async fn read_file(&self, _: Request<proto::ReadFileRequest>) -> Answer<Self::ReadFileStream> {
        Ok(Response::new(self.told(self.0.read.clone())))
    }

    async fn write_file(
        &self,
        _: Request<Streaming<proto::WriteFileRequest>>,
    ) -> Answer<proto::WriteFileResponse> {
        self.turn().await?;
        let file = self.0.file.clone();
        Ok(Response::new(proto::WriteFileResponse { file }))
    }

    async fn stat_file(
        &self,
        _: Request<proto::StatFileRequest>,
    ) -> Answer<proto::StatFileResponse> {
        self.turn().await?;
        let file = self.0.file.clone();
        Ok(Response::new(proto::StatFileResponse { file }))
    }

    async fn list_files(
        &self,
        _: Request<proto::ListFilesRequest>,
    ) -> Answer<proto::ListFilesResponse> {
        self.turn().await?;
        Ok(Response::new(self.0.list.clone()))
    }

    async fn make_directory(
        &self,
        _: Request<proto::MakeDirectoryRequest>,
    ) -> Answer<proto::MakeDirectoryResponse> {
        self.turn().await?;
        let file = self.0.file.clone();
        Ok(Response::new(proto::MakeDirectoryResponse { file }))
    }

    async fn remove_file(
        &self,
        _: Request<proto::RemoveFileRequest>,
    ) -> Answer<proto::RemoveFileResponse> {
        self.turn().await?;
        let removed = self.0.removed;
        Ok(Response::new(proto::RemoveFileResponse { removed }))
    }

    async fn rename_file(
        &self,
        _: Request<proto::RenameFileRequest>,
    ) -> Answer<proto::RenameFileResponse> {
        self.turn().await?;
        let file = self.0.file.clone();
        Ok(Response::new(proto::RenameFileResponse { file }))
    }

    async fn set_file_attributes(
        &self,
        _: Request<proto::SetFileAttributesRequest>,
    ) -> Answer<proto::SetFileAttributesResponse> {
        self.turn().await?;
        let file = self.0.file.clone();
        Ok(Response::new(proto::SetFileAttributesResponse { file }))
    }

    async fn make_symlink(
        &self,
        _: Request<proto::MakeSymlinkRequest>,
    ) -> Answer<proto::MakeSymlinkResponse> {
        self.turn().await?;
        let file = self.0.file.clone();
        Ok(Response::new(proto::MakeSymlinkResponse { file }))
    }

    type WatchFilesStream = Told<proto::WatchFilesResponse>;

    async fn watch_files(
        &self,
        _: Request<proto::WatchFilesRequest>,
    ) -> Answer<Self::WatchFilesStream> {
        Ok(Response::new(self.told(self.0.watch.clone())))
    }
}

/// Both services of a guest on one connection.
#[derive(Clone)]
struct Both {
    agent: AgentServiceServer<Liar>,
    files: FileServiceServer<FileLiar>,
}

impl tower::Service<HttpRequest<Incoming>> for Both {
    type Response = HttpResponse<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Incoming>) -> Self::Future {
        match request.uri().path().contains("FileService") {
            true => tower::Service::call(&mut self.files, request),
            false => tower::Service::call(&mut self.agent, request),
        }
    }
}

async fn lie(lie: Lie) -> (Arc<dyn Guest>, JoinSet<()>) {
    let (ours, theirs) = duplex(1 << 16);
    let both = Both {
        agent: AgentServiceServer::new(Liar(Arc::new(Script {
            hangs: lie.hangs,
            ..Script::default()
        }))),
        files: FileServiceServer::new(FileLiar(Arc::new(lie))),
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
        path: b"/x".to_vec(),
    }
}

/// A file about which nothing is wrong.
fn file(path: &str) -> proto::FileInfo {
    proto::FileInfo {
        path: Bytes::copy_from_slice(path.as_bytes()),
        kind: proto::FileKind::File.into(),
        mode: 0o644,
        size: 3,
        allocated: 4096,
        mtime: Some(prost_types::Timestamp::default()),
        links: 1,
        ..proto::FileInfo::default()
    }
}

fn is_broken<T: std::fmt::Debug>(result: &Result<T, GuestError>) -> bool {
    matches!(result, Err(GuestError::Protocol { .. }))
}

#[tokio::test]
async fn each_lie_about_a_file_breaks_the_protocol() {
    let change = |change: fn(&mut proto::FileInfo)| {
        let mut file = file("/x");
        change(&mut file);
        Some(file)
    };
    let lies = [
        None,
        change(|file| file.kind = 0),
        change(|file| file.kind = 77),
        change(|file| file.mode = 0o10_000),
        change(|file| file.size = -1),
        change(|file| file.allocated = -1),
        change(|file| file.links = -1),
        change(|file| file.mtime = None),
        change(|file| {
            file.mtime = Some(prost_types::Timestamp {
                seconds: 0,
                nanos: -1,
            });
        }),
        change(|file| file.link_target = Bytes::from_static(b"/etc")),
        change(|file| file.kind = proto::FileKind::Symlink.into()),
        change(|file| {
            file.kind = proto::FileKind::Symlink.into();
            file.link_target = Bytes::from(vec![b'x'; 5000]);
        }),
        change(|file| file.user = "x".repeat(300)),
    ];
    for told in lies {
        let (guest, _tasks) = lie(Lie {
            file: told.clone(),
            removed: -1,
            ..Lie::default()
        })
        .await;
        let attributes = FileAttributes::default();
        let write = FileWrite {
            mode: WriteMode::Replace,
            attributes: attributes.clone(),
            make_parents: false,
        };
        let replacing = Replacing::Allowed;
        let removal = Removal {
            recursive: true,
            allow_missing: false,
        };
        let answers = [
            guest.stat_file(&place(), Links::Follow).await.map(drop),
            guest
                .write_file(&place(), &write, stream::empty().boxed())
                .await
                .map(drop),
            guest.make_directory(&place(), None, true).await.map(drop),
            guest
                .rename_file(&place(), b"/y", replacing)
                .await
                .map(drop),
            guest
                .set_file_attributes(&place(), Links::Keep, &attributes)
                .await
                .map(drop),
            guest
                .make_symlink(&place(), b"y", replacing)
                .await
                .map(drop),
            guest.remove_file(&place(), removal).await.map(drop),
        ];
        for answer in answers {
            assert!(is_broken(&answer), "{told:?} gave {answer:?}");
        }
    }
}

#[tokio::test]
async fn the_path_is_the_one_that_was_asked_for() {
    let (guest, _tasks) = lie(Lie {
        file: Some(file("/etc/shadow")),
        ..Lie::default()
    })
    .await;
    let found = guest.stat_file(&place(), Links::Follow).await.unwrap();
    assert_eq!(found.path, b"/x");
}

#[tokio::test]
async fn each_lie_in_a_list_breaks_the_protocol() {
    let listing = FileListing {
        depth: 2,
        limit: 3,
        after: b"b".to_vec(),
    };
    let list = |paths: &[&str], has_more| proto::ListFilesResponse {
        files: paths.iter().map(|path| file(path)).collect(),
        has_more,
    };
    for told in [
        list(&[], true),
        list(&["c", "d", "e", "f"], false),
        list(&["../x"], false),
        list(&["/x"], false),
        list(&[""], false),
        list(&["c/../x"], false),
        list(&["c//x"], false),
        list(&["c/d/e"], false),
        list(&["d", "c"], false),
        list(&["c", "c"], true),
        list(&["b"], true),
        list(&["a"], true),
    ] {
        let (guest, _tasks) = lie(Lie {
            list: told.clone(),
            ..Lie::default()
        })
        .await;
        let listed = guest.list_files(&place(), &listing).await;
        assert!(is_broken(&listed), "{told:?} gave {listed:?}");
    }
    let (guest, _tasks) = lie(Lie {
        list: list(&["b/x", "c", "c.d"], true),
        ..Lie::default()
    })
    .await;
    assert!(guest.list_files(&place(), &listing).await.is_ok());
}

#[tokio::test]
async fn content_comes_after_its_file_and_not_more_than_was_asked_for() {
    use proto::read_file_response::Message;
    let message = |message| proto::ReadFileResponse {
        message: Some(message),
    };
    let first = || message(Message::File(file("/x")));
    let data = |length: usize| message(Message::Data(Bytes::from(vec![0; length])));
    let nothing = proto::ReadFileResponse { message: None };
    let lies = [
        vec![],
        vec![data(1)],
        vec![nothing.clone()],
        vec![first(), first()],
        vec![first(), nothing],
        vec![first(), data(2), data(2)],
        vec![first(), data(2 << 20)],
    ];
    for told in lies {
        let (guest, _tasks) = lie(Lie {
            read: told.clone(),
            ..Lie::default()
        })
        .await;
        let range = FileRange {
            offset: 0,
            length: Some(3),
        };
        let last = match guest.read_file(&place(), range).await {
            Ok((_, content)) => content.collect::<Vec<_>>().await.pop().unwrap(),
            Err(error) => Err(error),
        };
        assert!(is_broken(&last), "{} messages gave {last:?}", told.len());
    }
}

#[tokio::test]
async fn each_lie_in_a_watch_breaks_the_protocol() {
    use proto::watch_files_response::Message;
    let started = |directories| Message::Started(proto::WatchStarted { directories });
    let event = |path: &str, kind: i32| {
        Message::Event(proto::FileEvent {
            kind,
            path: Bytes::copy_from_slice(path.as_bytes()),
            ..proto::FileEvent::default()
        })
    };
    for told in [
        vec![],
        vec![event("a", 1)],
        vec![started(1), started(1)],
        vec![started(u32::MAX)],
        vec![started(1), event("../x", 1)],
        vec![started(1), event("/x", 1)],
        vec![started(1), event("a", 0)],
        vec![started(1), event("a", 99)],
        vec![started(1), event("a", 1)],
    ] {
        let messages = told
            .iter()
            .cloned()
            .map(|message| proto::WatchFilesResponse {
                message: Some(message),
            });
        let (guest, _tasks) = lie(Lie {
            watch: messages.collect(),
            ..Lie::default()
        })
        .await;
        let events = guest.watch_files(&place(), true).await.unwrap();
        let last = events.collect::<Vec<_>>().await.pop().unwrap();
        assert!(is_broken(&last), "{told:?} gave {last:?}");
    }
}

#[tokio::test]
async fn changes_that_a_guest_lost_are_told_as_lost() {
    use proto::watch_files_response::Message;
    let told = [
        Message::Started(proto::WatchStarted { directories: 1 }),
        Message::Overflow(proto::WatchOverflow {}),
    ];
    let messages = told.map(|message| proto::WatchFilesResponse {
        message: Some(message),
    });
    let (guest, _tasks) = lie(Lie {
        watch: messages.into(),
        ..Lie::default()
    })
    .await;
    let mut events = guest.watch_files(&place(), true).await.unwrap();
    assert!(matches!(
        events.next().await,
        Some(Ok(WatchEvent::Started { .. }))
    ));
    assert!(matches!(
        events.next().await,
        Some(Ok(WatchEvent::Overflow))
    ));
}

#[tokio::test]
async fn every_wait_for_files_has_a_limit() {
    let (guest, _tasks) = lie(Lie {
        hangs: true,
        ..Lie::default()
    })
    .await;
    let write = FileWrite {
        mode: WriteMode::Append,
        attributes: FileAttributes::default(),
        make_parents: false,
    };
    let listing = FileListing {
        depth: 1,
        limit: 1,
        after: Vec::new(),
    };
    let removal = Removal {
        recursive: true,
        allow_missing: true,
    };
    let owners = TreeOwners::User;
    let nothing = || stream::empty().boxed();
    // More than the channel and its windows hold: the guest reads none of it.
    let much = stream::iter((0..64).map(|_| Bytes::from(vec![0; 1 << 20]))).boxed();
    let answers = [
        guest
            .read_file(&place(), FileRange::default())
            .await
            .map(drop),
        guest
            .write_file(&place(), &write, nothing())
            .await
            .map(drop),
        guest.write_file(&place(), &write, much).await.map(drop),
        guest.stat_file(&place(), Links::Follow).await.map(drop),
        guest.list_files(&place(), &listing).await.map(drop),
        guest.remove_file(&place(), removal).await.map(drop),
        guest
            .rename_file(&place(), b"/y", Replacing::Allowed)
            .await
            .map(drop),
        guest
            .upload_files(&place(), true, owners, stream::empty().boxed())
            .await
            .map(drop),
        guest
            .watch_files(&place(), true)
            .await
            .unwrap()
            .next()
            .await
            .unwrap()
            .map(drop),
        guest
            .download_files(&place())
            .await
            .unwrap()
            .next()
            .await
            .unwrap()
            .map(drop),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let is_late = matches!(answer, Err(GuestError::Deadline { limit: SHORT, .. }));
        assert!(is_late, "{number}: {answer:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_judged_anew_and_its_words_are_bounded() {
    let refused = async |reason| {
        let (guest, _tasks) = lie(Lie {
            refuses: Some(reason),
            ..Lie::default()
        })
        .await;
        guest.stat_file(&place(), Links::Follow).await.unwrap_err()
    };
    let GuestError::File {
        problem,
        path,
        detail,
    } = refused("FILE_NOT_FOUND").await
    else {
        panic!("no problem of a file");
    };
    assert_eq!(problem, FileProblem::NotFound);
    for words in [path, detail] {
        assert!(words.chars().count() <= 256 && !words.chars().any(char::is_control));
    }
    let user = refused("USER_NOT_FOUND").await;
    // The guest does not get to say who was asked for.
    assert_eq!(user, GuestError::UnknownUser { user: "app".into() });
    let unknown = refused("FILE_SAYS_WHAT_IT_LIKES").await;
    assert!(matches!(unknown, GuestError::Refused { .. }), "{unknown:?}");
}

/// The words of both ends are the same.
#[test]
fn both_ends_have_the_same_problems() {
    use banger_agent::refusal::Problem;
    for problem in [
        Problem::NotFound,
        Problem::Exists,
        Problem::AccessDenied,
        Problem::IsDirectory,
        Problem::NotDirectory,
        Problem::NotRegular,
        Problem::NotEmpty,
        Problem::LinkLoop,
        Problem::NoSpace,
        Problem::ReadOnly,
        Problem::NameTooLong,
        Problem::Busy,
        Problem::OtherFileSystem,
        Problem::Unsupported,
        Problem::TooLarge,
        Problem::Changed,
        Problem::TooDeep,
        Problem::TooManyWatches,
        Problem::Other,
    ] {
        assert!(
            FileProblem::from_reason(problem.reason()).is_some(),
            "{problem:?}"
        );
    }
}
