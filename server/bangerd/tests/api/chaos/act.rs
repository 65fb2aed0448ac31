//! What is asked of VMs and volumes while they are disturbed.

use banger_proto::v1;
use banger_proto::v1::session_service_client::SessionServiceClient;
use banger_proto::v1::vm_service_client::VmServiceClient;
use banger_proto::v1::vm_spec::RestartPolicy;
use banger_proto::v1::volume_service_client::VolumeServiceClient;
use futures::StreamExt as _;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::Daemon;
use crate::rig::{creation, drain, mask};

/// The names that VMs have: few, so that requests meet.
const VMS: [&str; 4] = ["a", "b", "c", "d"];
/// The names that volumes have.
const VOLUMES: [&str; 3] = ["v", "w", "x"];
/// To which sizes disks and volumes grow, MiB; they begin with the first.
const SIZES: std::ops::Range<i64> = 64..256;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Create(Kind),
    Start,
    Stop,
    Restart,
    Kill,
    Pause,
    Resume,
    Update,
    /// The VM's own disk, to so many MiB.
    GrowDisk(i64),
    Policy(RestartPolicy),
    Delete,
    Exec,
    Session,
    /// With the content of this volume, where there is one.
    MakeVolume(Option<&'static str>),
    /// To so many MiB.
    GrowVolume(i64),
    DeleteVolume,
}

/// What kind of VM is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// It goes when it stops.
    Ephemeral,
    /// It is started again whenever it ends by itself.
    Restarting,
    /// It writes this volume.
    Writing(&'static str),
    /// It reads this volume.
    Reading(&'static str),
}

impl Act {
    /// Something, and what it is asked of: more creations and sessions than others, or there would be nothing to
    /// disturb.
    pub(super) fn random(random: &mut fastrand::Rng) -> (Self, &'static str) {
        let volume = VOLUMES[random.usize(..VOLUMES.len())];
        let mib = random.i64(SIZES);
        let policies = [RestartPolicy::Never, RestartPolicy::Always];
        let policy = policies[random.usize(..policies.len())];
        let acts = [
            Self::Create(Kind::Plain),
            Self::Create(Kind::Plain),
            Self::Create(Kind::Ephemeral),
            Self::Create(Kind::Restarting),
            Self::Create(Kind::Writing(volume)),
            Self::Create(Kind::Writing(volume)),
            Self::Create(Kind::Reading(volume)),
            Self::Start,
            Self::Start,
            Self::Stop,
            Self::Restart,
            Self::Kill,
            Self::Pause,
            Self::Resume,
            Self::Update,
            Self::GrowDisk(mib),
            Self::GrowDisk(mib),
            Self::Policy(policy),
            Self::Delete,
            Self::Exec,
            Self::Exec,
            Self::Session,
            Self::MakeVolume(None),
            Self::MakeVolume(Some(volume)),
            Self::MakeVolume(Some(volume)),
            Self::GrowVolume(mib),
            Self::DeleteVolume,
        ];
        let act = acts[random.usize(..acts.len())];
        let names = match act {
            Self::MakeVolume(_) | Self::GrowVolume(_) | Self::DeleteVolume => &VOLUMES[..],
            _ => &VMS[..],
        };
        (act, names[random.usize(..names.len())])
    }
}

/// One request, whatever becomes of it: an error must say what it is.
pub(super) async fn request(channel: Channel, act: Act, name: String) -> Result<(), Status> {
    let vms = VmServiceClient::new(channel.clone());
    match act {
        Act::MakeVolume(_) | Act::GrowVolume(_) | Act::DeleteVolume => {
            of_volume(VolumeServiceClient::new(channel), act, name).await
        }
        Act::Exec | Act::Session => of_session(SessionServiceClient::new(channel), act, name).await,
        Act::Create(kind) => create(vms, kind, &name).await,
        Act::Update => {
            let spec = v1::VmSpec {
                vcpu_count: 2,
                ..Default::default()
            };
            update(vms, name, spec, "vcpu_count").await
        }
        Act::GrowDisk(disk_mib) => {
            let spec = v1::VmSpec {
                disk_mib,
                ..Default::default()
            };
            update(vms, name, spec, "disk_mib").await
        }
        Act::Policy(policy) => {
            let spec = v1::VmSpec {
                restart_policy: policy.into(),
                ..Default::default()
            };
            update(vms, name, spec, "restart_policy").await
        }
        Act::Start
        | Act::Stop
        | Act::Restart
        | Act::Kill
        | Act::Pause
        | Act::Resume
        | Act::Delete => simple(vms, act, name).await,
    }
}

/// A verb that needs nothing but the VM.
async fn simple(mut vms: VmServiceClient<Channel>, act: Act, vm: String) -> Result<(), Status> {
    let request_id = String::new();
    match act {
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
        Act::Delete => vms
            .delete_vm(v1::DeleteVmRequest { vm, request_id })
            .await
            .map(drop),
        other => unreachable!("{other:?} needs more than a VM"),
    }
}

async fn create(mut vms: VmServiceClient<Channel>, kind: Kind, name: &str) -> Result<(), Status> {
    let mut request = creation(name);
    let spec = request.spec.as_mut().unwrap();
    let mount = |volume: &str, read_only| v1::VolumeMount {
        volume: volume.to_owned(),
        path: "/data".to_owned(),
        read_only,
    };
    match kind {
        Kind::Plain => {}
        Kind::Ephemeral => spec.ephemeral = true,
        Kind::Restarting => spec.restart_policy = RestartPolicy::Always.into(),
        Kind::Writing(volume) => spec.volumes = vec![mount(volume, false)],
        Kind::Reading(volume) => spec.volumes = vec![mount(volume, true)],
    }
    drain(vms.create_vm(request).await?.into_inner())
        .await
        .map(drop)
}

async fn update(
    mut vms: VmServiceClient<Channel>,
    vm: String,
    spec: v1::VmSpec,
    field: &str,
) -> Result<(), Status> {
    let request = v1::UpdateVmRequest {
        vm,
        spec: Some(spec),
        update_mask: Some(mask(&[field])),
        ..Default::default()
    };
    vms.update_vm(request).await.map(drop)
}

async fn of_volume(
    mut volumes: VolumeServiceClient<Channel>,
    act: Act,
    volume: String,
) -> Result<(), Status> {
    match act {
        Act::MakeVolume(seed) => {
            let request = v1::CreateVolumeRequest {
                name: volume,
                size_mib: if seed.is_some() { 0 } else { SIZES.start },
                seed: seed.unwrap_or_default().to_owned(),
                ..Default::default()
            };
            let answers = volumes.create_volume(request).await?.into_inner();
            drain(answers).await.map(drop)
        }
        Act::GrowVolume(size_mib) => {
            let request = v1::UpdateVolumeRequest {
                volume,
                size_mib,
                update_mask: Some(mask(&["size_mib"])),
                ..Default::default()
            };
            volumes.update_volume(request).await.map(drop)
        }
        _ => {
            let request = v1::DeleteVolumeRequest {
                volume,
                ..Default::default()
            };
            volumes.delete_volume(request).await.map(drop)
        }
    }
}

async fn of_session(
    mut sessions: SessionServiceClient<Channel>,
    act: Act,
    vm: String,
) -> Result<(), Status> {
    if act == Act::Session {
        let request = v1::StartSessionRequest {
            vm,
            spec: Some(command(&["sleep"])),
            ..Default::default()
        };
        return sessions.start_session(request).await.map(drop);
    }
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
