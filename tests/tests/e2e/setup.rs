//! What a new VM is set up with: the image's own init, files, identity, credentials.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_e2e::command::until;
use banger_e2e::{Case, Daemon, DaemonOptions, Done, Lane, Verdict};
use serde_json::Value;

use crate::secret::{self, has, is_nowhere_in};
use crate::suite::{LONG, Suite, refused};

/// Found nowhere by chance.
const FIRST: &str = "marker-5c1e9a70d2-first";
/// The same, after a login was renewed.
const SECOND: &str = "marker-5c1e9a70d2-second";
/// Of `ssh-keygen -t ed25519`.
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPZ1bX0oZ4q1rC2H5vY7mQ3l8xkK0yWc9n6TtJ2sDgEh ann";
/// How long systemd may take to start and stop its units on an emulated processor.
const SYSTEMD: Duration = Duration::from_secs(600);

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "an_images_busybox_init_is_process_one_and_ends_what_it_started",
            lane: Lane::Shared,
            test: busybox,
        },
        Case {
            name: "an_init_that_cannot_be_is_told_before_anything_runs",
            lane: Lane::Shared,
            test: no_init,
        },
        Case {
            name: "a_debian_with_systemd_runs_and_stops_its_units",
            lane: Lane::Shared,
            test: systemd,
        },
        Case {
            name: "files_and_an_identity_are_in_a_new_vm",
            lane: Lane::Shared,
            test: identity,
        },
        Case {
            name: "credentials_are_in_the_vm_and_in_nothing_that_the_daemon_keeps",
            lane: Lane::Own,
            test: credentials,
        },
    ]
}

/// A file of the case's own.
fn write(suite: &Suite, name: &str, content: &str) -> PathBuf {
    let path = suite.scratch.dir("setup").join(name);
    fs::write(&path, content).unwrap();
    path
}

/// `--file` words that put `content` to `place`.
fn file(suite: &Suite, name: &str, content: &str, place: &str) -> [String; 2] {
    let source = write(suite, name, content);
    ["--file".into(), format!("{}:{place}", source.display())]
}

fn inspect(suite: &Suite, vm: &str) -> Value {
    suite
        .banger(["vm", "inspect", vm, "--output", "json"])
        .ok()
        .json()
}

fn sh(suite: &Suite, vm: &str, script: &str) -> Done {
    suite
        .banger(["vm", "exec", vm, "--", "sh", "-c", script])
        .done()
}

/// The VM was stopped by its init: the agent's rung, and no longer than that one was given.
fn stop(suite: &Suite, vm: &str) {
    suite.banger(["vm", "stop", vm]).timeout(SYSTEMD).ok();
    let stopped = inspect(suite, vm);
    let rung = &stopped["last_stop"]["rung"];
    assert_eq!(rung, "agent", "{stopped:#}");
}

const INITTAB: &str = "\
::sysinit:/bin/sh -c 'hostname > /work/hostname; cat /work/given > /work/seen'
::respawn:/bin/sleep 1000000
::shutdown:/bin/sh -c 'sleep 1; echo in order > /work/ended'
";

fn busybox(suite: &Suite) -> Verdict {
    let words = ["vm", "create", &suite.reference(), "--name", "init"];
    suite
        .banger(words)
        .args(["--memory", "256M", "--init", "image"])
        .args(file(suite, "inittab", INITTAB, "/etc/inittab"))
        .args(file(suite, "given", "given before\n", "/work/given:0644"))
        .ok();
    assert_eq!(inspect(suite, "init")["init"], "image");
    let out = sh(
        suite,
        "init",
        "readlink /proc/1/exe; cat /proc/self/cgroup; hostname",
    )
    .out();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines[0], lines[2]), ("/bin/busybox", "init"), "{out}");
    assert!(lines[1].starts_with("0::/banger/session-"), "{out}");
    until("the init has run its first line", LONG, || {
        sh(suite, "init", "cat /work/hostname /work/seen").out() == "init\ngiven before"
    });
    // Orphans are the init's to wait for, a session's own processes the agent's.
    until("no process is left that nobody waited for", LONG, || {
        let script = "(sleep 0.1 & ); (exit 3); grep -l '^State:.Z' /proc/[0-9]*/status; true";
        sh(suite, "init", script).out().is_empty()
    });
    assert_eq!(sh(suite, "init", "exit 7").code(), 7);
    let console = suite.banger(["vm", "console", "init"]).ok();
    assert!(!console.out().is_empty());
    // Nothing that goes wrong with memory takes the agent.
    let agent = "for p in /proc/[0-9]*; do grep -q ^@banger-agent $p/cmdline && cat $p/oom_score_adj; done; \
                 cat /proc/self/oom_score_adj";
    assert_eq!(sh(suite, "init", agent).out(), "-1000\n0");
    stop(suite, "init");
    suite.banger(["vm", "start", "init"]).ok();
    assert_eq!(sh(suite, "init", "cat /work/ended").out(), "in order");
    // From inside, as its users do it.
    sh(suite, "init", "poweroff");
    until("the VM has powered itself off", LONG, || {
        inspect(suite, "init")["state"] == "stopped"
    });
    suite.banger(["vm", "start", "init"]).ok();
    agent_killed(suite);
    suite.banger(["vm", "remove", "init"]).ok();
    Verdict::Passed
}

