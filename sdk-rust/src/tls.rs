//! The way to a daemon on another host: TCP, and TLS 1.3 with certificates on both sides.
//!
//! The files are read at each connection, so that renewed ones count without a new client.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::ClientConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, RootCertStore};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Error, Result};
use crate::host::{Credentials, Network};

/// How long the daemon may take to let somebody in.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Room for the daemon's first word; longer reads pass it by.
const FIRST_WORD_BYTES: usize = 1024;
/// The one protocol: HTTP/2.
const ALPN: &[u8] = b"h2";

/// Encrypted bytes both ways.
pub(crate) type Secured = BufReader<TlsStream<TcpStream>>;

/// What is wrong between two sides that should know each other by certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsProblem {
    /// The daemon's certificate is of no authority that `ca` names.
    ServerUntrusted,
    /// It is for other names than the one that was connected to.
    ServerName,
    /// It has expired, or is not yet valid: by this host's clock.
    ServerExpired,
    /// It is none for servers, or is wrong in another way.
    ServerWrong,
    /// The daemon does not trust the authority of the client's certificate.
    ClientUntrusted,
    /// The client's certificate has expired, or is not yet valid: by the daemon's clock.
    ClientExpired,
    /// It was revoked.
    ClientRevoked,
    /// The daemon refuses it for another reason.
    ClientRefused,
    /// What answers speaks no TLS 1.3, or not this way.
    NoTls,
    /// The connection was cut before anything was said: the daemon has as many as it takes.
    TurnedAway,
}

impl TlsProblem {
    /// The stable word.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ServerUntrusted => "TLS_SERVER_UNTRUSTED",
            Self::ServerName => "TLS_SERVER_NAME_WRONG",
            Self::ServerExpired => "TLS_SERVER_EXPIRED",
            Self::ServerWrong => "TLS_SERVER_CERTIFICATE_WRONG",
            Self::ClientUntrusted => "TLS_CLIENT_UNTRUSTED",
            Self::ClientExpired => "TLS_CLIENT_EXPIRED",
            Self::ClientRevoked => "TLS_CLIENT_REVOKED",
            Self::ClientRefused => "TLS_CLIENT_REFUSED",
            Self::NoTls => "TLS_NOT_SPOKEN",
            Self::TurnedAway => "TLS_TURNED_AWAY",
        }
    }

    /// Whether another try may help.
    #[must_use]
    pub const fn passes(self) -> bool {
        matches!(self, Self::TurnedAway)
    }

    /// Whether it is of one side's certificate, which no other try makes right.
    pub(crate) const fn is_certificate(self) -> bool {
        !matches!(self, Self::NoTls | Self::TurnedAway)
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::ServerUntrusted => {
                "Give the authority of the daemon's certificate with --tls-ca or BANGER_CA: ca.crt of its `banger cert` directory."
            }
            Self::ServerName => {
                "Connect by a name or address that the daemon's certificate is for, or make one for this name: banger cert issue --server --san NAME."
            }
            Self::ServerExpired => {
                "Renew the daemon's certificate (banger cert issue --server), and look at the clocks of both hosts."
            }
            Self::ServerWrong => {
                "Give the daemon a certificate for servers in tcp.cert_file: banger cert issue --server."
            }
            Self::ClientUntrusted => {
                "Use a certificate of an authority that tcp.client_ca_files of the daemon names."
            }
            Self::ClientExpired => {
                "Get a new certificate (banger cert issue), and look at the clocks of both hosts."
            }
            Self::ClientRevoked => "Get a new certificate from whoever keeps the daemon.",
            Self::ClientRefused => {
                "Use a certificate for clients (banger cert issue); the daemon's log says at level debug what is wrong with this one."
            }
            Self::NoTls => {
                "Check the port: bangerd serves TLS on the addresses of tcp.listen in its configuration."
            }
            Self::TurnedAway => {
                "Try again later; the daemon's limits on connections are in [tcp] of its configuration."
            }
        }
    }
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerUntrusted => "the daemon's certificate is of no known authority",
            Self::ServerName => "the daemon's certificate is for another name",
            Self::ServerExpired => "the daemon's certificate has expired or is not yet valid",
            Self::ServerWrong => "the daemon's certificate is none for a server",
            Self::ClientUntrusted => "the daemon does not trust the authority of this certificate",
            Self::ClientExpired => "the daemon finds this certificate expired, or not yet valid",
            Self::ClientRevoked => "this certificate was revoked",
            Self::ClientRefused => "the daemon refuses this certificate",
            Self::NoTls => "what answers there speaks no TLS 1.3",
            Self::TurnedAway => "the connection was closed before anything was said",
        })
    }
}

