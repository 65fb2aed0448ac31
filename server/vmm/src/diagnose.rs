//! Looking for programs: what drivers say of themselves when the host is diagnosed.

use std::path::Path;
use std::time::Duration;

use banger_core::chain;
use banger_core::doctor::{Diagnosis, Finding};

use crate::program::{find, version};

/// How long a check of a program may take: outlasts [`crate::program::VERSION_LIMIT`].
pub(crate) const CHECK_LIMIT: Duration = Duration::from_secs(12);

/// The checks of Firecracker and its jailer, which a host may have beside QEMU.
pub(crate) fn firecracker<'a>(program: &'a Path, jailer: &'a Path) -> Vec<Diagnosis<'a>> {
    let mut checks = vec![Diagnosis {
        id: "FIRECRACKER_PRESENT",
        title: "Firecracker is installed",
        deadline: CHECK_LIMIT,
        finding: Box::pin(installed(program)),
    }];
    // Switched off by an empty setting.
    if jailer != Path::new("") {
        checks.push(Diagnosis {
            id: "JAILER_PRESENT",
            title: "Firecracker's jailer is installed",
            deadline: CHECK_LIMIT,
            finding: Box::pin(installed(jailer)),
        });
    }
    checks
}

/// A program that is of use and not needed.
async fn installed(name: &Path) -> Finding {
    let Some(program) = find(name) else {
        return Finding::skipped(format!(
            "`{}` is not here; VMs run under QEMU",
            name.display()
        ));
    };
    match version(&program).await {
        Ok(version) => Finding::ok(format!("{version} ({})", program.display())),
        Err(why) => Finding::warning(
            format!("{} is there and does not work", program.display()),
            chain(&why),
        )
        .remedy("Install the release for this processor again, or remove it."),
    }
}

#[cfg(test)]
mod tests {
    use banger_core::doctor::Verdict;

    use super::*;

    #[tokio::test]
    async fn what_is_not_installed_and_not_needed_is_skipped() {
        let found = installed(Path::new("no-program-has-this-name")).await;
        assert_eq!(found.verdict, Verdict::Skipped);
        assert_eq!(find(Path::new("/no/such/program")), None);
        assert!(find(Path::new("sh")).is_some());
    }
}
