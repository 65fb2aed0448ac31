//! What banger needs of a kernel, and what it can use.

/// Something that banger needs or can use.
#[derive(Debug)]
pub(super) struct Feature {
    pub(super) name: &'static str,
    /// What makes it up: all of them.
    pub(super) parts: &'static [Part],
    /// A text that only a kernel with the feature built in has in it; empty where there is none.
    pub(super) trace: &'static str,
    pub(super) need: Need,
    pub(super) purpose: &'static str,
}

/// An option, and the module that holds it where it is not built in.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) option: &'static str,
    /// Empty for what cannot be a module.
    pub(super) module: &'static str,
}

/// Whether guests do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// No guest comes up without it.
    Required,
    /// Something is missing without it, nothing breaks.
    Optional,
}

/// The feature that is read from the file itself, not from its configuration.
pub(super) const PVH_ENTRY: &str = "pvh-entry";

/// An option that is always built in.
const fn option(option: &'static str) -> Part {
    Part { option, module: "" }
}

/// An option that may be a module.
const fn module(option: &'static str, module: &'static str) -> Part {
    Part { option, module }
}

const fn required(
    name: &'static str,
    parts: &'static [Part],
    trace: &'static str,
    purpose: &'static str,
) -> Feature {
    Feature {
        name,
        parts,
        trace,
        need: Need::Required,
        purpose,
    }
}

const fn optional(
    name: &'static str,
    parts: &'static [Part],
    trace: &'static str,
    purpose: &'static str,
) -> Feature {
    Feature {
        name,
        parts,
        trace,
        need: Need::Optional,
        purpose,
    }
}

/// All of them, in the order in which a boot needs them.
pub(super) const FEATURES: &[Feature] = &[
    required(
        PVH_ENTRY,
        &[option("CONFIG_PVH")],
        "",
        "lets QEMU start it without a boot loader",
    ),
    required(
        "initramfs",
        &[option("CONFIG_BLK_DEV_INITRD")],
        "Unpacking initramfs",
        "carries the agent",
    ),
    required(
        "elf-programs",
        &[option("CONFIG_BINFMT_ELF")],
        "",
        "runs the agent",
    ),
    required(
        "event-loop",
        &[
            option("CONFIG_FUTEX"),
            option("CONFIG_EPOLL"),
            option("CONFIG_EVENTFD"),
        ],
        "",
        "what the agent waits with",
    ),
    required(
        "acpi",
        &[option("CONFIG_ACPI")],
        "ACPI: Interpreter enabled",
        "tells where a microvm's devices are",
    ),
    required(
        "virtio",
        &[module("CONFIG_VIRTIO", "virtio")],
        "virtio%u",
        "the devices",
    ),
    required(
        "virtio-mmio",
        &[module("CONFIG_VIRTIO_MMIO", "virtio_mmio")],
        "LNRO0005",
        "the bus of a microvm",
    ),
    required(
        "virtio-console",
        &[module("CONFIG_VIRTIO_CONSOLE", "virtio_console")],
        "virtio-ports",
        "the agent's channel",
    ),
    required(
        "virtio-blk",
        &[module("CONFIG_VIRTIO_BLK", "virtio_blk")],
        "virtio_blk",
        "the disks",
    ),
    required(
        "ext4",
        &[module("CONFIG_EXT4_FS", "ext4")],
        "EXT4-fs",
        "the file system of the disks",
    ),
    required(
        "overlayfs",
        &[module("CONFIG_OVERLAY_FS", "overlay")],
        "overlayfs: ",
        "a VM's changes over its image",
    ),
    required(
        "devtmpfs",
        &[option("CONFIG_DEVTMPFS")],
        "devtmpfs: initialized",
        "/dev",
    ),
    required("tmpfs", &[option("CONFIG_TMPFS")], "", "/run and /dev/shm"),
    required("proc", &[option("CONFIG_PROC_FS")], "", "/proc"),
    required("sysfs", &[option("CONFIG_SYSFS")], "", "/sys"),
    required(
        "terminals",
        &[option("CONFIG_UNIX98_PTYS")],
        "",
        "/dev/pts, and sessions with a terminal",
    ),
    required(
        "unix-sockets",
        &[option("CONFIG_NET"), module("CONFIG_UNIX", "unix")],
        "UNIX-STREAM",
        "sockets of programs, and news of devices",
    ),
    optional(
        "virtio-net",
        &[
            option("CONFIG_INET"),
            module("CONFIG_VIRTIO_NET", "virtio_net"),
        ],
        "virtio_net",
        "the network; without it only `--network none`",
    ),
    optional(
        "hardware-random",
        &[module("CONFIG_HW_RANDOM_VIRTIO", "virtio_rng")],
        "virtio_rng",
        "good random numbers from the first moment",
    ),
    optional(
        "serial-console",
        &[option("CONFIG_SERIAL_8250_CONSOLE")],
        "8250/16550 driver",
        "`banger vm console`",
    ),
    optional(
        "cgroups",
        &[option("CONFIG_CGROUPS")],
        "cgroup2",
        "sessions that end whole",
    ),
    optional(
        "memory-limits",
        &[option("CONFIG_MEMCG")],
        "",
        "tells when a session ran out of memory",
    ),
    optional(
        "namespaces",
        &[
            option("CONFIG_USER_NS"),
            option("CONFIG_PID_NS"),
            option("CONFIG_NET_NS"),
        ],
        "",
        "containers inside a VM",
    ),
    optional(
        "vsock",
        &[
            module("CONFIG_VSOCKETS", "vsock"),
            module("CONFIG_VIRTIO_VSOCKETS", "vmw_vsock_virtio_transport"),
        ],
        "",
        "the agent's channel under Firecracker",
    ),
    optional(
        "virtio-mmio-cmdline",
        &[option("CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES")],
        "virtio-mmio-cmdline",
        "devices named on the command line, as Firecracker can",
    ),
    optional(
        "virtio-pci",
        &[
            option("CONFIG_PCI"),
            module("CONFIG_VIRTIO_PCI", "virtio_pci"),
        ],
        "virtio-pci",
        "the bus of machines with PCI",
    ),
    optional(
        "virtio-balloon",
        &[module("CONFIG_VIRTIO_BALLOON", "virtio_balloon")],
        "",
        "memory given back to the host",
    ),
    optional(
        "virtiofs",
        &[
            module("CONFIG_FUSE_FS", "fuse"),
            module("CONFIG_VIRTIO_FS", "virtiofs"),
        ],
        "",
        "directories of the host",
    ),
    optional(
        "vmgenid",
        &[module("CONFIG_VMGENID", "vmgenid")],
        "",
        "new random numbers in a restored copy",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::config::{KernelConfig, Setting};

    /// What the kernel has without being told: by default, or because another option selects it.
    const IMPLIED: [&str; 3] = ["CONFIG_VIRTIO", "CONFIG_PROC_FS", "CONFIG_SYSFS"];

    #[test]
    fn the_guest_kernel_that_banger_builds_has_all_that_is_required() {
        let options = include_str!("../../../../deploy/kernel/guest.config");
        // The build adds the architecture.
        let text = format!("{options}\nCONFIG_X86_64=y\n");
        let config = KernelConfig::file(text.as_bytes(), "guest.config").unwrap();
        for feature in FEATURES.iter().filter(|it| it.need == Need::Required) {
            for part in feature.parts {
                let unset = format!("# {} is not set", part.option);
                let is_there = config.setting(part.option) == Setting::BuiltIn
                    || (IMPLIED.contains(&part.option) && !options.contains(&unset));
                assert!(is_there, "{}: {}", feature.name, part.option);
            }
        }
    }
}
