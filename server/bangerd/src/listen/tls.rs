//! TLS 1.3 with certificates on both sides, from the files of the configuration.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ServerConfig, VerifierBuilderError, WebPkiClientVerifier,
};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::listed::Listed;
use super::revoked::{REVOKED_MAX, Revoked};
use super::rule::{self, Rules};
use super::trust::{Authority, Nobody, Trust};
use crate::config::TcpConfig;

/// The one protocol: HTTP/2.
const ALPN: &[u8] = b"h2";
/// Rights to a key's file that nobody may have.
const OTHERS: u32 = 0o007;
/// A file of certificates or a list of revoked ones may have this many bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Why TLS cannot be had from the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("could not read the {what} `{}`", path.display())]
    Read {
        /// What it should be.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is longer than any that is read.
    #[error("the {what} `{}` has {bytes} bytes, and {} are the most", path.display(), FILE_BYTES_MAX)]
    TooLong {
        /// What it should be.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// How many.
        bytes: u64,
    },
    /// The lists name more certificates than are kept.
    #[error(
        "the lists of crl_files name {count} revoked certificates or more, and {} are the most: take those off that have expired",
        REVOKED_MAX
    )]
    TooManyRevoked {
        /// How many were counted.
        count: usize,
    },
    /// A file is not PEM.
    #[error("the {what} `{}` is not PEM", path.display())]
    Pem {
        /// What it should be.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// A file has nothing of its kind.
    #[error("`{}` has no {what}", path.display())]
    Empty {
        /// What it should have.
        what: &'static str,
        /// Which.
        path: PathBuf,
    },
    /// Everybody may read a key.
    #[error("everybody may use the key `{}`: chmod it to 0600", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
    },
    /// A certificate of an authority cannot be used.
    #[error("`{}` has a certificate that cannot be trusted as an authority's", path.display())]
    Authority {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// Revocation lists do not cover what is trusted.
    #[error(
        "no list of crl_files is of the authority `{subject}`: where there is one list, each authority needs one, or its certificates could not be revoked"
    )]
    Uncovered {
        /// The authority.
        subject: String,
    },
    /// The lists and authorities do not fit together.
    #[error("could not put the verification of clients together")]
    Verifier(#[source] VerifierBuilderError),
    /// The daemon's certificate and key cannot be used.
    #[error("`{}` and `{}` cannot be used together", cert.display(), key.display())]
    Server {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// What the files and rules say at one time.
pub struct Tls {
    /// For connections that come.
    pub server: Arc<ServerConfig>,
    /// Whom certificates name.
    pub rules: Rules,
    /// When other authorities are valid than now: seconds since the Unix epoch.
    pub changes_at: Option<i64>,
    clients: Arc<Listed>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// If one cannot be read, or they do not fit together.
    pub fn load(config: &TcpConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (clients, changes_at) = clients(config, &provider)?;
        let chain: Vec<CertificateDer<'static>> = all("certificate", &config.cert_file)?;
        let key = key(&config.key_file)?;
        warn_of_end(&config.cert_file, &chain);
        let wrong = |source| TlsError::Server {
            cert: config.cert_file.clone(),
            key: config.key_file.clone(),
            source,
        };
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(wrong)?
            .with_client_cert_verifier(clients.clone())
            .with_single_cert(chain, key)
            .map_err(wrong)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would skip the look at the certificate, and a revoked one live on.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self {
            server: Arc::new(server),
            rules: Rules::new(&config.identities),
            changes_at,
            clients,
        })
    }

    /// Whether the holder of this chain, who was let in before, would be let in now. Takes no longer for long lists of
    /// revoked certificates than for short ones.
    ///
    /// # Errors
    /// With the reason if not.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        self.clients.verify_again(chain)
    }
}

