//! Places that each VM has a number of: connections to it, each of which takes one as long as it lasts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use banger_core::VmId;

/// How many are taken, by VM; one of which none are is not in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<BTreeMap<VmId, usize>>>);

/// One that is taken, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    vm: VmId,
}

impl Places {
    /// Takes one of a VM's `limit`; none where all are taken.
    pub(crate) fn take(&self, vm: VmId, limit: usize) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(vm).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(taken);
        let places = self.clone();
        Some(Place { places, vm })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.vm) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.vm);
            }
        }
    }
}
