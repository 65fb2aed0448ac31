//! TLS as a registry's settings want it, and what its failures mean.

use std::error::Error;
use std::path::Path;
use std::sync::Once;

use reqwest::{Certificate, ClientBuilder, Identity};
use rustls::{AlertDescription, CertificateError};

use super::RegistryError;
use super::options::RegistrySettings;

/// Bytes of a file with certificates: a bundle of every authority there is has a few hundred KiB.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// Puts the settings' certificates into a client. Files are read for each pull: they are renewed.
pub(super) fn configure(
    builder: ClientBuilder,
    settings: &RegistrySettings,
) -> Result<ClientBuilder, RegistryError> {
    install_provider();
    let mut builder = builder.tls_danger_accept_invalid_certs(settings.insecure);
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

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let failed = |source: std::io::Error| unusable(path, &source.to_string());
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > PEM_BYTES_MAX {
        return Err(unusable(path, "it is no file with certificates"));
    }
    std::fs::read(path).map_err(failed)
}

fn unusable(path: &Path, problem: &str) -> RegistryError {
    RegistryError::TlsFile {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}

/// What is wrong between two ends that do not come to trust each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TlsProblem {
    /// What comes is not TLS.
    NotTls,
    /// The registry's certificate, with what is wrong.
    Certificate(String),
    /// The registry wants to see a certificate of ours, or another one.
    ClientCertificate,
}

/// Finds the words of TLS in a failure, wherever they are wrapped.
pub(super) fn problem(error: &(dyn Error + 'static)) -> Option<TlsProblem> {
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

/// One provider for the whole process; another crate may have installed it before.
pub(super) fn install_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default(); // an error says one is there
    });
}
