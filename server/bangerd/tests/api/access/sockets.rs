//! The unix socket and the users of this host: who they are is the kernel's word, and none takes it from the others.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_core::Role;
use banger_proto::v1;
use banger_proto::v1::host_service_client::HostServiceClient;
use banger_proto::v1::kernel_service_client::KernelServiceClient;
use banger_proto::v1::vm_service_client::VmServiceClient;
use hyper_util::rt::TokioIo;
use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

use super::audit::until;
use crate::rig::{PATIENCE, Rig, assert_refused, creation};

/// Users of no host.
const ANN: u32 = 3_999_999_997;
const BOB: u32 = 3_999_999_998;
/// As many connections as one attacker makes.
const CROWD: usize = 10_000;
/// What other tests are left of the descriptors of this process.
const LEFT: u64 = 4_000;
/// How HTTP/2 begins (RFC 9113, 3.4), with settings that change nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Does `work` as another user: a thread has credentials of its own for the kernel. `None` where this process may not
/// become others.
fn as_user<T: Send + 'static>(uid: u32, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root becomes another user");
        return None;
    }
    let thread = std::thread::spawn(move || {
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(group, group, group).unwrap();
        set_thread_res_uid(user, user, user).unwrap();
        work()
    });
    Some(thread.join().unwrap())
}

/// The daemon's socket, made reachable for everybody.
fn opened(rig: &Rig) -> PathBuf {
    let socket = rig.dir.path().join("s");
    let set = |path: &Path, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).unwrap();
    };
    set(rig.dir.path(), 0o711);
    set(&socket, 0o666);
    socket
}

fn knock(uid: u32, socket: &Path) -> Option<UnixStream> {
    let socket = socket.to_owned();
    let stream = as_user(uid, move || StdStream::connect(socket).unwrap())?;
    stream.set_nonblocking(true).unwrap();
    Some(UnixStream::from_std(stream).unwrap())
}

/// gRPC as `uid`, by one connection.
async fn channel(uid: u32, socket: &Path) -> Option<Channel> {
    let mut stream = Some(knock(uid, socket)?);
    let dial = tower::service_fn(move |_| {
        let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected);
        async move { Ok::<_, std::io::Error>(TokioIo::new(stream?)) }
    });
    let endpoint = Endpoint::from_static("http://bangerd");
    let connected = tokio::time::timeout(PATIENCE, endpoint.connect_with_connector(dial)).await;
    Some(connected.unwrap().unwrap())
}

