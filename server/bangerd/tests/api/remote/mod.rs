//! Callers from other hosts, and those who would like to be: real TLS on the loopback, certificates made here.

mod certificates;
mod crowd;
mod limits;
mod refused;
mod reload;
mod sdk;
mod workspaces;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use banger_proto::v1;
use banger_proto::v1::host_service_client::HostServiceClient;
use banger_vmm::FakeHost;
use bangerd::config::Config;
use bangerd::listen::Outside;
use bangerd::listen::activation::Sockets;
use bangerd::listen::reload::Reread;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::agent::agent;
use crate::rig::{PATIENCE, Rig, config};
use certificates::{Authority, Client, SERVER};

/// How HTTP/2 begins (RFC 9113, 3.4), with settings that change nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A daemon that serves TCP to those whom `authority` vouches for.
pub(crate) struct Remote {
    pub(crate) rig: Rig,
    pub(crate) authority: Authority,
    pub(crate) address: SocketAddr,
}

impl Remote {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_reread(change, None).await
    }

    pub(crate) async fn start_reread(
        change: impl FnOnce(&mut Config),
        reread: Option<Reread>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("the authority");
        let mut config = config(&dir);
        furnish(&dir, &authority, &mut config);
        change(&mut config);
        // As a service manager hands it over: nobody else can take the port meanwhile.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let outside = Outside {
            sockets: Sockets {
                tcp: vec![listener],
                ..Sockets::default()
            },
            reread,
            ..Outside::default()
        };
        let host = FakeHost::new(agent());
        let rig = Rig::start_from_outside(dir, host, config, outside).await;
        Self {
            rig,
            authority,
            address,
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.rig.dir.path().join(name)
    }

    /// TLS as `client` speaks it.
    pub(crate) async fn tls(&self, client: &Client) -> io::Result<TlsStream<TcpStream>> {
        tls(self.address, client).await
    }

    /// Whether the daemon speaks to `client`: TLS 1.3 tells a client that it is refused when it first reads.
    pub(crate) async fn knock(&self, client: &Client) -> io::Result<()> {
        let mut stream = self.tls(client).await?;
        stream.write_all(PREFACE).await?;
        let mut first = [0; 1];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut first));
        match read.await.expect("an answer in time")? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// gRPC as `client`.
    pub(crate) async fn channel(
        &self,
        client: &Client,
    ) -> Result<Channel, tonic::transport::Error> {
        let (address, client) = (self.address, client.clone());
        let dial = tower::service_fn(move |_| {
            let client = client.clone();
            async move { tls(address, &client).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://bangerd")
            .connect_timeout(PATIENCE)
            .connect_with_connector(dial)
            .await
    }

    pub(crate) async fn hosts(&self, client: &Client) -> HostServiceClient<Channel> {
        HostServiceClient::new(self.channel(client).await.unwrap())
    }
}

async fn tls(address: SocketAddr, client: &Client) -> io::Result<TlsStream<TcpStream>> {
    shake(TcpStream::connect(address).await?, client).await
}

/// A connection from another address of this host's.
async fn from(address: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0))?;
    socket.connect(to).await
}

async fn shake(stream: TcpStream, client: &Client) -> io::Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(client.config.clone());
    let name = ServerName::try_from(SERVER).unwrap();
    let connected = tokio::time::timeout(PATIENCE, connector.connect(name, stream));
    connected.await.expect("a handshake in time")
}

/// Writes what the daemon needs for TLS, and names it in `config`.
fn furnish(dir: &TempDir, authority: &Authority, config: &mut Config) {
    let path = |name: &str| dir.path().join(name);
    authority.write_server(&path("server.crt"), &path("server.key"));
    std::fs::write(path("ca.crt"), authority.pem()).unwrap();
    std::fs::write(path("ca.crl"), authority.revoked(&[])).unwrap();
    config.tcp.cert_file = path("server.crt");
    config.tcp.key_file = path("server.key");
    config.tcp.client_ca_files = vec![path("ca.crt")];
    config.tcp.crl_files = vec![path("ca.crl")];
}

/// Waits for a level, which takes the reader of events some time.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), looking).await;
    found.unwrap_or_else(|_| panic!("{what} in time"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_a_certificate_is_served_as_who_it_names() {
    let remote = Remote::start().await;
    remote.rig.furnish().await;
    let client = remote.authority.client("user", "ci");
    let channel = remote.channel(&client).await.unwrap();
    let mut vms = v1::vm_service_client::VmServiceClient::new(channel);
    let answers = vms
        .create_vm(crate::rig::creation("web"))
        .await
        .unwrap()
        .into_inner();
    crate::rig::drain(answers).await.unwrap();
    let vm = v1::GetVmRequest { vm: "web".into() };
    let found = vms.get_vm(vm).await.unwrap().into_inner().vm.unwrap();
    assert_eq!(found.owner, "cert:ci");
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_serves_addresses_of_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("the authority");
    let mut config = config(&dir);
    furnish(&dir, &authority, &mut config);
    config.tcp.listen = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let rig = Rig::start_configured(dir, FakeHost::new(agent()), config).await;
    rig.hosts().get_info(v1::GetInfoRequest {}).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_of_the_service_manager_is_served_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let listener = std::os::unix::net::UnixListener::bind(&config.socket).unwrap();
    let outside = Outside {
        sockets: Sockets {
            unix: vec![listener],
            ..Sockets::default()
        },
        ..Outside::default()
    };
    let rig = Rig::start_from_outside(dir, FakeHost::new(agent()), config, outside).await;
    rig.hosts().get_info(v1::GetInfoRequest {}).await.unwrap();
    let (dir, _) = rig.stopped().await;
    assert!(dir.path().join("s").exists(), "it is not the daemon's");
}
