//! QEMU's command line, as a pure function of what is to run.
//!
//! # The traps it avoids
//! - Under TCG a guest that calibrates its time stamp counter against an emulated timer while the host is
//!   busy fails and then spins for ever. So the guest is told the frequency (`tsc_early_khz`), trusts it,
//!   and the timers PIT and PIC are left out. Under KVM the paravirtual clock tells the guest.
//! - qboot and an uncompressed kernel start a second earlier than `SeaBIOS` and a compressed one.
//! - `rtc=off` costs a second in distribution kernels and gives 1970 as date; without ACPI idle timers are
//!   unreliable.
//! - `noreplace-smp` keeps the kernel from patching its own instructions, which is slow under TCG.
//!
//! # User networking
//! QEMU's user network has no switch that keeps a guest from the host's own addresses: `restrict=on` cuts
//! everything, and libslirp's switch against loopback has no option in QEMU. What is reachable is what any
//! program of the daemon's user could reach, including services on the host's loopback by way of the gateway
//! address 10.0.2.2. A host whose local services trust their callers must use [`NetworkPlan::None`] for guests it
//! does not trust.

use std::ffi::OsString;
use std::path::Path;

use banger_core::vmm::{Accelerator, Drive, DriveAccess, LaunchPlan, NetworkPlan};
use serde_json::json;

use crate::process::NAME_PREFIX;

/// The name by which the agent finds its port below `/sys/class/virtio-ports`.
const AGENT_PORT: &str = "banger.agent";

/// The same in every VM: each has a network of its own.
const GUEST_MAC: &str = "02:00:00:00:00:01";

/// Words for the guest's kernel under every accelerator. The console is where its last words go; a panic or
/// a reset ends QEMU at once (`-no-reboot`).
const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1 reboot=t no_timer_check cryptomgr.notests pci=off \
     audit=0 8250.nr_uarts=1 i8042.noaux i8042.nokbd i8042.nopnp rcupdate.rcu_expedited=1";

/// Words that only make sense where every instruction is translated: the translator has no speculation to
/// mitigate, and patching and relocating code is what costs most.
const TCG_KERNEL_WORDS: &str =
    "tsc=reliable noreplace-smp mitigations=off nokaslr init_on_alloc=0 lsm=";

/// What a command line is made of beyond the plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host<'a> {
    /// The firmware, qboot.
    pub(super) firmware: &'a Path,
    /// What runs the guest.
    pub(super) accelerator: Accelerator,
    /// The host's time stamp counter frequency, for TCG.
    pub(super) tsc_khz: Option<u64>,
    /// The numbers that the listening sockets have in the child.
    pub(super) sockets: Sockets<i32>,
}

/// One of something per socket of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sockets<T> {
    /// QEMU's control protocol.
    pub(super) control: T,
    /// The agent's port.
    pub(super) agent: T,
    /// The serial console.
    pub(super) console: T,
}

/// The arguments, without the program.
pub(super) fn arguments(plan: &LaunchPlan, host: &Host<'_>) -> Vec<OsString> {
    let mut line = Line::default();
    line.pair("-name", format!("{NAME_PREFIX}{}", plan.vm));
    machine(&mut line, plan, host);
    kernel(&mut line, plan, host);
    for (index, drive) in plan.drives.iter().enumerate() {
        disk(&mut line, index, drive);
    }
    network(&mut line, plan.network);
    line.pair("-device", "virtio-rng-device");
    channels(&mut line, host.sockets);
    line.0
}

#[derive(Debug, Default)]
struct Line(Vec<OsString>);

impl Line {
    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }
}