/// Process 1 would go on without the agent: the guest is reset, and the VM has failed of it.
fn agent_killed(suite: &Suite) {
    let kill =
        "for p in /proc/[0-9]*; do grep -q ^@banger-agent $p/cmdline && kill -9 ${p#/proc/}; done";
    sh(suite, "init", kill);
    until("the VM has failed", LONG, || {
        inspect(suite, "init")["state"] == "failed"
    });
    let failed = inspect(suite, "init");
    assert_eq!(failed["failure"]["reason"], "VM_ENDED", "{failed:#}");
    let console = suite.banger(["vm", "console", "init"]).ok().out();
    assert!(console.contains("the agent has ended"), "{console}");
}

fn no_init(suite: &Suite) -> Verdict {
    let create = |options: &[&str]| {
        let words = ["vm", "create", &suite.reference(), "--name", "none"];
        suite.banger(words).args(["--memory", "256M"]).args(options)
    };
    let error = refused(create(&["--init", "/no/such/init"]), 125, "INIT_NOT_FOUND");
    assert_eq!(
        (&error["code_ran"], &error["metadata"]["path"]),
        (&"no".into(), &"/no/such/init".into())
    );
    let bad = file(suite, "bad", "#!/no/interpreter\n", "/bad:0755");
    let run = create(&["--init", "/bad"]).args(bad);
    let error = refused(run, 125, "INIT_NOT_EXECUTABLE");
    assert_eq!(error["metadata"]["path"], "/bad", "{error}");
    assert!(!suite.daemon().vms().contains(&"none".to_owned()));
    Verdict::Passed
}

/// A unit that is seen to start, and that takes a while to stop.
const UNIT: &str = "\
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'hostname > /var/marker'
ExecStop=/bin/sh -c 'sleep 1; echo stopped >> /var/marker'
";

fn systemd(suite: &Suite) -> Verdict {
    if !Path::new("/usr/bin/mmdebstrap").exists() {
        return Verdict::Skipped("mmdebstrap is not installed".into());
    }
    suite
        .banger([
            "image",
            "build",
            "--debian",
            "bookworm",
            "--variant",
            "minbase",
        ])
        .args(["--include", "systemd,systemd-sysv,dbus", "systemd:1"])
        .timeout(SYSTEMD)
        .ok();
    suite
        .banger(["vm", "create", "systemd:1", "--name", "units"])
        .args(["--memory", "512M", "--init", "image", "--network", "user"])
        .args(file(
            suite,
            "unit",
            UNIT,
            "/etc/systemd/system/marker.service",
        ))
        .args(file(
            suite,
            "wants",
            "[Unit]\nWants=marker.service\n",
            "/etc/systemd/system/multi-user.target.d/marker.conf",
        ))
        .timeout(SYSTEMD)
        .ok();
    until("systemd has started what it starts", SYSTEMD, || {
        let run = suite.banger(["vm", "exec", "units", "--"]);
        let state = run.args(["systemctl", "is-system-running"]).done().out();
        // A unit of the distribution's that fails here is none of ours.
        ["running", "degraded"].contains(&state.as_str())
    });
    let out = sh(
        suite,
        "units",
        "cat /proc/1/comm /var/marker; hostname; cat /proc/self/cgroup",
    )
    .out();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], ["systemd", "units", "units"], "{out}");
    assert!(lines[3].starts_with("0::/banger/session-"), "{out}");
    let network = sh(suite, "units", "cat /etc/resolv.conf; cat /proc/net/route").out();
    assert!(
        network.contains("nameserver") && network.contains("eth0"),
        "{network}"
    );
    stop(suite, "units");
    suite.banger(["vm", "start", "units"]).timeout(SYSTEMD).ok();
    let marker = sh(suite, "units", "cat /var/marker").out();
    assert!(marker.ends_with("stopped") || marker == "units", "{marker}");
    let journal = sh(suite, "units", "cat /proc/1/comm").out();
    assert_eq!(journal, "systemd");
    suite.banger(["vm", "remove", "units"]).ok();
    suite.banger(["image", "remove", "systemd:1"]).ok();
    Verdict::Passed
}

