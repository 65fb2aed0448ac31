//! What the SDK says of futures and streams that are dropped, row by row: with a daemon that has an agent as real VMs
//! have it where that matters.

use std::fs;
use std::future::IntoFuture;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use banger_sdk::types::operation;
use banger_sdk::types::vm::State;
use banger_sdk::{
    Client, Command, Error, Event, Host, PackedTree, Process, ReadFrom, Source, TunnelTarget,
};
use banger_vmm::fake::Faults;
use futures::{FutureExt as _, TryStreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::rig::{PATIENCE, Rig, vmlinux};
use crate::stop::until;
use crate::workspaces::{Scene, git, repository};

/// More than any buffer on the way of a file.
const MUCH: usize = 8 << 20;

async fn client(socket: &Path) -> Client {
    Client::connect(Host::socket(socket)).await.unwrap()
}

async fn of_rig(rig: &Rig) -> Client {
    client(&rig.dir.path().join("s")).await
}

/// Polls what does not end until `holds`, and drops it.
async fn drop_when<T>(
    what: impl IntoFuture<Output = T>,
    reached: &str,
    holds: impl AsyncFnMut() -> bool,
) {
    tokio::select! {
        _ = what.into_future() => panic!("it ended before {reached}"),
        () = until(reached, holds) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_goes_on_as_an_operation_that_a_repeat_joins() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let client = of_rig(&rig).await;
    // Held until there is another.
    rig.host.set_faults(Faults {
        launches_together: 2,
        ..Faults::default()
    });
    let id = Uuid::new_v4();
    let create = |name: &str| {
        client
            .vms()
            .create("web:1")
            .name(name)
            .memory_mib(96)
            .disk_mib(64)
    };
    drop_when(
        create("web").request_id(id),
        "the VM is there",
        async || client.vms().get("web").await.is_ok(),
    )
    .await;
    let mut operations: Vec<_> = client.operations().list().try_collect().await.unwrap();
    operations.retain(|each| each.state() == operation::State::Running);
    assert_eq!(operations.len(), 1, "{operations:?}");
    let mut watched = client.operations().watch(&operations[0].id);
    create("other").await.unwrap();
    let mut last = None;
    while let Some(told) = watched.try_next().await.unwrap() {
        last = Some(told.state());
    }
    assert_eq!(last, Some(operation::State::Succeeded));
    let joined = create("web").request_id(id).await.unwrap();
    assert_eq!(joined.state(), State::Running);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_is_dropped_can_be_cancelled() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let client = of_rig(&rig).await;
    rig.host.set_faults(Faults {
        launches_together: 2,
        ..Faults::default()
    });
    let creating = client
        .vms()
        .create("web:1")
        .name("web")
        .memory_mib(96)
        .disk_mib(64);
    drop_when(creating, "the VM is there", async || {
        client.vms().get("web").await.is_ok()
    })
    .await;
    let mut operations: Vec<_> = client.operations().list().try_collect().await.unwrap();
    operations.retain(|each| each.state() == operation::State::Running);
    let ended = client.operations().cancel(&operations[0].id).await.unwrap();
    assert_eq!(ended.state(), operation::State::Failed);
    until("it is gone", async || {
        client.vms().get("web").await.is_err()
    })
    .await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_import_that_is_still_sent_there_is_nothing() {
    let rig = Rig::start().await;
    let client = of_rig(&rig).await;
    let tmp = rig.dir.path().join("state/tmp");
    // Beside what is always there.
    let uploads = || {
        let names = names(&tmp).into_iter();
        names.filter(|name| name.starts_with("upload-")).count()
    };
    // At the instant at which it is begun, which is not always the same one.
    for _ in 0..30 {
        let (source, held) = stalling(vmlinux());
        let importing = client
            .kernels()
            .import_file(Source::reader(source), None)
            .name("k");
        drop_when(importing, "some has come", async || uploads() == 1).await;
        until("it is cleared away", async || uploads() == 0).await;
        drop(held);
    }
    let operations: Vec<_> = client.operations().list().try_collect().await.unwrap();
    assert!(operations.is_empty(), "{operations:?}");
    let kernels: Vec<_> = client.kernels().list().try_collect().await.unwrap();
    assert!(kernels.is_empty(), "{kernels:?}");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_found_out_by_its_request_id() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let client = of_rig(&rig).await;
    // The agent says nothing, so that the stop takes as long as its first rung has.
    rig.is_mute.store(true, Ordering::Relaxed);
    let id = Uuid::new_v4();
    drop_when(
        client.vms().stop("web").request_id(id),
        "it stops",
        async || client.vms().get("web").await.unwrap().state() == State::Stopping,
    )
    .await;
    let stopped = client.vms().stop("web").request_id(id).await.unwrap();
    assert_eq!(stopped.state(), State::Stopped);
    rig.is_mute.store(false, Ordering::Relaxed);
    client.vms().start("web").await.unwrap();
    // It is the answer to the first, and stops nothing again.
    client.vms().stop("web").request_id(id).await.unwrap();
    assert_eq!(
        client.vms().get("web").await.unwrap().state(),
        State::Running
    );
    rig.stopped().await;
}

/// What is at the other end of the daemon of a scene.
async fn of_scene(scene: &Scene) -> Client {
    client(&scene.config.socket).await
}

/// The next output of a process, as text.
async fn said(process: &mut Process) -> String {
    let next = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(Event::Output(output)) = process.next().await.unwrap() {
                return output.data;
            }
        }
    });
    String::from_utf8(next.await.expect("it says something").to_vec()).unwrap()
}

