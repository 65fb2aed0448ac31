//! Who has which volume: one writer, or any number of readers.
//!
//! The account is in memory. It needs no rows: whoever holds a volume is a VM whose VMM lives, which a starting
//! daemon finds by the journal of processes, or work of this daemon, which ends with it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_core::volume::VolumeMount;
use banger_core::{Name, VmId, VolumeId};

use super::error::VolumeError;

/// How many holders an error names.
const HOLDERS_SHOWN: usize = 5;

/// What one does with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Any number at once, while none writes.
    Read,
    /// One, while none reads.
    Write,
    /// Its size or existence is changed: one, while none reads or writes.
    Change,
}

impl Access {
    /// The word for what is done to a volume.
    pub(super) const fn had(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "written",
            Self::Change => "changed",
        }
    }

    const fn of(mount: &VolumeMount) -> Self {
        match mount.read_only {
            true => Self::Read,
            false => Self::Write,
        }
    }
}

/// Who has a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A VM, from its VMM's launch until that is gone.
    Vm(VmId, Name),
    /// The making of the volume with this name.
    Copy(Name),
    /// A change or removal.
    Request,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm(_, name) => write!(f, "VM `{name}`"),
            Self::Copy(name) => write!(f, "the making of volume `{name}`"),
            Self::Request => f.write_str("another request"),
        }
    }
}

/// A volume that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) volume: VolumeId,
    pub(crate) name: Name,
    pub(crate) access: Access,
}

impl From<&VolumeMount> for Wanted {
    fn from(mount: &VolumeMount) -> Self {
        Self {
            volume: mount.volume,
            name: mount.name.clone(),
            access: Access::of(mount),
        }
    }
}

type Holds = HashMap<VolumeId, Vec<(Holder, Access)>>;

/// The account of all volumes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attachments(Arc<Mutex<Holds>>);

/// Volumes that are held, until this is dropped.
#[must_use = "the volumes are let go when this is dropped"]
#[derive(Debug)]
pub(crate) struct Attached {
    account: Attachments,
    holder: Holder,
    volumes: Vec<VolumeId>,
}

impl Attachments {
    fn lock(&self) -> MutexGuard<'_, Holds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all of `wanted`, or nothing.
    pub(crate) fn take(&self, holder: Holder, wanted: &[Wanted]) -> Result<Attached, VolumeError> {
        let mut holds = self.lock();
        for wanted in wanted {
            check(&holds, wanted)?;
        }
        Ok(self.enter(&mut holds, holder, wanted))
    }

    /// Whether [`Attachments::take`] would do now.
    pub(crate) fn check(&self, wanted: &[Wanted]) -> Result<(), VolumeError> {
        let holds = self.lock();
        wanted.iter().try_for_each(|wanted| check(&holds, wanted))
    }

    /// Takes what a VM has already: its VMM was found alive.
    pub(crate) fn resume(&self, holder: Holder, wanted: &[Wanted]) -> Attached {
        self.enter(&mut self.lock(), holder, wanted)
    }

    fn enter(&self, holds: &mut Holds, holder: Holder, wanted: &[Wanted]) -> Attached {
        for wanted in wanted {
            let holders = holds.entry(wanted.volume).or_default();
            holders.push((holder.clone(), wanted.access));
        }
        Attached {
            account: self.clone(),
            holder,
            volumes: wanted.iter().map(|wanted| wanted.volume).collect(),
        }
    }

    /// Whether a VM has a volume now.
    pub(crate) fn has(&self, vm: VmId, volume: VolumeId) -> bool {
        let is_vm =
            |(holder, _): &(Holder, Access)| matches!(holder, Holder::Vm(id, _) if *id == vm);
        self.lock()
            .get(&volume)
            .is_some_and(|holders| holders.iter().any(is_vm))
    }
}

fn check(holds: &Holds, wanted: &Wanted) -> Result<(), VolumeError> {
    let holders = holds.get(&wanted.volume).map_or(&[][..], Vec::as_slice);
    let forbids = |access: Access| access != Access::Read || wanted.access != Access::Read;
    let Some((_, had)) = holders.iter().find(|(_, access)| forbids(*access)) else {
        return Ok(());
    };
    let named: Vec<String> = holders
        .iter()
        .take(HOLDERS_SHOWN)
        .map(|(holder, _)| holder.to_string())
        .collect();
    let more = match holders.len().saturating_sub(HOLDERS_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(VolumeError::Attached {
        volume: wanted.name.clone(),
        had: *had,
        holders: named.join(", ") + &more,
        vm: holders.iter().find_map(|(holder, _)| match holder {
            Holder::Vm(_, name) => Some(name.clone()),
            Holder::Copy(_) | Holder::Request => None,
        }),
        wanted: wanted.access,
    })
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut holds = self.account.lock();
        for volume in &self.volumes {
            let Some(holders) = holds.get_mut(volume) else {
                continue;
            };
            if let Some(at) = holders
                .iter()
                .position(|(holder, _)| *holder == self.holder)
            {
                holders.remove(at);
            }
            if holders.is_empty() {
                holds.remove(volume);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str) -> Holder {
        Holder::Vm(VmId::new(), name.parse().unwrap())
    }

    fn wanted(volume: VolumeId, access: Access) -> Wanted {
        let name = "data".parse().unwrap();
        Wanted {
            volume,
            name,
            access,
        }
    }

    #[test]
    fn one_writes_or_many_read() {
        let (account, data) = (Attachments::default(), VolumeId::new());
        let read = [wanted(data, Access::Read)];
        let write = [wanted(data, Access::Write)];
        let change = [wanted(data, Access::Change)];
        let first = account.take(vm("a"), &read).unwrap();
        let second = account.take(vm("b"), &read).unwrap();
        let refused = account.take(vm("c"), &write).unwrap_err().to_string();
        assert_eq!(
            refused,
            "volume `data` is read by VM `a`, VM `b`, so it cannot be written"
        );
        assert!(account.check(&change).is_err());
        drop((first, second));
        let writer = account.take(vm("c"), &write).unwrap();
        for other in [&read, &write, &change] {
            let refused = account.take(vm("d"), other).unwrap_err().to_string();
            assert!(
                refused.starts_with("volume `data` is written by VM `c`"),
                "{refused}"
            );
        }
        drop(writer);
        let copy = account
            .take(Holder::Copy("new".parse().unwrap()), &read)
            .unwrap();
        let refused = account.take(vm("a"), &write).unwrap_err().to_string();
        assert_eq!(
            refused,
            "volume `data` is read by the making of volume `new`, so it cannot be written"
        );
        drop(copy);
        assert!(
            account.lock().is_empty(),
            "nothing is left of what was let go"
        );
    }

    #[test]
    fn all_are_taken_or_none() {
        let (account, a, b) = (Attachments::default(), VolumeId::new(), VolumeId::new());
        let _writer = account.take(vm("a"), &[wanted(b, Access::Write)]).unwrap();
        let both = [wanted(a, Access::Write), wanted(b, Access::Read)];
        assert!(account.take(vm("b"), &both).is_err());
        assert!(account.check(&[wanted(a, Access::Change)]).is_ok());
    }

    #[test]
    fn what_a_living_vm_has_is_taken_up_again() {
        let (account, data) = (Attachments::default(), VolumeId::new());
        let id = VmId::new();
        let held = account.resume(
            Holder::Vm(id, "a".parse().unwrap()),
            &[wanted(data, Access::Write)],
        );
        assert!(account.has(id, data) && !account.has(VmId::new(), data));
        assert!(account.check(&[wanted(data, Access::Read)]).is_err());
        drop(held);
        assert!(!account.has(id, data));
    }
}
