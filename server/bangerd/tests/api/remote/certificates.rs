//! Certificates of every kind, right and wrong.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::client::{ClientConfig, ResolvesClientCert};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use time::{Duration, OffsetDateTime};

/// The daemon's name in its certificate.
pub(crate) const SERVER: &str = "bangerd.test";

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// What a client shows, and whom it believes.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) serial: u64,
}

/// The names of authorities that a server told with each of its requests for a certificate.
#[derive(Debug, Default)]
pub(crate) struct Told(pub(crate) Mutex<Vec<Vec<Vec<u8>>>>);

impl ResolvesClientCert for Told {
    fn resolve(&self, names: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let names = names.iter().map(|name| name.to_vec()).collect();
        self.0.lock().unwrap().push(names);
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What is made.
pub(crate) struct Wanted {
    pub(crate) uri: Option<String>,
    pub(crate) usage: Option<ExtendedKeyUsagePurpose>,
    pub(crate) begin: OffsetDateTime,
    pub(crate) end: OffsetDateTime,
    pub(crate) versions: &'static [&'static rustls::SupportedProtocolVersion],
}

impl Default for Wanted {
    fn default() -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            uri: Some("banger:admin/test".into()),
            usage: Some(ExtendedKeyUsagePurpose::ClientAuth),
            begin: now - Duration::days(1),
            end: now + Duration::days(1),
            versions: rustls::ALL_VERSIONS,
        }
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::valid(name, |_| {})
    }

    /// One whose own certificate ends so soon.
    pub(crate) fn ending(name: &str, left: Duration) -> Self {
        Self::valid(name, |params| {
            let now = OffsetDateTime::now_utc();
            params.not_before = now - Duration::days(365);
            params.not_after = now + left;
        })
    }

    fn valid(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        change(&mut params);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A client in a role, as `banger cert issue` makes it.
    pub(crate) fn client(&self, role: &str, name: &str) -> Client {
        self.issue(Wanted {
            uri: Some(format!("banger:{role}/{name}")),
            ..Wanted::default()
        })
    }

    pub(crate) fn issue(&self, wanted: Wanted) -> Client {
        let (params, serial) = params(&wanted);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.holder(Some((certificate, key)), serial, wanted.versions)
    }

    /// The files of a client, as `banger cert issue` makes them.
    pub(crate) fn bundle(&self, directory: &Path, wanted: &Wanted) -> u64 {
        let (params, serial) = params(wanted);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::create_dir_all(directory).unwrap();
        replace(&directory.join("client.crt"), certificate.pem().as_bytes());
        replace(
            &directory.join("client.key"),
            key.serialize_pem().as_bytes(),
        );
        replace(&directory.join("ca.crt"), self.pem().as_bytes());
        serial
    }

    /// Believes this authority, and shows a certificate that nobody vouches for.
    pub(crate) fn self_signed(&self) -> Client {
        let wanted = Wanted::default();
        let (params, serial) = params(&wanted);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        self.holder(Some((certificate, key)), serial, wanted.versions)
    }

    /// Believes this authority, and shows what `other` vouches for.
    pub(crate) fn of_other(&self, other: &Self) -> Client {
        let wanted = Wanted::default();
        let (params, serial) = params(&wanted);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &other.issuer).unwrap();
        self.holder(Some((certificate, key)), serial, wanted.versions)
    }

    /// Believes this authority, and shows nothing.
    pub(crate) fn nobody(&self) -> Client {
        self.holder(None, 0, rustls::ALL_VERSIONS)
    }

    fn holder(
        &self,
        shown: Option<(Certificate, KeyPair)>,
        serial: u64,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            Some((certificate, key)) => {
                let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Client {
            config: Arc::new(config),
            serial,
        }
    }

    /// Shows nothing, and keeps what it is told of whose certificates are wanted.
    pub(crate) fn listener(&self, told: Arc<Told>) -> Client {
        let mut config = ClientConfig::clone(&self.nobody().config);
        config.client_auth_cert_resolver = told;
        Client {
            config: Arc::new(config),
            serial: 0,
        }
    }

    /// The daemon's certificate and key. Returns the certificate's encoding.
    pub(crate) fn write_server(&self, certificate: &Path, key: &Path) -> Vec<u8> {
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        self.write_server_for(usage, Duration::days(1), certificate, key)
    }

    /// The same for another use, or that ends at another time from now.
    pub(crate) fn write_server_for(
        &self,
        usage: ExtendedKeyUsagePurpose,
        end: Duration,
        certificate: &Path,
        key: &Path,
    ) -> Vec<u8> {
        let now = OffsetDateTime::now_utc();
        let names = vec![SERVER.to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = now - Duration::days(2);
        params.not_after = now + end;
        params.extended_key_usages = vec![usage];
        let pair = KeyPair::generate().unwrap();
        let made = params.signed_by(&pair, &self.issuer).unwrap();
        replace(certificate, made.pem().as_bytes());
        replace(key, pair.serialize_pem().as_bytes());
        made.der().to_vec()
    }

    /// The list of what is revoked.
    pub(crate) fn revoked(&self, serials: &[u64]) -> String {
        let now = OffsetDateTime::now_utc();
        let params = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update: now + Duration::days(7),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials
                .iter()
                .map(|&serial| RevokedCertParams {
                    serial_number: SerialNumber::from(serial),
                    revocation_time: now - Duration::hours(1),
                    reason_code: Some(RevocationReason::KeyCompromise),
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// Whole or not at all, as renewals write; for its owner alone.
pub(crate) fn replace(path: &Path, content: &[u8]) {
    let next = path.with_extension("next");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)
        .unwrap();
    file.write_all(content).unwrap();
    std::fs::rename(next, path).unwrap();
}

fn params(wanted: &Wanted) -> (CertificateParams, u64) {
    let serial = fastrand::u64(1..1 << 62);
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_before = wanted.begin;
    params.not_after = wanted.end;
    params.extended_key_usages = wanted.usage.clone().into_iter().collect();
    let uri = wanted.uri.iter();
    params.subject_alt_names = uri
        .map(|uri| SanType::URI(uri.as_str().try_into().unwrap()))
        .collect();
    (params, serial)
}
