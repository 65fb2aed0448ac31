//! What is promised and taken.

use banger_app::usage::HostUsage;
use banger_app::vm::{Resource, Share};
use banger_core::Owner;
use banger_proto::v1;

use super::field::{int, small};

pub(crate) fn usage(usage: HostUsage) -> v1::HostUsage {
    let queue = usage.account.queue;
    v1::HostUsage {
        promises: Some(promises(&usage.account.host)),
        owners: usage.account.owners.into_iter().map(owner).collect(),
        memory_used_bytes: int(usage.memory_used_bytes),
        memory_available_bytes: int(usage.memory_available_bytes),
        disk_used_bytes: int(usage.disk_used_bytes),
        disk_available_bytes: int(usage.disk_available_bytes),
        unmeasured_vm_count: small(usage.unmeasured_vm_count),
        booting_count: small(queue.booting),
        max_parallel_boots: small(queue.max_parallel),
        waiting_count: small(queue.waiting),
        boot_queue_max: small(queue.max_waiting),
        unmeasured_disk_count: small(usage.unmeasured_disk_count),
    }
}

fn owner((owner, share): (Owner, Share)) -> v1::OwnerUsage {
    v1::OwnerUsage {
        owner: owner.to_string(),
        promises: Some(promises(&share)),
    }
}

fn promises(share: &Share) -> v1::Promises {
    let promise = |resource| {
        Some(v1::Promise {
            promised: int(share.promised.of(resource)),
            limit: share.limits.of(resource).map(int),
        })
    };
    v1::Promises {
        vms: promise(Resource::Vms),
        running_vms: promise(Resource::RunningVms),
        vcpus: promise(Resource::Vcpus),
        memory_mib: promise(Resource::Memory),
        disk_mib: promise(Resource::Disk),
        volumes: promise(Resource::Volumes),
    }
}
