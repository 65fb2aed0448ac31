//! The handshake of the agent's port, and what is left of a host that has gone.
use std::sync::Arc;
use std::time::Duration;

use banger_agent::agent::Agent;
use banger_agent::handshake::{ANNOUNCEMENT, accept};
use banger_agent::serve::serve;
use banger_core::VmId;
use banger_core::guest::GuestConnector;
use banger_core::vmm::Accelerator;
use banger_guest::Connector;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The agent's end of a port on one stream: serves host after host until the stream ends.
async fn port(agent: Arc<Agent>, mut stream: UnixStream) {
    loop {
        if stream.write_all(ANNOUNCEMENT).await.is_err() {
            return;
        }
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (read, write) = tokio::io::split(theirs);
        // What one HTTP/2 session has read belongs to it, as on a real port.
        let session = async {
            let Ok(stream) = accept(ours).await else {
                return;
            };
            let _ = serve(&agent, stream).await;
        };
        let (mut from_host, mut to_host) = stream.split();
        let copied = async {
            let _ = tokio::join!(copy(&mut from_host, write), copy(read, &mut to_host));
        };
        tokio::select! {
            () = session => {}
            () = copied => return,
        }
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut buffer = vec![0; 1 << 14];
    loop {
        match from.read(&mut buffer).await {
            Ok(length) if length > 0 => {
                if to.write_all(&buffer[..length]).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            _ => return,
        }
    }
}

async fn host(stream: &mut UnixStream, nonce: &str) {
    let ready = format!("READY {nonce}\n");
    let mut seen = Vec::new();
    let hello = format!("HELLO {nonce}\n");
    stream.write_all(hello.as_bytes()).await.unwrap();
    let wait = async {
        while !seen.ends_with(ready.as_bytes()) {
            seen.push(stream.read_u8().await.unwrap());
            if seen.ends_with(ANNOUNCEMENT) {
                stream.write_all(hello.as_bytes()).await.unwrap();
            }
        }
    };
    timeout(Duration::from_secs(10), wait)
        .await
        .expect("no READY");
}

fn nonce(n: usize) -> String {
    format!("{n:032x}")
}

/// A stream to an agent that lets itself be taken over again and again.
fn shared(agent: &Arc<Agent>) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    agent.tasks.spawn(port(Arc::clone(agent), theirs));
    ours
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_hosts_in_a_row_take_over_a_stale_session() {
    let agent = crate::support::agent(None);
    let mut stream = shared(&agent);
    for n in 0..40 {
        host(&mut stream, &nonce(n)).await;
        // The host's end of HTTP/2 is dropped in the middle of a call; the stream itself goes on.
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let connector = Connector::default();
        {
            let (read, write) = tokio::io::split(theirs);
            let (mut from_agent, mut to_agent) = stream.split();
            let pumps = async {
                tokio::join!(copy(&mut from_agent, write), copy(read, &mut to_agent));
            };
            let talk = async {
                let (guest, _) = connector
                    .connect(VmId::new(), Box::new(ours), Accelerator::Kvm)
                    .await
                    .unwrap();
                guest.list_sessions().await.unwrap();
                let _ = timeout(
                    Duration::from_millis(1),
                    guest.wait_session(banger_core::SessionId::new()),
                )
                .await;
            };
            tokio::select! {
                () = pumps => panic!("the stream ended"),
                () = talk => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_before_the_hello_is_dropped() {
    let agent = crate::support::agent(None);
    for garbage in [
        vec![0; 100_000],
        b"\nHELLO\nHELLO 123\nHELLO zz\n\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"unterminated ".to_vec(),
    ] {
        let mut stream = shared(&agent);
        stream.write_all(&garbage).await.unwrap();
        host(&mut stream, &nonce(7)).await;
    }
}

#[tokio::test]
async fn repeated_hellos_are_skipped_and_another_nonce_is_answered() {
    let (mut ours, theirs) = tokio::io::duplex(1 << 12);
    let (one, two) = (nonce(1), nonce(2));
    let sent = format!("HELLO {one}\nHELLO {one}\nHELLO {two}\nHELLO {two}\nPRI * HTTP/2.0\r\n");
    ours.write_all(sent.as_bytes()).await.unwrap();
    let mut stream = accept(theirs).await.unwrap();
    let mut rest = vec![0; 16];
    stream.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest, b"PRI * HTTP/2.0\r\n");
    let mut answers = vec![0; 2 * 39];
    ours.read_exact(&mut answers).await.unwrap();
    assert_eq!(answers, format!("READY {one}\nREADY {two}\n").as_bytes());
}

#[tokio::test]
async fn a_host_that_goes_ends_the_handshake() {
    let (mut ours, theirs) = tokio::io::duplex(1 << 12);
    ours.write_all(b"HELLO 00").await.unwrap();
    drop(ours);
    let error = accept(theirs).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}
