use std::path::PathBuf;

use banger_core::VmId;

use super::*;

fn plan() -> LaunchPlan {
    LaunchPlan {
        vm: VmId::new(),
        dir: "/vms/1".into(),
        kernel: "/kernels/1/vmlinux".into(),
        initramfs: "/kernels/1/initramfs".into(),
        kernel_args: vec!["banger.a=1".into(), "b".into()],
        vcpu_count: 2,
        memory_mib: 512,
        drives: vec![
            Drive {
                path: "/a,b.ext4".into(),
                access: DriveAccess::ReadOnly,
                serial: "base".into(),
            },
            Drive {
                path: "/vms/1/upper.ext4".into(),
                access: DriveAccess::ReadWrite,
                serial: "upper".into(),
            },
        ],
        network: NetworkPlan::User,
        limits: None,
    }
}

fn words(plan: &LaunchPlan, accelerator: Accelerator, tsc_khz: Option<u64>) -> Vec<String> {
    let firmware = PathBuf::from("/firmware");
    let sockets = Sockets {
        control: 7,
        agent: 8,
        console: 9,
    };
    let host = Host {
        firmware: &firmware,
        accelerator,
        tsc_khz,
        sockets,
    };
    let words = arguments(plan, &host).into_iter();
    words.map(|word| word.into_string().unwrap()).collect()
}

/// Every value that follows `option`.
fn values<'a>(words: &'a [String], option: &str) -> Vec<&'a str> {
    let pairs = words.windows(2).filter(|pair| pair[0] == option);
    pairs.map(|pair| pair[1].as_str()).collect()
}

#[test]
fn each_option_has_its_value() {
    let plan = plan();
    let words = words(&plan, Accelerator::Tcg, Some(2_450_000));
    let name = format!("banger-{}", plan.vm);
    let table: [(&str, &[&str]); 13] = [
        ("-name", &[&name]),
        (
            "-machine",
            &["microvm,acpi=on,rtc=on,pit=off,pic=off,isa-serial=on,x-option-roms=off"],
        ),
        ("-accel", &["tcg,thread=multi,tb-size=256"]),
        ("-cpu", &["max,erms=off"]),
        ("-smp", &["2"]),
        ("-m", &["512M"]),
        ("-bios", &["/firmware"]),
        ("-kernel", &["/kernels/1/vmlinux"]),
        ("-initrd", &["/kernels/1/initramfs"]),
        ("-display", &["none"]),
        ("-netdev", &["user,id=net0,ipv6=off"]),
        ("-serial", &["chardev:console"]),
        ("-mon", &["chardev=control,mode=control"]),
    ];
    for (option, expected) in table {
        assert_eq!(values(&words, option), expected, "{option}");
    }
    for word in ["-nodefaults", "-no-user-config", "-no-reboot", "-S"] {
        assert!(words.iter().any(|other| other == word), "{word}");
    }
}

#[test]
fn the_sandbox_denies_what_qemu_never_needs() {
    let words = words(&plan(), Accelerator::Kvm, None);
    let sandbox = values(&words, "-sandbox")[0];
    for word in [
        "on",
        "obsolete=deny",
        "elevateprivileges=deny",
        "spawn=deny",
        "resourcecontrol=deny",
    ] {
        assert!(sandbox.split(',').any(|other| other == word), "{word}");
    }
}

#[test]
fn the_sockets_are_those_that_were_bound() {
    let words = words(&plan(), Accelerator::Tcg, None);
    assert_eq!(
        values(&words, "-chardev"),
        [
            "socket,id=console,fd=9,server=on,wait=off",
            "socket,id=agent,fd=8,server=on,wait=off",
            "socket,id=control,fd=7,server=on,wait=off",
        ]
    );
    let devices = values(&words, "-device");
    assert!(devices.contains(&"virtserialport,chardev=agent,name=banger.agent,nr=1"));
}

#[test]
fn a_translated_guest_is_told_the_frequency_and_a_native_one_is_not() {
    let translated = words(&plan(), Accelerator::Tcg, Some(2_450_000));
    let translated = values(&translated, "-append")[0];
    assert!(
        translated.contains(" tsc_early_khz=2450000 "),
        "{translated}"
    );
    assert!(translated.contains(" tsc=reliable "), "{translated}");
    let native = words(&plan(), Accelerator::Kvm, Some(2_450_000));
    assert_eq!(values(&native, "-accel"), ["kvm"]);
    assert_eq!(values(&native, "-cpu"), ["host"]);
    let native = values(&native, "-append")[0];
    assert!(!native.contains("tsc"), "{native}");
    assert!(
        !native.contains("mitigations"),
        "a native guest keeps its own defences: {native}"
    );
    for line in [translated, native] {
        assert!(
            line.starts_with("console=ttyS0 quiet panic=-1 reboot=t no_timer_check "),
            "{line}"
        );
        assert!(
            line.ends_with(" banger.a=1 b"),
            "the plan's words come last: {line}"
        );
        assert!(!line.contains("  "), "{line}");
    }
}

#[test]
fn disks_are_in_order_and_a_comma_in_a_path_is_no_option() {
    let words = words(&plan(), Accelerator::Tcg, None);
    let json = |word: &&str| serde_json::from_str::<serde_json::Value>(word).unwrap();
    let disks: Vec<_> = values(&words, "-blockdev").iter().map(json).collect();
    assert_eq!(disks[0]["file"]["filename"], "/a,b.ext4");
    for (disk, is_base) in [(&disks[0], true), (&disks[1], false)] {
        for node in [disk, &disk["file"]] {
            assert_eq!(node["read-only"], is_base);
            assert_eq!(node["cache"]["no-flush"], !is_base);
            assert_eq!(node["discard"], "unmap");
        }
    }
    let words = values(&words, "-device")
        .into_iter()
        .filter(|word| word.starts_with('{'));
    let devices: Vec<_> = words.map(|word| json(&word)).collect();
    for (device, serial) in devices.iter().zip(["base", "upper"]) {
        assert_eq!(device["serial"], serial);
        assert_eq!(device["werror"], "report", "a full disk stops no VM");
    }
    assert_eq!((disks.len(), devices.len()), (2, 2));
}

#[test]
fn a_vm_without_network_has_no_interface() {
    let plan = LaunchPlan {
        network: NetworkPlan::None,
        drives: Vec::new(),
        ..plan()
    };
    let words = words(&plan, Accelerator::Tcg, None);
    assert_eq!(values(&words, "-netdev"), Vec::<&str>::new());
    assert!(
        !words
            .iter()
            .any(|word| word.contains("virtio-net") || word == "-blockdev")
    );
}