/// Who looks at the certificates of clients, and when other authorities are valid than now.
fn clients(
    config: &TcpConfig,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<(Arc<Listed>, Option<i64>), TlsError> {
    let now = jiff::Timestamp::now().as_second();
    let mut trust = Trust::new();
    for path in &config.client_ca_files {
        for certificate in all::<CertificateDer<'static>>("certificate", path)? {
            let added = trust.add(certificate, now);
            added.map_err(|source| TlsError::Authority {
                path: path.clone(),
                source,
            })?;
        }
    }
    let mut lists = Vec::new();
    for path in &config.crl_files {
        lists.extend(all::<CertificateRevocationListDer<'static>>(
            "revocation list",
            path,
        )?);
    }
    let revoked = Revoked::new(&lists).map_err(|count| TlsError::TooManyRevoked { count })?;
    if !lists.is_empty() {
        cover(&lists, &revoked, &trust.authorities)?;
    }
    let roots = Arc::new(trust.roots);
    let whole = verifier(&roots, lists, provider)?;
    let unlisted = verifier(&roots, Vec::new(), provider)?;
    let listed = Listed::new(whole, unlisted, trust.authorities, revoked);
    Ok((Arc::new(listed), trust.changes_at))
}

fn verifier(
    roots: &Arc<RootCertStore>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    if roots.is_empty() {
        return Ok(Arc::new(Nobody(provider.clone())));
    }
    WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .with_crls(lists)
        // Whom is trusted is told to nobody: the request for a certificate comes before the peer has shown one.
        .clear_root_hint_subjects()
        .build()
        .map_err(TlsError::Verifier)
}

/// Each authority has a list: a certificate of one without could not be told from a revoked one.
fn cover(
    lists: &[CertificateRevocationListDer<'_>],
    revoked: &Revoked,
    authorities: &[Authority],
) -> Result<(), TlsError> {
    let now = x509_parser::time::ASN1Time::now();
    for list in lists {
        // What cannot be read here is refused with its reason by the verifier.
        let Ok((_, list)) = CertificateRevocationList::from_der(list) else {
            continue;
        };
        if list.next_update().is_some_and(|next| next < now) {
            tracing::warn!(
                issuer = %list.issuer(),
                "a list of revoked certificates is overdue; it counts on: give a fresh one"
            );
        }
    }
    let mut authorities = authorities.iter();
    match authorities.find(|authority| !revoked.covers(&authority.name)) {
        Some(authority) => Err(TlsError::Uncovered {
            subject: authority.told.clone(),
        }),
        None => Ok(()),
    }
}

fn warn_of_end(path: &Path, chain: &[CertificateDer<'_>]) {
    let own = chain.first().and_then(|own| rule::read(own));
    let Some(end) = own.and_then(|own| jiff::Timestamp::from_second(own.not_after).ok()) else {
        return;
    };
    if end < jiff::Timestamp::now() {
        tracing::error!(file = %path.display(), %end, "the daemon's certificate has expired: clients refuse it");
    } else {
        tracing::info!(file = %path.display(), valid_until = %end, "read the daemon's certificate");
    }
}

/// All objects of a kind in a PEM file, of which there must be one.
fn all<T: PemObject>(what: &'static str, path: &Path) -> Result<Vec<T>, TlsError> {
    let text = text(what, path)?;
    let found: Result<Vec<T>, pem::Error> = T::pem_slice_iter(&text).collect();
    let found = found.map_err(|source| TlsError::Pem {
        what,
        path: path.to_owned(),
        source,
    })?;
    if found.is_empty() {
        return Err(TlsError::Empty {
            what,
            path: path.to_owned(),
        });
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const WHAT: &str = "key";
    let text = text(WHAT, path)?;
    let mode = std::fs::metadata(path)
        .map_err(|source| TlsError::Read {
            what: WHAT,
            path: path.to_owned(),
            source,
        })?
        .permissions()
        .mode();
    if mode & OTHERS != 0 {
        return Err(TlsError::Exposed {
            path: path.to_owned(),
        });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::Empty {
            what: WHAT,
            path: path.to_owned(),
        },
        source => TlsError::Pem {
            what: WHAT,
            path: path.to_owned(),
            source,
        },
    })
}

fn text(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read {
        what,
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(TlsError::TooLong {
            what,
            path: path.to_owned(),
            bytes: length,
        });
    }
    std::fs::read(path).map_err(failed)
}
