//! What is asked of VMs while they are disturbed.

use banger_proto::v1;
use banger_proto::v1::session_service_client::SessionServiceClient;
use banger_proto::v1::vm_service_client::VmServiceClient;
use futures::StreamExt as _;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::Daemon;
use crate::rig::{creation, drain};

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Create,
    Start,
    Stop,
    Restart,
    Kill,
    Pause,
    Resume,
    Update,
    Delete,
    Exec,
    Session,
}

/// More creations and sessions than others, or there would be nothing to disturb.
pub(super) const ACTS: [Act; 15] = [
    Act::Create,
    Act::Create,
    Act::Create,
    Act::Start,
    Act::Start,
    Act::Stop,
    Act::Restart,
    Act::Kill,
    Act::Pause,
    Act::Resume,
    Act::Update,
    Act::Delete,
    Act::Exec,
    Act::Exec,
    Act::Session,
];

/// One request, whatever becomes of it: an error must say what it is.
pub(super) async fn request(channel: Channel, act: Act, name: String) -> Result<(), Status> {
    let mut vms = VmServiceClient::new(channel.clone());
    let mut sessions = SessionServiceClient::new(channel);
    let request_id = String::new();
    let vm = name;
    match act {
        Act::Create => drain(vms.create_vm(creation(&vm)).await?.into_inner())
            .await
            .map(drop),
        Act::Start => vms
            .start_vm(v1::StartVmRequest { vm, request_id })
            .await
            .map(drop),
        Act::Stop => vms
            .stop_vm(v1::StopVmRequest {
                vm,
                request_id,
                keep_logs: false,
            })
            .await
            .map(drop),
        Act::Restart => vms
            .restart_vm(v1::RestartVmRequest { vm, request_id })
            .await
            .map(drop),
        Act::Kill => vms
            .kill_vm(v1::KillVmRequest { vm, request_id })
            .await
            .map(drop),
        Act::Pause => vms
            .pause_vm(v1::PauseVmRequest { vm, request_id })
            .await
            .map(drop),
        Act::Resume => vms
            .resume_vm(v1::ResumeVmRequest { vm, request_id })
            .await
            .map(drop),
        Act::Update => {
            let request = v1::UpdateVmRequest {
                vm,
                spec: Some(v1::VmSpec {
                    vcpu_count: 2,
                    ..Default::default()
                }),
                update_mask: Some(prost_types::FieldMask {
                    paths: vec!["vcpu_count".into()],
                }),
                ..Default::default()
            };
            vms.update_vm(request).await.map(drop)
        }
        Act::Delete => vms
            .delete_vm(v1::DeleteVmRequest { vm, request_id })
            .await
            .map(drop),
        Act::Exec => {
            use v1::exec_request::Message;
            let start = v1::ExecStart {
                vm,
                spec: Some(command(&["echo", "hello"])),
            };
            let first = v1::ExecRequest {
                message: Some(Message::Start(start)),
            };
            let input = futures::stream::iter([first]).chain(futures::stream::pending());
            drain(sessions.exec(input).await?.into_inner())
                .await
                .map(drop)
        }
        Act::Session => {
            let request = v1::StartSessionRequest {
                vm,
                spec: Some(command(&["sleep"])),
                ..Default::default()
            };
            sessions.start_session(request).await.map(drop)
        }
    }
}

/// Runs something in a VM, as soon as its agent is reached again where that was under way.
pub(super) async fn is_of_use(daemon: &Daemon, vm: &v1::Vm) -> Result<(), Status> {
    loop {
        let done = request(daemon.channel.clone(), Act::Exec, vm.id.clone()).await;
        let reason = |error: &Status| error.get_error_details().error_info().cloned();
        match done {
            Err(error) if reason(&error).is_some_and(|info| info.reason == "AGENT_AWAY") => {}
            done => return done,
        }
    }
}

pub(super) fn command(words: &[&str]) -> v1::SessionSpec {
    v1::SessionSpec {
        command: words.iter().map(|&word| word.to_owned()).collect(),
        ..Default::default()
    }
}
