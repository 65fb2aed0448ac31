//! Roles, as certificates of `banger cert` give them, by the real command over TCP.

use std::path::PathBuf;

use banger_e2e::{Case, DaemonOptions, Lane, Pki, Run, Verdict};
use serde_json::Value;

use crate::suite::{LONG, Suite, refused};

/// The VM of `ann`.
const VM: &str = "anns-vm";

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![Case {
        name: "certificates_let_each_role_do_what_it_may_and_nobody_see_what_is_anothers",
        lane: Lane::Own,
        test: roles,
    }]
}

/// Somebody with a certificate.
struct Somebody<'a> {
    run: &'a dyn Fn(&PathBuf, &[&str]) -> Run,
    bundle: PathBuf,
}

impl Somebody<'_> {
    fn may(&self, words: &[&str]) -> String {
        (self.run)(&self.bundle, words).ok().out()
    }

    fn json(&self, words: &[&str]) -> Value {
        let run = (self.run)(&self.bundle, words).args(["--output", "json"]);
        run.ok().json()
    }

    /// Is told that the role is too low, and which would do.
    fn may_not(&self, words: &[&str], needed: &str) {
        let error = refused((self.run)(&self.bundle, words), 125, "ROLE_TOO_LOW");
        assert_eq!(error["metadata"]["needed"], needed, "{error}");
    }

    /// Is told the same of what is another's as of what is not there.
    fn does_not_find(&self, words: &[&str]) {
        let tell = |name: &str| {
            let words: Vec<String> = words.iter().map(|word| word.replace(VM, name)).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let error = refused((self.run)(&self.bundle, &words), 125, "VM_NOT_FOUND");
            error.to_string().replace(name, "NAME")
        };
        assert_eq!(tell(VM), tell("nobodys"), "{words:?}");
    }
}

fn roles(suite: &Suite) -> Verdict {
    let pki = Pki::make(&suite.scratch, &suite.binaries, "own/roles-pki");
    let options = DaemonOptions {
        config: pki.config(),
        ..DaemonOptions::default()
    };
    let daemon = suite.own_daemon("own/roles", options);
    let run = |bundle: &PathBuf, words: &[&str]| {
        daemon
            .banger_from_afar(bundle, words.iter().copied())
            .timeout(LONG)
    };
    let somebody = |name: &str, role: &str| Somebody {
        run: &run,
        bundle: pki.client(name, role),
    };
    let [ann, bob] = ["ann", "bob"].map(|name| somebody(name, "user"));
    let viewer = somebody("vic", "viewer");
    let operator = somebody("olga", "operator");
    let admin = somebody("ada", "admin");
    owners(&ann, &bob, &suite.reference());
    others(&viewer, &operator, &suite.reference());
    audited(&admin);
    ann.may(&["vm", "remove", VM]);
    daemon.clear();
    Verdict::Passed
}

const EXEC: [&str; 6] = ["vm", "exec", VM, "--", "echo", "hello"];

/// Two users: one has a VM, of which the other finds nothing.
fn owners(ann: &Somebody<'_>, bob: &Somebody<'_>, reference: &str) {
    ann.may(&[
        "vm",
        "create",
        reference,
        "--name",
        VM,
        "--memory",
        "256M",
        "--env",
        "KEY=secret",
    ]);
    assert_eq!(ann.may(&EXEC), "hello");
    ann.may_not(&["image", "prune"], "admin");
    ann.may_not(&["host", "audit"], "admin");

    assert_eq!(bob.may(&["vm", "list", "--quiet"]), "");
    for words in [
        &["vm", "inspect", VM][..],
        &["vm", "stop", VM],
        &["vm", "kill", VM],
        &["vm", "remove", VM],
        &["vm", "console", VM],
        &["vm", "ports", VM],
        &["session", "list", VM],
    ] {
        bob.does_not_find(words);
    }
    let told = [&["--output", "json"][..], &EXEC].concat();
    let done = (bob.run)(&bob.bundle, &told).done();
    assert_eq!(done.refused(125)["reason"], "VM_NOT_FOUND");
}

/// Who sees all VMs, and who may use them.
fn others(viewer: &Somebody<'_>, operator: &Somebody<'_>, reference: &str) {
    assert_eq!(viewer.may(&["vm", "list", "--quiet"]), VM);
    let shown = viewer.json(&["vm", "inspect", VM]);
    assert_eq!(shown["owner"], "cert:ann");
    assert!(!shown.to_string().contains("secret"), "{shown}");
    viewer.may_not(&["vm", "create", reference], "user");
    viewer.may_not(&["vm", "stop", VM], "user");
    viewer.may_not(&["vm", "console", VM], "user");
    viewer.may_not(&["session", "list", VM], "user");

    assert_eq!(operator.may(&EXEC), "hello");
    operator.may(&["vm", "update", VM, "--label", "seen=yes"]);
    operator.may_not(&["image", "prune"], "admin");
}

/// All of it is in the audit log, for admins.
fn audited(admin: &Somebody<'_>) {
    admin.may(&["image", "prune", "--dry-run"]);
    let records = admin.json(&["host", "audit", "--limit", "1000"]);
    let records = records.as_array().unwrap();
    for (owner, role, call, reason) in [
        ("cert:ann", "user", "VmService/CreateVm", ""),
        ("cert:bob", "user", "VmService/KillVm", "VM_NOT_FOUND"),
        ("cert:vic", "viewer", "VmService/StopVm", "ROLE_TOO_LOW"),
        ("cert:olga", "operator", "VmService/UpdateVm", ""),
    ] {
        let is_it = |record: &&Value| {
            record["owner"] == owner
                && record["role"] == role
                && record["method"] == format!("banger.v1.{call}")
                && record["reason"] == reason
        };
        assert!(
            records.iter().any(|record| is_it(&record)),
            "{owner} {call} {reason} in {records:#?}"
        );
    }
}
