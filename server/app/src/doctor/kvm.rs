//! Processor and KVM: whether guests can run at the processor's own speed.

use std::fs::OpenOptions;
use std::io;
use std::time::Duration;

use banger_core::doctor::Finding;
use banger_core::vmm::Accelerator;
use banger_core::{Explain as _, chain};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Ward;
use super::check::{Check, Right};
use super::host::{Host, MendError};

/// A try boots a guest, with the driver's own limits, and may wait for another's try: it outlasts both.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// The device by which KVM is reached.
const DEVICE: &str = "/dev/kvm";
/// The flag of a processor that is itself a virtual one.
const IN_A_VM: &str = "hypervisor";

pub(super) const CHECKS: [Check; 6] = [
    Check::files(
        "CPU_VIRTUALIZATION",
        "The processor can run virtual machines",
        cpu_virtualization,
    ),
    Check::files(
        "CPU_FEATURES",
        "The processor has what guests and their programs rely on",
        cpu_features,
    ),
    Check::files("KVM_DEVICE", "/dev/kvm is there and may be used", device)
        .mended_by(Right::Root, load_kvm),
    Check::daemon("KVM_BOOTS_GUEST", "KVM really boots a guest", boots_guest).within(BOOT_LIMIT),
    Check::files(
        "KVM_NESTED",
        "VMs may run virtual machines of their own",
        nested,
    ),
    Check::files(
        "VSOCK_DEVICE",
        "The host's vsock device is there, for drivers that use it",
        vsock,
    ),
];

fn cpu_virtualization(host: &Host) -> Finding {
    if let Some(flag) = ["vmx", "svm"].iter().find(|flag| host.has_cpu_flag(flag)) {
        return Finding::ok(*flag);
    }
    let found = "neither vmx nor svm among the processor's flags";
    if host.has_cpu_flag(IN_A_VM) {
        return Finding::warning(
            found,
            "This host is itself a virtual machine that does not get virtualization passed on.",
        )
        .remedy(
            "Turn nested virtualization on where this machine is made, or use a physical one.",
        );
    }
    Finding::warning(
        found,
        "Virtualization is switched off in the firmware, or the processor has none.",
    )
    .remedy("Turn it on in the firmware's setup: Intel VT-x, or AMD SVM.")
}

/// What is missed when it is not there: a clock that guests need not calibrate, randomness at boot, and what programs
/// for x86-64-v2 are compiled for.
fn cpu_features(host: &Host) -> Finding {
    let wanted = [
        "constant_tsc",
        "nonstop_tsc",
        "rdrand",
        "cx16",
        "popcnt",
        "sse4_2",
        "ssse3",
    ];
    let missing: Vec<&str> = wanted
        .into_iter()
        .filter(|flag| !host.has_cpu_flag(flag))
        .collect();
    if missing.is_empty() {
        return Finding::ok("a steady time stamp counter, rdrand, x86-64-v2");
    }
    Finding::warning(
        format!("missing: {}", missing.join(", ")),
        "Guests' clocks may drift, boots may wait for randomness, and programs built for x86-64-v2 may not start.",
    )
    .remedy("If this machine is a virtual one, give it the processor model of its host.")
}

fn device(host: &Host) -> Finding {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .open(host.path(DEVICE));
    judge_device(opened.map(drop))
}

