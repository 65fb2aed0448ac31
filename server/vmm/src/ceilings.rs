//! What holds a VMM's process, whichever VMM it is: a cgroup where the host has one for us, limits of the process in
//! any case.

use std::io;
use std::process::{Child, Command};

use banger_core::vmm::LaunchPlan;
use rustix::process::Resource;

use crate::cgroup::{Cgroup, Cgroups};
use crate::sys::{self, Confinement};

/// Descriptors of a VMM: each connection of QEMU's user network is one.
const MAX_FILES: u64 = 16_384;

/// What one thread's stack takes of a process's data, whether it is used or not.
const STACK_MIB: u64 = 8;

/// The ceilings of one VMM.
#[derive(Debug)]
pub(crate) struct Ceilings {
    cgroup: Option<Cgroup>,
}

impl Ceilings {
    /// Makes the cgroup of a plan that has limits.
    pub(crate) fn of(cgroups: &Cgroups, plan: &LaunchPlan) -> Self {
        let limits = plan.limits.as_ref();
        Self {
            cgroup: limits.and_then(|limits| cgroups.make(plan.vm, limits)),
        }
    }

    /// Limits of the process hold where no cgroup does. What is counted for the whole user (`RLIMIT_NPROC`) would
    /// count other VMs and other programs; address space (`RLIMIT_AS`) would count what QEMU maps and never uses;
    /// a file's size (`RLIMIT_FSIZE`) would forbid a disk to grow.
    fn confinement(&self, plan: &LaunchPlan) -> io::Result<Confinement> {
        // A core would have the guest's memory in it.
        let mut limits = vec![(Resource::Core, 0), (Resource::Nofile, MAX_FILES)];
        let memory_is_limited = self.cgroup.as_ref().is_some_and(Cgroup::limits_memory);
        if let Some(ceilings) = plan.limits.filter(|_| !memory_is_limited) {
            let stacks = u64::from(ceilings.thread_count) * STACK_MIB;
            limits.push((Resource::Data, (ceilings.memory_mib + stacks) << 20));
        }
        let door = self.cgroup.as_ref().map(Cgroup::door).transpose()?;
        Ok(Confinement { door, limits })
    }

    /// Starts a process that they hold; where it does not start, they are undone.
    pub(crate) fn spawn(&self, command: &mut Command, plan: &LaunchPlan) -> io::Result<Child> {
        let spawned = self.confinement(plan).and_then(|confinement| {
            sys::confine(command, confinement);
            command.spawn()
        });
        if spawned.is_err() {
            self.undo();
        }
        spawned
    }

    /// The process was not started, or is gone at once.
    pub(crate) fn undo(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
    }

    /// The cgroup, for whoever watches the process.
    pub(crate) fn into_cgroup(self) -> Option<Cgroup> {
        self.cgroup
    }
}
