//! The host.

use banger_app::doctor::{Report, Status, Summary, Told};
use banger_app::host::HostInfo;
use banger_core::vmm::DriverInfo;
use banger_proto::v1;
use banger_proto::v1::doctor_check;
use banger_proto::v1::doctor_response::Message;

use super::field::{int, small, span};

pub(crate) fn info(host: HostInfo) -> v1::HostInfo {
    let of_driver =
        |get: fn(&DriverInfo) -> String| host.driver.as_ref().map(get).unwrap_or_default();
    v1::HostInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        driver: host
            .driver
            .as_ref()
            .map_or_else(|| "qemu".into(), |driver| driver.driver.clone()),
        vmm_version: of_driver(|driver| driver.version.clone()),
        accelerator: of_driver(|driver| driver.accelerator.as_str().into()),
        accelerator_warning: of_driver(|driver| {
            driver.accelerator_warning.clone().unwrap_or_default()
        }),
        cpu_count: small(host.cpu_count),
        memory_bytes: int(host.memory_bytes),
        memory_available_bytes: int(host.memory_available_bytes),
        state_dir: host.state_dir.display().to_string(),
        state_dir_available_bytes: int(host.state_dir_available_bytes),
        vm_count: small(host.vm_count),
        running_vm_count: small(host.running_vm_count),
        image_count: small(usize::try_from(host.image_count).unwrap_or(usize::MAX)),
        default_kernel: host.default_kernel.unwrap_or_default(),
        pid: i32::try_from(std::process::id()).unwrap_or(0),
    }
}

/// A piece of a diagnosis.
pub(crate) fn told(told: Told) -> Message {
    match told {
        Told::Check(report) => Message::Check(check(*report)),
        Told::Done(summary) => Message::Summary(self::summary(summary)),
    }
}

fn check(report: Report) -> v1::DoctorCheck {
    v1::DoctorCheck {
        id: report.id.into(),
        subject: report.subject.as_str().into(),
        title: report.title.into(),
        status: status(report.status).into(),
        found: report.finding.found,
        cause: report.finding.cause,
        remedy: report.finding.remedy,
        command: report.finding.command,
        fixable: report.fixable,
        changed: report.changed,
        took: Some(span(report.took)),
        position: small(report.position),
    }
}

const fn status(status: Status) -> doctor_check::Status {
    match status {
        Status::Ok => doctor_check::Status::Ok,
        Status::Warning => doctor_check::Status::Warning,
        Status::Problem => doctor_check::Status::Problem,
        Status::Skipped => doctor_check::Status::Skipped,
        Status::Fixed => doctor_check::Status::Fixed,
    }
}

fn summary(summary: Summary) -> v1::DoctorSummary {
    v1::DoctorSummary {
        ok_count: small(summary.ok),
        warning_count: small(summary.warning),
        problem_count: small(summary.problem),
        skipped_count: small(summary.skipped),
        fixed_count: small(summary.fixed),
        took: Some(span(summary.took)),
    }
}
