//! A host with one problem that can be mended, and a warning.

use banger_proto::v1;
use v1::doctor_check::Status;

fn check(position: i32, subject: &str, id: &str, status: Status, found: &str) -> v1::DoctorCheck {
    v1::DoctorCheck {
        id: id.into(),
        subject: subject.into(),
        title: format!("{id} is right"),
        status: status.into(),
        found: found.into(),
        took: Some(prost_types::Duration {
            seconds: 0,
            nanos: 3_000_000,
        }),
        position,
        ..v1::DoctorCheck::default()
    }
}

/// In the order in which they end, which is not that of their positions.
pub(super) fn checks(fix: bool) -> [v1::DoctorCheck; 4] {
    let mut kvm = check(1, "kvm", "KVM_BOOTS_GUEST", Status::Warning, "it does not");
    kvm.cause = "the guest kernel did not reach its agent".into();
    kvm.remedy = "Use a host whose KVM works.".into();
    let mut state = if fix {
        check(2, "state", "STATE_PERMISSIONS", Status::Fixed, "/s 0700")
    } else {
        check(
            2,
            "state",
            "STATE_PERMISSIONS",
            Status::Problem,
            "/s has mode 0755",
        )
    };
    if fix {
        state.changed = "set the mode of /s to 0700".into();
    } else {
        state.cause = "Others can look at disks.".into();
        state.remedy = "Close it.".into();
        state.command = "chmod 0700 /s".into();
        state.fixable = true;
    }
    let qemu = check(
        0,
        "vmm",
        "QEMU_PRESENT",
        Status::Ok,
        "/usr/bin/qemu-system-x86_64",
    );
    let swap = check(
        3,
        "limits",
        "SWAP",
        Status::Skipped,
        "/proc/meminfo does not tell",
    );
    [state, kvm, swap, qemu]
}
