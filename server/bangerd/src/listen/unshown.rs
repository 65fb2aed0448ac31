//! Users of whom the kernel does not tell the daemon who they are (user_namespaces(7)).
//!
//! A daemon in a user namespace of its own, in a rootless container for example, is shown the users that are mapped there.
//! All others have one number, the same for each: they would be one owner, and have each other's VMs.

use std::fs;

/// The number of the others where the kernel says none.
const USUAL: u32 = 65_534;

/// The number that stands for all users who are not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unshown(Option<u32>);

impl Unshown {
    /// As this process sees it.
    pub(super) fn here() -> Self {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let number = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
        Self::by(&map, number.trim().parse().unwrap_or(USUAL))
    }

    /// None is hidden where `map` has every user: there, the number is a user's like any other.
    fn by(map: &str, number: u32) -> Self {
        let lengths = map.lines().filter_map(|line| {
            let length = line.split_whitespace().nth(2)?;
            length.parse::<u64>().ok()
        });
        let has_all = lengths.sum::<u64>() >= u64::from(u32::MAX);
        Self((!has_all).then_some(number))
    }

    /// Whether this number may be anybody's.
    pub(super) fn has(self, uid: u32) -> bool {
        self.0 == Some(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_mapped_is_nobody_and_on_the_host_itself_everybody_is() {
        let host = Unshown::by("         0          0 4294967295\n", USUAL);
        assert!(!host.has(USUAL));
        let container = "         0       1000          1\n         1     100000      65536\n";
        let container = Unshown::by(container, USUAL);
        assert!(container.has(USUAL));
        assert!(!container.has(0) && !container.has(1000));
        assert!(Unshown::by("", 7).has(7));
    }
}
