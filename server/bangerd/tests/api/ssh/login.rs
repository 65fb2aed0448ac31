//! Who is let in, who knows whom, and what becomes of those who are no ssh clients.

use std::fs;

use banger_sdk::TunnelTarget;
use bangerd::config::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::rig::{Ssh, complaint, ended};
use crate::rig::PATIENCE;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_vm_lets_in_and_no_other() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    assert_eq!(ssh.said(&["web", "echo", "hi"]).await, "hi\n");
    for key in ["other", "none"] {
        let output = ended(ssh.client_with(key, "ssh", &["web", "true"])).await;
        assert_eq!(output.status.code(), Some(255));
        assert!(
            complaint(&output).contains("Permission denied (publickey)"),
            "{output:?}"
        );
    }
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_vm_has_no_key_the_call_is_enough() {
    let Some(ssh) = Ssh::start_with(false).await else {
        return;
    };
    let output = ended(ssh.client_with("none", "ssh", &["web", "echo", "hi"])).await;
    assert_eq!(output.stdout, b"hi\n", "{output:?}");
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_the_guest_has_not_is_named() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    for user in ["nobody", "me:root", "0"] {
        let output = ssh.ssh(&["-l", user, "web", "true"]).await;
        assert_eq!(output.status.code(), Some(255));
        let expected = format!("user `{user}` does not exist in VM `web`");
        assert!(complaint(&output).contains(&expected), "{output:?}");
    }
    let output = ssh
        .ssh(&["-l", "app", "web", "id -u; pwd; echo $HOME $USER"])
        .await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, "12345\n/\n/nowhere app\n", "{output:?}");
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_key_stays_the_vms_and_another_is_refused() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let known = fs::read_to_string(ssh.path("known")).unwrap();
    let again = ssh.client.vms().ssh_host_key("web").await.unwrap();
    assert_eq!(known.trim(), format!("web {again}"));
    let other = fs::read_to_string(ssh.path("other.pub")).unwrap();
    fs::write(ssh.path("known"), format!("web {other}")).unwrap();
    let output = ssh.ssh(&["web", "true"]).await;
    assert_eq!(output.status.code(), Some(255));
    assert!(
        complaint(&output).contains("HOST IDENTIFICATION HAS CHANGED"),
        "{output:?}"
    );
    fs::remove_file(ssh.path("known")).unwrap();
    let output = ssh.ssh(&["web", "true"]).await;
    assert!(
        complaint(&output).contains("Host key verification failed"),
        "{output:?}"
    );
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_is_off_says_so_and_keeps_its_key() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let vms = ssh.client.vms();
    let before = vms.ssh_host_key("web").await.unwrap();
    vms.kill("web").await.unwrap();
    let refused = ssh.client.tunnels().open("web", TunnelTarget::Ssh).await;
    assert_eq!(refused.unwrap_err().reason(), "WRONG_STATE");
    assert_eq!(vms.ssh_host_key("web").await.unwrap(), before);
    let refused = vms.ssh_host_key("nobody").await.unwrap_err();
    assert_eq!(refused.reason(), "VM_NOT_FOUND");
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_ssh_is_hung_up_on() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let tunnels = ssh.client.tunnels();
    let nonsense: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 70_000],
        b"SSH-2.0-x\r\n\xff\xff\xff\xff\xff\xff\xff\xff",
        b"SSH-2.0-x\r\n\0\0\0\x0c\x0a\x14rubbish!!!!",
    ];
    for bytes in nonsense {
        let mut tunnel = tunnels.open("web", TunnelTarget::Ssh).await.unwrap();
        // The server may have gone before it has heard all.
        let _ = tunnel.write_all(bytes).await;
        let mut heard = Vec::new();
        let read = tokio::time::timeout(PATIENCE, tunnel.read_to_end(&mut heard)).await;
        let _ = read.expect("the server hangs up");
        assert!(heard.starts_with(b"SSH-2.0-banger_"), "{heard:?}");
    }
    assert_eq!(ssh.said(&["web", "echo", "hi"]).await, "hi\n");
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_and_come_back() {
    let Some(ssh) = Ssh::start().await else {
        return;
    };
    let tunnels = ssh.client.tunnels();
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(tunnels.open("web", TunnelTarget::Ssh).await.unwrap());
    }
    let refused = tunnels.open("web", TunnelTarget::Ssh).await.unwrap_err();
    assert_eq!(refused.reason(), "TOO_MANY_SSH_CONNECTIONS");
    drop(silent);
    let again = async {
        while tunnels.open("web", TunnelTarget::Ssh).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    ssh.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_log_in_in_time_is_hung_up_on_and_who_did_stays() {
    let limit = |config: &mut Config| config.ssh_login_timeout = "10s".parse().unwrap();
    let Some(ssh) = Ssh::start_configured(true, limit).await else {
        return;
    };
    let tunnels = ssh.client.tunnels();
    let hung_up_on = async |said: &[u8]| {
        let mut tunnel = tunnels.open("web", TunnelTarget::Ssh).await.unwrap();
        tunnel.write_all(said).await.unwrap();
        let mut heard = Vec::new();
        let read = tokio::time::timeout(PATIENCE * 3, tunnel.read_to_end(&mut heard)).await;
        let _ = read.expect("the server hangs up");
        assert!(heard.starts_with(b"SSH-2.0-banger_"), "{heard:?}");
    };
    // One says nothing, one who it is and no more; one has logged in, and works for longer.
    let ((), (), said) = tokio::join!(
        hung_up_on(b""),
        hung_up_on(b"SSH-2.0-patient\r\n"),
        ssh.said(&["web", "sleep 12; echo hi"]),
    );
    assert_eq!(said, "hi\n");
    ssh.stopped().await;
}
