//! Workspaces over a network: contents go in fewer bytes than they have.

use std::fs;
use std::net::{SocketAddr, TcpListener as Listener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use banger_sdk::{Client, Credentials, Host};
use bangerd::listen::Outside;
use bangerd::listen::activation::Sockets;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::task::TaskTracker;

use super::certificates::{Authority, Wanted};
use super::furnish;
use crate::workspaces::{Scene, git, repository};

/// Bytes that went by.
#[derive(Debug, Default)]
struct Count {
    up: AtomicU64,
    down: AtomicU64,
}

impl Count {
    /// Those since it was asked last.
    fn taken(&self) -> (u64, u64) {
        let take = |count: &AtomicU64| count.swap(0, Ordering::SeqCst);
        (take(&self.up), take(&self.down))
    }
}

async fn counted(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: &AtomicU64,
) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        count.fetch_add(length as u64, Ordering::SeqCst);
        if to.write_all(&piece[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// A way to the daemon's address on which bytes are counted.
async fn beside_network(to: SocketAddr, tasks: &TaskTracker) -> (SocketAddr, Arc<Count>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(Count::default());
    let counting = count.clone();
    tasks.spawn(async move {
        while let Ok((outer, _)) = listener.accept().await {
            let (outer_in, outer_out) = outer.into_split();
            let (inner_in, inner_out) = TcpStream::connect(to).await.unwrap().into_split();
            tokio::join!(
                counted(outer_in, inner_out, &counting.up),
                counted(inner_in, outer_out, &counting.down)
            );
        }
    });
    (address, count)
}

/// The same to its socket.
fn beside_socket(to: &Path, at: &Path, tasks: &TaskTracker) -> Arc<Count> {
    let listener = UnixListener::bind(at).unwrap();
    let count = Arc::new(Count::default());
    let (counting, to) = (count.clone(), to.to_owned());
    tasks.spawn(async move {
        while let Ok((outer, _)) = listener.accept().await {
            let (outer_in, outer_out) = outer.into_split();
            let (inner_in, inner_out) = UnixStream::connect(&to).await.unwrap().into_split();
            tokio::join!(
                counted(outer_in, inner_out, &counting.up),
                counted(inner_in, outer_out, &counting.down)
            );
        }
    });
    count
}

/// Text that is about a quarter as long when it is deflated.
fn text(seed: u64, length: usize) -> Vec<u8> {
    let mut chosen = fastrand::Rng::with_seed(seed);
    let words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"];
    let mut text = Vec::new();
    while text.len() < length {
        text.extend(words[chosen.usize(..words.len())].bytes());
        text.push(b' ');
    }
    text.truncate(length);
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_take_fewer_bytes_over_a_network_and_not_over_a_socket() {
    const LENGTH: usize = 9_000_000;
    let authority = Authority::new("the authority");
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let scene = Scene::start_from_outside(|dir, config| {
        furnish(dir, &authority, config);
        Outside {
            sockets: Sockets {
                tcp: vec![listener],
                ..Sockets::default()
            },
            ..Outside::default()
        }
    });
    let Some(scene) = scene.await else {
        return;
    };
    let tasks = TaskTracker::new();
    let path = |name: &str| scene.dir.path().join(name);
    authority.bundle(&path("bundle"), &Wanted::default());
    let (beside, remote) = beside_network(address, &tasks).await;
    let host: Host = format!("https://{beside}").parse().unwrap();
    let host = host.with_credentials(Credentials::directory(&path("bundle")));
    let far = Client::connect(host).await.unwrap();
    let local = beside_socket(&scene.config.socket, &path("beside"), &tasks);
    let host: Host = format!("unix://{}", path("beside").display())
        .parse()
        .unwrap();
    let near = Client::connect(host).await.unwrap();

    let mut seed = 0;
    for (client, count, is_far) in [(&far, &remote, true), (&near, &local, false)] {
        let fits = |bytes: u64| match is_far {
            true => bytes < LENGTH as u64 / 2,
            false => bytes > LENGTH as u64,
        };
        let name = if is_far { "far" } else { "near" };
        let here = path(name);
        repository(&here);
        seed += 1;
        // It has three megabytes of one byte; as much of text is more.
        fs::write(here.join("new"), text(seed, LENGTH)).unwrap();
        fs::write(here.join("empty"), "").unwrap();
        let workspace = client.workspace("web", name);
        let told = Arc::new(AtomicU64::new(0));
        let telling = told.clone();
        count.taken();
        workspace
            .prepare(&here)
            .progress(move |bytes| telling.store(bytes, Ordering::SeqCst))
            .await
            .unwrap();
        let (up, _) = count.taken();
        assert!(fits(up), "{name}: {up} bytes");
        // What is told of is the bytes as they are; the guest does so each 4 MiB.
        assert!(told.load(Ordering::SeqCst) > LENGTH as u64 * 3 / 4);
        let guest = scene.guest("root").join(name);
        for file in ["a", "new", "empty"] {
            assert_eq!(
                fs::read(guest.join(file)).unwrap(),
                fs::read(here.join(file)).unwrap()
            );
        }

        seed += 1;
        let theirs = text(seed, LENGTH);
        fs::write(guest.join("new"), &theirs).unwrap();
        let (telling, _) = (told.clone(), told.store(0, Ordering::SeqCst));
        let landed = workspace
            .export(&here)
            .progress(move |bytes| telling.store(bytes, Ordering::SeqCst));
        assert!(!landed.await.unwrap().has_loss());
        let (_, down) = count.taken();
        assert!(fits(down), "{name}: {down} bytes");
        assert!(told.load(Ordering::SeqCst) > LENGTH as u64);
        let landed = git(&here, &["show", "refs/banger/web/state/tree:new"]);
        assert_eq!(
            landed.as_bytes(),
            String::from_utf8(theirs).unwrap().trim_end().as_bytes()
        );
    }
    drop((far, near));
    scene.stopped().await;
}
