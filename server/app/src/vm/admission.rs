//! What VMs and volumes are promised of the host, and whether there is room for one more: the one place where it is
//! counted.
//!
//! ```text
//!   Seat   from the record's insertion to its removal      counts the VM and its disk
//!   Lease  from a boot's acceptance to its machine's end   counts memory, vCPUs and a running VM
//!   Ticket from a boot's acceptance to its end             a place in the queue of boots
//!   Shelf  from a volume's acceptance to its record        counts the volume; from then on until its files are gone
//! ```
//! Each is a value that its runner holds and that gives back what it stands for when it is dropped, so no path can
//! forget to. All is decided under one short lock: of any number of requests at once exactly those are accepted
//! that fit. A starting daemon counts anew, from the records and the machines that it finds.

mod ledger;
mod limits;
mod shelf;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_core::vm::{Shape, Vm, VmSpec};
use banger_core::{Owner, VmId};

use super::queue::{BootQueue, QueueState, Ticket};
use crate::AppConfig;
use crate::error::AppError;
use ledger::{Entry, Ledger};
pub use limits::{Capacity, Limits, Promised, Resource, Share};
pub(crate) use shelf::Shelf;

/// Who was promised what.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    shared: Arc<Shared>,
    queue: BootQueue,
}

#[derive(Debug)]
struct Shared {
    rules: Rules,
    ledger: Mutex<Ledger>,
}

/// What the configuration says.
#[derive(Debug, Clone)]
struct Rules {
    max_vms: usize,
    max_volumes: usize,
    memory_reserve_mib: u64,
    disk_reserve_mib: u64,
    memory_overcommit: crate::config::Ratio,
    vcpu_overcommit: crate::config::Ratio,
    disk_overcommit: crate::config::Ratio,
    quotas: crate::config::Quotas,
}

/// What a VM begins with.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) seat: Seat,
    pub(crate) lease: Option<Lease>,
    pub(crate) ticket: Option<Ticket>,
}

/// A VM that exists, and its disk. Dropped when its record is gone.
#[derive(Debug)]
pub(crate) struct Seat {
    admission: Admission,
    vm: VmId,
}

/// A machine that runs, or is about to. Dropped when it is gone.
#[derive(Debug)]
pub(crate) struct Lease {
    shared: Arc<Shared>,
    vm: VmId,
    number: u64,
}

/// What is promised, of what may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// By all VMs.
    pub host: Share,
    /// By owner; in the order of their words.
    pub owners: Vec<(Owner, Share)>,
    /// The queue of boots.
    pub queue: QueueState,
}

impl Admission {
    pub(crate) fn new(config: &AppConfig) -> Self {
        let rules = Rules {
            max_vms: config.max_vms,
            max_volumes: config.max_volumes,
            memory_reserve_mib: config.memory_reserve_mib,
            disk_reserve_mib: config.disk_reserve_mib,
            memory_overcommit: config.memory_overcommit,
            vcpu_overcommit: config.vcpu_overcommit,
            disk_overcommit: config.disk_overcommit,
            quotas: config.quotas.clone(),
        };
        Self {
            shared: Arc::new(Shared {
                rules,
                ledger: Mutex::default(),
            }),
            queue: BootQueue::new(config.parallel_boots(), config.boot_queue_max),
        }
    }

    /// Accepts a VM to be made and its boot.
    ///
    /// # Errors
    /// With the first limit that it would exceed, or if too many boots wait.
    pub(crate) fn create(&self, vm: &Vm, capacity: &Capacity) -> Result<Admitted, AppError> {
        let ticket = self.queue.ticket()?;
        let mut ledger = self.shared.lock();
        let mut entry = Entry::new(vm.owner.clone(), vm.spec.disk_mib);
        let number = ledger.next_number();
        entry.hold(number, vm.spec.shape());
        self.shared.rules.check(&ledger, vm.id, &entry, capacity)?;
        ledger.put(vm.id, entry);
        drop(ledger);
        Ok(Admitted {
            seat: self.seat(vm.id),
            lease: Some(self.lease(vm.id, number)),
            ticket: Some(ticket),
        })
    }

