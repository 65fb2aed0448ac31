//! What QEMU needs of the host, check by check.

use std::path::Path;

use banger_core::chain;
use banger_core::doctor::{Diagnosis, Finding};

use super::QemuDriver;
use super::launch::{FIRMWARE_PACKAGE, FIRMWARE_PLACES, PROGRAM_PACKAGE};
use crate::diagnose::CHECK_LIMIT;
use crate::program::{find, version};

/// The oldest QEMU whose `microvm` machine is known to work: major and minor number.
const OLDEST: (u32, u32) = (7, 2);

/// The checks of this driver.
pub(super) fn diagnose(driver: &QemuDriver) -> Vec<Diagnosis<'_>> {
    let program = driver.config.program.as_path();
    vec![
        Diagnosis {
            id: "QEMU_PRESENT",
            title: "QEMU is installed",
            deadline: CHECK_LIMIT,
            finding: Box::pin(async move { present(program) }),
        },
        Diagnosis {
            id: "QEMU_VERSION",
            title: "QEMU is 7.2 or later",
            deadline: CHECK_LIMIT,
            finding: Box::pin(recent(program)),
        },
        Diagnosis {
            id: "QEMU_FIRMWARE",
            title: "QEMU's qboot firmware is installed",
            deadline: CHECK_LIMIT,
            finding: Box::pin(async { firmware(&FIRMWARE_PLACES) }),
        },
    ]
}

fn present(program: &Path) -> Finding {
    match find(program) {
        Some(path) => Finding::ok(path.display().to_string()),
        None => Finding::problem(
            format!("`{}` was not found", program.display()),
            "No VM can be started without it.",
        )
        .remedy("Install it, or name it in the configuration (qemu = \"/path/to/it\").")
        .command(format!("apt-get install {PROGRAM_PACKAGE}")),
    }
}

async fn recent(program: &Path) -> Finding {
    let Some(path) = find(program) else {
        return Finding::skipped("QEMU is not there");
    };
    match version(&path).await {
        Ok(version) => judge(&version),
        Err(why) => Finding::problem(format!("{} does not work", path.display()), chain(&why))
            .remedy("Install it again.")
            .command(format!("apt-get install --reinstall {PROGRAM_PACKAGE}")),
    }
}

fn judge(version: &str) -> Finding {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= OLDEST => Finding::ok(version),
        (Some(Ok(_)), Some(Ok(_))) => {
            Finding::problem(version, "Its microvm machine lacks what banger relies on.")
                .remedy("Upgrade QEMU to 7.2 or later.")
        }
        _ => Finding::warning(
            format!("`{version}` is no version that banger knows"),
            "Whether it works cannot be told beforehand.",
        ),
    }
}

fn firmware(places: &[&str]) -> Finding {
    match places.iter().find(|path| Path::new(path).is_file()) {
        Some(path) => Finding::ok(*path),
        None => Finding::problem(
            format!("none of {} is there", places.join(", ")),
            "VMs are started by it: it is a second faster than the usual firmware.",
        )
        .remedy("Install the package that has qboot.")
        .command(format!("apt-get install {FIRMWARE_PACKAGE}")),
    }
}

#[cfg(test)]
mod tests {
    use banger_core::doctor::Verdict;

    use super::*;

    #[test]
    fn a_qemu_that_is_missing_or_too_old_is_a_problem_with_a_command() {
        let missing = present(Path::new("/no/such/qemu"));
        assert_eq!(missing.verdict, Verdict::Problem);
        assert_eq!(missing.command, "apt-get install qemu-system-x86");
        assert_eq!(present(Path::new("/bin/sh")).verdict, Verdict::Ok);
        for (version, verdict) in [
            ("7.2.22", Verdict::Ok),
            ("10.0.3", Verdict::Ok),
            ("7.1.0", Verdict::Problem),
            ("6.2", Verdict::Problem),
            ("strange", Verdict::Warning),
        ] {
            assert_eq!(judge(version).verdict, verdict, "{version}");
        }
    }

    #[test]
    fn a_missing_firmware_is_a_problem() {
        let dir = tempfile::tempdir().unwrap();
        let rom = dir.path().join("qboot.rom");
        let places = [rom.to_str().unwrap()];
        assert_eq!(firmware(&places).verdict, Verdict::Problem);
        std::fs::write(&rom, "rom").unwrap();
        assert_eq!(firmware(&places), Finding::ok(rom.to_str().unwrap()));
    }

    #[tokio::test]
    async fn without_qemu_its_version_is_skipped() {
        assert_eq!(
            recent(Path::new("/no/such/qemu")).await.verdict,
            Verdict::Skipped
        );
    }
}
