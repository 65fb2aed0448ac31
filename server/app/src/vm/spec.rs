//! From what a caller asks for to a [`VmSpec`]: defaults and limits.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use std::time::Duration;

use banger_core::setup::{InitMode, VmIdentity};
use banger_core::size;
use banger_core::vm::{RestartPolicy, VmSpec};
use banger_core::vmm::NetworkPlan;
use banger_core::{Name, Owner};

use super::files::VmFile;
use crate::error::AppError;
use crate::volume::MountRequest;

/// How the labels begin that only the daemon gives.
const RESERVED: &str = "banger.dev/";

/// What a caller asks for. Absent and zero mean the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VmRequest {
    /// A name, or empty for a generated one.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// An image's reference, digest or id.
    pub image: String,
    /// A kernel's name or id, or empty for the default one.
    pub kernel: String,
    /// vCPUs.
    pub vcpu_count: u32,
    /// Guest memory.
    pub memory_mib: u64,
    /// Writable disk.
    pub disk_mib: u64,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Network; absent means the configured one.
    pub network: Option<NetworkPlan>,
    /// Whether it deletes itself when it stops.
    pub ephemeral: bool,
    /// Whether every orderly stop copies the output of its sessions out of it first.
    pub keep_logs: bool,
    /// After which it deletes itself; absent means never.
    pub ttl: Option<Duration>,
    /// After which it stops itself when nothing used it; absent means never.
    pub idle_timeout: Option<Duration>,
    /// What happens when it ends by itself.
    pub restart_policy: RestartPolicy,
    /// Volumes.
    pub volumes: Vec<MountRequest>,
    /// Who asks.
    pub owner: Owner,
    /// Whether the image is pulled if it is not there.
    pub pull_if_missing: bool,
    /// Who is process 1.
    pub init: InitMode,
    /// Who its default user is to others.
    pub identity: VmIdentity,
    /// What is written before it is running.
    pub files: Vec<VmFile>,
}

/// Checks a request and fills in the defaults, but for the volumes, which are looked for elsewhere; `network` and
/// `generated` are the network and the name for a caller who gave none.
pub(super) fn spec(
    request: &VmRequest,
    network: NetworkPlan,
    generated: impl FnOnce() -> Name,
) -> Result<VmSpec, AppError> {
    if request.image.is_empty() {
        return Err(AppError::Invalid {
            field: "spec.image",
            problem: "is missing".into(),
        });
    }
    let name = if request.name.is_empty() {
        generated()
    } else {
        request.name.parse().map_err(|error| AppError::Invalid {
            field: "spec.name",
            problem: format!("is not a name: {error}"),
        })?
    };
    check_labels("spec.labels", &request.labels)?;
    check_env("spec.env", &request.env)?;
    let spec = VmSpec {
        name,
        labels: request.labels.clone(),
        image: request.image.clone(),
        kernel: String::new(),
        vcpu_count: vcpu_count(request.vcpu_count)?,
        memory_mib: memory_mib(request.memory_mib)?,
        disk_mib: disk_mib(request.disk_mib)?,
        env: request.env.clone(),
        network: request.network.unwrap_or(network),
        ephemeral: request.ephemeral,
        ttl: request.ttl,
        idle_timeout: request.idle_timeout,
        restart_policy: request.restart_policy,
        volumes: Vec::new(),
        init: request.init.clone(),
        identity: request.identity.clone(),
        keep_logs: request.keep_logs,
    };
    check_life(&spec)?;
    Ok(spec)
}

pub(super) fn vcpu_count(count: u32) -> Result<u32, AppError> {
    let default = size::DEFAULT_VCPU_COUNT;
    bounded("spec.vcpu_count", count, default, size::VCPU_COUNT)
}

pub(super) fn memory_mib(mib: u64) -> Result<u64, AppError> {
    let default = size::DEFAULT_MEMORY_MIB;
    bounded("spec.memory_mib", mib, default, size::MEMORY_MIB)
}

pub(super) fn disk_mib(mib: u64) -> Result<u64, AppError> {
    bounded("spec.disk_mib", mib, size::DEFAULT_DISK_MIB, size::DISK_MIB)
}

/// Checks what a VM does by itself.
pub(super) fn check_life(spec: &VmSpec) -> Result<(), AppError> {
    for (field, time) in [
        ("spec.ttl", spec.ttl),
        ("spec.idle_timeout", spec.idle_timeout),
    ] {
        if let Some(time) = time
            && !size::LIFE.contains(&time)
        {
            let problem = format!(
                "is {time:?}, and must be from {:?} to {:?}",
                size::LIFE.start(),
                size::LIFE.end()
            );
            return Err(AppError::Invalid { field, problem });
        }
    }
    if spec.ephemeral && !spec.restart_policy.is_never() {
        return Err(AppError::Invalid {
            field: "spec.restart_policy",
            problem: "cannot be given to a VM that deletes itself when it stops".into(),
        });
    }
    Ok(())
}

