//! Cgroups of daemons: named by a digest of their state directory, as docs/limits.md says.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// How deep below a run's directory a state directory may be.
const DEPTH: usize = 4;

/// Where cgroup v2 is mounted.
#[must_use]
pub fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ")
            .then(|| fields.split(' ').nth(4))?
    });
    mount.map(PathBuf::from)
}

/// Those of daemons whose state directory is below `path`, a line each.
#[must_use]
pub fn of(path: &Path) -> Vec<String> {
    let Some(mount) = mount() else {
        return Vec::new();
    };
    let mut directories = vec![path.to_owned()];
    let mut from = 0;
    for _ in 0..DEPTH {
        let to = directories.len();
        for at in from..to {
            let entries = fs::read_dir(&directories[at])
                .into_iter()
                .flatten()
                .flatten();
            let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            directories.extend(below.map(|entry| entry.path()).collect::<Vec<_>>());
        }
        from = to;
    }
    let names = directories.iter().map(|directory| name(directory));
    let left = names
        .map(|name| mount.join(name))
        .filter(|cgroup| cgroup.exists());
    left.map(|cgroup| format!("cgroup {}", cgroup.display()))
        .collect()
}

fn name(state_dir: &Path) -> String {
    let digest = Sha256::digest(state_dir.as_os_str().as_encoded_bytes());
    let tag = digest.iter().take(6);
    tag.fold("banger-".to_owned(), |name, byte| {
        format!("{name}{byte:02x}")
    })
}