    /// Counts a VM of an earlier daemon, with its machine where it has one. What exists is never refused.
    pub(crate) fn restore(&self, vm: &Vm, holds_machine: bool) -> Admitted {
        let mut ledger = self.shared.lock();
        let mut entry = Entry::new(vm.owner.clone(), vm.spec.disk_mib);
        let number = ledger.next_number();
        if holds_machine {
            let shape = vm.shape.unwrap_or(vm.spec.shape());
            entry.hold(number, larger(shape, vm.spec.shape()));
            entry.settle_memory();
        }
        ledger.put(vm.id, entry);
        drop(ledger);
        Admitted {
            seat: self.seat(vm.id),
            lease: holds_machine.then(|| self.lease(vm.id, number)),
            ticket: None,
        }
    }

    /// What is promised now.
    pub(crate) fn account(&self, capacity: &Capacity) -> Account {
        let rules = &self.shared.rules;
        let ledger = self.shared.lock();
        let owners = ledger.owners().map(|owner| {
            let share = Share {
                promised: ledger.of_owner(owner),
                limits: rules.quotas.of(owner),
            };
            (owner.clone(), share)
        });
        Account {
            owners: owners.collect(),
            host: Share {
                promised: ledger.of_all(),
                limits: rules.of_host(capacity),
            },
            queue: self.queue.state(),
        }
    }

    fn seat(&self, vm: VmId) -> Seat {
        let admission = self.clone();
        Seat { admission, vm }
    }

    fn lease(&self, vm: VmId, number: u64) -> Lease {
        let shared = self.shared.clone();
        Lease { shared, vm, number }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Accepts a boot of this VM, which has no machine.
    ///
    /// # Errors
    /// With the first limit that it would exceed, or if too many boots wait.
    pub(crate) fn start(
        &self,
        shape: Shape,
        capacity: &Capacity,
    ) -> Result<(Lease, Ticket), AppError> {
        let ticket = self.admission.queue.ticket()?;
        let mut ledger = self.admission.shared.lock();
        let number = ledger.next_number();
        self.change(&mut ledger, capacity, |entry| entry.hold(number, shape))?;
        drop(ledger);
        Ok((self.admission.lease(self.vm, number), ticket))
    }

    /// Accepts that a machine which this VM holds is booted once more.
    ///
    /// # Errors
    /// If too many boots wait.
    pub(crate) fn boot_again(&self) -> Result<Ticket, AppError> {
        self.admission.queue.ticket()
    }

    /// Accepts a change of what the VM is made of. What it has stays promised until its machine is made anew; what
    /// it is to have is promised from now on, so that its next start has it.
    ///
    /// # Errors
    /// With the first limit that what grows would exceed, even if it alone were there.
    pub(crate) fn resize(
        &self,
        spec: &VmSpec,
        shape: Option<Shape>,
        capacity: &Capacity,
    ) -> Result<(), AppError> {
        let mut ledger = self.admission.shared.lock();
        let wanted = spec.shape();
        let is_off = ledger.get(self.vm).is_some_and(|entry| !entry.holds());
        if is_off {
            // It is promised no machine, but one that could never be started is refused now.
            let mut alone = Entry::new(self.owner(&ledger), 0);
            alone.hold(0, wanted);
            let empty = Ledger::default();
            self.admission
                .shared
                .rules
                .check_promise(&empty, self.vm, &alone, capacity)?;
        }
        self.change(&mut ledger, capacity, |entry| {
            entry.disk_mib = spec.disk_mib;
            match shape {
                Some(shape) => entry.set(larger(shape, wanted)),
                // It boots, with what it was promised.
                None => entry.grow(wanted),
            }
        })
    }

    /// Counts what the VM is made of without asking: for a change that is taken back.
    pub(crate) fn put_back(&self, spec: &VmSpec, shape: Option<Shape>) {
        let mut ledger = self.admission.shared.lock();
        if let Some(entry) = ledger.get_mut(self.vm) {
            entry.disk_mib = spec.disk_mib;
            entry.set(larger(shape.unwrap_or(spec.shape()), spec.shape()));
        }
    }

    /// The machine is up: from now on it holds what it was made with, and what it takes is seen in the host's memory.
    pub(crate) fn settle(&self, shape: Shape, spec: &VmSpec) {
        let mut ledger = self.admission.shared.lock();
        if let Some(entry) = ledger.get_mut(self.vm) {
            entry.set(larger(shape, spec.shape()));
            entry.settle_memory();
        }
    }

    /// The VM is gone: whoever hears of it finds room.
    pub(crate) fn leave(&self) {
        self.admission.shared.lock().remove(self.vm);
    }

    fn owner(&self, ledger: &Ledger) -> Owner {
        ledger
            .get(self.vm)
            .map(|entry| entry.owner.clone())
            .unwrap_or_default()
    }

    fn change(
        &self,
        ledger: &mut Ledger,
        capacity: &Capacity,
        change: impl FnOnce(&mut Entry),
    ) -> Result<(), AppError> {
        let Some(entry) = ledger.get(self.vm) else {
            return Err(AppError::GivenUp {
                why: "the VM is not counted",
            });
        };
        let mut changed = entry.clone();
        change(&mut changed);
        let rules = &self.admission.shared.rules;
        rules.check(ledger, self.vm, &changed, capacity)?;
        ledger.put(self.vm, changed);
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(entry) = self.shared.lock().get_mut(self.vm) {
            entry.release(self.number);
        }
    }
}

impl Rules {
    fn of_host(&self, capacity: &Capacity) -> Limits {
        let memory_mib = capacity.memory_mib.saturating_sub(self.memory_reserve_mib);
        let disk_mib = capacity.disk_mib.saturating_sub(self.disk_reserve_mib);
        let number = |count: usize| Some(u64::try_from(count).unwrap_or(u64::MAX));
        Limits {
            vms: number(self.max_vms),
            running_vms: None,
            vcpus: Some(self.vcpu_overcommit.of(capacity.cpu_count)),
            memory_mib: Some(self.memory_overcommit.of(memory_mib)),
            volumes: number(self.max_volumes),
            disk_mib: (!self.disk_overcommit.is_zero()).then(|| self.disk_overcommit.of(disk_mib)),
        }
    }

