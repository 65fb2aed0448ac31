//! What the tests of this crate build on: images made by hand, an OCI layout of them, a registry that lies.
#![allow(clippy::unwrap_used, unreachable_pub)] // helpers of tests, outside of test functions

pub mod disk;
pub mod nasty;
pub mod raw;
pub mod snapshot;
pub mod special;
pub mod stack;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use banger_core::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// An archive under construction.
pub struct Tar {
    builder: tar::Builder<Vec<u8>>,
}

impl Default for Tar {
    fn default() -> Self {
        Self::new()
    }
}

impl Tar {
    pub fn new() -> Self {
        Self {
            builder: tar::Builder::new(Vec::new()),
        }
    }

    /// An entry, with PAX records before it.
    pub fn add(
        mut self,
        path: &str,
        kind: u8,
        mode: u32,
        data: &[u8],
        link: &str,
        pax: &[(&str, &[u8])],
    ) -> Self {
        let mut pax = pax.to_vec();
        let is_long = link.len() > 100;
        if is_long {
            pax.push(("linkpath", link.as_bytes()));
        }
        if !pax.is_empty() {
            self.builder
                .append_pax_extensions(pax.iter().copied())
                .unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        if matches!(kind, b'3' | b'4') {
            header.set_device_major(7).unwrap();
            header.set_device_minor(300).unwrap();
        }
        if !link.is_empty() && !is_long {
            header.set_link_name_literal(link).unwrap();
        }
        if path.len() > 100 {
            self.builder.append_data(&mut header, path, data).unwrap();
            return self;
        }
        // As it is, whatever the builder thinks of it.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.builder.append(&header, data).unwrap();
        self
    }

    pub fn file(self, path: &str, data: &[u8]) -> Self {
        self.add(path, b'0', 0o644, data, "", &[])
    }

    pub fn dir(self, path: &str) -> Self {
        self.add(path, b'5', 0o755, b"", "", &[])
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.add(path, b'2', 0o777, b"", target, &[])
    }

    /// The entries alone, without the mark of the end.
    pub fn entries(self) -> Vec<u8> {
        let mut bytes = self.finish();
        bytes.truncate(bytes.len() - 1024);
        bytes
    }

    pub fn finish(self) -> Vec<u8> {
        self.builder.into_inner().unwrap()
    }
}

/// Bytes that no compression makes smaller.
pub fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    })
    .take(bytes)
    .collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image: its blobs by digest, and its manifest.
#[derive(Debug, Clone)]
pub struct TestImage {
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    pub manifest: Vec<u8>,
    pub layers: Vec<Digest>,
}

impl TestImage {
    /// From layers as they are served and as they are unpacked.
    pub fn new(layers: &[(Vec<u8>, Digest)]) -> Self {
        let diff_ids: Vec<String> = layers
            .iter()
            .map(|(_, diff_id)| format!("\"{diff_id}\""))
            .collect();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/bin/sh"],"Env":["A=b"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        )
        .into_bytes();
        let descriptor = |kind: &str, bytes: &[u8]| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{}","size":{}}}"#,
                Digest::of(bytes),
                bytes.len()
            )
        };
        let described: Vec<String> = layers
            .iter()
            .map(|(blob, _)| descriptor("layer.v1.tar+gzip", blob))
            .collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{},"layers":[{}]}}"#,
            descriptor("config.v1+json", &config),
            described.join(",")
        );
        let mut blobs: BTreeMap<_, _> = layers
            .iter()
            .map(|(blob, _)| (Digest::of(blob), blob.clone()))
            .collect();
        blobs.insert(Digest::of(&config), config);
        let digests = layers.iter().map(|(blob, _)| Digest::of(blob)).collect();
        Self {
            blobs,
            manifest: manifest.into_bytes(),
            layers: digests,
        }
    }

    /// From plain archives, compressed here.
    pub fn of(archives: &[Vec<u8>]) -> Self {
        Self::new(
            &archives
                .iter()
                .map(|plain| (gzip(plain), Digest::of(plain)))
                .collect::<Vec<_>>(),
        )
    }

    /// One layer with a few files and incompressible data.
    pub fn simple(seed: u32, bytes: usize) -> Self {
        let noise = noise(seed, bytes);
        Self::of(&[Tar::new()
            .dir("etc/")
            .file("etc/name", b"simple")
            .file("noise", &noise)
            .finish()])
    }

    /// The same layers with another configuration.
    pub fn with_config(mut self, change: impl Fn(&str) -> String) -> Self {
        let is_config = |bytes: &[u8]| bytes.starts_with(b"{\"architecture\"");
        let (digest, bytes) = self
            .blobs
            .iter()
            .find(|(_, bytes)| is_config(bytes))
            .unwrap();
        let config = change(std::str::from_utf8(bytes).unwrap()).into_bytes();
        let descriptor = |digest: &Digest, bytes: &[u8]| {
            format!(r#""digest":"{digest}","size":{}"#, bytes.len())
        };
        let manifest = String::from_utf8(self.manifest).unwrap();
        let changed = manifest.replace(
            &descriptor(digest, bytes),
            &descriptor(&Digest::of(&config), &config),
        );
        self.manifest = changed.into_bytes();
        self.blobs.insert(Digest::of(&config), config);
        self
    }

    /// Writes an OCI layout.
    pub fn write_layout(&self, directory: &Path) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for (digest, bytes) in &self.blobs {
            fs::write(blobs.join(digest.hex()), bytes).unwrap();
        }
        let digest = Digest::of(&self.manifest);
        fs::write(blobs.join(digest.hex()), &self.manifest).unwrap();
        fs::write(
            directory.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{MANIFEST_TYPE}","digest":"{digest}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"latest"}}}}]}}"#,
            self.manifest.len()
        );
        fs::write(directory.join("index.json"), index).unwrap();
    }
}

