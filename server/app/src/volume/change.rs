//! Changing volumes. A growth is recorded first: where a crash comes between, whoever attaches the volume next makes its
//! disk as large as it is to be. Where the host's disk hangs, the growth goes on behind its caller, who is told.

use std::time::Duration;

use banger_core::volume::{Volume, VolumeChange};
use banger_core::{chain, size};
use banger_store::CasOutcome;

use super::attach::{Access, Attached, Holder};
use super::error::{DiskWork, VolumeError};
use super::{VolumeView, Volumes, blocking, files, wanted};
use crate::error::AppError;
use crate::vm::check_labels;
use crate::{host, look};

impl Volumes {
    /// Changes a volume.
    ///
    /// # Errors
    /// If a value is wrong, it would shrink, somebody has it while it is to grow, it was changed since its caller
    /// looked, or the host's disk does not answer; then a growth goes on.
    pub async fn update(&self, named: &str, change: VolumeChange) -> Result<VolumeView, AppError> {
        let limit = self.context.config.volume_timeout;
        let found = self.find(named).await?;
        let turn = self.changing.of(found.id).lock_owned();
        let Ok(turn) = tokio::time::timeout(limit, turn).await else {
            return Err(silent(&found, DiskWork::Change, limit));
        };
        // Whoever had the turn before may have changed it.
        let before = self.find(&found.id.to_string()).await?;
        let after = changed(&before, change)?;
        let grows = after.size_mib > before.size_mib;
        let held = match grows {
            true => Some(self.admit(&before, &after)?),
            false => None,
        };
        if let Err(error) = self.record(&after).await {
            self.admission.restore_volume(&before);
            return Err(error);
        }
        if grows {
            let (this, wanted) = (self.clone(), after.clone());
            let growing = self.context.tasks.spawn(async move {
                let _held = (turn, held);
                this.grow(before, &wanted).await
            });
            match tokio::time::timeout(limit, growing).await {
                Ok(grown) => grown.unwrap_or(Err(AppError::Interrupted))?,
                Err(_) => return Err(silent(&after, DiskWork::Grow, limit)),
            }
        }
        self.view(after, look::deadline()).await
    }

    /// Takes what a growth needs.
    fn admit(&self, before: &Volume, after: &Volume) -> Result<Attached, AppError> {
        host::admit_disk(&self.context)?;
        let wanted = wanted(before, Access::Change);
        let held = self.attachments.take(Holder::Request, &[wanted])?;
        let capacity = host::capacity(&self.context)?;
        self.admission.resize_volume(after, &capacity)?;
        Ok(held)
    }

    /// Makes the disk as large as its record says, or the record as it was.
    async fn grow(&self, before: Volume, after: &Volume) -> Result<(), AppError> {
        let Err(error) = self.extend(after).await else {
            return Ok(());
        };
        tracing::error!(volume = %after.id, error = chain(&error), "could not grow a volume");
        let back = Volume {
            generation: after.generation + 1,
            ..before
        };
        self.record(&back).await?;
        self.admission.restore_volume(&back);
        Err(error)
    }

    async fn record(&self, volume: &Volume) -> Result<(), AppError> {
        match self.context.store.update_volume(volume).await? {
            CasOutcome::Updated => Ok(()),
            CasOutcome::Stale | CasOutcome::Missing => Err(VolumeError::Changed {
                volume: volume.name.clone(),
            }
            .into()),
        }
    }

    /// Makes the disk of a volume as large as its record says.
    pub(super) async fn extend(&self, volume: &Volume) -> Result<(), AppError> {
        let (disk, bytes) = (
            self.context.paths.volume_disk(volume.id),
            volume.size_mib << 20,
        );
        blocking(move || files::extend(&disk, bytes)).await
    }
}

fn silent(volume: &Volume, work: DiskWork, limit: Duration) -> AppError {
    let volume = volume.name.clone();
    VolumeError::Silent {
        volume,
        work,
        limit,
    }
    .into()
}

/// The size of a volume: what was asked for, or the seed's, or the default.
pub(super) fn size_mib(asked: u64, seed: Option<&Volume>) -> Result<u64, AppError> {
    let default = seed.map_or(size::DEFAULT_DISK_MIB, |seed| seed.size_mib);
    let mib = if asked == 0 { default } else { asked };
    let least = seed.map_or(*size::DISK_MIB.start(), |seed| seed.size_mib);
    let range = least..=*size::DISK_MIB.end();
    match range.contains(&mib) {
        true => Ok(mib),
        false => Err(AppError::Invalid {
            field: "size_mib",
            problem: format!(
                "is {mib}, and must be from {} to {}",
                range.start(),
                range.end()
            ),
        }),
    }
}

/// A volume's record after `change`.
fn changed(volume: &Volume, change: VolumeChange) -> Result<Volume, AppError> {
    if change
        .generation
        .is_some_and(|generation| generation != volume.generation)
    {
        return Err(VolumeError::Changed {
            volume: volume.name.clone(),
        }
        .into());
    }
    if let Some(labels) = &change.labels {
        check_labels("labels", labels)?;
    }
    let size_mib = match change.size_mib {
        // As for its clone: not less than it has.
        Some(mib) => size_mib(mib.max(1), Some(volume))?,
        None => volume.size_mib,
    };
    Ok(Volume {
        labels: change.labels.unwrap_or_else(|| volume.labels.clone()),
        size_mib,
        generation: volume.generation + 1,
        ..volume.clone()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use banger_core::{Owner, Timestamp, VolumeId};

    use super::*;

    fn volume(size_mib: u64) -> Volume {
        Volume {
            id: VolumeId::new(),
            name: "data".parse().unwrap(),
            labels: BTreeMap::new(),
            size_mib,
            seed: None,
            owner: Owner::daemon(),
            generation: 3,
            create_time: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_size_is_what_was_asked_for_or_the_seeds_or_the_default() {
        assert_eq!(size_mib(0, None).unwrap(), 8192);
        assert_eq!(size_mib(64, None).unwrap(), 64);
        assert_eq!(size_mib(0, Some(&volume(100))).unwrap(), 100);
        assert_eq!(size_mib(200, Some(&volume(100))).unwrap(), 200);
        let refused = size_mib(99, Some(&volume(100))).unwrap_err().to_string();
        assert_eq!(refused, "size_mib is 99, and must be from 100 to 4194304");
        assert!(size_mib(63, None).is_err() && size_mib(4_194_305, None).is_err());
    }

    #[test]
    fn a_volume_only_grows_and_only_as_it_was_seen() {
        let change = |size_mib, generation| VolumeChange {
            size_mib,
            generation,
            labels: None,
        };
        let grown = changed(&volume(100), change(Some(200), Some(3))).unwrap();
        assert_eq!((grown.size_mib, grown.generation), (200, 4));
        for small in [0, 99] {
            assert!(changed(&volume(100), change(Some(small), None)).is_err());
        }
        let refused = changed(&volume(100), change(None, Some(2)))
            .unwrap_err()
            .to_string();
        assert_eq!(refused, "volume `data` was changed since its etag was read");
    }
}
