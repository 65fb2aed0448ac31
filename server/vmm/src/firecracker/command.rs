//! What a Firecracker is told, as pure functions of what is to run: its command line, its guest's kernel command
//! line, and the documents of its API.

use std::ffi::OsString;
use std::path::Path;

use banger_core::vmm::{DriveAccess, LaunchPlan};

use super::api::model::{Balloon, Drive, MachineConfig};
use super::jail::Jail;
use crate::process::NAME_PREFIX;

/// The socket of the API, in the process's working directory.
pub(super) const API_SOCKET: &str = "api.sock";

/// Firecracker's own log. It is not opened for appending, so it starts afresh each time.
pub(super) const LOG: &str = "firecracker.log";

/// Words for the guest's kernel. The console is where its last words go; a panic or a reset ends Firecracker
/// at once, through the keyboard controller, which stays probed for the sake of Ctrl+Alt+Del. Three words are for
/// the agent: where its host is, how a power-off is done, and which disk is which.
const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1 reboot=k cryptomgr.notests audit=0 8250.nr_uarts=1 i8042.noaux \
     i8042.nomux i8042.nopnp i8042.dumbkbd rcupdate.rcu_expedited=1 banger.channel=vsock banger.power_off=reset";

/// By which the agent learns the disks' names: Firecracker gives them serials of its own.
const DRIVES_WORD: &str = "banger.drives=";

/// The most bytes of a kernel command line: what x86 kernels read, less what Firecracker adds.
pub(super) const MAX_KERNEL_LINE: usize = 2048 - 256;

/// What the program is told on its command line; without `--id`, which the jailer adds by itself.
fn own_arguments() -> [&'static str; 7] {
    [
        "--api-sock",
        API_SOCKET,
        "--log-path",
        LOG,
        "--level",
        "Warning",
        "--show-level",
    ]
}

/// The arguments of a Firecracker without a jail.
pub(super) fn arguments(plan: &LaunchPlan) -> Vec<OsString> {
    let mut line: Vec<OsString> = vec!["--id".into(), format!("{NAME_PREFIX}{}", plan.vm).into()];
    line.extend(own_arguments().map(OsString::from));
    line
}

/// The arguments of the jailer, which becomes Firecracker. It stays in the cgroup in which it is started.
pub(super) fn jailer_arguments(plan: &LaunchPlan, program: &Path, jail: &Jail) -> Vec<OsString> {
    let user = jail.user.0.to_string();
    let mut line: Vec<OsString> = Vec::new();
    let mut pair = |option: &str, value: OsString| line.extend([option.into(), value]);
    pair("--id", format!("{NAME_PREFIX}{}", plan.vm).into());
    pair("--exec-file", program.into());
    pair("--uid", user.clone().into());
    pair("--gid", user.into());
    pair("--chroot-base-dir", jail.base.clone().into());
    line.push("--".into());
    line.extend(own_arguments().map(OsString::from));
    line
}

/// The guest kernel's command line.
pub(super) fn kernel_line(plan: &LaunchPlan) -> String {
    let mut words = KERNEL_WORDS.to_owned();
    if !plan.drives.is_empty() {
        let names: Vec<&str> = plan
            .drives
            .iter()
            .map(|drive| drive.serial.as_str())
            .collect();
        words.push_str(&format!(" {DRIVES_WORD}{}", names.join(",")));
    }
    for word in &plan.kernel_args {
        words.push(' ');
        words.push_str(word);
    }
    words
}

/// The disks' names in their order, from the kernel command line of a VM that runs.
pub(super) fn drive_names(kernel_line: &str) -> Vec<&str> {
    let names = kernel_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(DRIVES_WORD));
    names.map_or_else(Vec::new, |names| names.split(',').collect())
}

/// Whether a disk's name can stand on a kernel command line beside others.
pub(super) fn is_drive_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.bytes().all(fits)
}

/// A disk's name in the API and in metrics.
pub(super) fn drive_id(index: usize) -> String {
    format!("drive{index}")
}

