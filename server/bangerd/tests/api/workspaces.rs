//! Workspaces through the API: a real agent behind the daemon, the machine's git, and real repositories.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use banger_core::workspace::WorkspaceProblem;
use banger_guest::{Connector, Deadlines};
use banger_proto::v1;
use banger_proto::v1::export_workspace_response::Message as Exported;
use banger_proto::v1::prepare_workspace_request::Message as Sent;
use banger_proto::v1::prepare_workspace_response::Message as Told;
use banger_proto::v1::vm_service_client::VmServiceClient;
use banger_proto::v1::workspace_service_client::WorkspaceServiceClient;
use banger_sdk::Client;
use banger_vmm::FakeHost;
use banger_workspace::command::{Cancel, HostLauncher};
use banger_workspace::guest::{Export, Place, export};
use banger_workspace::wire::encoding::{Encoder, decode, needs_decoding};
use banger_workspace::wire::{Content, Encoding, Part, Piece, part};
use bangerd::config::Config;
use bangerd::daemon::{self, DaemonError};
use bangerd::listen::Outside;
use prost::Message;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::real_agent::real_agent;
use crate::rig::{Rig, config, connect, creation, drain, furnish};

/// How long one step may take on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// A daemon with a VM `web`, whose agent is real.
pub(crate) struct Scene {
    pub(crate) dir: TempDir,
    host: FakeHost,
    pub(crate) config: Config,
    stop: CancellationToken,
    daemon: JoinHandle<Result<(), DaemonError>>,
    channel: Channel,
}

impl Scene {
    /// None where this machine cannot run it.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_from_outside(|_, _| Outside::default()).await
    }

    /// With a daemon that is given more than a configuration.
    pub(crate) async fn start_from_outside(
        change: impl FnOnce(&TempDir, &mut Config) -> Outside,
    ) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED workspaces: only root can be several users");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let guest = dir.path().join("guest");
        fs::create_dir_all(guest.join("etc")).unwrap();
        fs::create_dir_all(guest.join("root")).unwrap();
        fs::write(guest.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        let tasks = TaskTracker::new();
        let mut config = config(&dir);
        config.shutdown_grace = "5s".parse().unwrap();
        fs::write(&config.agent, "an agent").unwrap();
        let outside = change(&dir, &mut config);
        let host = FakeHost::new(real_agent(&guest, &tasks));
        let stop = CancellationToken::new();
        let daemon = serve(&config, &host, outside, &stop);
        let channel = connect(&config.socket).await;
        furnish(&channel).await;
        let mut vms = VmServiceClient::new(channel.clone());
        let answers = vms.create_vm(creation("web")).await.unwrap().into_inner();
        drain(answers).await.unwrap();
        Some(Self {
            dir,
            host,
            config,
            stop,
            daemon,
            channel,
        })
    }

    /// The daemon ends and another one begins; the VM goes on.
    async fn restart(&mut self) {
        self.stop.cancel();
        let ended = timeout(PATIENCE, &mut self.daemon).await;
        ended.unwrap().unwrap().unwrap();
        self.stop = CancellationToken::new();
        self.daemon = serve(&self.config, &self.host, Outside::default(), &self.stop);
        self.channel = connect(&self.config.socket).await;
    }

    fn client(&self) -> WorkspaceServiceClient<Channel> {
        WorkspaceServiceClient::new(self.channel.clone()).max_decoding_message_size(16 << 20)
    }

    /// What is at this path of the guest.
    pub(crate) fn guest(&self, path: &str) -> PathBuf {
        self.dir.path().join("guest").join(path)
    }

    async fn export(&self, path: &str) -> Result<Vec<Part>, Status> {
        self.export_encoded(path, &[]).await
    }

    /// By whom these encodings are taken.
    async fn export_encoded(&self, path: &str, accepted: &[i32]) -> Result<Vec<Part>, Status> {
        let request = v1::ExportWorkspaceRequest {
            vm: "web".into(),
            path: path.into(),
            accepted_encodings: accepted.to_vec(),
            ..v1::ExportWorkspaceRequest::default()
        };
        let answers = self.client().export_workspace(request).await?.into_inner();
        let answers = timeout(PATIENCE, drain(answers)).await.unwrap()?;
        let parts = answers
            .into_iter()
            .filter_map(|answer| match answer.message {
                Some(Exported::Part(part)) => Some(part),
                _ => None,
            });
        Ok(parts.collect())
    }

    pub(crate) async fn stopped(self) {
        self.stop.cancel();
        drop(self.channel);
        let ended = timeout(PATIENCE, self.daemon).await;
        ended.unwrap().unwrap().unwrap();
    }
}