fn lives(process: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat"));
    // A zombie is one whose parent has not looked.
    status.is_ok_and(|status| !status.rsplit(')').next().unwrap().starts_with(" Z"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_exec_is_killed_with_its_children() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let client = of_scene(&scene).await;
    let script = "sleep 600 & echo $$ $!; wait";
    let command = Command::new(["sh", "-c", script]);
    let mut process = client.sessions().exec("web", command).await.unwrap();
    let numbers = said(&mut process).await;
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    assert!(numbers.len() == 2 && numbers.iter().all(|number| lives(number)));
    drop(process);
    until("all are killed", async || {
        !numbers.iter().any(|number| lives(number))
    })
    .await;
    scene.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_attached_to_goes_on() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let client = of_scene(&scene).await;
    let script = "echo first; read go; echo second; read go";
    let command = Command::new(["sh", "-c", script]).stdin();
    let session = client.sessions().start("web", command).await.unwrap();
    let mut process = client.sessions().attach(&session.id).await.unwrap();
    assert_eq!(said(&mut process).await, "first\n");
    let offset = process.output_offset();
    drop(process);
    let attach = client.sessions().attach(&session.id);
    let mut again = attach.from(ReadFrom::Offset(offset)).await.unwrap();
    again.input().write("go\n").await.unwrap();
    assert_eq!(said(&mut again).await, "second\n");
    client.sessions().delete(&session.id).await.unwrap();
    scene.stopped().await;
}

/// A source that gives `content` and then nothing, until what is returned is dropped.
fn stalling(content: Vec<u8>) -> (std::io::PipeReader, mpsc::Sender<()>) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (held, until) = mpsc::channel();
    std::thread::spawn(move || {
        // The reader goes with its call.
        let _ = writer.write_all(&content);
        let _ = until.recv();
    });
    (reader, held)
}

/// What is not made shorter on its way.
fn much() -> Vec<u8> {
    std::iter::repeat_with(|| fastrand::u8(..))
        .take(4 * MUCH)
        .collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_file_that_is_being_written_there_is_nothing() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let client = of_scene(&scene).await;
    let work = scene.guest("root/work");
    fs::create_dir(&work).unwrap();
    fs::write(work.join("old"), "as it was").unwrap();
    for name in ["new", "old"] {
        let (source, held) = stalling(vec![7; MUCH]);
        let (tell, told) = mpsc::channel();
        let files = client.files("web");
        let writing = files
            .write(format!("/root/work/{name}"))
            .progress(move |bytes| tell.send(bytes).unwrap())
            .from(Source::reader(source));
        drop_when(writing, "some is there", async || told.try_recv().is_ok()).await;
        until("the rest is cleared away", async || names(&work) == ["old"]).await;
        assert_eq!(fs::read(work.join("old")).unwrap(), b"as it was");
        drop(held);
    }
    scene.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_tree_there_is_what_was_whole_before() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let client = of_scene(&scene).await;
    let mut tar = tar::Builder::new(Vec::new());
    for (name, size) in [("first", 3), ("second", MUCH)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &vec![7; size][..])
            .unwrap();
    }
    let mut bytes = tar.into_inner().unwrap();
    bytes.truncate(MUCH / 2);
    let (source, held) = stalling(bytes);
    let work = scene.guest("root/work");
    fs::create_dir(&work).unwrap();
    let uploading = client
        .files("web")
        .upload(PackedTree::archive(source), "/root/work");
    drop_when(uploading, "one is whole", async || {
        work.join("first").exists()
    })
    .await;
    until("the rest is cleared away", async || {
        names(&work) == ["first"]
    })
    .await;
    assert_eq!(fs::read(work.join("first")).unwrap(), [7; 3]);
    drop(held);
    scene.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_workspace_there_is_nothing_on_either_side() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let client = of_scene(&scene).await;
    let from = scene.dir.path().join("from");
    repository(&from);
    fs::write(from.join("much"), much()).unwrap();
    let state = scene.dir.path().join("state-of-the-client");
    let workspace = client.workspace("web", "/root/work");
    let prepare = || workspace.prepare(&from).state_directory(&state);
    dropped_at_first_progress("prepare", |tell| prepare().progress(tell)).await;
    until("nothing of it is there", async || {
        names(&scene.guest("root")).is_empty()
    })
    .await;

    prepare().await.unwrap();
    fs::write(scene.guest("root/work/more"), much()).unwrap();
    let refs = || git(&from, &["for-each-ref"]);
    let known = (names(&from), refs());
    dropped_at_first_progress("export", |tell| {
        workspace
            .export(&from)
            .state_directory(&state)
            .progress(tell)
    })
    .await;
    until("nothing of it is left here", async || {
        names(&from.join(".git/banger")).is_empty()
    })
    .await;
    assert_eq!((names(&from), refs()), known);
    scene.stopped().await;
}

