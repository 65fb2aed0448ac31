//! What can go wrong with volumes.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use banger_core::host_io::{io_kind, io_reason, io_remedy};
use banger_core::{Explain, Failure, FailureKind, Name};
use banger_image::Ext4Error;

use super::attach::Access;

/// Why a volume cannot be made, changed, removed or attached.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Somebody has it in a way that forbids it.
    #[error("volume `{volume}` is {} by {holders}, so it cannot be {}", had.had(), wanted.had())]
    Attached {
        /// Its name.
        volume: Name,
        /// How it is had.
        had: Access,
        /// Who has it, in words.
        holders: String,
        /// The name of a VM that has it, where one does.
        vm: Option<Name>,
        /// How it was wanted.
        wanted: Access,
    },
    /// Its file system was not unmounted by the VM that wrote it last.
    #[error(
        "volume `{volume}` was not unmounted by the VM that last wrote it, so it cannot be mounted for reading only"
    )]
    NotClean {
        /// Its name.
        volume: Name,
    },
    /// The volume was changed since the caller looked.
    #[error("volume `{volume}` was changed since its etag was read")]
    Changed {
        /// Its name.
        volume: Name,
    },
    /// The host's disk did not end in time what was asked of it.
    #[error("could not {} volume `{volume}` within {limit:?}: the host's disk does not answer", work.verb())]
    Silent {
        /// Its name.
        volume: Name,
        /// What was asked.
        work: DiskWork,
        /// The limit that ran out.
        limit: Duration,
    },
    /// Its files are still there, though it was removed.
    #[error(
        "the files of volume `{volume}` are not gone within {limit:?}; the daemon goes on removing them"
    )]
    NotRemoved {
        /// Its name.
        volume: Name,
        /// The limit that ran out.
        limit: Duration,
        /// What keeps them, as far as is known; absent where something hangs.
        #[source]
        source: Option<Box<Failure>>,
    },
    /// Its disk could not be made.
    #[error("could not make the volume's disk")]
    Make(#[source] Ext4Error),
    /// A file step failed.
    #[error("could not {step} `{}`", path.display())]
    File {
        /// What was done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What the host's disk is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskWork {
    /// The volume is made.
    Make,
    /// It grows.
    Grow,
    /// It waits for an earlier change to be done.
    Change,
}

impl DiskWork {
    const fn verb(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Grow => "grow",
            Self::Change => "change",
        }
    }

    /// What becomes of it, and what to do.
    const fn remedy(self) -> &'static str {
        match self {
            Self::Make => {
                "Check whether the host's disk answers, then make the volume again. What was begun is removed when it does."
            }
            Self::Grow => {
                "Check whether the host's disk answers. The volume is recorded with its new size, and its disk grows when it does, or when a VM is next started with the volume."
            }
            Self::Change => {
                "Check whether the host's disk answers, then send the change again: an earlier one waits for it."
            }
        }
    }
}

