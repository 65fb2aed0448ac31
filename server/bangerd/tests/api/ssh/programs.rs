//! Programs: how they end, what they read and print, their terminals and signals, and what becomes of them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use banger_sdk::types::session::State;
use futures::TryStreamExt as _;
use futures::future::join_all;
use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::rig::{Ssh, complaint, ended, with_input};
use crate::rig::PATIENCE;

/// Bytes that repeat nowhere near.
fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_as_it_ends() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    for code in [0, 1, 77, 255] {
        let output = ssh
            .ssh(&["web", &format!("echo out; echo err >&2; exit {code}")])
            .await;
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(
            (&output.stdout[..], &output.stderr[..]),
            (&b"out\n"[..], &b"err\n"[..])
        );
    }
    // OpenSSH's client says 255 for a signal.
    let output = ssh.ssh(&["web", "kill -TERM $$"]).await;
    assert_eq!(output.status.code(), Some(255));
    let output = ssh.ssh(&["-v", "web", "kill -TERM $$"]).await;
    assert!(complaint(&output).contains("exit-signal"), "{output:?}");
    let output = ssh.ssh(&["-l", "noshell", "web", "true"]).await;
    assert_eq!(output.status.code(), Some(127));
    assert!(
        complaint(&output).contains("`/missing/sh` was not found in the VM"),
        "{output:?}"
    );
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_ends_and_the_environment_is_carried() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let output = ssh.ssh_with(&["web", "wc -c"], vec![b'x'; 1000]).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1000");
    let words = [
        "-o",
        "SetEnv=GREETING=hello HOME=/elsewhere",
        "web",
        "echo $GREETING $HOME $SHELL",
    ];
    assert_eq!(ssh.said(&words).await, "hello /tmp /bin/sh\n");
    let output = ssh
        .ssh_with(&["web"], b"echo from the shell; exit 3\n".to_vec())
        .await;
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"from the shell\n");
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn much_is_carried_both_ways_whole() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let sent = noise(24 << 20);
    let output = ssh.ssh_with(&["web", "cat"], sent.clone()).await;
    assert!(output.status.success(), "{}", complaint(&output));
    assert!(
        output.stdout == sent,
        "{} bytes came back",
        output.stdout.len()
    );
    // New keys again and again in the middle of it.
    let words = ["-o", "RekeyLimit=1M", "web", "cat; echo done >&2"];
    let output = ssh.ssh_with(&words, sent.clone()).await;
    assert!(
        output.stdout == sent,
        "{} bytes came back",
        output.stdout.len()
    );
    assert_eq!(output.stderr, b"done\n");
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_nobody_takes_stops_neither_input_nor_other_channels() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let control = format!("ControlPath={}", ssh.path("mux").display());
    let master = ["-o", "ControlMaster=yes", "-o", &control, "web"];
    // It prints far more than it reads, and nobody reads it.
    let script = "while read -r line; do head -c 1000000 /dev/zero; done; echo end >&2";
    let mut command = ssh.client("ssh", &[&master[..], &[script]].concat());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let stdout = child.stdout.take().unwrap();
    // Without an end: more than every buffer on the way holds.
    let lines = b"line\n".repeat(1 << 20);
    let writing = tokio_util::task::TaskTracker::new().spawn(async move {
        let _ = stdin.write_all(&lines).await;
    });
    let up = async {
        while !ssh.path("mux").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, up).await.unwrap();
    for number in 0..3 {
        let through = ["-o", &control, "web", "echo", &number.to_string()];
        assert_eq!(ssh.said(&through).await, format!("{number}\n"));
    }
    // Once somebody reads, it goes on: a gigabyte would come.
    let mut reader = BufReader::with_capacity(1 << 20, stdout);
    let mut read = 0;
    let reading = async {
        while read < 40 << 20 {
            let length = reader.fill_buf().await.unwrap().len();
            assert_ne!(length, 0, "the output ends after {read} bytes");
            reader.consume(length);
            read += length;
        }
    };
    tokio::time::timeout(PATIENCE * 3, reading).await.unwrap();
    child.kill().await.unwrap();
    writing.abort();
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_channels_share_a_connection() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let control = format!("ControlPath={}", ssh.path("mux").display());
    let master = ["-o", "ControlMaster=yes", "-o", &control, "-N", "-f", "web"];
    let mut command = ssh.client("ssh", &master);
    // It goes to the background and keeps what it was given.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(ended(command).await.status.success());
    let words: Vec<[String; 5]> = (0..50)
        .map(|number| {
            let script = format!("read line; echo $line {number}; exit {number}");
            [
                "-o".into(),
                control.clone(),
                "-q".into(),
                "web".into(),
                script,
            ]
        })
        .collect();
    let all = words.iter().map(|words| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ssh = &ssh;
        async move { ssh.ssh_with(&words, b"hi\n".to_vec()).await }
    });
    for (number, output) in join_all(all).await.into_iter().enumerate() {
        assert_eq!(
            output.status.code(),
            Some(i32::try_from(number).unwrap()),
            "{output:?}"
        );
        assert_eq!(output.stdout, format!("hi {number}\n").into_bytes());
    }
    assert!(
        ssh.ssh(&["-o", &control, "-O", "exit", "web"])
            .await
            .status
            .success()
    );
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_a_session_and_is_hung_up_on_with_its_client() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let told = ssh.path("told").display().to_string();
    let script =
        format!("trap 'echo hup > {told}; exit' HUP; echo up; while :; do sleep 0.1; done");
    let mut command = ssh.client("ssh", &["web", &script]);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let up = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    assert_eq!(up.unwrap().unwrap().as_deref(), Some("up"));
    let sessions = ssh.client.sessions();
    let listed: Vec<_> = sessions.list("web").try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].state(), State::Running);
    let spec = listed[0].spec.clone().unwrap();
    assert_eq!(
        (spec.user.as_str(), &spec.command[..2]),
        ("me", &["/bin/sh".to_owned(), "-c".into()][..])
    );
    child.kill().await.unwrap();
    let gone = async {
        while !sessions
            .list("web")
            .try_collect::<Vec<_>>()
            .await
            .unwrap()
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 3, gone).await.unwrap();
    assert_eq!(fs::read_to_string(told).unwrap(), "hup\n");
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_size_of_the_users_and_follows_it() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let size = |rows, cols| PtySize {
        rows,
        cols,
        pixel_width: 0,
        pixel_height: 0,
    };
    let (config, key) = (ssh.path("config"), ssh.path("key"));
    let talk = move || {
        let pair = native_pty_system().openpty(size(30, 100)).unwrap();
        let mut command = CommandBuilder::new("ssh");
        command.args([
            "-t",
            "-F",
            config.to_str().unwrap(),
            "-i",
            key.to_str().unwrap(),
            "web",
        ]);
        command.arg("trap 'stty size' WINCH; stty size; echo $TERM; while :; do read l || exit 5; echo got $l; done");
        command.env("TERM", "vt220");
        command.env_remove("SSH_AUTH_SOCK");
        let mut child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().unwrap();
        let mut writer = pair.master.take_writer().unwrap();
        let mut seen = String::new();
        let mut until = |text: &str| {
            let mut bytes = [0; 4096];
            while !seen.contains(text) {
                let length = reader.read(&mut bytes).unwrap_or(0);
                assert_ne!(length, 0, "no {text:?} in {seen:?}");
                seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        };
        until("30 100\r\nvt220\r\n");
        writer.write_all(b"word\n").unwrap();
        until("got word");
        pair.master.resize(size(40, 132)).unwrap();
        until("40 132\r\n");
        writer.write_all(&[4]).unwrap();
        child.wait().unwrap().exit_code()
    };
    let talking = tokio::task::spawn_blocking(talk);
    let code = tokio::time::timeout(PATIENCE * 3, talking).await.unwrap();
    assert_eq!(code.unwrap(), 5);
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rsync_runs_as_a_command_where_the_image_has_it() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    if !std::path::Path::new("/usr/bin/rsync").exists() {
        eprintln!("SKIPPED rsync: it is not installed");
        return ssh.stopped().await;
    }
    let (here, there) = (ssh.path("here"), ssh.path("there"));
    fs::create_dir_all(here.join("deep/er")).unwrap();
    fs::write(here.join("deep/er/file"), noise(3 << 20)).unwrap();
    std::os::unix::fs::symlink("deep/er/file", here.join("link")).unwrap();
    let remote = format!(
        "-essh -F {} -i {}",
        ssh.path("config").display(),
        ssh.path("key").display()
    );
    let back = ssh.path("back");
    let sync = async |from: String, to: String| {
        let mut command = tokio::process::Command::new("rsync");
        command
            .args(["-a", &remote, &from, &to])
            .env_remove("SSH_AUTH_SOCK");
        let output = with_input(command, Vec::new()).await;
        assert!(output.status.success(), "{}", complaint(&output));
    };
    sync(
        format!("{}/", here.display()),
        format!("web:{}/", there.display()),
    )
    .await;
    sync(
        format!("web:{}/", there.display()),
        format!("{}/", back.display()),
    )
    .await;
    let read = |dir: &std::path::Path| fs::read(dir.join("deep/er/file")).unwrap();
    assert!(read(&here) == read(&back));
    assert_eq!(
        fs::read_link(back.join("link")).unwrap().to_str(),
        Some("deep/er/file")
    );
    ssh.stopped().await;
}