fn judge_device(opened: io::Result<()>) -> Finding {
    let slow = "VMs run by translation instead, many times slower.";
    match opened {
        Ok(()) => Finding::ok(format!("{DEVICE} opens")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::warning(format!("{DEVICE} is not there"), slow)
                .remedy("Load the processor's module: kvm_intel or kvm_amd.")
                .command("modprobe -a kvm_intel kvm_amd")
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::warning(
            format!("{DEVICE} may not be opened by the daemon's user"),
            slow,
        )
        .remedy("Add the daemon's user to the group that owns it, then start the daemon anew.")
        .command("usermod -aG kvm \"$USER\""),
        Err(error) => Finding::warning(format!("{DEVICE} does not open: {error}"), slow)
            .remedy("Look for what KVM said in the kernel's log.")
            .command("dmesg | grep -i kvm"),
    }
}

fn load_kvm(host: &Host) -> Result<String, MendError> {
    if host.exists(DEVICE) {
        return Err(MendError::Hopeless {
            why: "the device is there, and why it does not open is not for a program to change",
        });
    }
    if host.has_cpu_flag("vmx") {
        host.load_module("kvm_intel")
    } else if host.has_cpu_flag("svm") {
        host.load_module("kvm_amd")
    } else {
        Err(MendError::Hopeless {
            why: "the processor offers no virtualization",
        })
    }
}

fn boots_guest(ward: &Ward) -> BoxFuture<'_, Finding> {
    async move {
        let kernel = match ward.kernels.default().await {
            Ok(Some(kernel)) => kernel,
            Ok(None) => return Finding::skipped("there is no default kernel to try it with"),
            Err(error) => return Finding::skipped(chain(&error)),
        };
        let initramfs = match ward.kernels.initramfs(&kernel).await {
            Ok(initramfs) => initramfs,
            Err(error) => {
                return Finding::skipped(format!("nothing to try it with: {}", chain(&error)));
            }
        };
        let vmlinux = ward.kernels.vmlinux(&kernel);
        match ward.context.vmm.probe(&vmlinux, &initramfs).await {
            Ok(info) => judge_probe(info.accelerator, info.accelerator_warning),
            Err(error) => {
                let found = Finding::problem("no guest can be run", chain(&error));
                match error.remedy() {
                    Some(remedy) => found.remedy(remedy),
                    None => found,
                }
            }
        }
    }
    .boxed()
}

fn judge_probe(accelerator: Accelerator, warning: Option<String>) -> Finding {
    match (accelerator, warning) {
        (Accelerator::Kvm, None) => Finding::ok("a guest booted to its agent"),
        (Accelerator::Kvm, Some(warning)) => Finding::warning("a guest booted", warning),
        (Accelerator::Tcg, None) => {
            Finding::skipped("the configuration chooses translation, so KVM was not tried")
        }
        (Accelerator::Tcg, Some(warning)) => {
            Finding::warning("it does not: guests run by translation", warning).remedy(
                "Use a host whose KVM works: a physical one, or one with nested virtualization. Set accelerator = \
                 \"tcg\" to be content with this.",
            )
        }
        (Accelerator::None, _) => Finding::skipped("this driver runs no guests"),
    }
}

fn nested(host: &Host) -> Finding {
    let parameters = [
        "/sys/module/kvm_intel/parameters/nested",
        "/sys/module/kvm_amd/parameters/nested",
    ];
    match parameters.iter().find_map(|path| host.word(path)) {
        None => Finding::skipped("neither kvm_intel nor kvm_amd is loaded"),
        Some(word) if word == "Y" || word == "1" => Finding::ok("nested virtualization is on"),
        // Guests are safer without it, and few need it.
        Some(_) => Finding::ok("off: VMs cannot run VMs of their own"),
    }
}

fn vsock(host: &Host) -> Finding {
    if host.exists("/dev/vhost-vsock") {
        return Finding::ok("/dev/vhost-vsock");
    }
    Finding::skipped(
        "/dev/vhost-vsock is not there; agents are reached by virtio-serial, which needs nothing of the host",
    )
}

#[cfg(test)]
mod tests {
    use banger_core::doctor::Verdict;

    use super::super::host::laid_out;
    use super::*;

    #[test]
    fn a_processor_shows_whether_it_virtualizes_and_why_not() {
        let look = |flags: &str| {
            let (_dir, host) =
                laid_out::host(&[("/proc/cpuinfo", &format!("flags\t\t: {flags}\n"))]);
            cpu_virtualization(&host)
        };
        assert_eq!(look("fpu vmx"), Finding::ok("vmx"));
        assert_eq!(look("svm"), Finding::ok("svm"));
        assert!(look("fpu hypervisor").remedy.contains("nested"));
        assert!(look("fpu").cause.contains("firmware"));
    }