impl Explain for VolumeError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Attached { volume, .. } | Self::NotClean { volume } => {
                FailureKind::FailedPrecondition {
                    subject: format!("volume/{volume}"),
                }
            }
            Self::Changed { .. } => FailureKind::Aborted,
            Self::Silent { .. } => FailureKind::DeadlineExceeded,
            Self::NotRemoved { source, .. } => match source.as_ref().map(|source| &source.kind) {
                Some(full @ FailureKind::ResourceExhausted { .. }) => full.clone(),
                _ => FailureKind::DeadlineExceeded,
            },
            Self::Make(source) => source.kind(),
            Self::File { source, .. } => io_kind(source),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Attached { .. } => "VOLUME_ATTACHED",
            Self::NotClean { .. } => "VOLUME_NOT_CLEAN",
            Self::Changed { .. } => "VOLUME_CHANGED",
            Self::Silent { .. } => "VOLUME_DISK_SILENT",
            Self::NotRemoved { .. } => "VOLUME_NOT_REMOVED",
            Self::Make(source) => source.reason(),
            Self::File { source, .. } => io_reason(source, "VOLUME_FILE"),
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Attached { vm: Some(vm), had: Access::Read, .. } => {
                format!("Stop what reads it first (banger vm stop {vm}), or mount it for reading only (NAME:PATH:ro).")
            }
            Self::Attached { vm: Some(vm), .. } => {
                format!("Stop the VM first (banger vm stop {vm}), or give each VM a volume of its own (banger volume create NAME --seed VOLUME).")
            }
            Self::Attached { vm: None, .. } => "Try again when that is done.".into(),
            Self::NotClean { volume } => {
                format!("Start a VM once that mounts it for writing, and stop it: banger run --volume {volume}:/mnt IMAGE true")
            }
            Self::Changed { volume } => {
                format!("Look at it again and repeat what is still wanted: banger volume inspect {volume}")
            }
            Self::Silent { work, .. } => work.remedy().into(),
            Self::NotRemoved { volume, source: Some(_), .. } => {
                format!("Mend what the cause says; the daemon tries again by itself, and at once when you do: banger volume remove {volume}")
            }
            Self::NotRemoved { volume, source: None, .. } => {
                format!("Check whether the host's disk answers; the removal goes on when it does. To wait for it again: banger volume remove {volume}")
            }
            Self::Make(source) => return source.remedy(),
            Self::File { source, .. } if io_remedy(source).is_some() => return io_remedy(source),
            Self::File { .. } => "Check the state directory's file system: its space, its rights, and whether it is read-only.".into(),
        };
        Some(text)
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Attached {
                volume,
                holders,
                had,
                wanted,
                ..
            } => vec![
                ("volume", volume.to_string()),
                ("holders", holders.clone()),
                ("had", had.had().to_owned()),
                ("wanted", wanted.had().to_owned()),
            ],
            Self::NotClean { volume } | Self::Changed { volume } => {
                vec![("volume", volume.to_string())]
            }
            Self::Silent {
                volume,
                work,
                limit,
            } => vec![
                ("volume", volume.to_string()),
                ("step", work.verb().to_owned()),
                ("limit_ms", limit.as_millis().to_string()),
            ],
            Self::NotRemoved {
                volume,
                limit,
                source,
            } => {
                let mut words = vec![
                    ("volume", volume.to_string()),
                    ("limit_ms", limit.as_millis().to_string()),
                ];
                let cause = source.as_ref().map(|source| source.reason.clone());
                words.extend(cause.map(|cause| ("cause", cause)));
                words
            }
            Self::Make(source) => source.metadata(),
            Self::File { step, path, .. } => vec![
                ("step", (*step).to_owned()),
                ("path", path.display().to_string()),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_is_wrong() {
        let volume: Name = "data".parse().unwrap();
        let attached = VolumeError::Attached {
            volume: volume.clone(),
            had: Access::Write,
            holders: "VM `a`".into(),
            vm: Some("a".parse().unwrap()),
            wanted: Access::Read,
        };
        let texts = [
            (
                attached,
                "volume `data` is written by VM `a`, so it cannot be read",
            ),
            (
                VolumeError::NotClean {
                    volume: volume.clone(),
                },
                "volume `data` was not unmounted by the VM that last wrote it, so it cannot be mounted for reading only",
            ),
            (
                VolumeError::Silent {
                    volume: volume.clone(),
                    work: DiskWork::Grow,
                    limit: Duration::from_secs(30),
                },
                "could not grow volume `data` within 30s: the host's disk does not answer",
            ),
            (
                VolumeError::NotRemoved {
                    volume: volume.clone(),
                    limit: Duration::from_secs(10),
                    source: None,
                },
                "the files of volume `data` are not gone within 10s; the daemon goes on removing them",
            ),
            (
                VolumeError::Changed { volume },
                "volume `data` was changed since its etag was read",
            ),
            (
                VolumeError::File {
                    step: "flush",
                    path: "/x".into(),
                    source: io::ErrorKind::Other.into(),
                },
                "could not flush `/x`",
            ),
        ];
        for (error, text) in texts {
            assert_eq!(error.to_string(), text);
        }
    }
}