/// Processors and memory.
pub(super) const fn machine(plan: &LaunchPlan) -> MachineConfig {
    MachineConfig {
        vcpu_count: plan.vcpu_count,
        mem_size_mib: plan.memory_mib,
    }
}

/// A disk, which the process knows by `path`.
pub(super) fn drive(index: usize, path: String, access: DriveAccess) -> Drive {
    Drive {
        drive_id: drive_id(index),
        path_on_host: path,
        is_root_device: false,
        is_read_only: access == DriveAccess::ReadOnly,
        cache_type: "Unsafe",
        io_engine: "Sync",
    }
}

/// A balloon that takes nothing from the guest, but gives back what the guest has freed.
pub(super) const fn balloon() -> Balloon {
    Balloon {
        amount_mib: 0,
        deflate_on_oom: true,
        free_page_reporting: true,
    }
}

#[cfg(test)]
mod tests {
    use banger_core::VmId;
    use banger_core::vmm::NetworkPlan;

    use super::super::jail::JailUser;
    use super::*;

    fn plan() -> LaunchPlan {
        let drive = |serial: &str, access| banger_core::vmm::Drive {
            path: "/state/x".into(),
            access,
            serial: serial.into(),
        };
        LaunchPlan {
            vm: VmId::new(),
            dir: "/state/vms/x".into(),
            kernel: "/k".into(),
            initramfs: "/i".into(),
            kernel_args: vec!["more=1".into()],
            vcpu_count: 2,
            memory_mib: 512,
            drives: vec![
                drive("base", DriveAccess::ReadOnly),
                drive("upper", DriveAccess::ReadWrite),
            ],
            network: NetworkPlan::None,
            limits: None,
        }
    }

    fn words(line: &[OsString]) -> String {
        let words: Vec<_> = line.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn seccomp_stays_on_and_the_log_does_not_mix_with_the_console() {
        let plan = plan();
        let line = words(&arguments(&plan));
        assert_eq!(
            line,
            format!(
                "--id banger-{} --api-sock api.sock --log-path firecracker.log --level Warning --show-level",
                plan.vm
            )
        );
    }

    #[test]
    fn the_jailer_gets_a_user_and_a_root() {
        let plan = plan();
        let jail = Jail {
            user: JailUser(7),
            base: "/state/vms/x/jail".into(),
            root: "/state/vms/x/jail/fc/id/root".into(),
        };
        let head = format!(
            "--id banger-{} --exec-file /bin/fc --uid 7 --gid 7 --chroot-base-dir /state/vms/x/jail",
            plan.vm
        );
        let tail = "-- --api-sock api.sock --log-path firecracker.log --level Warning --show-level";
        assert_eq!(
            words(&jailer_arguments(&plan, Path::new("/bin/fc"), &jail)),
            format!("{head} {tail}")
        );
    }

    #[test]
    fn the_agent_learns_its_channel_and_the_names_of_its_disks() {
        let line = kernel_line(&plan());
        assert!(line.ends_with(
            " banger.channel=vsock banger.power_off=reset banger.drives=base,upper more=1"
        ));
        assert_eq!(drive_names(&line), ["base", "upper"]);
        assert_eq!(drive_names("console=ttyS0"), [""; 0]);
        let without = LaunchPlan {
            drives: Vec::new(),
            ..plan()
        };
        assert!(!kernel_line(&without).contains("drives"));
    }

    #[test]
    fn a_disk_name_is_one_word_without_a_comma() {
        for name in ["base", "vol-0190", "a.b_c"] {
            assert!(is_drive_name(name));
        }
        for name in ["", "a b", "a,b", "a\nb", "ä"] {
            assert!(!is_drive_name(name), "{name}");
        }
    }

    #[test]
    fn only_what_is_read_only_is_told_to_be_so() {
        assert!(drive(0, "/d".into(), DriveAccess::ReadOnly).is_read_only);
        let upper = drive(1, "/d".into(), DriveAccess::ReadWrite);
        assert!(!upper.is_read_only && !upper.is_root_device);
        assert_eq!(upper.drive_id, "drive1");
    }
}