    /// Whether `entry` may stand in place of what `vm` has in the ledger.
    fn check(
        &self,
        ledger: &Ledger,
        vm: VmId,
        entry: &Entry,
        capacity: &Capacity,
    ) -> Result<(), AppError> {
        self.check_promise(ledger, vm, entry, capacity)?;
        let before = ledger.get(vm).map_or(0, Entry::unseen_memory_mib);
        let asked = entry.unseen_memory_mib().saturating_sub(before);
        if asked == 0 {
            return Ok(());
        }
        // What was promised to boots under way is not missing in the host's free memory yet.
        let needed_mib = self
            .memory_overcommit
            .shared_out(asked + ledger.unseen_memory_mib());
        let above = capacity
            .memory_available_mib
            .checked_sub(self.memory_reserve_mib);
        match above {
            Some(available_mib) if available_mib >= needed_mib => Ok(()),
            above => Err(AppError::Exhausted {
                what: "memory",
                needed_mib,
                available_mib: above.unwrap_or(0),
            }),
        }
    }

    fn check_promise(
        &self,
        ledger: &Ledger,
        vm: VmId,
        entry: &Entry,
        capacity: &Capacity,
    ) -> Result<(), AppError> {
        let before = ledger.get(vm).map(Entry::promised).unwrap_or_default();
        self.check_growth(ledger, &entry.owner, before, entry.promised(), capacity)
    }

    /// Whether what is promised to one of an owner's may become `after`, which was `before`.
    fn check_growth(
        &self,
        ledger: &Ledger,
        owner: &Owner,
        before: Promised,
        after: Promised,
        capacity: &Capacity,
    ) -> Result<(), AppError> {
        let host = Share {
            promised: ledger.of_all(),
            limits: self.of_host(capacity),
        };
        let of_owner = Share {
            promised: ledger.of_owner(owner),
            limits: self.quotas.of(owner),
        };
        for resource in Resource::ALL {
            let asked = after.of(resource).saturating_sub(before.of(resource));
            if asked == 0 {
                continue;
            }
            if let Some((in_use, limit)) = of_owner.exceeded_by(resource, asked) {
                return Err(AppError::QuotaExceeded {
                    owner: owner.clone(),
                    resource,
                    asked,
                    in_use,
                    limit,
                });
            }
            if let Some((in_use, limit)) = host.exceeded_by(resource, asked) {
                return Err(AppError::HostLimit {
                    resource,
                    asked,
                    in_use,
                    limit,
                });
            }
        }
        Ok(())
    }
}

/// Of each the more.
fn larger(a: Shape, b: Shape) -> Shape {
    Shape {
        vcpu_count: a.vcpu_count.max(b.vcpu_count),
        memory_mib: a.memory_mib.max(b.memory_mib),
        disk_mib: a.disk_mib.max(b.disk_mib),
    }
}

#[cfg(test)]
pub(super) mod tests;
