//! A registry that lies: what it serves is right but for one thing.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::layer::{digest, gzip};

/// How long a stalling registry holds its breath, at most.
const STALL: Duration = Duration::from_secs(60);
/// How often a stalled connection looks whether all is over.
const LOOK: Duration = Duration::from_millis(50);

/// What it does wrong to the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    None,
    /// A byte is another one.
    Flipped,
    /// The connection ends half way.
    Truncated,
    /// Half way, nothing more comes.
    Stalled,
}

/// The registry; dropping it ends it.
#[derive(Debug)]
pub struct Liar {
    /// `host:port`.
    pub address: String,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Liar {
    /// Serves one image of one layer, under every name.
    #[must_use]
    pub fn serve(layer: &[u8], lie: Lie) -> Self {
        let blob = gzip(layer);
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &blob)],
        });
        let site = Site {
            manifest: manifest.to_string().into_bytes(),
            layer: digest(&blob),
            blobs: [config, blob]
                .into_iter()
                .map(|bytes| (digest(&bytes), bytes))
                .collect(),
            lie,
            over: Arc::new(AtomicBool::new(false)),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let over = Arc::clone(&site.over);
        let thread = std::thread::spawn(move || site.accept(&listener));
        Self {
            address,
            over,
            thread: Some(thread),
        }
    }

    /// A reference to the image.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}/liar:1", self.address)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address); // wakes the accepting thread
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn descriptor(kind: &str, bytes: &[u8]) -> serde_json::Value {
    json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
}

/// What is served.
struct Site {
    manifest: Vec<u8>,
    layer: String,
    blobs: HashMap<String, Vec<u8>>,
    lie: Lie,
    over: Arc<AtomicBool>,
}

impl Site {
    fn accept(self, listener: &TcpListener) {
        std::thread::scope(|scope| {
            for connection in listener.incoming() {
                if self.over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                let site = &self;
                scope.spawn(move || site.talk(connection));
            }
        });
    }

    /// One request per connection.
    fn talk(&self, mut connection: TcpStream) {
        let mut line = String::new();
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        if reader.read_line(&mut line).is_err() {
            return;
        }
        let mut header = String::new();
        while reader.read_line(&mut header).is_ok_and(|count| count > 2) {
            header.clear();
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let last = path.rsplit('/').next().unwrap_or_default();
        let _ = if path.contains("/manifests/") {
            let kind = "application/vnd.oci.image.manifest.v1+json";
            answer(
                &mut connection,
                "200 OK",
                kind,
                &self.manifest,
                self.manifest.len(),
            )
        } else if let Some(blob) = self.blobs.get(last) {
            self.blob(&mut connection, blob, last == self.layer)
        } else if path == "/v2/" {
            answer(&mut connection, "200 OK", "application/json", b"{}", 2)
        } else {
            answer(
                &mut connection,
                "404 Not Found",
                "application/json",
                b"{}",
                2,
            )
        };
    }

    fn blob(&self, connection: &mut TcpStream, blob: &[u8], is_layer: bool) -> std::io::Result<()> {
        let kind = "application/octet-stream";
        let half = &blob[..blob.len() / 2];
        match self.lie {
            Lie::Flipped if is_layer => {
                let mut flipped = blob.to_vec();
                let middle = flipped.len() / 2;
                flipped[middle] ^= 1;
                answer(connection, "200 OK", kind, &flipped, flipped.len())
            }
            Lie::Truncated if is_layer => answer(connection, "200 OK", kind, half, blob.len()),
            Lie::Stalled if is_layer => {
                answer(connection, "200 OK", kind, half, blob.len())?;
                let mut left = STALL;
                while !self.over.load(Ordering::SeqCst) && !left.is_zero() {
                    std::thread::sleep(LOOK);
                    left = left.saturating_sub(LOOK);
                }
                Ok(())
            }
            _ => answer(connection, "200 OK", kind, blob, blob.len()),
        }
    }
}

fn answer(
    to: &mut TcpStream,
    status: &str,
    kind: &str,
    body: &[u8],
    length: usize,
) -> std::io::Result<()> {
    let digest = digest(body);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nDocker-Content-Digest: {digest}\r\nConnection: close\r\n\r\n"
    );
    to.write_all(head.as_bytes())?;
    to.write_all(body)?;
    to.flush()
}
