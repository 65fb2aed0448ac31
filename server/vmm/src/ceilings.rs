//! What holds a VMM's process, whichever VMM it is: a cgroup where the host has one for us, limits of the process in
//! any case.

use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_core::vmm::LaunchPlan;
use rustix::process::Resource;

use crate::cgroup::{Cgroup, Cgroups};
use crate::scope::Scopes;
use crate::sys::{self, Confinement};

/// Descriptors of a VMM: each connection of QEMU's user network is one.
const MAX_FILES: u64 = 16_384;

/// What one thread's stack takes of a process's data, whether it is used or not.
const STACK_MIB: u64 = 8;

/// As whom a VMM runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// As the daemon's user, as other VMMs and other programs do.
    Shared,
    /// As a user that no other process has.
    Own,
}

/// The ceilings of one VMM.
#[derive(Debug)]
pub(crate) struct Ceilings {
    cgroup: Option<Cgroup>,
    user: User,
}

/// The cgroup that holds a process now: one of ours, or that of its scope. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holder(Arc<Mutex<Option<Cgroup>>>);

impl Holder {
    pub(crate) fn new(cgroup: Option<Cgroup>) -> Self {
        Self(Arc::new(Mutex::new(cgroup)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Cgroup>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the process a scope of its own, where systemd does that. It is running, and its guest is not. Safe to
    /// drop.
    pub(crate) async fn enter_scope(&self, scopes: &Scopes, plan: &LaunchPlan, pid: u32) {
        // A probe has no ceilings, and is soon gone.
        if plan.limits.is_none() || !scopes.take(plan.vm, pid, plan.limits.as_ref()).await {
            return;
        }
        let Some(scope) = Cgroup::of_scope(pid) else {
            return;
        };
        if let Some(former) = self.lock().replace(scope) {
            former.remove();
        }
    }

    /// See [`Cgroup::killed_at_mib`].
    pub(crate) fn killed_at_mib(&self) -> Option<u64> {
        self.lock().as_ref().and_then(Cgroup::killed_at_mib)
    }

    /// See [`Cgroup::remove`].
    pub(crate) fn remove(&self) {
        if let Some(cgroup) = &*self.lock() {
            cgroup.remove();
        }
    }
}

impl Ceilings {
    /// Makes the cgroup of a plan that has limits.
    pub(crate) fn of(cgroups: &Cgroups, plan: &LaunchPlan, user: User) -> Self {
        let limits = plan.limits.as_ref();
        Self {
            user,
            cgroup: limits.and_then(|limits| cgroups.make(plan.vm, limits)),
        }
    }

    /// Limits of the process hold where no cgroup does. What is counted for the whole user (`RLIMIT_NPROC`) counts
    /// threads of a VMM with a user of its own, and would count other VMs and other programs else; address space
    /// (`RLIMIT_AS`) would count what QEMU maps and never uses; a file's size (`RLIMIT_FSIZE`) would forbid a disk to
    /// grow.
    fn confinement(&self, plan: &LaunchPlan) -> io::Result<Confinement> {
        // A core would have the guest's memory in it.
        let mut limits = vec![(Resource::Core, 0), (Resource::Nofile, MAX_FILES)];
        let memory_is_limited = self.cgroup.as_ref().is_some_and(Cgroup::limits_memory);
        if let Some(ceilings) = plan.limits.filter(|_| !memory_is_limited) {
            let stacks = u64::from(ceilings.thread_count) * STACK_MIB;
            limits.push((Resource::Data, (ceilings.memory_mib + stacks) << 20));
        }
        let threads_are_limited = self.cgroup.as_ref().is_some_and(Cgroup::limits_threads);
        if let Some(ceilings) = plan.limits.filter(|_| !threads_are_limited)
            && self.user == User::Own
        {
            limits.push((Resource::Nproc, u64::from(ceilings.thread_count)));
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
    pub(crate) fn into_holder(self) -> Holder {
        Holder::new(self.cgroup)
    }
}

#[cfg(test)]
mod tests;
