//! Locks of volumes: each volume has its own, so that what one waits for holds up no other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use banger_core::VolumeId;

/// A lock for each volume of which somebody has or wants it.
#[derive(Debug, Clone, Default)]
pub(super) struct Locks(Arc<Mutex<HashMap<VolumeId, Lock>>>);

type Lock = Arc<tokio::sync::Mutex<()>>;

impl Locks {
    /// The lock of a volume.
    pub(super) fn of(&self, volume: VolumeId) -> Lock {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(volume).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_one_lock_and_others_theirs() {
        let (locks, data, other) = (Locks::default(), VolumeId::new(), VolumeId::new());
        let held = locks.of(data).try_lock_owned().unwrap();
        assert!(locks.of(data).try_lock_owned().is_err());
        assert!(locks.of(other).try_lock_owned().is_ok());
        drop(held);
        assert!(locks.of(data).try_lock_owned().is_ok());
        drop(locks.of(other));
        assert_eq!(locks.0.lock().unwrap().len(), 1, "nobody wants the first");
    }
}
