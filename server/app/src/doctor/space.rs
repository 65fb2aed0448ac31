//! Room on the disk of the state directory.

use banger_core::doctor::Finding;

use super::check::Check;
use super::host::Host;

/// Below this, above the reserve, a few images fill the disk: MiB.
const COMFORT_MIB: u64 = 4096;
/// Files are a problem when fewer than one in this many are left.
const FILES_PROBLEM: u64 = 100;
/// And a warning when fewer than one in this many are.
const FILES_WARNING: u64 = 20;

pub(super) const CHECKS: [Check; 2] = [
    Check::files("STATE_SPACE", "There is space for images and VMs", space),
    Check::files("STATE_INODES", "There is room for more files", inodes),
];

fn unreadable(error: rustix::io::Errno) -> Finding {
    Finding::problem(
        format!(
            "the file system does not answer: {}",
            std::io::Error::from(error)
        ),
        "Nothing can be kept there.",
    )
}

fn space(host: &Host) -> Finding {
    match rustix::fs::statvfs(&host.state_dir) {
        Ok(stat) => judge_space(
            stat.f_bavail.saturating_mul(stat.f_frsize) >> 20,
            stat.f_blocks.saturating_mul(stat.f_frsize) >> 20,
            host.disk_reserve_mib,
        ),
        Err(error) => unreadable(error),
    }
}

fn judge_space(free_mib: u64, all_mib: u64, reserve_mib: u64) -> Finding {
    let found = format!("{free_mib} MiB free of {all_mib} MiB");
    let remedy = "Remove what nothing needs, or move the state directory to a larger disk.";
    let command = "banger image prune";
    if free_mib <= reserve_mib {
        return Finding::problem(
            found,
            format!(
                "{reserve_mib} MiB are kept free (disk_reserve_mib), so no image and no VM is taken any more."
            ),
        )
        .remedy(remedy)
        .command(command);
    }
    if free_mib - reserve_mib < COMFORT_MIB {
        return Finding::warning(
            found,
            "A few images or growing disks of VMs fill it; then writes in guests fail.",
        )
        .remedy(remedy)
        .command(command);
    }
    Finding::ok(found)
}

fn inodes(host: &Host) -> Finding {
    match rustix::fs::statvfs(&host.state_dir) {
        Ok(stat) => judge_inodes(stat.f_favail, stat.f_files),
        Err(error) => unreadable(error),
    }
}

fn judge_inodes(free: u64, all: u64) -> Finding {
    if all == 0 {
        return Finding::ok("the file system has as many as it needs");
    }
    let found = format!("{free} of {all} files left");
    let cause = "At none left, nothing more can be made, however much space there is.";
    let remedy = "Remove small files that nothing needs, or make the file system with more inodes.";
    if free < all / FILES_PROBLEM {
        return Finding::problem(found, cause).remedy(remedy);
    }
    if free < all / FILES_WARNING {
        return Finding::warning(found, cause).remedy(remedy);
    }
    Finding::ok(found)
}

#[cfg(test)]
mod tests {
    use banger_core::doctor::Verdict;

    use super::super::host::laid_out;
    use super::*;

    #[test]
    fn space_is_judged_above_the_reserve() {
        let verdict = |free| judge_space(free, 100_000, 512).verdict;
        assert_eq!(verdict(512), Verdict::Problem);
        assert_eq!(verdict(513), Verdict::Warning);
        assert_eq!(verdict(512 + COMFORT_MIB), Verdict::Ok);
        assert!(judge_space(0, 1, 512).command.contains("prune"));
    }

    #[test]
    fn files_are_judged_by_the_share_that_is_left() {
        assert_eq!(judge_inodes(0, 0).verdict, Verdict::Ok);
        assert_eq!(judge_inodes(9, 1000).verdict, Verdict::Problem);
        assert_eq!(judge_inodes(49, 1000).verdict, Verdict::Warning);
        assert_eq!(judge_inodes(50, 1000).verdict, Verdict::Ok);
    }

    #[test]
    fn a_state_directory_that_is_gone_is_a_problem() {
        let (_dir, host) = laid_out::host(&[]);
        assert!(space(&host).found.contains("MiB free of"));
        std::fs::remove_dir(&host.state_dir).unwrap();
        assert_eq!(space(&host).verdict, Verdict::Problem);
        assert_eq!(inodes(&host).verdict, Verdict::Problem);
    }
}
