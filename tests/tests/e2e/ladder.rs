//! The rungs of the stop ladder, each reached by a real VM in which what comes before it does nothing.

use std::fs;
use std::path::{Path, PathBuf};

use banger_e2e::command::until;
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Run, Verdict};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::inside;
use crate::suite::{LONG, Suite};
use crate::vm::vmm;

/// The VM whose process 1 is the agent.
const PLAIN: &str = "plain";
/// The VM whose process 1 hears nothing but the power button.
const BUTTON: &str = "button";
/// The modules of the kernel by which a program hears the button.
const MODULES: [&str; 2] = ["drivers/acpi/button.ko", "drivers/input/evdev.ko"];
/// An init that nobody can ask for anything, but powers off when the button is pressed.
const INIT: &str = "\
#!/bin/sh
insmod /button.ko
insmod /evdev.ko
dd if=/dev/input/event0 of=/dev/null bs=24 count=1 || while :; do sleep 1000; done
echo pressed > /root/pressed
sync
poweroff -f
";

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![Case {
        name: "each_rung_of_the_stop_ladder_ends_what_the_ones_before_do_not",
        lane: Lane::Own,
        test: rungs,
    }]
}

fn rungs(suite: &Suite) -> Verdict {
    let config = "stop_agent_timeout = \"2s\"\nstop_init_timeout = \"2s\"\n\
                  stop_power_button_timeout = \"8s\"\nstop_terminate_timeout = \"2s\""
        .to_owned();
    let options = DaemonOptions {
        config,
        ..DaemonOptions::default()
    };
    let daemon = suite.own_daemon("own/ladder", options);
    let files = button_files(suite);
    std::thread::scope(|scope| {
        scope.spawn(|| plain(suite, &daemon));
        scope.spawn(|| button(suite, &daemon, &files));
    });
    gone(&daemon);
    daemon.clear();
    Verdict::Passed
}

/// `--file` words for what the init needs.
fn button_files(suite: &Suite) -> Vec<String> {
    let place = suite.scratch.dir("own/ladder-files");
    let init = place.join("init");
    fs::write(&init, INIT).unwrap();
    let modules = suite.kernel().modules.join("kernel");
    let modules = MODULES.map(|module| unpacked(&modules.join(module), &place));
    let mut files = vec![format!("{}:/hears:0755", init.display())];
    files.extend(modules.iter().map(|module| {
        let name = module.file_name().unwrap().to_str().unwrap();
        format!("{}:/{name}", module.display())
    }));
    let with = |file| ["--file".to_owned(), file];
    files.into_iter().flat_map(with).collect()
}

/// A module as its kernel's package has it, or, where it is packed there, unpacked.
fn unpacked(module: &Path, place: &Path) -> PathBuf {
    if module.exists() {
        return module.to_owned();
    }
    let packed = format!("{}.xz", module.display());
    let bytes = Run::new("xz").args(["-dc", &packed]).ok().stdout;
    let to = place.join(module.file_name().unwrap());
    fs::write(&to, bytes).unwrap();
    to
}

fn create(suite: &Suite, daemon: &Daemon, name: &str, options: &[String]) {
    let reference = suite.reference();
    let words = ["vm", "create", &reference, "--name", name];
    let small = ["--memory", "192M", "--network", "none"];
    let run = daemon.banger(words).args(small).args(options);
    run.timeout(LONG).ok();
}

fn inspect(daemon: &Daemon, vm: &str) -> Value {
    let words = ["vm", "inspect", vm, "--output", "json"];
    daemon.banger(words).ok().json()
}

fn start(daemon: &Daemon, vm: &str) {
    daemon.banger(["vm", "start", vm]).timeout(LONG).ok();
}

fn sh(daemon: &Daemon, vm: &str, script: &str) -> String {
    let words = ["vm", "exec", vm, "--", "sh", "-c", script];
    daemon.banger(words).timeout(LONG).ok().out()
}

/// The VM's agent stands still from now on.
fn freeze(daemon: &Daemon, vm: &str) {
    let script = format!("sleep 0.3; {}", inside::FREEZE);
    let words = ["session", "start", "--quiet", vm, "--", "sh", "-c", &script];
    daemon.banger(words).timeout(LONG).ok();
    until("the agent stands still", LONG, || {
        let asked = daemon.banger(["session", "list", vm]);
        !asked.done().status.success()
    });
}

/// It is stopped by this rung.
fn stop(daemon: &Daemon, vm: &str, rung: &str) {
    daemon.banger(["vm", "stop", vm]).timeout(LONG).ok();
    let stopped = inspect(daemon, vm);
    assert_eq!(stopped["state"], "stopped", "{stopped:#}");
    assert_eq!(stopped["last_stop"]["rung"], rung, "{stopped:#}");
}

/// An agent that stands still, which does not hear the power button either; then a VMM that does.
fn plain(suite: &Suite, daemon: &Daemon) {
    create(suite, daemon, PLAIN, &[]);
    freeze(daemon, PLAIN);
    stop(daemon, PLAIN, "terminate");
    start(daemon, PLAIN);
    kill_process(vmm(daemon, PLAIN), Signal::STOP).unwrap();
    stop(daemon, PLAIN, "kill");
}

/// An init that cannot be asked is ended by the agent, when it had its time; where the agent stands still, the init
/// hears the button.
fn button(suite: &Suite, daemon: &Daemon, files: &[String]) {
    let mut options = vec!["--init".to_owned(), "/hears".to_owned()];
    options.extend_from_slice(files);
    create(suite, daemon, BUTTON, &options);
    assert_eq!(sh(daemon, BUTTON, "echo kept > /root/kept; echo 1"), "1");
    stop(daemon, BUTTON, "agent");
    let console = daemon.banger(["vm", "console", BUTTON]).ok().out();
    assert!(console.contains("did not power off within 2s"), "{console}");
    start(daemon, BUTTON);
    let seen = sh(
        daemon,
        BUTTON,
        "cat /root/kept; cat /root/pressed 2>&1; true",
    );
    assert!(
        seen.starts_with("kept\n") && seen.contains("No such"),
        "{seen}"
    );
    freeze(daemon, BUTTON);
    stop(daemon, BUTTON, "power-button");
    start(daemon, BUTTON);
    assert_eq!(
        sh(daemon, BUTTON, "cat /root/kept /root/pressed"),
        "kept\npressed"
    );
}

/// One that ended while no daemon saw it.
fn gone(daemon: &Daemon) {
    let left = vmm(daemon, BUTTON);
    daemon.kill();
    kill_process(left, Signal::KILL).unwrap();
    daemon.start_again();
    let found = inspect(daemon, BUTTON);
    assert_eq!(found["state"], "stopped", "{found:#}");
    assert_eq!(found["last_stop"]["rung"], "already-gone", "{found:#}");
}
