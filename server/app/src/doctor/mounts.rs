//! What is mounted where, by `/proc/self/mountinfo` (proc(5)).

use std::path::Path;

use super::host::Host;

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where it is.
    pub(super) point: String,
    /// What it is, e.g. `ext4`.
    pub(super) kind: String,
    /// What is mounted, e.g. `/dev/vda`.
    pub(super) source: String,
}

/// All of them, in their order; none where `/proc` does not tell.
pub(super) fn all(host: &Host) -> Vec<Mount> {
    parse(&host.read("/proc/self/mountinfo").unwrap_or_default())
}

fn parse(text: &str) -> Vec<Mount> {
    let mounts = text.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        Some(Mount {
            point: unescape(left.split(' ').nth(4)?),
            kind: right.next()?.to_owned(),
            source: unescape(right.next()?),
        })
    });
    mounts.collect()
}

/// The one on which `path` lies. Of two on the same place the later hides the earlier.
pub(super) fn of_path<'m>(mounts: &'m [Mount], path: &Path) -> Option<&'m Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.len())
}

/// Spaces and the like are written as octal numbers.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 0:30 / /srv/with\\040space rw - xfs /dev/vdb rw
31 27 0:31 / /srv/with rw - nfs4 server:/x rw
";

    #[test]
    fn the_mount_is_the_innermost_that_holds_the_directory() {
        let kind = |path: &str| {
            let mounts = parse(MOUNTS);
            of_path(&mounts, Path::new(path)).unwrap().kind.clone()
        };
        assert_eq!(kind("/var/lib/banger"), "ext4");
        assert_eq!(kind("/srv/with space/state"), "xfs");
        assert_eq!(kind("/srv/with/state"), "nfs4");
        assert_eq!(kind("/srv/without"), "ext4");
        assert!(parse("not a mount\n").is_empty());
        assert_eq!(of_path(&[], Path::new("/")), None);
    }
}