/// What is left under a temporary name.
pub fn leftovers(state: &Path) -> Vec<PathBuf> {
    fs::read_dir(state.join("tmp/images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// An answer of the registry that lies.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    /// What the head says; the body's length when absent.
    pub length: Option<u64>,
    pub body: Vec<u8>,
    pub then: Then,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Then {
    #[default]
    Close,
    Stall,
    /// Sends the body again and again.
    Repeat,
    /// Sends the body byte by byte, with a pause after each.
    Trickle,
    /// Sends the body in pieces, with a pause after each.
    Slowly,
}

impl Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            body: body.into(),
            ..Self::default()
        }
    }

    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }
}

/// A request as the registry sees it.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub head: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// A registry on a free port of this host, which answers as it is told. Ends when dropped.
pub struct Registry {
    pub host: String,
    pub requests: Arc<Mutex<Vec<Request>>>,
    _tasks: JoinSet<()>,
}

impl Registry {
    pub async fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (handler, seen): (Arc<Handler>, _) = (Arc::new(handler), Arc::clone(&requests));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&handler), Arc::clone(&seen)));
            }
        });
        Self {
            host,
            requests,
            _tasks: tasks,
        }
    }

    /// Serves `image`, except where `handler` has another answer.
    pub async fn of(
        image: TestImage,
        handler: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |request| handler(request).unwrap_or_else(|| honest(&image, request)))
            .await
    }

    pub fn count(&self, part: &str) -> usize {
        self.requests
            .lock()
            .unwrap()
            .iter()
            .filter(|request| request.path.contains(part))
            .count()
    }
}

/// What an honest registry answers, ranges included.
pub fn honest(image: &TestImage, request: &Request) -> Answer {
    if request.path.contains("/manifests/") {
        let mut answer = Answer::ok(image.manifest.clone());
        answer.headers = format!("Content-Type: {MANIFEST_TYPE}\r\n");
        return answer;
    }
    if request.path == "/v2/" {
        return Answer::ok("{}");
    }
    let digest: Digest = request.path.rsplit('/').next().unwrap().parse().unwrap();
    let Some(blob) = image.blobs.get(&digest) else {
        return Answer::status(404);
    };
    let range = request.header("range").and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    match range {
        Some(from) => Answer {
            status: 206,
            headers: format!(
                "Content-Range: bytes {from}-{}/{}\r\n",
                blob.len() - 1,
                blob.len()
            ),
            body: blob[from..].to_vec(),
            ..Answer::default()
        },
        None => Answer::ok(blob.clone()),
    }
}

async fn serve(mut stream: TcpStream, handler: Arc<Handler>, seen: Arc<Mutex<Vec<Request>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.first() == Some(&0x16) {
            // TLS, which a server without it answers as any nonsense.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            return;
        }
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let request = Request { path, head };
    seen.lock().unwrap().push(request.clone());
    let answer = handler(&request);
    let length = match (answer.then, answer.length) {
        (Then::Repeat, _) => String::new(),
        (_, length) => format!(
            "Content-Length: {}\r\n",
            length.unwrap_or(answer.body.len() as u64)
        ),
    };
    let head = format!(
        "HTTP/1.1 {} X\r\n{}{length}Connection: close\r\n\r\n",
        answer.status, answer.headers
    );
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    if matches!(answer.then, Then::Trickle | Then::Slowly) {
        let (piece, pause) = match answer.then {
            Then::Trickle => (1, Duration::from_millis(20)),
            _ => (8 << 10, Duration::from_millis(2)),
        };
        for piece in answer.body.chunks(piece) {
            if stream.write_all(piece).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
        return;
    }
    loop {
        if stream.write_all(&answer.body).await.is_err() || answer.then == Then::Close {
            break;
        }
        if answer.then == Then::Stall {
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
    }
    let _ = stream.shutdown().await;
}
