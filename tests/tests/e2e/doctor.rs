//! The doctor on a real host, with a real daemon, and without one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use banger_e2e::{Case, DaemonOptions, Done, Lane, Verdict};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::suite::{LONG, Suite};

/// `nobody` and `nogroup` of Debian.
const OTHER_USER: (u32, u32) = (65534, 65534);

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "the_doctor_looks_at_the_real_host_and_tells_why_kvm_is_not_used",
            lane: Lane::Shared,
            test: real_host,
        },
        Case {
            name: "the_doctor_mends_rights_and_leftovers_and_its_exit_code_tells",
            lane: Lane::Own,
            test: mends,
        },
        Case {
            name: "the_doctor_tells_why_a_daemon_cannot_be_reached",
            lane: Lane::Own,
            test: unreachable,
        },
    ]
}

fn check<'d>(document: &'d Value, id: &str) -> &'d Value {
    let checks = document["checks"].as_array().unwrap();
    checks
        .iter()
        .find(|check| check["id"] == id)
        .unwrap_or_else(|| panic!("{id} is not in {document:#}"))
}

fn word<'c>(check: &'c Value, key: &str) -> &'c str {
    check[key].as_str().unwrap()
}

fn real_host(suite: &Suite) -> Verdict {
    let accelerator = suite.accelerator();
    let done = suite.banger(["doctor", "--json"]).timeout(LONG).done();
    let document: Value = serde_json::from_str(&done.out()).unwrap();
    let kvm = check(&document, "KVM_BOOTS_GUEST");
    if accelerator == "kvm" {
        assert_eq!(word(kvm, "status"), "ok", "{kvm}");
    } else {
        assert_eq!(word(kvm, "status"), "warning", "{kvm}");
        assert!(
            word(kvm, "cause").contains("KVM cannot be used here ("),
            "{kvm}"
        );
        assert!(!word(kvm, "remedy").is_empty());
    }
    for id in [
        "DAEMON_REACHABLE",
        "QEMU_PRESENT",
        "QEMU_VERSION",
        "QEMU_FIRMWARE",
        "DEFAULT_KERNEL",
        "AGENT_PRESENT",
        "AGENT_VERSION",
        "IMAGES_PRESENT",
        "STATE_PERMISSIONS",
        "STATE_DIRECTORIES",
        "DATABASE_INTEGRITY",
        "SOCKET_MODE",
        "LEFTOVER_PROCESSES",
    ] {
        assert_eq!(word(check(&document, id), "status"), "ok", "{document:#}");
    }
    let problems = document["summary"]["problem"].as_u64().unwrap();
    assert_eq!(done.code(), i32::from(problems > 0), "{document:#}");
    let page = suite.banger(["doctor"]).timeout(LONG).done().out();
    assert!(page.contains("KVM_BOOTS_GUEST"), "{page}");
    let too_wide = |line: &&str| line.chars().count() > 100 && !line.trim_start().starts_with("$ ");
    assert_eq!(page.lines().find(too_wide), None, "{page}");
    Verdict::Passed
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn mends(suite: &Suite) -> Verdict {
    const CHECKS: [&str; 3] = [
        "STATE_PERMISSIONS",
        "SOCKET_MODE",
        "LEFTOVER_VM_DIRECTORIES",
    ];
    let daemon = suite.bare_daemon("own/doctor", DaemonOptions::default());
    let doctor = |words: &[&str]| {
        let words = ["doctor", "--json"].iter().chain(&CHECKS).chain(words);
        daemon.banger(words).timeout(LONG).done()
    };
    let statuses = |done: &Done| {
        let document: Value = serde_json::from_str(&done.out()).unwrap();
        CHECKS.map(|id| word(check(&document, id), "status").to_owned())
    };
    let well = doctor(&["--strict"]);
    assert_eq!(
        (well.code(), statuses(&well)),
        (0, ["ok"; 3].map(str::to_owned))
    );
    let leftover = daemon
        .state
        .join("vms/0199c0de-0000-7000-8000-000000000000");
    fs::create_dir(&leftover).unwrap();
    fs::write(leftover.join("upper.ext4"), "x").unwrap();
    let only_warnings = doctor(&[]);
    assert_eq!(
        (only_warnings.code(), statuses(&only_warnings)[2].as_str()),
        (0, "warning")
    );
    assert_eq!(doctor(&["--strict"]).code(), 1);
    chmod(&daemon.state, 0o755);
    let socket_mode = mode(daemon.socket());
    chmod(daemon.socket(), 0o666);
    let ill = doctor(&[]);
    assert_eq!(
        (ill.code(), statuses(&ill)),
        (1, ["warning", "problem", "warning"].map(str::to_owned))
    );
    assert!(leftover.exists(), "it only tells");
    let mended = doctor(&["--fix", "--strict"]);
    assert_eq!(
        (mended.code(), statuses(&mended)),
        (0, ["fixed"; 3].map(str::to_owned)),
        "{}",
        mended.said()
    );
    let document: Value = serde_json::from_str(&mended.out()).unwrap();
    for id in CHECKS {
        assert!(
            !word(check(&document, id), "changed").is_empty(),
            "{document:#}"
        );
    }
    assert!(!leftover.exists());
    assert_eq!(
        (mode(&daemon.state), mode(daemon.socket())),
        (0o700, socket_mode)
    );
    assert_eq!(statuses(&doctor(&["--fix"])), ["ok"; 3].map(str::to_owned));
    let refused = daemon
        .banger(["doctor", "NO_SUCH_CHECK", "--output", "json"])
        .done();
    assert_eq!(refused.refused(125)["reason"], "INVALID_FIELD");
    daemon.clear();
    Verdict::Passed
}

fn unreachable(suite: &Suite) -> Verdict {
    let daemon = suite.bare_daemon("own/away", DaemonOptions::default());
    let found = || {
        let done = daemon.banger(["doctor", "--json"]).timeout(LONG).done();
        assert_eq!(done.code(), 1, "{}", done.said());
        let document: Value = serde_json::from_str(&done.out()).unwrap();
        let check = document["checks"][0].clone();
        assert_eq!(
            (word(&check, "id"), word(&check, "status")),
            ("DAEMON_REACHABLE", "problem")
        );
        assert!(!word(&check, "remedy").is_empty() && !word(&check, "cause").is_empty());
        word(&check, "found").to_owned()
    };
    if rustix::process::geteuid().is_root() {
        let banger = suite.scratch.path().join("own/away/banger");
        fs::copy(&suite.binaries.banger, &banger).unwrap();
        chmod(&banger, 0o755);
        let run = suite
            .scratch
            .run(&banger)
            .arg("doctor")
            .as_user(OTHER_USER.0, OTHER_USER.1);
        let run = run.env("BANGER_HOST", daemon.host()).in_dir(Path::new("/"));
        let done = run.done();
        assert_eq!(done.code(), 1, "{}", done.said());
        assert!(
            done.out().contains("may not be used by you"),
            "{}",
            done.said()
        );
    }
    kill_process(daemon.pid(), Signal::STOP).unwrap();
    assert!(found().ends_with("takes connections and does not answer"));
    kill_process(daemon.pid(), Signal::CONT).unwrap();
    daemon.kill();
    assert!(found().ends_with("the socket is stale"));
    daemon.start_again();
    daemon.stop();
    assert!(found().ends_with("is not there"));
    Verdict::Passed
}