fn machine(line: &mut Line, plan: &LaunchPlan, host: &Host<'_>) {
    let machine = "microvm,acpi=on,rtc=on,pit=off,pic=off,isa-serial=on,x-option-roms=off";
    line.pair("-machine", machine);
    match host.accelerator {
        Accelerator::Kvm => {
            line.pair("-accel", "kvm");
            line.pair("-cpu", "host");
        }
        Accelerator::Tcg | Accelerator::None => {
            line.pair(
                "-accel",
                format!("tcg,thread=multi,tb-size={TRANSLATED_MIB}"),
            );
            line.pair("-cpu", TCG_CPU);
        }
    }
    line.pair("-smp", plan.vcpu_count.to_string());
    line.pair("-m", format!("{}M", plan.memory_mib));
    for word in ["-nodefaults", "-no-user-config", "-no-reboot", "-S"] {
        line.0.push(word.into());
    }
    line.pair("-display", "none");
    let sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
    line.pair("-sandbox", sandbox);
    line.pair("-bios", host.firmware);
}

/// The most memory that translated code takes, MiB. QEMU's own choice is an eighth of the host's memory, which no
/// ceiling of a VMM could foresee.
const TRANSLATED_MIB: u32 = 256;

/// The fullest processor that the translator has, less the promise that `rep movsb` is fast: the translator
/// runs that byte by byte, and a guest kernel that does not trust it copies by words, five times faster.
const TCG_CPU: &str = "max,erms=off";

fn kernel(line: &mut Line, plan: &LaunchPlan, host: &Host<'_>) {
    line.pair("-kernel", &plan.kernel);
    line.pair("-initrd", &plan.initramfs);
    let mut words = KERNEL_WORDS.to_owned();
    if host.accelerator != Accelerator::Kvm {
        words.push(' ');
        words.push_str(TCG_KERNEL_WORDS);
        if let Some(khz) = host.tsc_khz {
            words.push_str(&format!(" tsc_early_khz={khz}"));
        }
    }
    for word in &plan.kernel_args {
        words.push(' ');
        words.push_str(word);
    }
    line.pair("-append", words);
}

fn node(index: usize) -> String {
    format!("disk{index}")
}

fn disk(line: &mut Line, index: usize, drive: &Drive) {
    let read_only = drive.access == DriveAccess::ReadOnly;
    // JSON, since in the other form a comma in a path would start an option.
    let block = json!({
        "driver": "raw",
        "node-name": node(index),
        "read-only": read_only,
        "discard": "unmap",
        "cache": { "direct": false, "no-flush": !read_only },
        "file": {
            "driver": "file",
            "filename": drive.path.to_string_lossy(),
            "read-only": read_only,
            "discard": "unmap",
            "cache": { "direct": false, "no-flush": !read_only },
        },
    });
    line.pair("-blockdev", block.to_string());
    let device = json!({
        "driver": "virtio-blk-device",
        "drive": node(index),
        // By which the VM is asked about it later.
        "id": drive.serial,
        "serial": drive.serial,
        // A full disk of the host is an I/O error in the guest. QEMU's default is to stop the VM without a
        // word, which looks like a hang.
        "werror": "report",
        "rerror": "report",
    });
    line.pair("-device", device.to_string());
}

fn network(line: &mut Line, plan: NetworkPlan) {
    match plan {
        NetworkPlan::None => {}
        NetworkPlan::User => {
            line.pair("-netdev", "user,id=net0,ipv6=off");
            line.pair(
                "-device",
                format!("virtio-net-device,netdev=net0,mac={GUEST_MAC}"),
            );
        }
    }
}

fn channels(line: &mut Line, sockets: Sockets<i32>) {
    let chardev = |id: &str, fd: i32| format!("socket,id={id},fd={fd},server=on,wait=off");
    line.pair("-chardev", chardev("console", sockets.console));
    line.pair("-serial", "chardev:console");
    line.pair("-chardev", chardev("agent", sockets.agent));
    line.pair("-device", "virtio-serial-device,max_ports=4");
    line.pair(
        "-device",
        format!("virtserialport,chardev=agent,name={AGENT_PORT},nr=1"),
    );
    line.pair("-chardev", chardev("control", sockets.control));
    line.pair("-mon", "chardev=control,mode=control");
}

#[cfg(test)]
mod tests;
