//! Sockets of the VM by `ssh -L` and `ssh -W`: both directions with their ends, and what is not there.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::rig::{Ssh, complaint, with_input};
use crate::rig::PATIENCE;

/// What a service of the VM does: it answers when it has heard all.
fn answer(mut stream: impl Read + Write, end: impl Fn()) {
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    stream.write_all(&heard).unwrap();
    stream.write_all(b" heard").unwrap();
    end();
}

/// Sends half a megabyte and its end, and checks the answer.
fn ask<S: Read + Write>(mut stream: S, end: impl Fn(&S)) {
    let sent = vec![7; 500_000];
    stream.write_all(&sent).unwrap();
    end(&stream);
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard.len(), sent.len() + 6);
    assert!(heard.ends_with(b" heard"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_and_sockets_are_forwarded_with_their_half_ends() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let unix = UnixListener::bind(ssh.guest("/data/service")).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let serve_tcp = thread::spawn(move || {
        let (stream, _) = tcp.accept().unwrap();
        let other = stream.try_clone().unwrap();
        answer(stream, || other.shutdown(Shutdown::Write).unwrap());
    });
    let serve_unix = thread::spawn(move || {
        let (stream, _) = unix.accept().unwrap();
        let other = stream.try_clone().unwrap();
        answer(stream, || other.shutdown(Shutdown::Write).unwrap());
    });
    let (here, there) = (ssh.path("here"), ssh.path("there"));
    let forwards = [
        format!("{}:localhost:{port}", here.display()),
        format!("{}:/data/service", there.display()),
    ];
    let words = [
        "-o",
        "ExitOnForwardFailure=yes",
        "-N",
        "-L",
        &forwards[0],
        "-L",
        &forwards[1],
        "web",
    ];
    let mut child = ssh
        .client("ssh", &words)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let up = async {
        while !(here.exists() && there.exists()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, up).await.unwrap();
    let asking = tokio::task::spawn_blocking(move || {
        for path in [here, there] {
            let stream = UnixStream::connect(path).unwrap();
            ask(stream, |stream| stream.shutdown(Shutdown::Write).unwrap());
        }
    });
    tokio::time::timeout(PATIENCE * 3, asking)
        .await
        .unwrap()
        .unwrap();
    serve_tcp.join().unwrap();
    serve_unix.join().unwrap();
    child.kill().await.unwrap();
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_carried_and_what_is_not_there_is_told() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let (stream, _): (TcpStream, _) = tcp.accept().unwrap();
        let other = stream.try_clone().unwrap();
        answer(stream, || other.shutdown(Shutdown::Write).unwrap());
    });
    let command = ssh.client("ssh", &["-W", &format!("web.vm:{port}"), "web"]);
    let output = with_input(command, b"word".to_vec()).await;
    assert_eq!(output.stdout, b"word heard", "{output:?}");
    serving.join().unwrap();
    // Nobody listens there any more; and another host's name is nobody's to look up.
    for target in [format!("localhost:{port}"), "elsewhere.example:80".into()] {
        let output = ssh.ssh(&["-W", &target, "web"]).await;
        assert_eq!(output.status.code(), Some(255));
        assert!(
            complaint(&output).contains("forwarding failed"),
            "{output:?}"
        );
    }
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_reset_arrives() {
    // As much as is in the other's hands when it is written.
    const LENGTH: usize = 32 << 10;
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let (mut stream, _): (TcpStream, _) = tcp.accept().unwrap();
        // Until then, a reset would be one of the connecting itself.
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.write_all(&vec![7; LENGTH]).unwrap();
        let at_once = Some(Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(&stream, at_once).unwrap();
    });
    let mut command = ssh.client("ssh", &["-W", &format!("web.vm:{port}"), "web"]);
    // Its input stays open: what ends the channel is the reset.
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"word").await.unwrap();
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.unwrap().unwrap();
    drop(stdin);
    assert_eq!(output.stdout.len(), LENGTH, "{output:?}");
    serving.join().unwrap();
    ssh.stopped().await;
}
