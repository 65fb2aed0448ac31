//! Crowds that want in: whoever holds sockets open without showing a certificate keeps nobody out for long, and nobody
//! at the unix socket at all.

use std::time::Duration;

use banger_proto::v1;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::{Remote, from, until};
use crate::rig::PATIENCE;

/// As many as there are descriptors for in this process, of which the other tests need some.
const CROWD: usize = 10_000;
/// What other tests are left of the descriptors.
const LEFT: u64 = 4_000;

fn crowd() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.current.unwrap_or(u64::MAX).saturating_sub(LEFT);
    CROWD.min(usize::try_from(most).unwrap_or(CROWD))
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_silent_connections_of_one_address_keep_no_other_out() {
    let remote = Remote::start_with(|config| {
        config.tcp.connections_per_address_max = 64;
        config.tcp.handshakes_max = 128;
    })
    .await;
    let client = remote.authority.client("admin", "test");
    let mut held = Vec::new();
    for number in 0..crowd() {
        match from("127.0.0.2", remote.address).await {
            Ok(stream) => held.push(stream),
            Err(error) => panic!("connection {number}: {error}"),
        }
        if number % 1000 == 0 {
            remote.knock(&client).await.unwrap();
            remote
                .rig
                .hosts()
                .get_info(v1::GetInfoRequest {})
                .await
                .unwrap();
        }
    }
    remote.knock(&client).await.unwrap();
    until("that all but 64 are turned away", async || {
        let mut open = 0;
        for stream in &mut held {
            let mut byte = [0; 1];
            let read = tokio::time::timeout(Duration::ZERO, stream.read(&mut byte)).await;
            open += usize::from(read.is_err());
        }
        (open <= 64).then_some(())
    })
    .await;
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_end_and_let_others_in() {
    let remote = Remote::start_with(|config| {
        config.tcp.handshakes_max = 16;
        config.tcp.handshake_timeout = "1s".parse().unwrap();
    })
    .await;
    let client = remote.authority.client("admin", "test");
    let mut held = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(remote.address).await.unwrap();
        // A record that says it is long, and of which nothing follows.
        let begun: &[u8] = b"\x16\x03\x01\x40\0\x01";
        tokio::io::AsyncWriteExt::write_all(&mut stream, begun)
            .await
            .unwrap();
        held.push(stream);
    }
    remote
        .rig
        .hosts()
        .get_info(v1::GetInfoRequest {})
        .await
        .unwrap();
    // A handshake is turned away while all places are taken, and let in when the others ran out of time.
    until("a place", async || remote.knock(&client).await.ok()).await;
    for stream in &mut held {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        ended.expect("it is closed").ok();
    }
    remote.rig.stopped().await;
}