fn info() -> v1::GetInfoRequest {
    v1::GetInfoRequest {}
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_who_the_kernel_says_and_has_the_role_of_its_rule() {
    let rig = Rig::start_with(|config| {
        config.access.socket_role = Role::Viewer;
        config.access.users.insert(ANN.to_string(), Role::User);
        config.access.groups.insert(BOB.to_string(), Role::Operator);
    })
    .await;
    rig.furnish().await;
    let socket = opened(&rig);
    let Some(ann) = channel(ANN, &socket).await else {
        return;
    };
    let mut vms = VmServiceClient::new(ann.clone());
    let answers = vms.create_vm(creation("web")).await.unwrap().into_inner();
    crate::rig::drain(answers).await.unwrap();
    let get = || v1::GetVmRequest { vm: "web".into() };
    let found = vms.get_vm(get()).await.unwrap().into_inner().vm.unwrap();
    assert_eq!(found.owner, format!("uid:{ANN}"));
    let delete = v1::DeleteKernelRequest {
        kernel: "k".into(),
        ..Default::default()
    };
    let refused = KernelServiceClient::new(ann).delete_kernel(delete).await;
    let refused = refused.unwrap_err();
    assert_refused(&refused, Code::PermissionDenied, "ROLE_TOO_LOW", None);
    // An operator by the group of its process, which sees what others have.
    let bob = channel(BOB, &socket).await.unwrap();
    VmServiceClient::new(bob).get_vm(get()).await.unwrap();
    // And a viewer, who makes nothing.
    let other = channel(BOB - 10, &socket).await.unwrap();
    let refused = VmServiceClient::new(other)
        .create_vm(creation("other"))
        .await;
    assert_refused(
        &refused.unwrap_err(),
        Code::PermissionDenied,
        "ROLE_TOO_LOW",
        None,
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_so_many_connections_is_told_and_keeps_nobody_out() {
    let rig = Rig::start_with(|config| {
        config.limits.socket_connections_per_user_max = 3;
    })
    .await;
    let socket = opened(&rig);
    let Some(first) = knock(ANN, &socket) else {
        return;
    };
    let held = [
        first,
        knock(ANN, &socket).unwrap(),
        knock(ANN, &socket).unwrap(),
    ];
    let beyond = channel(ANN, &socket).await.unwrap();
    let refused = HostServiceClient::new(beyond).get_info(info()).await;
    let refused = refused.unwrap_err();
    assert_refused(
        &refused,
        Code::ResourceExhausted,
        "TOO_MANY_CONNECTIONS",
        None,
    );
    let details = refused.get_error_details();
    assert!(details.retry_info().is_some());
    let remedy = &details.error_info().unwrap().metadata["remedy"];
    assert!(remedy.contains("limits.socket_connections_per_user_max"));
    let bob = channel(BOB, &socket).await.unwrap();
    HostServiceClient::new(bob).get_info(info()).await.unwrap();
    drop(held);
    until("a place", async || {
        let ann = channel(ANN, &socket).await.unwrap();
        HostServiceClient::new(ann).get_info(info()).await.is_ok()
    })
    .await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_finishes_a_request_at_the_socket_is_closed() {
    let rig = Rig::start_with(|config| {
        config.limits.socket_first_request_timeout = "300ms".parse().unwrap();
    })
    .await;
    let socket = rig.dir.path().join("s");
    // HEADERS of stream 1 without their end, and a first byte of a preface.
    let half: &[u8] = b"\0\0\x01\x01\0\0\0\0\x01\x82";
    for said in [vec![], b"PRI".to_vec(), [PREFACE, half].concat()] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(&said).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        ended.expect("it is closed").ok();
    }
    rig.hosts().get_info(info()).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_of_one_user_keep_no_other_out() {
    let rig = Rig::start_with(|config| {
        config.limits.socket_connections_per_user_max = 64;
    })
    .await;
    let socket = opened(&rig);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.current.unwrap_or(u64::MAX).saturating_sub(LEFT);
    let crowd = CROWD.min(usize::try_from(most).unwrap_or(CROWD));
    let mut held = Vec::new();
    while held.len() < crowd {
        let path = socket.clone();
        let some = as_user(ANN, move || -> Vec<_> {
            let knock = |_| StdStream::connect(&path).unwrap();
            (0..1000).map(knock).collect()
        });
        let Some(some) = some else { return };
        held.extend(some);
        let bob = channel(BOB, &socket).await.unwrap();
        HostServiceClient::new(bob).get_info(info()).await.unwrap();
        rig.another_client().await;
        rig.hosts().get_info(info()).await.unwrap();
    }
    let mut open: Vec<UnixStream> = held
        .into_iter()
        .map(|stream| {
            stream.set_nonblocking(true).unwrap();
            UnixStream::from_std(stream).unwrap()
        })
        .collect();
    // Those that are served, and the few that are there to be told.
    let kept = async {
        while open.len() > 64 + 8 {
            let mut left = Vec::new();
            for mut stream in open.drain(..) {
                let mut byte = [0; 64];
                let read = tokio::time::timeout(Duration::ZERO, stream.read(&mut byte)).await;
                if !matches!(read, Ok(Ok(0) | Err(_))) {
                    left.push(stream);
                }
            }
            open = left;
        }
    };
    let turned_away = tokio::time::timeout(PATIENCE * 3, kept).await;
    turned_away.expect("all but those that may be are turned away");
    rig.stopped().await;
}
