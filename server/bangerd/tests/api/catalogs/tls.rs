//! Catalogs by https, from a web server as anybody would serve one with.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bangerd::config::CatalogConfig;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;
use tonic::Code;

use super::{Shelf, files, pulled, remedy};
use crate::rig::{Rig, assert_refused};

/// Serves a directory on a port of its own choice, which it tells: by TLS where it has a certificate, and with a third
/// file to nobody who shows no certificate of that authority. That is told in the handshake by TLS 1.2, and after it,
/// in a race with the request, by TLS 1.3.
const SERVER: &str = r#"
import functools, http.server, ssl, sys
root, certificate, key, clients = sys.argv[1:5]
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=root)
handler.func.log_message = lambda *_: None
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
if certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if clients:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// An authority, with its certificate and those it issued as files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Issues a certificate, as `NAME.pem` and `NAME.key`.
    fn issue(&self, name: &str, host: &str, usage: ExtendedKeyUsagePurpose) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.into()]).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// A web server; dropping it ends it.
struct WebServer {
    child: Child,
    host: String,
}

impl WebServer {
    fn serve(root: &Path, by: &Authority, clients: Option<&Authority>) -> Self {
        by.issue("server", "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth);
        let clients = clients.map_or_else(PathBuf::new, |clients| clients.file("ca.pem"));
        Self::start(
            root,
            [by.file("server.pem"), by.file("server.key"), clients],
        )
    }

    fn plain(root: &Path) -> Self {
        Self::start(root, [PathBuf::new(), PathBuf::new(), PathBuf::new()])
    }

    fn start(root: &Path, files: [PathBuf; 3]) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", SERVER])
            .arg(root)
            .args(files)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let mut told = BufReader::new(child.stdout.take().unwrap());
        told.read_line(&mut port).unwrap();
        Self {
            child,
            host: format!("127.0.0.1:{}", port.trim()),
        }
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon with settings for the server at `host`.
async fn rig(host: &str, settings: CatalogConfig) -> Rig {
    let host = host.to_owned();
    Rig::start_with(move |config| {
        config.catalogs.insert(host, settings);
    })
    .await
}

fn trusting(authority: &Authority) -> CatalogConfig {
    CatalogConfig {
        ca_file: Some(authority.file("ca.pem")),
        ..CatalogConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_by_https_is_believed_with_the_authority_that_is_named_for_its_server() {
    let (shelf, authority) = (Shelf::furnished().await, Authority::new("servers"));
    let server = WebServer::serve(shelf.dir.path(), &authority, None);
    let (url, key) = (format!("https://{}/", server.host), shelf.key.public());
    let rig = rig(&server.host, trusting(&authority)).await;
    rig.add_as("", &url, &key.to_string()).await.unwrap();
    let image = rig.pull(pulled("web:1")).await.unwrap();
    assert_eq!(image.origin, "catalog acme: web:1");
    assert_eq!(image.digest, shelf.index.bundles[0].digest.to_string());
    assert_eq!(rig.kernel_names().await, ["k"]);
    rig.refresh().await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_prove_who_it_is_is_refused_with_the_reason() {
    let (shelf, authority) = (Shelf::furnished().await, Authority::new("servers"));
    let other = Authority::new("another");
    let server = WebServer::serve(shelf.dir.path(), &authority, None);
    let (url, key) = (format!("https://{}/", server.host), shelf.key.public());
    for settings in [CatalogConfig::default(), trusting(&other)] {
        let rig = rig(&server.host, settings).await;
        let refused = rig.add_as("", &url, &key.to_string()).await.unwrap_err();
        assert_refused(
            &refused,
            Code::FailedPrecondition,
            "CATALOG_CERTIFICATE_REFUSED",
            None,
        );
        let said = refused.message();
        assert!(said.contains(&server.host), "{said}");
        assert!(said.contains("its issuer is not trusted"), "{said}");
        assert!(remedy(&refused).contains("ca_file"), "{refused:?}");
        rig.stopped().await;
    }
    // Settings of registries are none of catalogs.
    let registries = Rig::start_with(|config| {
        let settings = bangerd::config::RegistryConfig {
            ca_file: Some(authority.file("ca.pem")),
            ..Default::default()
        };
        config.registries.insert(server.host.clone(), settings);
    })
    .await;
    let refused = registries.add_as("", &url, &key.to_string()).await;
    assert_refused(
        &refused.unwrap_err(),
        Code::FailedPrecondition,
        "CATALOG_CERTIFICATE_REFUSED",
        None,
    );
    registries.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_catalogs_that_wants_to_know_who_asks_is_shown_the_certificate() {
    let (shelf, authority) = (Shelf::furnished().await, Authority::new("servers"));
    let clients = Authority::new("clients");
    let server = WebServer::serve(shelf.dir.path(), &authority, Some(&clients));
    let (url, key) = (format!("https://{}/", server.host), shelf.key.public());
    let nobody = rig(&server.host, trusting(&authority)).await;
    let refused = nobody.add_as("", &url, &key.to_string()).await.unwrap_err();
    assert_refused(
        &refused,
        Code::FailedPrecondition,
        "CATALOG_WANTS_CLIENT_CERTIFICATE",
        None,
    );
    assert!(remedy(&refused).contains("client_cert_file"), "{refused:?}");
    nobody.stopped().await;
    clients.issue("client", "host", ExtendedKeyUsagePurpose::ClientAuth);
    let known = CatalogConfig {
        client_cert_file: Some(clients.file("client.pem")),
        client_key_file: Some(clients.file("client.key")),
        ..trusting(&authority)
    };
    let rig = rig(&server.host, known.clone()).await;
    rig.add_as("", &url, &key.to_string()).await.unwrap();
    rig.pull(pulled("web:2")).await.unwrap();
    // The files are read when they are needed: what became of them since counts.
    std::fs::remove_file(clients.file("client.key")).unwrap();
    let refused = rig.pull(pulled("web:1")).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "CATALOG_TLS_FILE", None);
    assert_eq!(files(&rig, "rootfs"), 1);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_no_server_of_an_https_catalog() {
    let shelf = Shelf::furnished().await;
    let plain = WebServer::plain(shelf.dir.path());
    let url = format!("https://{}/", plain.host);
    let rig = Rig::start().await;
    let key = shelf.key.public().to_string();
    let refused = rig.add_as("", &url, &key).await.unwrap_err();
    assert_refused(
        &refused,
        Code::FailedPrecondition,
        "CATALOG_WITHOUT_TLS",
        None,
    );
    rig.stopped().await;
}
