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
            name: "a_kernel_tells_what_it_has_of_what_guests_need",
            lane: Lane::Shared,
            test: inspect,
        },
        Case {
            name: "a_kernel_goes_through_a_bundle_and_boots",
            lane: Lane::Shared,
            test: bundle,
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

/// The state of a feature.
fn state<'a>(kernel: &'a serde_json::Value, name: &str) -> &'a str {
    let features = kernel["features"].as_array().unwrap();
    let feature = features.iter().find(|feature| feature["name"] == name);
    feature.unwrap()["state"].as_str().unwrap()
}

fn inspect(suite: &Suite) -> Verdict {
    let name = default_kernel(suite);
    let kernel = suite
        .banger(["kernel", "inspect", &name, "--output", "json"])
        .ok()
        .json();
    assert_eq!(kernel["evidence"], "configuration in the package");
    assert_eq!(kernel["architecture"], "amd64");
    assert!(kernel["format"].as_str().unwrap().starts_with("bzImage ("));
    let banner = kernel["banner"].as_str().unwrap();
    let begin = format!("Linux version {} (", kernel["release"].as_str().unwrap());
    assert!(banner.starts_with(&begin), "{banner}");
    for (feature, expected) in [
        ("pvh-entry", "built-in"),
        ("acpi", "built-in"),
        ("virtio-blk", "module"),
        ("overlayfs", "module"),
        ("virtio-mmio-cmdline", "missing"),
    ] {
        assert_eq!(state(&kernel, feature), expected, "{feature}");
    }
    // The same kernel without its package says less, and with the configuration given the same.
    let files = suite.kernel();
    let config = files.config();
    let words = [
        "kernel",
        "import",
        files.bzimage.to_str().unwrap(),
        "--name",
        "given",
        "--config",
        config.to_str().unwrap(),
        "--modules",
    ];
    suite.banger(words).arg(suite.few_modules()).ok();
    let given = suite
        .banger(["kernel", "inspect", "given", "--output", "json"])
        .ok()
        .json();
    assert_eq!(given["evidence"], "configuration given at import");
    assert_eq!(given["features"], kernel["features"]);
    let file = files.bzimage.file_name().unwrap().to_str().unwrap();
    assert_eq!(given["origin"], file);
    suite.banger(["kernel", "remove", "given"]).ok();
    Verdict::Passed
}

fn bundle(suite: &Suite) -> Verdict {
    let name = default_kernel(suite);
    let file = suite.scratch.path().join("kernel.tar.zst");
    let path = file.to_str().unwrap();
    suite.banger(["kernel", "export", &name, path]).ok();
    let taken = suite.banger(["kernel", "export", &name, path, "--output", "json"]);
    assert_eq!(taken.done().refused(125)["reason"], "FILE_EXISTS");
    suite
        .banger(["kernel", "import", path, "--name", "carried"])
        .ok();
    let again = suite.scratch.path().join("again.tar.zst");
    // Under the name it had, so that the manifest is the same.
    let kernel = |name: &str| {
        suite
            .banger(["kernel", "inspect", name, "--output", "json"])
            .ok()
            .json()
    };
    let (first, carried) = (kernel(&name), kernel("carried"));
    for same in ["digest", "release", "modules", "features", "origin"] {
        assert_eq!(first[same], carried[same], "{same}");
    }
    suite
        .banger(["kernel", "export", &name, again.to_str().unwrap()])
        .ok();
    assert!(fs::read(&file).unwrap() == fs::read(&again).unwrap());

    let image = suite.reference();
    let booted = suite
        .banger(["run", "--kernel", "carried", &image, "--", "uname", "-r"])
        .ok();
    assert_eq!(booted.out().trim(), carried["release"]);
    suite.banger(["kernel", "remove", "carried"]).ok();

    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes.truncate(middle);
    fs::write(&file, bytes).unwrap();
    refused(
        suite.banger(["kernel", "import", path, "--name", "cut"]),
        125,
        "KERNEL_BUNDLE_CUT_SHORT",
    );
    Verdict::Passed
}

/// The name of the kernel that VMs get that name none.
fn default_kernel(suite: &Suite) -> String {
    let kernels = suite
        .banger(["kernel", "list", "--output", "json"])
        .ok()
        .json();
    let default = kernels
        .as_array()
        .unwrap()
        .iter()
        .find(|kernel| kernel["is_default"] == true);
    default.unwrap()["name"].as_str().unwrap().to_owned()
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
            .contains("CONFIG_VIRTIO_CONSOLE"),
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
