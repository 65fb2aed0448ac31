//! Sessions that are begun before a disturbance, and must go on where their VM does.

use banger_core::VmId;
use banger_proto::v1;
use banger_proto::v1::session_service_client::SessionServiceClient;
use banger_proto::v1::vm::State;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::act::command;
use super::{Campaign, Daemon};
use crate::rig::{PATIENCE, drain};

/// A session that writes numbers, each on a line.
#[derive(Debug)]
pub(super) struct Kept {
    /// Of its VM.
    boot: u64,
    session: String,
    /// How many lines were read.
    lines: usize,
}

impl Campaign {
    fn boot(&self, vm: &str) -> Option<u64> {
        self.host.boot(vm.parse::<VmId>().unwrap())
    }

    /// Begins one in each VM that runs and has none.
    pub(super) async fn keep(&mut self, daemon: &Daemon) {
        for vm in daemon.all().await {
            let Some(boot) = self.boot(&vm.id) else {
                continue;
            };
            if vm.state() != State::Running || self.kept.contains_key(&vm.id) {
                continue;
            }
            let request = v1::StartSessionRequest {
                vm: vm.id.clone(),
                spec: Some(command(&["count"])),
                ..Default::default()
            };
            let mut sessions = SessionServiceClient::new(daemon.channel.clone());
            // A VM that was about to end may end now.
            if let Ok(started) = sessions.start_session(request).await {
                let session = started.into_inner().session.unwrap().id;
                let lines = 0;
                let kept = Kept {
                    boot,
                    session,
                    lines,
                };
                self.kept.insert(vm.id, kept);
            }
        }
    }

    /// Each whose VM has lived on goes on, and all that it wrote is there.
    pub(super) async fn check_kept(&mut self, daemon: &Daemon, context: &str) {
        for vm in daemon.all().await {
            let Some(kept) = self.kept.get(&vm.id) else {
                continue;
            };
            if self.boot(&vm.id) != Some(kept.boot) || vm.state() != State::Running {
                continue;
            }
            let read = tokio::time::timeout(PATIENCE, patiently(daemon, kept)).await;
            match read.unwrap_or_else(|_| panic!("{context}: a session does not answer")) {
                Ok(lines) => {
                    assert!(lines >= kept.lines, "{context}: {vm:?} {kept:?} {lines}");
                    self.survived += 1;
                    self.kept.get_mut(&vm.id).expect("it was there").lines = lines;
                }
                // A VM that was about to end has ended since.
                Err(error) => assert_ne!(
                    self.boot(&vm.id),
                    Some(kept.boot),
                    "{context}: {vm:?} {kept:?} {error:?}"
                ),
            }
        }
        let living: Vec<_> = self.kept.keys().cloned().collect();
        for vm in living {
            if self.boot(&vm) != self.kept.get(&vm).map(|kept| kept.boot) {
                self.kept.remove(&vm);
            }
        }
    }
}

/// Reads as soon as the agent is reached again where that was under way.
async fn patiently(daemon: &Daemon, kept: &Kept) -> Result<usize, Status> {
    loop {
        let read = read(daemon, kept).await;
        let reason = |error: &Status| error.get_error_details().error_info().cloned();
        match read {
            Err(error) if reason(&error).is_some_and(|info| info.reason == "AGENT_AWAY") => {}
            read => return read,
        }
    }
}

/// How many lines a session has written, all of which must be there.
async fn read(daemon: &Daemon, kept: &Kept) -> Result<usize, Status> {
    use v1::read_session_log_response::Message;
    let mut sessions = SessionServiceClient::new(daemon.channel.clone());
    let request = v1::ReadSessionLogRequest {
        session: kept.session.clone(),
        ..Default::default()
    };
    let messages = sessions.read_session_log(request).await?.into_inner();
    let mut text = Vec::new();
    for message in drain(messages).await? {
        match message.message.unwrap() {
            Message::Attached(session) => {
                assert_eq!(session.state(), v1::session::State::Running, "{session:?}");
            }
            Message::Output(output) => {
                assert_eq!(output.offset, i64::try_from(text.len()).unwrap());
                text.extend_from_slice(&output.data);
            }
            Message::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let text = String::from_utf8(text).unwrap();
    let lines = text.lines().count();
    let whole: String = (1..=lines).map(|line| format!("{line}\n")).collect();
    assert_eq!(text, whole);
    Ok(lines)
}
