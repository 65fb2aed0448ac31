//! Kernels: from a Debian package, from files, kept by name.

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
    Verdict::Passed
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
        "KERNEL_EXISTS",
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
    let error = refused(
        suite.banger(["kernel", "import", "/bin/busybox", "--name", "no"]),
        125,
        "NOT_A_KERNEL",
    );
    assert_eq!(error["code"], "INVALID_ARGUMENT");
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
        "KERNEL_MODULES_MISSING",
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
