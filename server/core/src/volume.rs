//! Volumes: disks that outlive VMs, and how VMs name them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Name, Owner, Timestamp, VmId, VolumeId};

/// A volume as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Made at creation.
    pub id: VolumeId,
    /// Unique among volumes.
    pub name: Name,
    /// For finding it.
    pub labels: BTreeMap<String, String>,
    /// Its size; its file is sparse and never shorter once it is attached.
    pub size_mib: u64,
    /// The name of the volume whose content it began with, as it was called then.
    pub seed: Option<Name>,
    /// Who asked for it.
    pub owner: Owner,
    /// Rises with every change; the etag of the API.
    pub generation: u64,
    /// When it was made.
    pub create_time: Timestamp,
}

/// A volume of a VM's specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Which, once resolved.
    pub volume: VolumeId,
    /// Its name.
    pub name: Name,
    /// Where the guest mounts it; see [`check_path`].
    pub path: String,
    /// Whether the guest can only read it.
    pub read_only: bool,
}

/// A VM that names a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUser {
    /// Its id.
    pub vm: VmId,
    /// Its name.
    pub name: Name,
    /// Whether it can only read the volume.
    pub read_only: bool,
}

/// What is to be changed of a volume; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeChange {
    /// All labels anew.
    pub labels: Option<BTreeMap<String, String>>,
    /// Grows only.
    pub size_mib: Option<u64>,
    /// Only if the volume's generation is still this.
    pub generation: Option<u64>,
}

/// The most volumes of one VM. With the two disks of its own, network, channel and entropy they fit QEMU's
/// `microvm`, which has 24 places for devices.
pub const VOLUMES_PER_VM_MAX: usize = 16;
/// The most bytes of a mount path.
pub const PATH_MAX: usize = 1024;
/// What a volume must neither hide nor lie in: the kernel's own, without which nothing runs.
const KERNEL_PATHS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Why a path is none that a volume can be mounted at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountPathError {
    /// Empty, or over [`PATH_MAX`] bytes.
    #[error("has 1 to {PATH_MAX} bytes, not {length}")]
    Length {
        /// The length given, in bytes.
        length: usize,
    },
    /// It does not begin at the root.
    #[error("is not absolute")]
    Relative,
    /// It can be said more simply, so that two ways to say it would look like two places.
    #[error("has an empty part, `.`, `..`, or a `/` at its end")]
    NotClean,
    /// A character that no path of a volume needs.
    #[error("has a control character")]
    Control,
    /// The root itself, or the kernel's.
    #[error("is where the guest's system itself is")]
    System,
}

/// Checks where a volume is to be mounted: an absolute, clean path that hides nothing a guest needs to run.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with the path.
pub fn check_path(path: &str) -> Result<(), MountPathError> {
    if path.is_empty() || path.len() > PATH_MAX {
        let length = path.len();
        return Err(MountPathError::Length { length });
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Err(MountPathError::Relative);
    };
    if path.chars().any(char::is_control) {
        return Err(MountPathError::Control);
    }
    if rest.is_empty() {
        return Err(MountPathError::System);
    }
    if rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(MountPathError::NotClean);
    }
    let is_in = |parent: &str| {
        path.strip_prefix(parent)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match KERNEL_PATHS.into_iter().any(is_in) {
        true => Err(MountPathError::System),
        false => Ok(()),
    }
}

/// The serial number of a VM's disk for its volume number `index`, by which the guest finds it.
#[must_use]
pub fn serial(index: usize) -> String {
    format!("vol{index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_absolute_paths_are_mount_paths() {
        for path in ["/data", "/home/user/.cache", "/developer", "/srv/a b", "/ä"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn other_paths_are_refused_with_the_reason() {
        let cases = [
            ("", "has 1 to 1024 bytes, not 0"),
            ("data", "is not absolute"),
            ("/", "is where the guest's system itself is"),
            ("/dev", "is where the guest's system itself is"),
            ("/proc/1", "is where the guest's system itself is"),
            ("/a/", "has an empty part, `.`, `..`, or a `/` at its end"),
            ("//a", "has an empty part, `.`, `..`, or a `/` at its end"),
            (
                "/a/../etc",
                "has an empty part, `.`, `..`, or a `/` at its end",
            ),
            (
                "/./dev",
                "has an empty part, `.`, `..`, or a `/` at its end",
            ),
            ("/a\nb", "has a control character"),
            ("/a\0", "has a control character"),
        ];
        for (path, problem) in cases {
            assert_eq!(
                check_path(path).unwrap_err().to_string(),
                problem,
                "{path:?}"
            );
        }
        assert!(check_path(&format!("/{}", "x".repeat(PATH_MAX))).is_err());
    }

    #[test]
    fn serials_fit_a_disk() {
        assert!(serial(VOLUMES_PER_VM_MAX - 1).len() <= 20);
    }
}