fn bounded<T>(
    field: &'static str,
    value: T,
    default: T,
    range: RangeInclusive<T>,
) -> Result<T, AppError>
where
    T: PartialOrd + Default + std::fmt::Display,
{
    let value = if value == T::default() {
        default
    } else {
        value
    };
    if range.contains(&value) {
        return Ok(value);
    }
    let problem = format!(
        "is {value}, and must be from {} to {}",
        range.start(),
        range.end()
    );
    Err(AppError::Invalid { field, problem })
}

/// Refuses labels that only the daemon itself may give.
pub(super) fn check_reserved(labels: &BTreeMap<String, String>) -> Result<(), AppError> {
    match labels.keys().find(|key| key.starts_with(RESERVED)) {
        Some(key) => Err(AppError::Invalid {
            field: "spec.labels",
            problem: format!("has `{key}`: what begins with `{RESERVED}` is the daemon's own"),
        }),
        None => Ok(()),
    }
}

/// Checks labels: their number and size.
pub(crate) fn check_labels(
    field: &'static str,
    labels: &BTreeMap<String, String>,
) -> Result<(), AppError> {
    let invalid = |problem: String| Err(AppError::Invalid { field, problem });
    if labels.len() > size::LABELS_MAX {
        return invalid(format!(
            "has {} entries, and may have {}",
            labels.len(),
            size::LABELS_MAX
        ));
    }
    for (key, value) in labels {
        if key.is_empty()
            || key.len() > size::LABEL_BYTES_MAX
            || value.len() > size::LABEL_BYTES_MAX
        {
            return invalid(format!(
                "has an entry whose key is empty or that is longer than {} bytes",
                size::LABEL_BYTES_MAX
            ));
        }
    }
    Ok(())
}

/// Checks a VM's environment: its size, and that each key can be one.
fn check_env(field: &'static str, env: &BTreeMap<String, String>) -> Result<(), AppError> {
    let invalid = |problem: String| Err(AppError::Invalid { field, problem });
    let bytes: usize = env
        .iter()
        .map(|(key, value)| key.len() + value.len() + 2)
        .sum();
    if env.len() > size::COMMAND_ITEMS_MAX || bytes > size::COMMAND_BYTES_MAX {
        return invalid(format!(
            "is larger than {} entries or {} bytes",
            size::COMMAND_ITEMS_MAX,
            size::COMMAND_BYTES_MAX
        ));
    }
    check_env_keys(field, env)
}

/// Checks that each key of an environment can be one.
pub(crate) fn check_env_keys(
    field: &'static str,
    env: &BTreeMap<String, String>,
) -> Result<(), AppError> {
    let invalid = |problem: String| Err(AppError::Invalid { field, problem });
    let bad = env
        .iter()
        .find(|(key, value)| key.is_empty() || key.contains(['=', '\0']) || value.contains('\0'));
    match bad {
        Some((key, _)) => invalid(format!(
            "has a key that cannot be one, or a value with a zero byte: {key:?}"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        "generated".parse().unwrap()
    }

    fn request() -> VmRequest {
        VmRequest {
            image: "debian".into(),
            ..VmRequest::default()
        }
    }

    #[test]
    fn defaults_fill_what_is_absent() {
        let spec = spec(&request(), NetworkPlan::None, name).unwrap();
        assert_eq!(
            (spec.vcpu_count, spec.memory_mib, spec.disk_mib),
            (1, 512, 8192)
        );
        assert_eq!(spec.name.as_str(), "generated");
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_the_range() {
        let cases = [
            (
                VmRequest {
                    memory_mib: 1,
                    ..request()
                },
                "spec.memory_mib is 1, and must be from 96 to 1048576",
            ),
            (
                VmRequest {
                    vcpu_count: 65,
                    ..request()
                },
                "spec.vcpu_count is 65, and must be from 1 to 64",
            ),
            (
                VmRequest {
                    disk_mib: 5_000_000,
                    ..request()
                },
                "spec.disk_mib is 5000000, and must be from 64 to 4194304",
            ),
            (
                VmRequest {
                    image: String::new(),
                    ..request()
                },
                "spec.image is missing",
            ),
            (
                VmRequest {
                    name: "A".into(),
                    ..request()
                },
                "spec.name is not a name: a name consists of a-z, 0-9 and `-`, and `A` is none of them",
            ),
        ];
        for (request, message) in cases {
            assert_eq!(
                spec(&request, NetworkPlan::None, name)
                    .unwrap_err()
                    .to_string(),
                message
            );
        }
    }

    #[test]
    fn an_environment_that_cannot_be_one_is_refused() {
        for (key, value) in [("", "x"), ("A=B", "x"), ("A", "\0")] {
            let env = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            assert!(check_env("spec.env", &env).is_err(), "{key:?}");
        }
        let large = BTreeMap::from([("A".to_owned(), "x".repeat(size::COMMAND_BYTES_MAX))]);
        assert!(check_env("spec.env", &large).is_err());
    }
}