fn serve(
    config: &Config,
    host: &FakeHost,
    outside: Outside,
    stop: &CancellationToken,
) -> JoinHandle<Result<(), DaemonError>> {
    let connector = Arc::new(Connector::new(Deadlines::default()));
    let driver = Arc::new(host.driver());
    let run = daemon::run_with(config.clone(), driver, connector, outside, stop.clone());
    TaskTracker::new().spawn(run)
}

pub(crate) fn git(directory: &Path, words: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com"])
        .args(words)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {words:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

pub(crate) fn repository(root: &Path) {
    fs::create_dir_all(root).unwrap();
    git(root, &["init", "-q", "-b", "main"]);
    fs::write(root.join("a"), "one\n").unwrap();
    git(root, &["add", "."]);
    git(root, &["commit", "-q", "-m", "first"]);
    fs::write(root.join("a"), "two\n").unwrap();
    fs::write(root.join("new"), vec![9; 3_000_000]).unwrap();
}

async fn told(root: &Path) -> Vec<Part> {
    let place = Place {
        launcher: Arc::new(HostLauncher),
        cancel: Cancel::default(),
        path: root.into(),
    };
    let collect = move || {
        let mut parts = Vec::new();
        export(&place, &Export::default(), &mut |part| {
            parts.push(part);
            true
        })
        .unwrap();
        parts
    };
    tokio::task::spawn_blocking(collect).await.unwrap()
}

fn start(path: &str) -> v1::PrepareWorkspaceStart {
    v1::PrepareWorkspaceStart {
        vm: "web".into(),
        path: path.into(),
        author_name: "Ann".into(),
        ..v1::PrepareWorkspaceStart::default()
    }
}

fn sent(message: Sent) -> v1::PrepareWorkspaceRequest {
    v1::PrepareWorkspaceRequest {
        message: Some(message),
    }
}

/// The parts before the contents, and the rest.
fn split(parts: Vec<Part>) -> (Vec<Part>, Vec<Part>) {
    parts.into_iter().partition(|part| {
        !matches!(
            part.part,
            Some(Piece::Content(_) | Piece::Note(_) | Piece::End(_))
        )
    })
}

async fn next(
    answers: &mut Streaming<v1::PrepareWorkspaceResponse>,
) -> Result<Option<Told>, Status> {
    let answer = timeout(PATIENCE, answers.message()).await.unwrap()?;
    Ok(answer.and_then(|answer| answer.message))
}

/// Carries the parts in as a client does.
async fn prepare(
    client: &mut WorkspaceServiceClient<Channel>,
    start: v1::PrepareWorkspaceStart,
    parts: Vec<Part>,
) -> Result<v1::PreparedWorkspace, Status> {
    let (sender, receiver) = mpsc::channel(4);
    sender.send(sent(Sent::Start(start))).await.unwrap();
    let answers = client.prepare_workspace(ReceiverStream::new(receiver));
    let mut answers = answers.await?.into_inner();
    let (manifest, contents) = split(parts);
    let mut contents = Some((sender.clone(), contents));
    TaskTracker::new().spawn(async move {
        for part in manifest {
            let _ = sender.send(sent(Sent::Part(part))).await;
        }
    });
    let mut needed = BTreeSet::new();
    while let Some(message) = next(&mut answers).await? {
        match message {
            Told::Known(known) => assert_eq!(known.encodings, [1]),
            Told::Needed(some) => {
                needed.extend(some.entries);
                if let Some((sender, contents)) = contents.take_if(|_| some.is_last) {
                    let wanted = needed.clone();
                    TaskTracker::new().spawn(async move {
                        for part in contents {
                            let is_wanted = match &part.part {
                                Some(Piece::Content(content)) => wanted.contains(&content.entry),
                                _ => true,
                            };
                            if is_wanted {
                                let _ = sender.send(sent(Sent::Part(part))).await;
                            }
                        }
                    });
                }
            }
            Told::Prepared(prepared) => return Ok(prepared),
            _ => {}
        }
    }
    panic!("a preparation ends with `prepared`")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_workspace_was_made_from_outlives_the_daemon_and_the_guests_memory() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    let from = scene.dir.path().join("from");
    repository(&from);
    let id = "01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f8e";
    let start = v1::PrepareWorkspaceStart {
        request_id: id.into(),
        ..start("project/")
    };
    let parts = told(&from).await;
    let made = prepare(&mut scene.client(), start.clone(), parts.clone()).await;
    let made = made.unwrap();
    let guest = scene.guest("root/project");
    assert_eq!(fs::read(guest.join("a")).unwrap(), b"two\n");
    assert_eq!(
        git(&guest, &["rev-parse", "HEAD"]),
        git(&from, &["rev-parse", "HEAD"])
    );
    // A repeat is told what was done, and nothing is sent.
    let again = prepare(&mut scene.client(), start, Vec::new())
        .await
        .unwrap();
    assert_eq!(again.state, made.state);

    git(&guest, &["commit", "-q", "-a", "-m", "in the VM"]);
    scene.restart().await;
    let parts = scene.export("project").await.unwrap();
    let commits = parts
        .iter()
        .filter(|part| matches!(part.part, Some(Piece::Pack(_))));
    assert!(commits.count() > 0);
    let status = v1::GetWorkspaceStatusRequest {
        vm: "web".into(),
        path: "project".into(),
        ..v1::GetWorkspaceStatusRequest::default()
    };
    let status = scene.client().get_workspace_status(status).await.unwrap();
    let status = status.into_inner();
    let head = git(&from, &["rev-parse", "HEAD"]);
    assert_eq!(status.base.unwrap().repositories[0].head_commit, head);
    assert_eq!(status.status.unwrap().repositories[0].ahead_count, 1);

    // The guest's own memory is gone: all files are told, and what is missing.
    fs::remove_dir_all(guest.join(".git")).unwrap();
    let parts = scene.export("project").await.unwrap();
    let is_loss = |part: &Part| matches!(&part.part, Some(Piece::Note(note)) if note.is_loss);
    assert!(parts.iter().any(is_loss));
    scene.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_in_a_vm_is_replaced_only_when_that_is_asked_for() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let from = scene.dir.path().join("from");
    repository(&from);
    let parts = told(&from).await;
    let mut client = scene.client();
    prepare(&mut client, start("/work"), parts.clone())
        .await
        .unwrap();
    fs::write(scene.guest("work/done"), "in the VM").unwrap();
    let refused = prepare(&mut client, start("/work"), parts.clone()).await;
    let refused = refused.unwrap_err();
    crate::rig::assert_refused(
        &refused,
        Code::FailedPrecondition,
        "WORKSPACE_HAS_WORK",
        None,
    );
    assert!(scene.guest("work/done").exists());

    // What was exported and kept may go.
    let exported = scene.export("/work").await.unwrap();
    let Some(Piece::End(end)) = &exported.last().unwrap().part else {
        panic!("an export ends with `end`")
    };
    let kept = v1::PrepareWorkspaceStart {
        replaces_state: end.state.clone(),
        ..start("/work")
    };
    prepare(&mut client, kept, parts.clone()).await.unwrap();
    assert!(!scene.guest("work/done").exists());
    fs::write(scene.guest("work/done"), "again").unwrap();
    let overwrite = v1::PrepareWorkspaceStart {
        overwrite: true,
        ..start("/work")
    };
    prepare(&mut client, overwrite, parts).await.unwrap();
    assert!(!scene.guest("work/done").exists());
    scene.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_was_cloned_in_the_vm_comes_since_a_commit() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let here = scene.dir.path().join("here");
    repository(&here);
    git(&here, &["add", "."]);
    git(&here, &["commit", "-q", "-m", "second"]);
    git(&here, &["branch", "start"]);
    let guest = scene.guest("root/app");
    let (from, to) = (here.to_str().unwrap(), guest.to_str().unwrap());
    git(scene.dir.path(), &["clone", "-q", from, to]);
    fs::write(guest.join("a"), "three\n").unwrap();
    git(&guest, &["commit", "-q", "-a", "-m", "in the VM"]);
    fs::write(guest.join("open"), "open\n").unwrap();
    let theirs = git(&guest, &["rev-parse", "HEAD"]);
    // Which the VM has not.
    git(&here, &["commit", "-q", "--allow-empty", "-m", "later"]);

    let host = format!("unix://{}", scene.config.socket.display());
    let client = Client::connect(host.parse().unwrap()).await.unwrap();
    let workspace = client.workspace("web", "app");
    for (since, ahead) in [("start", 1), ("main", 3)] {
        let (status, _) = workspace.status_since(&here, since).await.unwrap();
        let told = &status.status.repositories[0];
        assert_eq!(told.new_commit_count, 1, "{since}");
        assert_eq!(told.ahead_count, ahead, "{since}");
        assert_eq!(told.untracked_count, 1, "{since}");
        let landed = workspace.export(&here).since(since).await.unwrap();
        assert!(!landed.has_loss());
        assert_eq!(landed.repositories[0].head, theirs);
        let open = git(&here, &["show", "refs/banger/web/state/tree:open"]);
        assert_eq!(open, "open");
    }
    let refused = workspace.export(&here).since("nothing").await.unwrap_err();
    assert_eq!(refused.reason(), "REVISION_UNKNOWN");
    let refused = workspace.status_since(&here, "nothing").await.unwrap_err();
    assert_eq!(refused.reason(), "REVISION_UNKNOWN");
    let refused = workspace.status_since(scene.dir.path(), "start").await;
    assert_eq!(refused.unwrap_err().reason(), "NO_REPOSITORY");
    drop((client, workspace));
    scene.stopped().await;
}

/// Replaces the contents of `parts`.
fn with_contents(parts: &[Part], mut change: impl FnMut(&mut Content)) -> Vec<Part> {
    let mut changed = parts.to_vec();
    for part in &mut changed {
        if let Some(Piece::Content(content)) = &mut part.part {
            change(content);
        }
    }
    changed
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_are_encoded_between_daemon_and_caller_and_nowhere_else() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let from = scene.dir.path().join("from");
    repository(&from);
    let plain = told(&from).await;
    let mut encoder = Encoder::new(Encoding::Zlib);
    let mut encoded = plain.clone();
    encoded.iter_mut().for_each(|part| encoder.encode(part));
    let size = |parts: &[Part]| parts.iter().map(Message::encoded_len).sum::<usize>();
    assert!(size(&encoded) * 10 < size(&plain));
    // The agent, which knows of no encoding, takes it.
    let mut client = scene.client();
    prepare(&mut client, start("/work"), encoded.clone())
        .await
        .unwrap();
    let guest = scene.guest("work");
    assert_eq!(fs::read(guest.join("new")).unwrap(), vec![9; 3_000_000]);
    assert_eq!(fs::read(guest.join("a")).unwrap(), b"two\n");

    // And whoever asks for it gets what came so; nobody else, and not by encodings that are not known.
    let is_encoded = |parts: &[Part]| parts.iter().any(needs_decoding);
    let expected = scene.export("/work").await.unwrap();
    assert!(!is_encoded(&expected));
    let unknown = scene.export_encoded("/work", &[0, 2, -1]).await.unwrap();
    assert!(!is_encoded(&unknown));
    let mut parts = scene.export_encoded("/work", &[2, 1]).await.unwrap();
    assert!(is_encoded(&parts));
    assert!(size(&parts) * 10 < size(&expected));
    for part in &mut parts {
        decode(part).unwrap();
    }
    assert_eq!(parts, expected);
    scene.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encodings_that_lie_are_refused_and_change_nothing() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let from = scene.dir.path().join("from");
    repository(&from);
    let parts = told(&from).await;
    let zlib = |data: &[u8]| {
        let mut part = part(Piece::Content(Content {
            data: data.to_vec().into(),
            ..Content::default()
        }));
        Encoder::new(Encoding::Zlib).encode(&mut part);
        match part.part {
            Some(Piece::Content(content)) => content.data.to_vec(),
            _ => panic!("a content stays one"),
        }
    };
    let whole = zlib(&[9; 4096]);
    let half = &whole[..whole.len() / 2];
    let lies = [
        ("a bomb", zlib(&vec![0; 64 << 20]), 1, "WORKSPACE_TOO_LARGE"),
        ("nothing", Vec::new(), 1, "WORKSPACE_SNAPSHOT_INVALID"),
        ("cut", half.to_vec(), 1, "WORKSPACE_SNAPSHOT_INVALID"),
        ("garbage", vec![0xff; 500], 1, "WORKSPACE_SNAPSHOT_INVALID"),
        ("two", whole.repeat(2), 1, "WORKSPACE_SNAPSHOT_INVALID"),
        ("unknown", whole.clone(), 2, "WORKSPACE_SNAPSHOT_INVALID"),
        // More than its entry says.
        (
            "longer",
            zlib(&[9; 1 << 20]),
            1,
            "WORKSPACE_SNAPSHOT_INVALID",
        ),
    ];
    for (name, data, encoding, reason) in lies {
        let mut first = true;
        let lying = with_contents(&parts, |content| {
            if std::mem::take(&mut first) {
                content.data = data.clone().into();
                content.encoding = encoding;
            }
        });
        let refused = prepare(&mut scene.client(), start("/work"), lying).await;
        let refused = refused.expect_err(name);
        let details = tonic_types::StatusExt::get_details_error_info(&refused).unwrap();
        assert_eq!(details.reason, reason, "{name}: {refused:?}");
        assert!(!scene.guest("work").exists(), "{name}");
    }
    prepare(&mut scene.client(), start("/work"), parts)
        .await
        .unwrap();
    scene.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_break_off_leave_nothing_behind() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let from = scene.dir.path().join("from");
    repository(&from);
    let parts = told(&from).await;
    for length in 0..parts.len() {
        let start = sent(Sent::Start(start("/work")));
        let messages = parts[..length]
            .iter()
            .cloned()
            .map(|part| sent(Sent::Part(part)));
        let messages: Vec<_> = [start].into_iter().chain(messages).collect();
        let mut client = scene.client();
        let answers = client.prepare_workspace(tokio_stream::iter(messages)).await;
        let status = drain(answers.unwrap().into_inner()).await.unwrap_err();
        crate::rig::assert_refused(&status, Code::Cancelled, "WORKSPACE_CUT", None);
    }
    assert!(!scene.guest("work").exists());
    prepare(&mut scene.client(), start("/work"), parts)
        .await
        .unwrap();
    let left: Vec<_> = fs::read_dir(scene.guest("")).unwrap().collect();
    assert_eq!(left.len(), 3, "{left:?}");
    scene.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_with_the_field() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let mut client = WorkspaceServiceClient::new(rig.channel.clone());
    let digest = bytes::Bytes::from_static(b"short");
    let cases: [(&str, v1::PrepareWorkspaceStart); 6] = [
        (
            "start.vm",
            v1::PrepareWorkspaceStart {
                vm: String::new(),
                ..start("/w")
            },
        ),
        ("start.path", start("")),
        ("start.path", start("/a/../b")),
        (
            "start.replaces_state",
            v1::PrepareWorkspaceStart {
                replaces_state: digest,
                ..start("/w")
            },
        ),
        (
            "start.author_name",
            v1::PrepareWorkspaceStart {
                author_name: "a\nb".into(),
                ..start("/w")
            },
        ),
        (
            "start.request_id",
            v1::PrepareWorkspaceStart {
                request_id: "x".into(),
                ..start("/w")
            },
        ),
    ];
    for (field, start) in cases {
        let messages = tokio_stream::iter([sent(Sent::Start(start))]);
        let refused = client.prepare_workspace(messages).await.unwrap_err();
        crate::rig::assert_refused(
            &refused,
            Code::InvalidArgument,
            "INVALID_FIELD",
            Some(field),
        );
    }
    let part = tokio_stream::iter([sent(Sent::Part(Part::default()))]);
    let refused = client.prepare_workspace(part).await.unwrap_err();
    crate::rig::assert_refused(
        &refused,
        Code::InvalidArgument,
        "INVALID_FIELD",
        Some("start"),
    );
    for problem in WorkspaceProblem::ALL {
        let request = v1::ExportWorkspaceRequest {
            vm: "web".into(),
            path: format!("/{}", problem.reason()),
            ..v1::ExportWorkspaceRequest::default()
        };
        let refused = client.export_workspace(request).await.unwrap_err();
        let details = tonic_types::StatusExt::get_details_error_info(&refused).unwrap();
        assert_eq!(details.reason, problem.reason());
    }
    rig.stopped().await;
}
