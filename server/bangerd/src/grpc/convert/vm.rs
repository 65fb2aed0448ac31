//! VMs.

use std::time::Duration;

use banger_app::vm::{VmRequest, pending};
use banger_core::Owner;
use banger_core::access::Secrets;
use banger_core::vm::{Phase, RestartPolicy, StopOutcome, Vm, VmSpec, VmState};
use banger_core::vmm::{NetworkPlan, StopRung};
use banger_proto::v1;

use super::field::{self, int, span, time};
use super::operation::stage;
use super::{setup, volume};
use crate::grpc::request::RequestError;
use crate::grpc::status;

/// What stands for a value that is not shown.
const HIDDEN: &str = "(hidden)";

/// A VM as a caller is shown it.
pub(crate) fn shown(vm: &Vm, secrets: Secrets) -> v1::Vm {
    let mut told = self::vm(vm);
    if let (Secrets::Hidden, Some(spec)) = (secrets, &mut told.spec) {
        for value in spec.env.values_mut() {
            HIDDEN.clone_into(value);
        }
    }
    told
}

pub(crate) fn vm(vm: &Vm) -> v1::Vm {
    let failure = match &vm.state {
        VmState::Failed(failure) => Some(failure),
        _ => vm.stuck.as_ref(),
    };
    v1::Vm {
        id: vm.id.to_string(),
        spec: Some(spec(&vm.spec)),
        state: phase(vm.state.phase()).into(),
        failure: failure.map(|failure| status::message(failure)),
        image_id: vm.image.map(|image| image.to_string()).unwrap_or_default(),
        kernel_id: vm
            .kernel
            .map(|kernel| kernel.to_string())
            .unwrap_or_default(),
        etag: vm.generation.to_string(),
        boot_timing: vm.boot_timing.iter().map(stage).collect(),
        last_stop: vm.last_stop.as_ref().map(stop_outcome),
        create_time: Some(time(vm.create_time)),
        start_time: vm.start_time.map(time),
        stop_time: vm.stop_time.map(time),
        owner: vm.owner.to_string(),
        pending_fields: pending(vm).into_iter().map(str::to_owned).collect(),
        restart_count: i32::try_from(vm.restart_count).unwrap_or(i32::MAX),
    }
}

/// Where a VM is.
pub(crate) fn phase(phase: Phase) -> v1::vm::State {
    use v1::vm::State;
    match phase {
        Phase::Creating => State::Creating,
        Phase::Starting => State::Starting,
        Phase::Running => State::Running,
        Phase::Pausing => State::Pausing,
        Phase::Paused => State::Paused,
        Phase::Resuming => State::Resuming,
        Phase::Stopping => State::Stopping,
        Phase::Stopped => State::Stopped,
        Phase::Failed => State::Failed,
        Phase::Deleting => State::Deleting,
    }
}

/// The kernel is the one that was resolved, by its name: the caller's word for it is not kept.
fn spec(spec: &VmSpec) -> v1::VmSpec {
    use v1::vm_spec::{self, NetworkMode};
    let restart_policy = match spec.restart_policy {
        RestartPolicy::Never => vm_spec::RestartPolicy::Never,
        RestartPolicy::OnFailure => vm_spec::RestartPolicy::OnFailure,
        RestartPolicy::Always => vm_spec::RestartPolicy::Always,
    };
    let network_mode = match spec.network {
        NetworkPlan::None => NetworkMode::None,
        NetworkPlan::User => NetworkMode::User,
    };
    v1::VmSpec {
        name: spec.name.to_string(),
        labels: spec.labels.clone(),
        image: spec.image.clone(),
        kernel: spec.kernel.clone(),
        vcpu_count: i32::try_from(spec.vcpu_count).unwrap_or(i32::MAX),
        memory_mib: int(spec.memory_mib),
        disk_mib: int(spec.disk_mib),
        env: spec.env.clone(),
        network_mode: network_mode.into(),
        ephemeral: spec.ephemeral,
        ttl: spec.ttl.map(span),
        idle_timeout: spec.idle_timeout.map(span),
        restart_policy: restart_policy.into(),
        volumes: spec.volumes.iter().map(volume::mount).collect(),
        init_mode: setup::init_mode(&spec.init).into(),
        init_path: setup::init_path(&spec.init),
        identity: setup::identity(&spec.identity),
        keep_logs: spec.keep_logs,
    }
}

/// What a caller wants to happen when the VM ends by itself.
pub(super) fn restart_policy(word: i32) -> Result<RestartPolicy, RequestError> {
    use v1::vm_spec::RestartPolicy as Word;
    match Word::try_from(word) {
        Ok(Word::Unspecified | Word::Never) => Ok(RestartPolicy::Never),
        Ok(Word::OnFailure) => Ok(RestartPolicy::OnFailure),
        Ok(Word::Always) => Ok(RestartPolicy::Always),
        Err(_) => Err(RequestError::invalid(
            "spec.restart_policy",
            "is not a restart policy",
        )),
    }
}

