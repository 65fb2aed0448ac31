//! The connection to a daemon, and what is repeated when it breaks.
//!
//! One HTTP/2 connection over the unix socket, or by TLS to another host, made again when it is lost. Calls that are safe to
//! repeat (reads, and changes with a request id) are repeated within the reconnect window.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use banger_proto::v1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::catalog::Catalogs;
use crate::doctor::Doctor;
use crate::error::{Code, CodeRan, Error, Result, io_source};
use crate::event::Events;
use crate::file::Files;
use crate::host::{Host, HostError, Network};
use crate::image::Images;
use crate::kernel::Kernels;
use crate::operation::Operations;
use crate::session::Sessions;
use crate::stream::Watched;
use crate::tls;
use crate::tunnel::Tunnels;
use crate::vm::Vms;
use crate::volume::Volumes;
use crate::workspace::Workspace;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection to another host that is silent for this long is asked for a sign of life.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// How long the sign may take before the connection counts as lost.
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(10);
/// How long a stream may be silent: the daemon speaks at least every 2 s.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a lost connection is tried again.
const RECONNECT_WINDOW: Duration = Duration::from_secs(30);
/// The first pause between two tries; it doubles.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// The longest pause between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// The reason of a daemon that is about to end; another one follows it.
const DRAINING: &str = "DRAINING";
/// The reason of a daemon that hears nothing of a guest, which may be back soon.
const AGENT_SILENT: &str = "AGENT_SILENT";
/// What may be on its way in one stream: enough for bulk output without a pause.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// What may be on its way in all streams together: as much as HTTP/2 has, because a stream that nobody reads must not
/// stop the others.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

/// A client of one daemon. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    channel: Channel,
    host: Host,
    options: ClientOptions,
}

/// The time limits of a client.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ClientOptions {
    /// How long a stream may say nothing before it counts as dead. 10 s by default.
    pub silence: Duration,
    /// How long a lost connection is tried again before the caller learns of it. 30 s by default.
    pub reconnect_window: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            silence: SILENCE,
            reconnect_window: RECONNECT_WINDOW,
        }
    }
}

impl ClientOptions {
    /// With this bound on silence.
    #[must_use]
    pub const fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// With this reconnect window; zero means that a lost connection is an error at once.
    #[must_use]
    pub const fn reconnect_window(mut self, window: Duration) -> Self {
        self.reconnect_window = window;
        self
    }
}

impl Client {
    /// Connects to the daemon at `host`.
    ///
    /// # Errors
    /// [`Error::Connect`] or [`Error::Unreachable`] when nobody answers there, [`Error::Tls`] when the two sides do not
    /// know each other.
    pub async fn connect(host: Host) -> Result<Self> {
        Self::connect_with(host, ClientOptions::default()).await
    }

    /// Connects with other time limits.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with(host: Host, options: ClientOptions) -> Result<Self> {
        let channel = match host.network() {
            Some(network) => open_network(&host, network.clone()).await?,
            None => open_socket(host.path().unwrap_or(Path::new("")).to_owned()).await?,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                channel,
                host,
                options,
            }),
        })
    }

    /// The daemon that this client is connected to.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.shared.host
    }

    /// What VMs were promised, what they take, and the limits.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn host_usage(&self) -> Result<v1::HostUsage> {
        const CALL: &str = "GetUsage";
        let answer = self
            .repeat(CALL, || async {
                let mut host = v1::host_service_client::HostServiceClient::new(self.channel());
                host.get_usage(v1::GetUsageRequest {}).await
            })
            .await?;
        answer.usage.ok_or(Error::Protocol {
            during: CALL,
            detail: "no usage",
        })
    }

    /// What the host is and can do.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn host_info(&self) -> Result<v1::HostInfo> {
        const CALL: &str = "GetInfo";
        let answer = self
            .repeat(CALL, || async {
                let mut host = v1::host_service_client::HostServiceClient::new(self.channel());
                host.get_info(v1::GetInfoRequest {}).await
            })
            .await?;
        answer.info.ok_or(Error::Protocol {
            during: CALL,
            detail: "no info",
        })
    }

    /// A look at whether the host is fit.
    pub fn doctor(&self) -> Doctor {
        Doctor::new(self.clone())
    }

    /// Images.
    #[must_use]
    pub fn images(&self) -> Images {
        Images::new(self.clone())
    }

    /// Catalogs.
    #[must_use]
    pub fn catalogs(&self) -> Catalogs {
        Catalogs::new(self.clone())
    }

    /// Volumes.
    #[must_use]
    pub fn volumes(&self) -> Volumes {
        Volumes::new(self.clone())
    }

    /// Kernels.
    #[must_use]
    pub fn kernels(&self) -> Kernels {
        Kernels::new(self.clone())
    }

    /// VMs.
    #[must_use]
    pub fn vms(&self) -> Vms {
        Vms::new(self.clone())
    }

    /// Sessions.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.clone())
    }

    /// The files of a VM, by its name or id.
    #[must_use]
    pub fn files(&self, vm: impl Into<String>) -> Files {
        Files::new(self.clone(), vm.into())
    }

    /// A workspace in a VM, by the VM's name or id. Its path is absolute or beneath the user's home.
    #[must_use]
    pub fn workspace(&self, vm: impl Into<String>, path: impl Into<String>) -> Workspace {
        Workspace::new(self.clone(), vm.into(), path.into())
    }

    /// Tunnels.
    #[must_use]
    pub fn tunnels(&self) -> Tunnels {
        Tunnels::new(self.clone())
    }

    /// Operations.
    #[must_use]
    pub fn operations(&self) -> Operations {
        Operations::new(self.clone())
    }

    /// How long a stream may be silent.
    pub(crate) fn silence(&self) -> Duration {
        self.shared.options.silence
    }

    /// What happens on the host.
    pub fn events(&self) -> Events {
        Events::new(self.clone())
    }

    /// The channel, for the generated clients.
    pub(crate) fn channel(&self) -> Channel {
        self.shared.channel.clone()
    }

    /// A stream of answers that notices silence.
    pub(crate) fn watched<T>(
        &self,
        answer: std::result::Result<tonic::Response<Streaming<T>>, tonic::Status>,
        during: &'static str,
    ) -> Result<Watched<T>> {
        let stream = answer
            .map_err(|status| Error::from_status(status, during))?
            .into_inner();
        Ok(Watched::new(stream, during, self.shared.options.silence))
    }

    /// Makes a call that is safe to repeat until it is answered or the reconnect window ends.
    pub(crate) async fn repeat<T, F, Fut>(&self, during: &'static str, mut call: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut retry = self.retry();
        loop {
            match call().await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => retry.after(Error::from_status(status, during)).await?,
            }
        }
    }

    /// A fresh count of tries.
    pub(crate) fn retry(&self) -> Retry {
        Retry {
            window: self.shared.options.reconnect_window,
            deadline: None,
            pause: BACKOFF_FIRST,
            established: false,
        }
    }
}