/// What an error of TLS means; `None` for one of the network.
pub(crate) fn problem(error: &io::Error) -> Option<TlsProblem> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(wrong)) => Some(of_server(wrong)),
        Some(rustls::Error::AlertReceived(alert)) => Some(of_client(*alert)),
        Some(_) => Some(TlsProblem::NoTls),
        None if error.kind() == io::ErrorKind::UnexpectedEof => Some(TlsProblem::TurnedAway),
        None => None,
    }
}

fn of_server(wrong: &CertificateError) -> TlsProblem {
    match wrong {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            TlsProblem::ServerUntrusted
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsProblem::ServerName
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => TlsProblem::ServerExpired,
        _ => TlsProblem::ServerWrong,
    }
}

fn of_client(alert: AlertDescription) -> TlsProblem {
    match alert {
        // Another authority of the same name: the signature is none of its own.
        AlertDescription::UnknownCA | AlertDescription::DecryptError => TlsProblem::ClientUntrusted,
        AlertDescription::CertificateExpired => TlsProblem::ClientExpired,
        AlertDescription::CertificateRevoked => TlsProblem::ClientRevoked,
        AlertDescription::ProtocolVersion
        | AlertDescription::HandshakeFailure
        | AlertDescription::DecodeError
        | AlertDescription::UnexpectedMessage
        | AlertDescription::NoApplicationProtocol => TlsProblem::NoTls,
        _ => TlsProblem::ClientRefused,
    }
}

/// Connects, and waits for the daemon's first word: in TLS 1.3 a client that is refused learns it only then.
pub(crate) async fn dial(to: &Network, config: Arc<ClientConfig>) -> io::Result<Secured> {
    let name = ServerName::try_from(to.host.clone())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
    stream.set_nodelay(true)?;
    let letting_in = async {
        let secured = TlsConnector::from(config).connect(name, stream).await?;
        let mut secured = BufReader::with_capacity(FIRST_WORD_BYTES, secured);
        if secured.fill_buf().await?.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(secured)
    };
    timeout(HANDSHAKE_LIMIT, letting_in)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// What this side shows and believes.
pub(crate) fn config(credentials: &Credentials) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&credentials.ca_file)? {
        roots.add(certificate).map_err(|error| {
            wrong(
                &credentials.ca_file,
                "is no certificate of an authority",
                io::Error::other(error),
            )
        })?;
    }
    let chain = certificates(&credentials.cert_file)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&credentials.key_file)?)
        .map_err(|error| of_pem(&credentials.key_file, "holds no key", error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| {
            wrong(
                &credentials.cert_file,
                "cannot be used",
                io::Error::other(error),
            )
        })?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| {
            wrong(
                &credentials.cert_file,
                "and its key cannot be used together",
                io::Error::other(error),
            )
        })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(path)?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| of_pem(path, "holds no certificate", error))?;
    if found.is_empty() {
        return Err(of_pem(
            path,
            "holds no certificate",
            pem::Error::NoItemsFound,
        ));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| wrong(path, "cannot be read", source))
}

fn of_pem(path: &Path, problem: &'static str, error: pem::Error) -> Error {
    wrong(path, problem, io::Error::other(error))
}

fn wrong(path: &Path, problem: &'static str, source: io::Error) -> Error {
    Error::CertificateFile {
        path: PathBuf::from(path),
        problem,
        source,
    }
}
