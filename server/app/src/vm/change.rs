//! Changing a VM that exists: what may change, and from when on it holds.

use banger_core::vm::{Shape, Vm, VmChange, VmSpec};

use super::spec;
use crate::error::AppError;

/// The specification of `vm` after `change`.
///
/// # Errors
/// If a value is out of range, a disk would shrink, or the VM was changed since its caller looked.
pub(super) fn apply(vm: &Vm, change: &VmChange) -> Result<VmSpec, AppError> {
    if change
        .generation
        .is_some_and(|generation| generation != vm.generation)
    {
        return Err(AppError::Changed {
            vm: vm.spec.name.clone(),
        });
    }
    let mut changed = vm.spec.clone();
    if let Some(labels) = &change.labels {
        spec::check_labels("spec.labels", labels)?;
        spec::check_reserved(labels)?;
        changed.labels.clone_from(labels);
    }
    if let Some(ttl) = change.ttl {
        changed.ttl = ttl;
    }
    if let Some(idle_timeout) = change.idle_timeout {
        changed.idle_timeout = idle_timeout;
    }
    if let Some(policy) = change.restart_policy {
        changed.restart_policy = policy;
    }
    if let Some(count) = change.vcpu_count {
        changed.vcpu_count = spec::vcpu_count(count)?;
    }
    if let Some(mib) = change.memory_mib {
        changed.memory_mib = spec::memory_mib(mib)?;
    }
    if let Some(mib) = change.disk_mib {
        changed.disk_mib = spec::disk_mib(mib)?;
        if changed.disk_mib < vm.spec.disk_mib {
            return Err(AppError::Invalid {
                field: "spec.disk_mib",
                problem: format!(
                    "is {mib}, less than the {} that the disk has: a disk can only grow",
                    vm.spec.disk_mib
                ),
            });
        }
    }
    spec::check_life(&changed)?;
    Ok(changed)
}

/// The fields of a VM's specification that its machine does not have yet: they hold from the next start on.
#[must_use]
pub fn pending(vm: &Vm) -> Vec<&'static str> {
    let Some(shape) = vm.shape else {
        return Vec::new();
    };
    let wanted = vm.spec.shape();
    let differs = |field: fn(&Shape) -> u64| field(&shape) != field(&wanted);
    [
        ("vcpu_count", differs(|shape| u64::from(shape.vcpu_count))),
        ("memory_mib", differs(|shape| shape.memory_mib)),
        ("disk_mib", differs(|shape| shape.disk_mib)),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}
