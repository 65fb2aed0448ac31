//! Tunnels of the client against a daemon that holds it to the API.
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::fake::Fake;
use banger_sdk::{Client, ClientOptions, Host, Tunnel, TunnelTarget};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// More than both windows hold.
const LONG: usize = 3 << 20;
/// What two windows and a message hold.
const UNDER_WAY_MAX: u64 = (2 * 256 + 64) << 10;

async fn client(fake: &Fake) -> Client {
    let host = Host::socket(fake.socket());
    let options = ClientOptions::default().reconnect_window(Duration::ZERO);
    Client::connect_with(host, options).await.unwrap()
}

async fn open(client: &Client, port: u16) -> banger_sdk::Result<Tunnel> {
    client.tunnels().open("web", TunnelTarget::port(port)).await
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| u8::try_from(index * 7 % 251).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_through_two_tasks_to_the_end() {
    let fake = Fake::start();
    let tunnel = open(&client(&fake).await, 7).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(tunnel);
    let sent = bytes(LONG);
    let expected = sent.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
        let refused = writer.write_all(b"x").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
    });
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    assert!(received == expected);
    tasks.join_all().await;
    assert_eq!(fake.state.called("Forward end"), 1);
    assert_eq!(fake.state.called("Forward reset"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_is_never_further_ahead_than_the_windows() {
    let fake = Fake::start();
    let tunnel = open(&client(&fake).await, 7).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(tunnel);
    let read = Arc::new(AtomicU64::new(0));
    let (of_writer, of_reader) = (read.clone(), read);
    let (stalled, stalls) = tokio::sync::oneshot::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut stalled = Some(stalled);
        let (mut written, mut ahead_max) = (0, 0);
        while written < LONG {
            written += writer.write(&bytes(1000)).await.unwrap();
            let ahead = written as u64 - of_writer.load(Ordering::SeqCst);
            ahead_max = ahead_max.max(ahead);
            // A window's worth without a byte that was read.
            if ahead >= 256 << 10
                && let Some(stalled) = stalled.take()
            {
                stalled.send(()).unwrap();
            }
        }
        writer.shutdown().await.unwrap();
        ahead_max
    });
    stalls.await.unwrap();
    let mut buffer = vec![0; 10_000];
    loop {
        // Counted before: what is read has room at once.
        let length = reader.read(&mut buffer).await.unwrap();
        of_reader.fetch_add(length as u64, Ordering::SeqCst);
        if length == 0 {
            break;
        }
    }
    let ahead_max = tasks.join_next().await.unwrap().unwrap();
    assert!(ahead_max <= UNDER_WAY_MAX, "{ahead_max} bytes were ahead");
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_tunnels_do_not_stop_the_others() {
    let fake = Fake::start();
    let client = client(&fake).await;
    let mut stalled = Vec::new();
    for _ in 0..60 {
        let mut tunnel = open(&client, 7).await.unwrap();
        // As much as comes back without being read.
        tunnel.write_all(&bytes(256 << 10)).await.unwrap();
        stalled.push(tunnel);
    }
    let mut tunnel = open(&client, 7).await.unwrap();
    tunnel.write_all(b"hello").await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut answer = String::new();
    tunnel.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_no_end_and_comes_after_the_bytes_before_it() {
    let fake = Fake::start();
    let mut tunnel = open(&client(&fake).await, 13).await.unwrap();
    let mut word = [0; 2];
    tunnel.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"hi");
    let error = tunnel.read(&mut word).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(tunnel.failure().unwrap().reason(), "TUNNEL_RESET");
    let error = tunnel.write(b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_accepts_is_refused_with_a_remedy() {
    let fake = Fake::start();
    let client = client(&fake).await;
    let refused = open(&client, 9).await.unwrap_err();
    assert_eq!(refused.reason(), "TUNNEL_REFUSED");
    assert!(refused.remedy().is_some());
    let socket = TunnelTarget::Unix("/run/x".into());
    let refused = client.tunnels().open("web", socket).await.unwrap_err();
    assert_eq!(refused.reason(), "TUNNEL_SOCKET_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_is_dropped_before_its_end_is_reset() {
    let fake = Fake::start();
    let mut tunnel = open(&client(&fake).await, 7).await.unwrap();
    tunnel.write_all(b"x").await.unwrap();
    tunnel.read_u8().await.unwrap();
    drop(tunnel);
    let reset = async {
        while fake.state.called("Forward reset") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reset)
        .await
        .unwrap();
    assert_eq!(fake.state.called("Forward end"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_says_nothing_is_noticed() {
    let fake = Fake::start();
    let host = Host::socket(fake.socket());
    let options = ClientOptions::default().silence(Duration::from_millis(500));
    let client = Client::connect_with(host, options).await.unwrap();
    let mut tunnel = open(&client, 7).await.unwrap();
    fake.state.silent.store(true, Ordering::SeqCst);
    let error = tunnel.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    assert_eq!(tunnel.failure().unwrap().reason(), "CONNECTION_SILENT");
}
