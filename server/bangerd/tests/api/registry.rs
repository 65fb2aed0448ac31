//! A registry that serves what a test pushes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use banger_core::Digest;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry of one repository, whose tag may be moved. Ends with the test's runtime.
pub(crate) struct Registry {
    address: String,
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    holding: Arc<Mutex<Option<Holding>>>,
}

/// What waits to be let go.
#[derive(Clone)]
pub(crate) struct Holding {
    /// A part of its path.
    part: &'static str,
    /// Told when it is asked for.
    pub(crate) asked: Arc<Notify>,
    /// Lets it go when it is cancelled.
    pub(crate) go: CancellationToken,
}

impl Registry {
    pub(crate) async fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let files: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
        let served = files.clone();
        let holding: Arc<Mutex<Option<Holding>>> = Arc::default();
        let held = holding.clone();
        TaskTracker::new().spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (served, held) = (served.clone(), held.clone());
                TaskTracker::new().spawn(async move {
                    // Who asks may go away.
                    let _ = answer(BufReader::new(connection), &served, &held).await;
                });
            }
        });
        Self {
            address,
            files,
            holding,
        }
    }

    /// Holds whatever has `part` in its path from now on.
    pub(crate) fn hold(&self, part: &'static str) -> Holding {
        let holding = Holding {
            part,
            asked: Arc::default(),
            go: CancellationToken::new(),
        };
        *self.holding.lock().unwrap() = Some(holding.clone());
        holding
    }

    pub(crate) fn reference(&self, tag: &str) -> String {
        format!("{}/app:{tag}", self.address)
    }

    /// Makes `tag` an image of these layers with a label.
    pub(crate) fn push(&self, tag: &str, (key, value): (&str, &str), layers: &[Vec<u8>]) {
        let digests: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let diff_ids: Vec<_> = digests
            .iter()
            .map(|digest| format!("\"{digest}\""))
            .collect();
        let diff_ids = diff_ids.join(",");
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":{{"{key}":"{value}"}}}},"rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}}}"#
        );
        let (config_digest, config_size) = (Digest::of(config.as_bytes()), config.len());
        let described = digests.iter().zip(layers).map(|(digest, layer)| {
            let size = layer.len();
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":{size}}}"#
            )
        });
        let described = described.collect::<Vec<_>>().join(",");
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":{config_size}}},"layers":[{described}]}}"#
        );
        let digest = Digest::of(manifest.as_bytes());
        let mut files = self.files.lock().unwrap();
        for (name, content) in [
            (format!("blobs/{config_digest}"), config.into_bytes()),
            (format!("manifests/{digest}"), manifest.clone().into_bytes()),
            (format!("manifests/{tag}"), manifest.into_bytes()),
        ] {
            files.insert(format!("/v2/app/{name}"), content);
        }
        for (digest, layer) in digests.iter().zip(layers) {
            files.insert(format!("/v2/app/blobs/{digest}"), layer.clone());
        }
        files.insert("/v2/".into(), b"{}".to_vec());
    }
}

/// A layer without any file.
pub(crate) fn empty_layer() -> Vec<u8> {
    vec![0; 1024]
}

async fn answer(
    mut connection: BufReader<tokio::net::TcpStream>,
    files: &Mutex<HashMap<String, Vec<u8>>>,
    holding: &Mutex<Option<Holding>>,
) -> std::io::Result<()> {
    let mut first = String::new();
    connection.read_line(&mut first).await?;
    let mut line = String::new();
    while connection.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let held = holding.lock().unwrap().clone();
    if let Some(holding) = held.filter(|holding| path.contains(holding.part)) {
        holding.asked.notify_one();
        holding.go.cancelled().await;
    }
    let found = files.lock().unwrap().get(path).cloned();
    let status = if found.is_some() {
        "200 OK"
    } else {
        "404 Not Found"
    };
    let kind = match path.contains("/manifests/") {
        true => MANIFEST,
        false => "application/octet-stream",
    };
    let body = found.unwrap_or_default();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        connection.write_all(&body).await?;
    }
    connection.shutdown().await
}
