//! Kernels: from a Debian package, from files, kept by name.

use std::fs;

use banger_e2e::{Case, Lane, Verdict};

use crate::suite::{Suite, refused};

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_kernel_comes_from_a_debian_package_and_becomes_the_default",
            lane: Lane::Shared,
            test: package,
        },
        Case {
            name: "a_kernel_comes_from_a_vmlinux_file_and_goes_again",
            lane: Lane::Shared,
            test: vmlinux,
        },
        Case {
            name: "what_is_no_kernel_is_refused",
            lane: Lane::Shared,
            test: no_kernel,
        },
        Case {
            name: "a_kernel_without_the_modules_a_guest_needs_is_refused",
            lane: Lane::Shared,
            test: no_modules,
        },
        Case {
            name: "a_package_that_does_not_exist_is_refused",
            lane: Lane::Shared,
            test: no_package,
        },
    ]
}

fn package(suite: &Suite) -> Verdict {
    let kernels = suite
        .banger(["kernel", "list", "--output", "json"])
        .ok()
        .json();
    assert_eq!(kernels.as_array().unwrap().len(), 1, "{kernels}");
    assert_eq!(kernels[0]["is_default"], true);
    assert!(
        kernels[0]["origin"]
            .as_str()
            .unwrap()
            .contains("linux-image"),
        "{kernels}"
    );
    let modules = kernels[0]["modules"].as_array().unwrap();
    assert!(
        modules.iter().any(|module| module == "virtio_console"),
        "{kernels}"
    );
    hand_on(suite);
    Verdict::Passed
}

/// Leaves the kernel where the driver's tests, which run after these, take theirs from.
fn hand_on(suite: &Suite) {
    let id = suite
        .daemon()
        .entries("kernels")
        .into_iter()
        .next()
        .unwrap();
    let kernel = suite.daemon().state.join("kernels").join(id);
    let to = suite.cache.join("guest-kernel");
    let _ = fs::remove_dir_all(&to);
    fs::create_dir_all(to.join("modules")).unwrap();
    fs::copy(kernel.join("vmlinux"), to.join("vmlinux")).unwrap();
    for entry in fs::read_dir(kernel.join("modules")).unwrap().flatten() {
        // Numbered by the store, in the order of loading.
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = name
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .trim_start_matches('-');
        // The one whose file has a hyphen where the kernel says an underscore.
        let name = name.replace("virtio_rng", "virtio-rng");
        fs::copy(entry.path(), to.join("modules").join(name)).unwrap();
    }
}

fn vmlinux(suite: &Suite) -> Verdict {
    let daemon = suite.daemon();
    let id = daemon.entries("kernels").into_iter().next().unwrap();
    let file = daemon.state.join("kernels").join(id).join("vmlinux");
    let words = [
        "kernel",
        "import",
        file.to_str().unwrap(),
        "--name",
        "second",
        "--modules",
    ];
    suite.banger(words).arg(suite.few_modules()).ok();
    let error = refused(
        suite.banger(words).arg(suite.few_modules()),
        125,
        "NAME_TAKEN",
    );
    assert_eq!(error["code"], "ALREADY_EXISTS");
    let kernels = suite
        .banger(["kernel", "list", "--output", "json"])
        .ok()
        .json();
    let second = kernels
        .as_array()
        .unwrap()
        .iter()
        .find(|kernel| kernel["name"] == "second")
        .unwrap();
    assert_eq!(second["is_default"], false, "the first stays the default");
    suite.banger(["kernel", "remove", "second"]).ok();
    assert_eq!(daemon.entries("kernels").len(), 1);
    Verdict::Passed
}

fn no_kernel(suite: &Suite) -> Verdict {
    for (file, reason) in [
        ("/etc/passwd", "NOT_A_KERNEL"),
        ("/bin/busybox", "KERNEL_WITHOUT_PVH"),
    ] {
        let run = suite.banger(["kernel", "import", file, "--name", "no"]);
        assert_eq!(
            refused(run, 125, reason)["code"],
            "INVALID_ARGUMENT",
            "{file}"
        );
    }
    Verdict::Passed
}

fn no_modules(suite: &Suite) -> Verdict {
    let modules = suite.kernel().few_modules(
        &suite.scratch.path().join("no-console"),
        &["virtio_console"],
    );
    let words = [
        "kernel",
        "import",
        suite.kernel().bzimage.to_str().unwrap(),
        "--name",
        "mute",
        "--modules",
    ];
    let error = refused(
        suite.banger(words).arg(modules),
        125,
        "KERNEL_LACKS_FEATURES",
    );
    assert_eq!(error["metadata"]["features"], "virtio-console", "{error}");
    assert_eq!(
        error["metadata"]["options"], "CONFIG_VIRTIO_CONSOLE",
        "{error}"
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("virtio_console"),
        "{error}"
    );
    Verdict::Passed
}

fn no_package(suite: &Suite) -> Verdict {
    let words = [
        "kernel",
        "import",
        "--debian-package",
        "linux-image-of-nobody",
        "--output",
        "json",
    ];
    let error = suite.banger(words).done().refused(125);
    assert!(
        !error["remedy"].as_str().unwrap_or_default().is_empty(),
        "{error}"
    );
    Verdict::Passed
}