    #[test]
    fn missing_features_are_named() {
        let full = "constant_tsc nonstop_tsc rdrand cx16 popcnt sse4_2 ssse3";
        let look = |flags: &str| {
            let (_dir, host) = laid_out::host(&[("/proc/cpuinfo", &format!("flags : {flags}\n"))]);
            cpu_features(&host)
        };
        assert_eq!(look(full).verdict, Verdict::Ok);
        let found = look(&full.replace("rdrand", ""));
        assert_eq!(
            (found.verdict, found.found.as_str()),
            (Verdict::Warning, "missing: rdrand")
        );
    }

    #[test]
    fn a_device_that_does_not_open_is_told_with_what_to_do() {
        let (dir, host) = laid_out::host(&[]);
        assert!(device(&host).command.contains("modprobe"));
        laid_out::write(dir.path(), DEVICE, "");
        assert_eq!(device(&host).verdict, Verdict::Ok);
        let denied = judge_device(Err(io::ErrorKind::PermissionDenied.into()));
        assert!(denied.command.contains("usermod"));
        let other = judge_device(Err(io::Error::other("strange")));
        assert!(other.found.ends_with("strange") && other.verdict == Verdict::Warning);
    }

    #[test]
    fn the_module_of_the_processor_is_loaded() {
        let (dir, host) = laid_out::host(&[("/proc/cpuinfo", "flags : svm\n")]);
        let device_path = dir.path().join("dev/kvm");
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        let script = format!("[ $1 = kvm_amd ] && : > {}", device_path.display());
        laid_out::program(dir.path(), "modprobe", &script);
        assert_eq!(load_kvm(&host).unwrap(), "loaded the kernel module kvm_amd");
        assert_eq!(device(&host).verdict, Verdict::Ok);
        assert!(
            load_kvm(&host)
                .unwrap_err()
                .to_string()
                .contains("the device is there")
        );
        let (_dir, without) = laid_out::host(&[]);
        assert!(
            load_kvm(&without)
                .unwrap_err()
                .to_string()
                .contains("no virtualization")
        );
    }

    #[test]
    fn only_a_guest_that_booted_is_a_proof() {
        assert_eq!(judge_probe(Accelerator::Kvm, None).verdict, Verdict::Ok);
        let hangs = judge_probe(Accelerator::Tcg, Some("KVM hangs".into()));
        assert_eq!(
            (hangs.verdict, hangs.cause.as_str()),
            (Verdict::Warning, "KVM hangs")
        );
        assert!(!hangs.remedy.is_empty());
        assert_eq!(
            judge_probe(Accelerator::Tcg, None).verdict,
            Verdict::Skipped
        );
        assert_eq!(
            judge_probe(Accelerator::None, None).verdict,
            Verdict::Skipped
        );
        let half = judge_probe(Accelerator::Kvm, Some("old".into()));
        assert_eq!(half.verdict, Verdict::Warning);
    }

    #[test]
    fn nesting_is_read_of_the_module_that_is_loaded() {
        let (_dir, host) = laid_out::host(&[("/sys/module/kvm_amd/parameters/nested", "1\n")]);
        assert_eq!(nested(&host), Finding::ok("nested virtualization is on"));
        let (_dir, host) = laid_out::host(&[("/sys/module/kvm_intel/parameters/nested", "N\n")]);
        assert_eq!(nested(&host).verdict, Verdict::Ok);
        let (_dir, host) = laid_out::host(&[]);
        assert_eq!(nested(&host).verdict, Verdict::Skipped);
    }

    #[test]
    fn vsock_is_not_needed_and_told() {
        let (dir, host) = laid_out::host(&[]);
        assert_eq!(vsock(&host).verdict, Verdict::Skipped);
        laid_out::write(dir.path(), "/dev/vhost-vsock", "");
        assert_eq!(vsock(&host), Finding::ok("/dev/vhost-vsock"));
    }
}
