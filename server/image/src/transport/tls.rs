//! TLS as the settings of a host want it, and what its failures mean.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Certificate, ClientBuilder, Identity};
use rustls::{AlertDescription, CertificateError, RootCertStore};

/// Bytes of a file with certificates: a bundle of every authority there is has a few hundred KiB.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// How long the certificates that this host trusts are remembered: to read hundreds of files takes longer than all else of
/// a client.
const ROOTS_LIFETIME: Duration = Duration::from_secs(60);

/// Who is trusted at one host, and who this host is there. The default is the certificates this host trusts, and
/// nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsSettings {
    /// Certificates in PEM that are trusted beside the host's.
    pub ca_file: Option<PathBuf>,
    /// The certificate in PEM by which this host shows itself, with its chain.
    pub client_cert_file: Option<PathBuf>,
    /// Its key in PEM.
    pub client_key_file: Option<PathBuf>,
}

/// Whether the other side has to prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    Verified,
    Anybody,
}

/// A file of the settings that is of no use.
#[derive(Debug)]
pub(crate) struct TlsFileError {
    pub(crate) path: PathBuf,
    pub(crate) problem: String,
}

/// The certificates that this host trusts, as they were at most [`ROOTS_LIFETIME`] ago, but for those that cannot be read.
fn roots() -> Vec<Certificate> {
    static KEPT: Mutex<Option<(Instant, Vec<Certificate>)>> = Mutex::new(None);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((since, roots)) = &*kept
        && since.elapsed() < ROOTS_LIFETIME
    {
        return roots.clone();
    }
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a certificate that this host trusts could not be read");
    }
    let mut usable = RootCertStore::empty();
    let roots = found.certs.into_iter().filter_map(|root| {
        usable.add(root.clone()).ok()?;
        Certificate::from_der(&root).ok()
    });
    let roots: Vec<Certificate> = roots.collect();
    *kept = Some((Instant::now(), roots.clone()));
    roots
}

/// Puts the settings' certificates into a client. Files of the settings are read for each client: they are renewed.
pub(super) fn configure(
    builder: ClientBuilder,
    settings: &TlsSettings,
    trust: Trust,
) -> Result<ClientBuilder, TlsFileError> {
    let mut builder = builder
        .tls_danger_accept_invalid_certs(trust == Trust::Anybody)
        .tls_certs_only(roots());
    if let Some(path) = &settings.ca_file {
        let bundle = Certificate::from_pem_bundle(&read(path)?)
            .ok()
            .filter(|bundle| !bundle.is_empty());
        let bundle = bundle.ok_or_else(|| unusable(path, "it holds no certificate in PEM"))?;
        builder = builder.tls_certs_merge(bundle);
    }
    if let (Some(certificate), Some(key)) = (&settings.client_cert_file, &settings.client_key_file)
    {
        let mut pem = read(certificate)?;
        pem.push(b'\n');
        pem.extend(read(key)?);
        let identity = Identity::from_pem(&pem).map_err(|_| {
            unusable(
                certificate,
                "it and its key file hold no certificate with its key in PEM",
            )
        })?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    let failed = |source: std::io::Error| unusable(path, &source.to_string());
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > PEM_BYTES_MAX {
        return Err(unusable(path, "it is no file with certificates"));
    }
    std::fs::read(path).map_err(failed)
}

fn unusable(path: &Path, problem: &str) -> TlsFileError {
    TlsFileError {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}

/// What is wrong between two ends that do not come to trust each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TlsProblem {
    /// What comes is not TLS.
    NotTls,
    /// The other side's certificate, with what is wrong.
    Certificate(String),
    /// The other side wants to see a certificate of ours, or another one.
    ClientCertificate,
}

/// Finds the words of TLS in a failure, wherever they are wrapped.
pub(crate) fn problem(error: &(dyn Error + 'static)) -> Option<TlsProblem> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return judge(found);
        }
        // An I/O error hides what it wraps from `source`.
        let wrapped = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|inner| problem(inner)) {
            return Some(found);
        }
        at = error.source();
    }
    None
}

fn judge(error: &rustls::Error) -> Option<TlsProblem> {
    use rustls::Error as Tls;
    Some(match error {
        Tls::InvalidMessage(_) | Tls::InappropriateMessage { .. } => TlsProblem::NotTls,
        Tls::InvalidCertificate(problem) => TlsProblem::Certificate(match problem {
            CertificateError::UnknownIssuer => "its issuer is not trusted by this host".to_owned(),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "it has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "it is not valid yet".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "it was issued for another host".to_owned()
            }
            CertificateError::Revoked => "it was revoked".to_owned(),
            other => other.to_string(),
        }),
        Tls::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::HandshakeFailure,
        ) => TlsProblem::ClientCertificate,
        _ => return None,
    })
}
