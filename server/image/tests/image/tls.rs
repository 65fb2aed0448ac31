//! Registries with TLS: certificates made here, a real TLS server, and who trusts whom.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Answer, Registry, TestImage};
use banger_core::Explain;
use banger_core::operation::NoProgress;
use banger_image::{
    BuiltImage, ImageStore, PullOptions, RegistrySettings, StoreError, TlsSettings,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;

/// An authority, and where its certificate lies.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn issue(&self, mut params: CertificateParams) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate, key)
    }

    /// Writes a client's certificate and key.
    fn client(&self) -> TlsSettings {
        let mut params = CertificateParams::new(vec!["client".into()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = self.issue(params);
        std::fs::write(self.file("client.pem"), certificate.pem()).unwrap();
        std::fs::write(self.file("client.key"), key.serialize_pem()).unwrap();
        TlsSettings {
            client_cert_file: Some(self.file("client.pem")),
            client_key_file: Some(self.file("client.key")),
            ..self.trusted()
        }
    }

    fn trusted(&self) -> TlsSettings {
        TlsSettings {
            ca_file: Some(self.file("ca.pem")),
            ..TlsSettings::default()
        }
    }
}

fn server_params() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// A registry behind TLS. Ends when dropped.
struct TlsRegistry {
    host: String,
    _behind: Registry,
    _tasks: JoinSet<()>,
}

impl TlsRegistry {
    async fn start(
        behind: Registry,
        params: CertificateParams,
        by: &Authority,
        clients: Option<&Authority>,
    ) -> Self {
        let (certificate, key) = by.issue(params);
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.issuer.der().clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let to = behind.host.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, to) = (acceptor.clone(), to.clone());
                connections.spawn(async move {
                    let Ok(mut tls) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut plain = TcpStream::connect(to).await.unwrap();
                    // The one behind closes after each answer, which TLS's end may not see.
                    let _ = copy_bidirectional(&mut tls, &mut plain).await;
                });
            }
        });
        Self {
            host,
            _behind: behind,
            _tasks: tasks,
        }
    }
}

async fn pull(host: &str, tls: TlsSettings) -> Result<BuiltImage, StoreError> {
    let settings = RegistrySettings {
        tls,
        ..RegistrySettings::default()
    };
    pull_with(host, Some(settings)).await
}

async fn pull_with(
    host: &str,
    settings: Option<RegistrySettings>,
) -> Result<BuiltImage, StoreError> {
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let options = PullOptions {
        stall_timeout: Duration::from_secs(5),
        platform: "linux/amd64".parse().unwrap(),
        registries: Arc::new(
            settings
                .map(|settings| (host.to_owned(), settings))
                .into_iter()
                .collect(),
        ),
        ..PullOptions::default()
    };
    let reference = format!("{host}/test/image:1").parse().unwrap();
    store
        .pull(&reference, &options, &NoProgress, &CancellationToken::new())
        .await
}

async fn honest() -> Registry {
    Registry::of(TestImage::simple(1, 1000), |_| None).await
}