/// Drops a call when the first of its bytes has moved.
async fn dropped_at_first_progress<F, T>(
    what: &str,
    call: impl FnOnce(Box<dyn FnMut(u64) + Send>) -> F,
) where
    F: IntoFuture<Output = Result<T, Error>>,
{
    let (tell, told) = mpsc::channel();
    let mut calling = Box::pin(
        call(Box::new(move |bytes| {
            let _ = tell.send(bytes);
        }))
        .into_future(),
    );
    let waiting = std::future::poll_fn(|context| match calling.poll_unpin(context) {
        std::task::Poll::Ready(_) => panic!("{what} ended before its first byte"),
        std::task::Poll::Pending if told.try_recv().is_ok() => std::task::Poll::Ready(()),
        std::task::Poll::Pending => std::task::Poll::Pending,
    });
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("it begins");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_reset_at_both_ends() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let client = of_scene(&scene).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = TunnelTarget::port(listener.local_addr().unwrap().port());
    let mut tunnel = client.tunnels().open("web", target).await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    tunnel.write_all(b"x").await.unwrap();
    assert_eq!(peer.read_u8().await.unwrap(), b'x');
    drop(tunnel);
    let read = tokio::time::timeout(PATIENCE, peer.read_u8()).await;
    let error = read.expect("it is told").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    scene.stopped().await;
}
