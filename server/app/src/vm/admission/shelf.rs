//! What volumes are promised: they have no runner, so the book itself is what remembers them.

use std::sync::Arc;

use banger_core::VolumeId;
use banger_core::volume::Volume;

use super::ledger::VolumeEntry;
use super::limits::Capacity;
use super::{Admission, Shared};
use crate::error::AppError;

/// A volume that is being made, or removed. Dropped before it is [kept](Shelf::keep), it counts no more.
#[derive(Debug)]
pub(crate) struct Shelf {
    shared: Arc<Shared>,
    volume: VolumeId,
    is_kept: bool,
}

impl Admission {
    /// Accepts a volume to be made.
    ///
    /// # Errors
    /// With the first limit that it would exceed.
    pub(crate) fn create_volume(
        &self,
        volume: &Volume,
        capacity: &Capacity,
    ) -> Result<Shelf, AppError> {
        self.put_volume(volume, capacity)?;
        Ok(Shelf {
            shared: self.shared.clone(),
            volume: volume.id,
            is_kept: false,
        })
    }

    /// Accepts the size that a volume is to have from now on.
    ///
    /// # Errors
    /// With the first limit that its growth would exceed.
    pub(crate) fn resize_volume(
        &self,
        volume: &Volume,
        capacity: &Capacity,
    ) -> Result<(), AppError> {
        self.put_volume(volume, capacity)
    }

    fn put_volume(&self, volume: &Volume, capacity: &Capacity) -> Result<(), AppError> {
        let mut ledger = self.shared.lock();
        let before = ledger.volume(volume.id).map(VolumeEntry::promised);
        let entry = VolumeEntry::of(volume);
        self.shared.rules.check_growth(
            &ledger,
            &entry.owner,
            before.unwrap_or_default(),
            entry.promised(),
            capacity,
        )?;
        ledger.put_volume(volume.id, entry);
        Ok(())
    }

    /// Counts a volume as its record has it, without asking: one of an earlier daemon, or one whose change is taken
    /// back.
    pub(crate) fn restore_volume(&self, volume: &Volume) {
        let entry = VolumeEntry::of(volume);
        self.shared.lock().put_volume(volume.id, entry);
    }

    /// Whether a volume is promised anything: it is there, or being made.
    pub(crate) fn counts_volume(&self, volume: VolumeId) -> bool {
        self.shared.lock().volume(volume).is_some()
    }

    /// A volume's record is gone: it counts until its files are too.
    pub(crate) fn take_down_volume(&self, volume: VolumeId) -> Shelf {
        Shelf {
            shared: self.shared.clone(),
            volume,
            is_kept: false,
        }
    }
}

impl VolumeEntry {
    fn of(volume: &Volume) -> Self {
        Self {
            owner: volume.owner.clone(),
            disk_mib: volume.size_mib,
        }
    }
}

impl Shelf {
    /// The volume has a record, and counts until [`Admission::take_down_volume`] and its files are gone.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if !self.is_kept {
            self.shared.lock().remove_volume(self.volume);
        }
    }
}