#[tokio::test]
async fn an_authority_is_trusted_only_where_it_is_named() {
    let authority = Authority::new();
    let registry = TlsRegistry::start(honest().await, server_params(), &authority, None).await;
    let host = registry.host.as_str();
    let error = pull(host, TlsSettings::default()).await.unwrap_err();
    assert_eq!(error.reason(), "REGISTRY_CERTIFICATE_REFUSED");
    assert_eq!(
        error.to_string(),
        format!(
            "the certificate of the registry {host} is refused: its issuer is not trusted by this host"
        )
    );
    assert!(error.remedy().unwrap().contains("ca_file"));
    let other = Authority::new();
    let error = pull(host, other.trusted()).await.unwrap_err();
    assert_eq!(error.reason(), "REGISTRY_CERTIFICATE_REFUSED");
    pull(host, authority.trusted()).await.unwrap();
    // The settings of a host hold for all its ports.
    let insecure = RegistrySettings {
        insecure: true,
        ..RegistrySettings::default()
    };
    pull_with(host, Some(insecure)).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_over_or_another_hosts_is_refused() {
    let authority = Authority::new();
    let mut expired = server_params();
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    let mut elsewhere = CertificateParams::new(vec!["registry.example.com".into()]).unwrap();
    elsewhere.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for (params, problem) in [
        (expired, "it has expired"),
        (elsewhere, "it was issued for another host"),
    ] {
        let registry = TlsRegistry::start(honest().await, params, &authority, None).await;
        let error = pull(&registry.host, authority.trusted()).await.unwrap_err();
        assert_eq!(error.reason(), "REGISTRY_CERTIFICATE_REFUSED");
        assert!(error.to_string().ends_with(problem), "{error}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_wanted() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let registry =
        TlsRegistry::start(honest().await, server_params(), &authority, Some(&clients)).await;
    let error = pull(&registry.host, authority.trusted()).await.unwrap_err();
    assert_eq!(
        error.reason(),
        "REGISTRY_WANTS_CLIENT_CERTIFICATE",
        "{error:?}"
    );
    assert!(error.remedy().unwrap().contains("client_cert_file"));
    let known = TlsSettings {
        ca_file: Some(authority.file("ca.pem")),
        ..clients.client()
    };
    pull(&registry.host, known).await.unwrap();
    let stranger = TlsSettings {
        ca_file: Some(authority.file("ca.pem")),
        ..Authority::new().client()
    };
    let missing = pull(&registry.host, stranger).await.unwrap_err();
    assert_eq!(
        missing.reason(),
        "REGISTRY_TLS_FILE",
        "its directory is gone: {missing}"
    );
    let other = Authority::new();
    let stranger = TlsSettings {
        ca_file: Some(authority.file("ca.pem")),
        ..other.client()
    };
    let error = pull(&registry.host, stranger).await.unwrap_err();
    assert_eq!(
        error.reason(),
        "REGISTRY_WANTS_CLIENT_CERTIFICATE",
        "{error:?}"
    );
}

#[tokio::test]
async fn plain_http_is_spoken_only_where_it_is_allowed() {
    let registry = honest().await;
    let error = pull(&registry.host, TlsSettings::default())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "REGISTRY_WITHOUT_TLS", "{error:?}");
    assert!(error.remedy().unwrap().contains("insecure = true"));
    let insecure = RegistrySettings {
        insecure: true,
        ..RegistrySettings::default()
    };
    pull_with(&registry.host, Some(insecure)).await.unwrap();
    pull_with(&registry.host, None).await.unwrap(); // on the loopback and without settings
}

#[tokio::test]
async fn tls_is_not_left_by_a_redirect_or_a_token_server() {
    let authority = Authority::new();
    let plain = honest().await;
    let to = plain.host.clone();
    let image = TestImage::simple(1, 1000);
    let redirecting = Registry::of(image, move |request| {
        request.path.contains("/blobs/").then(|| Answer {
            headers: format!("Location: http://{to}{}\r\n", request.path),
            ..Answer::status(302)
        })
    });
    let realm = plain.host.clone();
    let challenging = Registry::start(move |_| Answer {
        headers: format!("WWW-Authenticate: Bearer realm=\"http://{realm}/token\"\r\n"),
        ..Answer::status(401)
    });
    for behind in [redirecting.await, challenging.await] {
        let registry = TlsRegistry::start(behind, server_params(), &authority, None).await;
        let error = pull(&registry.host, authority.trusted()).await.unwrap_err();
        assert_eq!(error.reason(), "REGISTRY_REDIRECT_REFUSED", "{error:?}");
        assert!(
            error.to_string().contains("from TLS to http://127.0.0.1"),
            "{error}"
        );
    }
    assert_eq!(plain.count("/"), 0);
}

#[tokio::test]
async fn files_that_hold_no_certificates_are_named() {
    let authority = Authority::new();
    let registry = TlsRegistry::start(honest().await, server_params(), &authority, None).await;
    let nonsense = authority.file("nonsense.pem");
    std::fs::write(&nonsense, "no certificate").unwrap();
    for settings in [
        TlsSettings {
            ca_file: Some(nonsense.clone()),
            ..TlsSettings::default()
        },
        TlsSettings {
            ca_file: Some(authority.file("missing.pem")),
            ..TlsSettings::default()
        },
        TlsSettings {
            client_key_file: Some(nonsense.clone()),
            ..authority.client()
        },
    ] {
        let error = pull(&registry.host, settings).await.unwrap_err();
        assert_eq!(error.reason(), "REGISTRY_TLS_FILE", "{error}");
        assert!(
            error
                .to_string()
                .contains(&authority.directory.path().display().to_string())
        );
    }
}