fn stop_outcome(outcome: &StopOutcome) -> v1::StopOutcome {
    use v1::stop_outcome::Rung;
    let rung = match outcome.rung {
        StopRung::AlreadyGone => Rung::AlreadyGone,
        StopRung::Agent => Rung::Agent,
        StopRung::PowerButton => Rung::PowerButton,
        StopRung::Terminate => Rung::Terminate,
        StopRung::Kill => Rung::Kill,
    };
    v1::StopOutcome {
        rung: rung.into(),
        took: Some(span(outcome.took)),
        kept_logs: outcome.kept_logs.as_ref().map(|kept| v1::KeptLogs {
            session_count: i32::try_from(kept.session_count).unwrap_or(i32::MAX),
            size_bytes: int(kept.size_bytes),
            problem: kept.problem.clone().unwrap_or_default(),
        }),
    }
}

/// What a caller wants to have made. Ranges and defaults are the service's.
pub(crate) fn create(
    request: v1::CreateVmRequest,
    owner: Owner,
) -> Result<VmRequest, RequestError> {
    use v1::vm_spec::NetworkMode;
    let spec = request.spec.ok_or_else(|| RequestError::missing("spec"))?;
    let network = match NetworkMode::try_from(spec.network_mode) {
        Ok(NetworkMode::Unspecified) => None,
        Ok(NetworkMode::None) => Some(NetworkPlan::None),
        Ok(NetworkMode::User) => Some(NetworkPlan::User),
        Err(_) => {
            return Err(RequestError::invalid(
                "spec.network_mode",
                "is not a network mode",
            ));
        }
    };
    field::named("spec.image", &spec.image)?;
    if !spec.kernel.is_empty() {
        field::named("spec.kernel", &spec.kernel)?;
    }
    Ok(VmRequest {
        name: spec.name,
        labels: spec.labels,
        image: spec.image,
        kernel: spec.kernel,
        vcpu_count: field::natural("spec.vcpu_count", spec.vcpu_count)?,
        memory_mib: field::natural("spec.memory_mib", spec.memory_mib)?,
        disk_mib: field::natural("spec.disk_mib", spec.disk_mib)?,
        env: spec.env,
        network,
        ephemeral: spec.ephemeral,
        keep_logs: spec.keep_logs,
        ttl: life("spec.ttl", spec.ttl.as_ref())?,
        idle_timeout: life("spec.idle_timeout", spec.idle_timeout.as_ref())?,
        restart_policy: restart_policy(spec.restart_policy)?,
        volumes: volume::mounts(spec.volumes)?,
        init: setup::init(spec.init_mode, spec.init_path)?,
        identity: setup::wanted_identity(spec.identity.unwrap_or_default())?,
        files: setup::files(request.files)?,
        owner,
        pull_if_missing: request.pull_if_missing,
    })
}

/// A time after which a VM does something by itself; absent means never.
pub(super) fn life(
    field: &'static str,
    time: Option<&prost_types::Duration>,
) -> Result<Option<Duration>, RequestError> {
    time.map(|time| field::positive_span(field, time))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_field_of_a_creation_is_named() {
        let good = || v1::VmSpec {
            image: "debian".into(),
            ..Default::default()
        };
        let refused = |spec: Option<v1::VmSpec>| {
            let request = v1::CreateVmRequest {
                spec,
                ..Default::default()
            };
            create(request, Owner::daemon())
                .err()
                .map_or_else(String::new, |error| error.to_string())
        };
        assert_eq!(refused(Some(good())), "");
        assert_eq!(refused(None), "spec is missing");
        assert_eq!(
            refused(Some(v1::VmSpec::default())),
            "spec.image is missing"
        );
        assert_eq!(
            refused(Some(v1::VmSpec {
                vcpu_count: -1,
                ..good()
            })),
            "spec.vcpu_count is -1, which is out of range"
        );
        assert_eq!(
            refused(Some(v1::VmSpec {
                memory_mib: -1,
                ..good()
            })),
            "spec.memory_mib is -1, which is out of range"
        );
        assert_eq!(
            refused(Some(v1::VmSpec {
                disk_mib: -1,
                ..good()
            })),
            "spec.disk_mib is -1, which is out of range"
        );
        assert_eq!(
            refused(Some(v1::VmSpec {
                network_mode: 77,
                ..good()
            })),
            "spec.network_mode is not a network mode"
        );
    }
}
