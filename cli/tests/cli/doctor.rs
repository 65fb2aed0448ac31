//! `banger doctor`: its page, its JSON, its exit codes, with a daemon and without.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::fake::Fake;
use super::*;

#[test]
fn the_page_is_in_order_and_says_what_to_do() {
    let fake = Fake::start();
    let looked = output(&fake, &["doctor"]);
    let page = text(&looked.stdout);
    let socket = fake.socket();
    let expected = format!(
        "\
api
  ok       DAEMON_REACHABLE          bangerd 0.1.0, process 42, {socket}

vmm
  ok       QEMU_PRESENT              /usr/bin/qemu-system-x86_64

kvm
  warning  KVM_BOOTS_GUEST           it does not
                                     cause: the guest kernel did not reach its agent
                                     remedy: Use a host whose KVM works.

state
  PROBLEM  STATE_PERMISSIONS         /s has mode 0755
                                     cause: Others can look at disks.
                                     remedy: Close it.
                                     $ chmod 0700 /s

limits
  skipped  SWAP                      /proc/meminfo does not tell

5 checks: 2 ok, 1 with warnings, 1 with problems, 1 skipped
1 may be mended by: banger doctor --fix
",
        socket = socket.display()
    );
    assert_eq!(page, expected, "{page}");
    assert_eq!(code(&looked), 1);
    assert_eq!(text(&looked.stderr), "", "a program reads no progress");
}

#[test]
fn the_exit_code_counts_problems_and_if_asked_warnings() {
    let fake = Fake::start();
    let exit = |arguments: &[&str]| code(&output(&fake, &[&["doctor"], arguments].concat()));
    assert_eq!(exit(&[]), 1);
    assert_eq!(exit(&["QEMU_PRESENT"]), 0);
    assert_eq!(exit(&["KVM_BOOTS_GUEST"]), 0, "warnings are allowed");
    assert_eq!(exit(&["KVM_BOOTS_GUEST", "--strict"]), 1);
    assert_eq!(exit(&["--fix"]), 0, "what is fixed is no problem");
    assert_eq!(exit(&["--fix", "--strict"]), 1);
    assert_eq!(exit(&["NO_SUCH_CHECK"]), 125);
    assert_eq!(fake.state.called("Doctor fix=true"), 2);
}

#[test]
fn the_json_keeps_its_shape() {
    let fake = Fake::start();
    for arguments in [["--json"].as_slice(), &["--output", "json"]] {
        let looked = output(
            &fake,
            &[&["doctor", "STATE_PERMISSIONS"], arguments].concat(),
        );
        let mut document: Value = serde_json::from_slice(&looked.stdout).unwrap();
        document["summary"]["took_ms"] = json!(0);
        let expected = json!({
            "checks": [{
                "id": "STATE_PERMISSIONS", "subject": "state", "title": "STATE_PERMISSIONS is right",
                "status": "problem", "found": "/s has mode 0755", "cause": "Others can look at disks.",
                "remedy": "Close it.", "command": "chmod 0700 /s", "fixable": true, "changed": "", "took_ms": 3
            }],
            "summary": { "ok": 0, "warning": 0, "problem": 1, "skipped": 0, "fixed": 0, "took_ms": 0 }
        });
        assert_eq!(document, expected);
    }
    let refused = output(&fake, &["doctor", "NO_SUCH_CHECK", "--json"]);
    let error: Value = serde_json::from_slice(&refused.stderr).unwrap();
    assert_eq!(error["reason"], "INVALID_FIELD");
    let ids = output(&fake, &["doctor", "-q"]);
    assert_eq!(text(&ids.stdout), "KVM_BOOTS_GUEST\nSTATE_PERMISSIONS\n");
}

#[test]
fn a_daemon_that_does_not_run_is_the_first_check_in_the_same_form() {
    let fake = Fake::start();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let looked = banger(
        &fake,
        &["doctor", "--json", "--host", socket.to_str().unwrap()],
    );
    let mut looked = looked;
    let looked = looked.output().unwrap();
    assert_eq!(code(&looked), 1);
    let document: Value = serde_json::from_slice(&looked.stdout).unwrap();
    let check = &document["checks"][0];
    assert_eq!(check["id"], "DAEMON_REACHABLE");
    assert_eq!(
        (&check["status"], &check["fixable"]),
        (&json!("problem"), &json!(false))
    );
    assert!(check["found"].as_str().unwrap().ends_with("is not there"));
    assert!(!check["remedy"].as_str().unwrap().is_empty());
    assert_eq!(document["summary"]["problem"], 1);
}

#[test]
fn a_daemon_that_goes_away_meanwhile_is_told_beside_what_it_had_said() {
    let fake = Fake::start();
    fake.state.draining.store(1, Ordering::Relaxed);
    let looked = output(&fake, &["doctor", "--json"]);
    assert_eq!(code(&looked), 1);
    let document: Value = serde_json::from_slice(&looked.stdout).unwrap();
    let ids: Vec<&str> = document["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids[..2], ["DAEMON_REACHABLE", "DAEMON_REACHABLE"]);
    assert!(ids.contains(&"QEMU_PRESENT"));
    assert_eq!(document["checks"][1]["status"], "problem");
}