fn identity(suite: &Suite) -> Verdict {
    let key = write(suite, "key.pub", &format!("# mine\n{KEY}\n"));
    let create = |name: &str, more: &[String]| {
        suite
            .banger(["vm", "create", &suite.reference(), "--name", name])
            .args(["--memory", "256M"])
            .args(more)
    };
    let mut options = vec!["--git-name".into(), "Ann Lee".into(), "--git-email".into()];
    options.extend([
        "ann@example.com".into(),
        "--ssh-key".into(),
        key.display().to_string(),
    ]);
    options.extend(file(
        suite,
        "config",
        "[user]\n\tname = Image\n",
        "/etc/gitconfig",
    ));
    options.extend(file(
        suite,
        "run.sh",
        "#!/bin/sh\necho ran\n",
        "/opt/new/run:4750:app",
    ));
    create("given", &options).ok();
    let script = "/opt/new/run; stat -c '%a %u:%g' /opt/new /opt/new/run /root/.ssh /root/.ssh/authorized_keys; \
                  cat /root/.ssh/authorized_keys /etc/gitconfig";
    let expected = format!(
        "ran\n755 1000:1000\n4750 1000:1000\n700 0:0\n600 0:0\n{KEY}\n\
         [user]\n\tname = Image\n[user]\n\temail = \"ann@example.com\""
    );
    assert_eq!(sh(suite, "given", script).out(), expected);
    let shown = inspect(suite, "given");
    assert_eq!(shown["git_name"], "Ann Lee");
    assert_eq!(shown["ssh_authorized_keys"][0], KEY);
    // What was written once is the VM's own from then on; the identity is seen to at each start.
    sh(
        suite,
        "given",
        "rm /opt/new/run /root/.ssh/authorized_keys; sync",
    );
    suite.banger(["vm", "restart", "given"]).ok();
    let script = "ls /opt/new; cat /root/.ssh/authorized_keys; grep -c email /etc/gitconfig";
    assert_eq!(sh(suite, "given", script).out(), format!("{KEY}\n1"));
    suite.banger(["vm", "remove", "given"]).ok();
    let taken = create("taken", &file(suite, "x", "x", "/etc"));
    let error = refused(taken, 125, "VM_FILE_NOT_WRITTEN");
    assert_eq!(error["metadata"]["path"], "/etc", "{error}");
    let unknown = create("taken", &file(suite, "x", "x", "/x:644:stranger"));
    refused(unknown, 125, "VM_FILE_NOT_WRITTEN");
    Verdict::Passed
}

fn credentials(suite: &Suite) -> Verdict {
    let token = write(suite, "token", FIRST);
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let profile = |name: &str, more: &str| {
        format!(
            "credentials.{name} = {{ {more}files = [{{ source = {token:?}, path = \"~/.tool/token\" }}] }}\n"
        )
    };
    let (mine, theirs) = (
        profile("mine", ""),
        profile("theirs", "allowed_uids = [4294967000], "),
    );
    let options = DaemonOptions {
        config: format!("log_level = \"trace\"\n{mine}{theirs}"),
        ..DaemonOptions::default()
    };
    let daemon = suite.own_daemon("credentials", options);
    let reference = suite.reference();
    let create = |profile: &str| {
        daemon
            .banger([
                "vm", "create", &reference, "--name", "holder", "--memory", "256M",
            ])
            .args(["--credentials", profile])
            .timeout(LONG)
    };
    for profile in ["theirs", "none"] {
        let error = refused(create(profile), 125, "CREDENTIALS_NOT_FOUND");
        assert_eq!(error["metadata"]["known"], "mine", "{error}");
    }
    create("mine").ok();
    let seen = || {
        let script = "stat -c '%a %U' ~/.tool/token; cat ~/.tool/token";
        daemon
            .banger(["vm", "exec", "holder", "--", "sh", "-c", script])
            .timeout(LONG)
            .ok()
            .out()
    };
    assert_eq!(seen(), format!("600 root\n{FIRST}"));
    fs::write(&token, SECOND).unwrap();
    daemon
        .banger(["vm", "restart", "holder"])
        .timeout(LONG)
        .ok();
    assert_eq!(seen(), format!("600 root\n{SECOND}"));
    daemon.banger(["vm", "stop", "holder"]).timeout(LONG).ok();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let start = daemon.banger(["vm", "start", "holder"]).timeout(LONG);
    let said = start.done();
    assert!(said.err().contains("has mode 0644"), "{}", said.said());
    kept_nowhere(&daemon);
    daemon.clear();
    Verdict::Passed
}

/// Looks for both secrets where a daemon that logs everything keeps things, but in the VM's own disk.
fn kept_nowhere(daemon: &Daemon) {
    let told = |words: &[&str]| daemon.banger(words).ok().out().into_bytes();
    let operations = told(&["operation", "list", "--output", "json"]);
    let vm = told(&["vm", "inspect", "holder", "--output", "json"]);
    assert!(has(&vm, b"mine"), "the profile is shown by its name");
    let log = fs::read(daemon.log_path()).unwrap();
    assert!(has(&log, b"TRACE"), "everything is logged");
    for secret in [FIRST, SECOND].into_iter().flat_map(secret::forms) {
        assert!(!has(&operations, &secret), "in the operations");
        assert!(!has(&vm, &secret), "in what is shown of the VM");
        assert!(!has(&log, &secret), "in the log");
        let looked_at = is_nowhere_in(&daemon.state, &secret, "upper.ext4");
        assert!(
            looked_at > 3,
            "the database, its log, blobs: {looked_at} files"
        );
    }
}
