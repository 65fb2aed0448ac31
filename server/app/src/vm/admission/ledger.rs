//! The book: one entry for each VM and each volume. Sums are made when they are asked for, so none can be wrong.

use std::collections::{BTreeMap, BTreeSet};

use banger_core::vm::Shape;
use banger_core::{Owner, VmId, VolumeId};

use super::limits::Promised;

/// Everything that is promised.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<VmId, Entry>,
    volumes: BTreeMap<VolumeId, VolumeEntry>,
    last_number: u64,
}

/// What one volume is promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VolumeEntry {
    pub(super) owner: Owner,
    pub(super) disk_mib: u64,
}

/// What one VM is promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) owner: Owner,
    pub(super) disk_mib: u64,
    machine: Option<Held>,
}

/// A machine's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    /// Of the lease that stands for it: an older one that is dropped late takes nothing away.
    number: u64,
    vcpu_count: u32,
    memory_mib: u64,
    /// Whether the guest has come up, and what it uses is missing in the host's free memory.
    is_seen: bool,
}

impl Ledger {
    pub(super) const fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn get(&self, vm: VmId) -> Option<&Entry> {
        self.entries.get(&vm)
    }

    pub(super) fn get_mut(&mut self, vm: VmId) -> Option<&mut Entry> {
        self.entries.get_mut(&vm)
    }

    pub(super) fn put(&mut self, vm: VmId, entry: Entry) {
        self.entries.insert(vm, entry);
    }

    pub(super) fn remove(&mut self, vm: VmId) {
        self.entries.remove(&vm);
    }

    pub(super) fn volume(&self, volume: VolumeId) -> Option<&VolumeEntry> {
        self.volumes.get(&volume)
    }

    pub(super) fn put_volume(&mut self, volume: VolumeId, entry: VolumeEntry) {
        self.volumes.insert(volume, entry);
    }

    pub(super) fn remove_volume(&mut self, volume: VolumeId) {
        self.volumes.remove(&volume);
    }

    /// Each promise, and to whom.
    fn all(&self) -> impl Iterator<Item = (&Owner, Promised)> {
        let vms = self.entries.values();
        let vms = vms.map(|entry| (&entry.owner, entry.promised()));
        let volumes = self.volumes.values();
        vms.chain(volumes.map(|entry| (&entry.owner, entry.promised())))
    }

    pub(super) fn of_all(&self) -> Promised {
        self.all().map(|(_, promised)| promised).sum()
    }

    pub(super) fn of_owner(&self, of: &Owner) -> Promised {
        let own = self.all().filter(|(owner, _)| *owner == of);
        own.map(|(_, promised)| promised).sum()
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = &Owner> {
        let owners: BTreeSet<&Owner> = self.all().map(|(owner, _)| owner).collect();
        owners.into_iter()
    }

    /// What is promised to guests that have not come up yet.
    pub(super) fn unseen_memory_mib(&self) -> u64 {
        self.entries.values().map(Entry::unseen_memory_mib).sum()
    }
}

impl VolumeEntry {
    pub(super) fn promised(&self) -> Promised {
        Promised {
            volumes: 1,
            disk_mib: self.disk_mib,
            ..Promised::default()
        }
    }
}

impl Entry {
    pub(super) const fn new(owner: Owner, disk_mib: u64) -> Self {
        Self {
            owner,
            disk_mib,
            machine: None,
        }
    }

    pub(super) const fn holds(&self) -> bool {
        self.machine.is_some()
    }

    pub(super) const fn hold(&mut self, number: u64, shape: Shape) {
        self.machine = Some(Held {
            number,
            vcpu_count: shape.vcpu_count,
            memory_mib: shape.memory_mib,
            is_seen: false,
        });
    }

    pub(super) fn grow(&mut self, shape: Shape) {
        if let Some(held) = &mut self.machine {
            held.vcpu_count = held.vcpu_count.max(shape.vcpu_count);
            held.memory_mib = held.memory_mib.max(shape.memory_mib);
        }
    }

    pub(super) const fn set(&mut self, shape: Shape) {
        if let Some(held) = &mut self.machine {
            held.vcpu_count = shape.vcpu_count;
            held.memory_mib = shape.memory_mib;
        }
    }

    pub(super) const fn settle_memory(&mut self) {
        if let Some(held) = &mut self.machine {
            held.is_seen = true;
        }
    }

    pub(super) fn release(&mut self, number: u64) {
        self.machine.take_if(|held| held.number == number);
    }

    pub(super) fn promised(&self) -> Promised {
        let held = self.machine.as_ref();
        Promised {
            vms: 1,
            running_vms: u64::from(held.is_some()),
            vcpus: held.map_or(0, |held| u64::from(held.vcpu_count)),
            memory_mib: held.map_or(0, |held| held.memory_mib),
            volumes: 0,
            disk_mib: self.disk_mib,
        }
    }

    pub(super) fn unseen_memory_mib(&self) -> u64 {
        let held = self.machine.filter(|held| !held.is_seen);
        held.map_or(0, |held| held.memory_mib)
    }
}