/// Tries in a row to get a lost connection back.
#[derive(Debug)]
pub(crate) struct Retry {
    window: Duration,
    /// When to give up; set by the first failure.
    deadline: Option<Instant>,
    pause: Duration,
    /// What is tried again has worked before: then nothing that passes is an error yet.
    established: bool,
}

impl Retry {
    /// Waits before the next try, or gives `error` back: it does not pass, or the window is over.
    pub(crate) async fn after(&mut self, error: Error) -> Result<()> {
        let is_away = error.code() == Code::Unavailable || error.reason() == AGENT_SILENT;
        let passes = error.is_connection_lost()
            || error.reason() == DRAINING
            || (self.established && is_away);
        if !passes {
            return Err(error);
        }
        let now = Instant::now();
        let deadline = *self.deadline.get_or_insert(now + self.window);
        if now >= deadline {
            return Err(error);
        }
        sleep(self.pause.min(deadline - now)).await;
        self.pause = (self.pause * 2).min(BACKOFF_MAX);
        Ok(())
    }

    /// No further try.
    pub(crate) fn give_up<T>(&mut self, error: Error) -> Result<T> {
        self.deadline = Some(Instant::now());
        Err(error)
    }

    /// The connection works again: the next failure starts a new count.
    pub(crate) const fn reset(&mut self) {
        self.deadline = None;
        self.pause = BACKOFF_FIRST;
    }

    /// The stream works: when it breaks, a daemon or a guest that is not ready yet is waited for too.
    pub(crate) const fn established(&mut self) {
        self.reset();
        self.established = true;
    }
}

/// An HTTP/2 connection over `socket`, made now, and again whenever it is lost.
async fn open_socket(socket: PathBuf) -> Result<Channel> {
    let path = socket.clone();
    let dial = service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    endpoint()
        .connect_with_connector(dial)
        .await
        .map_err(|error| Error::Connect {
            path: socket,
            source: cause(&error),
        })
}

/// The same by TLS to another host.
async fn open_network(host: &Host, network: Network) -> Result<Channel> {
    let credentials = host
        .credentials()
        .ok_or_else(|| HostError::NoCredentials {
            host: network.to_string(),
        })?
        .clone();
    // What is wrong with the files is told as it is; they are read again at each connection.
    tls::config(&credentials)?;
    let to = network.clone();
    let dial = service_fn(move |_| {
        let (to, credentials) = (to.clone(), credentials.clone());
        async move {
            let config = tls::config(&credentials).map_err(std::io::Error::other)?;
            tls::dial(&to, config).await.map(TokioIo::new)
        }
    });
    endpoint()
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_WITHIN)
        .connect_with_connector(dial)
        .await
        .map_err(|error| {
            let problem = io_source(&error).and_then(tls::problem);
            let (host, source) = (network.to_string(), cause(&error));
            match problem {
                Some(problem) => Error::Tls {
                    to: format!("bangerd at {host}"),
                    problem,
                    code_ran: CodeRan::No,
                    source,
                },
                None => Error::Unreachable { host, source },
            }
        })
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://bangerd")
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

/// The system's error, or all that is told.
fn cause(error: &tonic::transport::Error) -> std::io::Error {
    io_source(error).map_or_else(
        || std::io::Error::other(crate::error::chain(error)),
        |io| std::io::Error::new(io.kind(), io.to_string()),
    )
}
