//! Signals, which ssh carries and OpenSSH's client has no command for: another client sends them.

use std::sync::Arc;

use banger_sdk::{Tunnel, TunnelTarget};
use russh::client::{Config, Handle, Handler, Msg, connect_stream};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelMsg, Sig};
use tokio::time::timeout;

use super::rig::{HOST, Ssh, USER};
use crate::rig::PATIENCE;

/// A client that is content with any host key: the tests of the key are elsewhere.
struct Anyone;

impl Handler for Anyone {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

async fn log_in(ssh: &Ssh) -> Handle<Anyone> {
    let tunnel: Tunnel = ssh
        .client
        .tunnels()
        .open(HOST, TunnelTarget::Ssh)
        .await
        .unwrap();
    let connected = connect_stream(Arc::new(Config::default()), tunnel, Anyone).await;
    let mut client = connected.unwrap();
    assert!(client.authenticate_none(USER).await.unwrap().success());
    client
}

/// A program, and what it has said so far.
struct Program {
    channel: Channel<Msg>,
    said: String,
}

impl Program {
    async fn start(client: &Handle<Anyone>, script: &str) -> Self {
        let channel = client.channel_open_session().await.unwrap();
        channel.exec(true, script).await.unwrap();
        let said = String::new();
        Self { channel, said }
    }

    /// Until what it says or how it ends is this.
    async fn until(&mut self, is_it: impl Fn(&str, &ChannelMsg) -> bool) {
        let come = async {
            while let Some(message) = self.channel.wait().await {
                if let ChannelMsg::Data { data } = &message {
                    self.said.push_str(std::str::from_utf8(data).unwrap());
                }
                if is_it(&self.said, &message) {
                    return true;
                }
            }
            false
        };
        let come = timeout(PATIENCE, come).await;
        assert!(come.is_ok_and(|come| come), "after {:?}", self.said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_all_processes_of_a_program() {
    let Some(ssh) = Ssh::start_with(false).await else {
        return;
    };
    let client = log_in(&ssh).await;
    let script = "trap 'echo leader' USR1; \
                  (trap 'echo child; exit' USR1; echo up; while :; do sleep 0.1; done) & \
                  wait; wait; echo over";
    let mut program = Program::start(&client, script).await;
    program.until(|said, _| said.contains("up")).await;
    program.channel.signal(Sig::USR1).await.unwrap();
    let has_ended =
        |_: &str, message: &_| matches!(message, ChannelMsg::ExitStatus { exit_status: 0 });
    program.until(has_ended).await;
    let mut said: Vec<&str> = program.said.lines().collect();
    said[1..3].sort_unstable();
    assert_eq!(said, ["up", "child", "leader", "over"]);
    // One that the program leaves as it is ends it, and the client is told.
    let mut program = Program::start(&client, "echo up; exec sleep 1000").await;
    program.until(|said, _| said.contains("up")).await;
    program.channel.signal(Sig::TERM).await.unwrap();
    let is_told = |_: &str, message: &_| {
        matches!(
            message,
            ChannelMsg::ExitSignal {
                signal_name: Sig::TERM,
                ..
            }
        )
    };
    program.until(is_told).await;
    drop(client);
    ssh.stopped().await;
}
