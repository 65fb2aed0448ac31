//! A daemon without VMs: the generated server traits over a real socket, for tests of clients.
//!
//! What it does follows from names: an image called `slow` is never ready, a command called `cat` echoes
//! its input. A proxy in front of it can cut every connection.
#![allow(dead_code, clippy::missing_panics_doc, missing_docs, unreachable_pub)]

mod doctor;
mod host;
mod image;
mod observe;
mod operation;
pub mod running;
mod session;
mod tunnel;
mod vm;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use banger_proto::v1;
use futures::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use running::Running;

/// What every streaming call answers with.
pub type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How often a stream with nothing to say says so.
pub const HEARTBEAT: Duration = Duration::from_millis(200);

/// The state of the daemon, which tests look into.
#[derive(Default)]
pub struct State {
    /// The calls, in order: the method and its main argument.
    pub calls: Mutex<Vec<String>>,
    pub vms: Mutex<BTreeMap<String, v1::Vm>>,
    pub deleted: Notify,
    pub sessions: Mutex<HashMap<String, Arc<Running>>>,
    pub operations: Mutex<BTreeMap<String, v1::Operation>>,
    pub images: Mutex<BTreeMap<String, v1::Image>>,
    pub kernels: Mutex<BTreeMap<String, v1::Kernel>>,
    /// Bytes that were uploaded, by what they were called.
    pub uploads: Mutex<HashMap<String, Vec<u8>>>,
    /// No stream says anything any more.
    pub silent: AtomicBool,
    /// How many more streams of sessions end because the daemon does.
    pub draining: AtomicU64,
    /// How many more streams of sessions end because the guest is silent.
    pub agent_silent: AtomicU64,
    /// Whether nobody may attach, because of the VM's state.
    pub refuses_attach: AtomicBool,
    /// Whether a session begun by Exec outlives its connection.
    pub keep_exec: AtomicBool,
    pub next_id: AtomicU64,
}

impl State {
    pub fn call(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }

    pub fn called(&self, call: &str) -> usize {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .filter(|made| *made == call)
            .count()
    }

    /// A new id of the form that ids have.
    pub fn id(&self) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        format!("00000000-0000-7000-8000-{number:012}")
    }
}

/// The daemon's services.
#[derive(Clone)]
pub struct Daemon(pub Arc<State>);

impl std::ops::Deref for Daemon {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

/// An error as the daemon makes it.
pub fn refuse(code: Code, reason: &str, message: &str, metadata: &[(&str, &str)]) -> Status {
    let pairs: HashMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let details = ErrorDetails::with_error_info(reason, "banger.dev", pairs);
    Status::with_error_details(code, message, details)
}

/// A fixed time, for output that tests compare.
pub fn time(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: 1_700_000_000 + seconds,
        nanos: 0,
    })
}

/// The daemon. Ends when it is dropped.
pub struct Fake {
    pub state: Arc<State>,
    dir: tempfile::TempDir,
    cut: Arc<Notify>,
    cut_after: Arc<AtomicU64>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Fake {
    /// Starts it on a runtime of its own, so that blocking tests can use it.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::default());
        let (cut, cut_after) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(u64::MAX)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let guard = runtime.enter();
        let inner = dir.path().join("inner.sock");
        let listener = UnixListener::bind(&inner).unwrap();
        let outer = UnixListener::bind(dir.path().join("bangerd.sock")).unwrap();
        drop(guard);
        let daemon = Daemon(state.clone());
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(2 << 20)
            .initial_connection_window_size(8 << 20)
            .add_service(v1::host_service_server::HostServiceServer::new(
                daemon.clone(),
            ))
            .add_service(v1::vm_service_server::VmServiceServer::new(daemon.clone()))
            .add_service(v1::image_service_server::ImageServiceServer::new(
                daemon.clone(),
            ))
            .add_service(v1::kernel_service_server::KernelServiceServer::new(
                daemon.clone(),
            ))
            .add_service(v1::operation_service_server::OperationServiceServer::new(
                daemon.clone(),
            ))
            .add_service(v1::session_service_server::SessionServiceServer::new(
                daemon.clone(),
            ))
            .add_service(v1::tunnel_service_server::TunnelServiceServer::new(
                daemon.clone(),
            ))
            .serve_with_incoming(UnixListenerStream::new(listener));
        let (proxy_cut, proxy_after) = (cut.clone(), cut_after.clone());
        // The runtime ends with the fake, and its tasks with it.
        drop(runtime.spawn(async move {
            tokio::join!(
                async { server.await.unwrap() },
                proxy(outer, inner, proxy_cut, proxy_after)
            )
        }));
        Self {
            state,
            dir,
            cut,
            cut_after,
            runtime: Some(runtime),
        }
    }

    /// The socket of the daemon.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("bangerd.sock")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Cuts every connection now.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }

    /// Cuts the connection once, after this many bytes from the daemon.
    pub fn cut_after(&self, bytes: u64) {
        self.cut_after.store(bytes, Ordering::SeqCst);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn proxy(outer: UnixListener, inner: PathBuf, cut: Arc<Notify>, after: Arc<AtomicU64>) {
    let mut pipes = JoinSet::new();
    loop {
        let (client, _) = outer.accept().await.unwrap();
        let server = UnixStream::connect(&inner).await.unwrap();
        let (cut, after) = (cut.clone(), after.clone());
        pipes.spawn(async move {
            tokio::select! {
                () = pipe(client, server, &after) => {}
                () = cut.notified() => {}
            }
        });
    }
}

async fn pipe(client: UnixStream, server: UnixStream, after: &AtomicU64) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async { drop(tokio::io::copy(&mut from_client, &mut to_server).await) };
    let down = async {
        let mut buffer = vec![0; 64 << 10];
        let mut sent = 0_u64;
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            if to_client.write_all(&buffer[..length]).await.is_err() {
                return;
            }
            sent += length as u64;
            if sent >= after.load(Ordering::SeqCst) {
                after.store(u64::MAX, Ordering::SeqCst);
                return;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}
