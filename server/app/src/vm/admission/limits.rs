//! What can be promised, how much of it is, and how much may be.

/// Something of which there is only so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// VMs that exist.
    Vms,
    /// VMs that have a machine, or are about to.
    RunningVms,
    /// vCPUs of those.
    Vcpus,
    /// Guest memory of those.
    Memory,
    /// Volumes that exist.
    Volumes,
    /// Writable disks of all VMs, and all volumes, at the size that their guests see.
    Disk,
}

impl Resource {
    /// Every resource, in the order in which limits are looked at.
    pub const ALL: [Self; 6] = [
        Self::Vms,
        Self::RunningVms,
        Self::Vcpus,
        Self::Memory,
        Self::Volumes,
        Self::Disk,
    ];

    /// The word for programs, which tells the unit.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vms => "vms",
            Self::RunningVms => "running_vms",
            Self::Vcpus => "vcpus",
            Self::Memory => "memory_mib",
            Self::Volumes => "volumes",
            Self::Disk => "disk_mib",
        }
    }

    /// The word for people, behind a number.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Vms => "VMs",
            Self::RunningVms => "running VMs",
            Self::Vcpus => "vCPUs",
            Self::Memory => "MiB of memory",
            Self::Volumes => "volumes",
            Self::Disk => "MiB of disk",
        }
    }
}

/// An amount of every resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Promised {
    /// See [`Resource::Vms`].
    pub vms: u64,
    /// See [`Resource::RunningVms`].
    pub running_vms: u64,
    /// See [`Resource::Vcpus`].
    pub vcpus: u64,
    /// See [`Resource::Memory`].
    pub memory_mib: u64,
    /// See [`Resource::Volumes`].
    pub volumes: u64,
    /// See [`Resource::Disk`].
    pub disk_mib: u64,
}

impl Promised {
    /// Of one resource.
    #[must_use]
    pub const fn of(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Vms => self.vms,
            Resource::RunningVms => self.running_vms,
            Resource::Vcpus => self.vcpus,
            Resource::Memory => self.memory_mib,
            Resource::Volumes => self.volumes,
            Resource::Disk => self.disk_mib,
        }
    }
}

impl std::iter::Sum for Promised {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, each| Self {
            vms: sum.vms.saturating_add(each.vms),
            running_vms: sum.running_vms.saturating_add(each.running_vms),
            vcpus: sum.vcpus.saturating_add(each.vcpus),
            memory_mib: sum.memory_mib.saturating_add(each.memory_mib),
            volumes: sum.volumes.saturating_add(each.volumes),
            disk_mib: sum.disk_mib.saturating_add(each.disk_mib),
        })
    }
}

/// The most of every resource; absent where there is no such limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// See [`Resource::Vms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vms: Option<u64>,
    /// See [`Resource::RunningVms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_vms: Option<u64>,
    /// See [`Resource::Vcpus`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u64>,
    /// See [`Resource::Memory`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// See [`Resource::Volumes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<u64>,
    /// See [`Resource::Disk`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u64>,
}

impl Limits {
    /// Of one resource.
    #[must_use]
    pub const fn of(&self, resource: Resource) -> Option<u64> {
        match resource {
            Resource::Vms => self.vms,
            Resource::RunningVms => self.running_vms,
            Resource::Vcpus => self.vcpus,
            Resource::Memory => self.memory_mib,
            Resource::Volumes => self.volumes,
            Resource::Disk => self.disk_mib,
        }
    }

    /// These, and where they say nothing, `others`.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            vms: self.vms.or(others.vms),
            running_vms: self.running_vms.or(others.running_vms),
            vcpus: self.vcpus.or(others.vcpus),
            memory_mib: self.memory_mib.or(others.memory_mib),
            volumes: self.volumes.or(others.volumes),
            disk_mib: self.disk_mib.or(others.disk_mib),
        }
    }
}

/// What is promised, and the most that may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Now.
    pub promised: Promised,
    /// At most.
    pub limits: Limits,
}

impl Share {
    /// How much is in use and how much may be, if `asked` more would be too much.
    pub(super) fn exceeded_by(&self, resource: Resource, asked: u64) -> Option<(u64, u64)> {
        let (in_use, limit) = (self.promised.of(resource), self.limits.of(resource)?);
        (in_use.saturating_add(asked) > limit).then_some((in_use, limit))
    }
}

/// What a host has, and has left now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Processors the daemon may use.
    pub cpu_count: u64,
    /// Memory.
    pub memory_mib: u64,
    /// Memory that is free or can be freed, now.
    pub memory_available_mib: u64,
    /// The state directory's file system.
    pub disk_mib: u64,
}
