//! Things that break: guests that never speak, no VMM, no disk, daemons that are killed.

use std::fs;
use std::time::Duration;

use banger_e2e::command::until;
use banger_e2e::layer::Layer;
use banger_e2e::liar::{Liar, Lie};
use banger_e2e::small::Small;
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Verdict};
use banger_sdk::{Event, ReadFrom};
use rustix::process::{Signal, kill_process};

use crate::suite::{LONG, Suite, VM, block, refused};
use crate::vm::vmm;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_guest_that_never_says_hello_is_given_up_and_undone",
            lane: Lane::Own,
            test: mute_guest,
        },
        Case {
            name: "a_missing_vmm_is_told_with_the_package_to_install",
            lane: Lane::Own,
            test: no_vmm,
        },
        Case {
            name: "a_missing_agent_is_told",
            lane: Lane::Own,
            test: no_agent,
        },
        Case {
            name: "a_full_disk_fails_a_pull_and_harms_nothing",
            lane: Lane::Own,
            test: disk_full,
        },
        Case {
            name: "a_killed_daemon_finds_its_vms_and_sessions_again",
            lane: Lane::Shared,
            test: daemon_killed,
        },
        Case {
            name: "a_vmm_that_is_held_for_ever_is_deleted_in_bounded_time",
            lane: Lane::Own,
            test: held_for_ever,
        },
        Case {
            name: "a_stopped_daemon_leaves_its_vms_running",
            lane: Lane::Shared,
            test: daemon_stopped,
        },
        Case {
            name: "a_daemon_killed_while_it_makes_a_vm_undoes_it",
            lane: Lane::Shared,
            test: killed_in_creation,
        },
    ]
}

/// A creation fails for this reason, and leaves nothing.
fn fails(suite: &Suite, daemon: &Daemon, reason: &str) -> serde_json::Value {
    let run = daemon
        .banger(["vm", "create", &suite.reference(), "--memory", "256M"])
        .timeout(LONG);
    let error = refused(run, 125, reason);
    assert_eq!(daemon.vms(), Vec::<String>::new());
    assert_eq!(daemon.entries("vms"), Vec::<String>::new());
    error
}

fn mute_guest(suite: &Suite) -> Verdict {
    // busybox as process 1 is a fine init that knows nothing of banger.
    let config = "agent = \"/bin/busybox\"\nboot_timeout = \"12s\"".to_owned();
    let daemon = suite.own_daemon(
        "own/mute",
        DaemonOptions {
            config,
            ..DaemonOptions::default()
        },
    );
    let error = fails(suite, &daemon, "BOOT_TIMEOUT");
    assert_eq!(error["code"], "DEADLINE_EXCEEDED", "{error}");
    daemon.clear();
    Verdict::Passed
}

fn no_vmm(suite: &Suite) -> Verdict {
    let config = "driver = \"qemu\"\nqemu = \"/nonexistent/qemu-system-x86_64\"".to_owned();
    let daemon = suite.own_daemon(
        "own/novmm",
        DaemonOptions {
            config,
            ..DaemonOptions::default()
        },
    );
    let error = fails(suite, &daemon, "VMM_MISSING");
    assert!(
        error["remedy"]
            .as_str()
            .unwrap()
            .contains("qemu-system-x86"),
        "{error}"
    );
    daemon.clear();
    Verdict::Passed
}

fn no_agent(suite: &Suite) -> Verdict {
    let config = "agent = \"/nonexistent/banger-agent\"".to_owned();
    let options = DaemonOptions {
        config,
        ..DaemonOptions::default()
    };
    // It may refuse to serve at all, or the first creation; both say what is missing.
    let file = suite.scratch.dir("own/noagent").join("bangerd.toml");
    fs::write(&file, format!("{}\n", options.config)).unwrap();
    let state = suite.scratch.path().join("own/noagent/state");
    let run = suite
        .scratch
        .run(&suite.binaries.bangerd)
        .arg("--config")
        .arg(&file)
        .arg("--state-dir")
        .arg(state);
    let mut child = run
        .arg("--socket")
        .arg(suite.scratch.path().join("own/noagent/s"))
        .spawn();
    let status = banger_e2e::command::ended(&mut child, std::time::Duration::from_secs(5));
    if let Some(status) = status {
        assert!(!status.success());
        return Verdict::Passed;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let daemon = suite.own_daemon("own/noagent2", options);
    fails(suite, &daemon, "AGENT_MISSING");
    daemon.clear();
    Verdict::Passed
}

fn disk_full(suite: &Suite) -> Verdict {
    let state = suite.scratch.dir("own-small");
    let small = match Small::mount(&state, "12m") {
        Ok(small) => small,
        Err(why) => {
            return Verdict::Skipped(format!("no small file system can be mounted here: {why}"));
        }
    };
    let config = "disk_reserve_mib = 0".to_owned();
    let options = DaemonOptions {
        config,
        state_dir: Some(state.clone()),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(&suite.scratch, &suite.binaries, "own/full", options);
    // Noise, so that no compression makes it small.
    let noise =
        (0..10_000_000_u32).map(|number| number.wrapping_mul(2_654_435_761).rotate_left(13));
    let noise: Vec<u8> = noise.flat_map(u32::to_le_bytes).collect();
    let layer = Layer::default().file("noise", 0o644, &noise).tar();
    let big = suite.scratch.dir("own").join("big.tar");
    fs::write(&big, &layer).unwrap();
    let registry = Liar::serve(&layer, Lie::None);
    let words = [
        "image",
        "import",
        big.to_str().unwrap(),
        "big:1",
        "--format",
        "rootfs-tar",
    ];
    for words in [words.as_slice(), &["image", "pull", &registry.reference()]] {
        let error = daemon
            .banger(words)
            .args(["--output", "json"])
            .done()
            .refused(125);
        assert_eq!(error["code"], "RESOURCE_EXHAUSTED", "{error}");
        let remedy = error["remedy"].as_str().unwrap_or_default();
        assert!(remedy.contains("space"), "{error}");
        assert_eq!(daemon.temporary(), Vec::<std::path::PathBuf>::new());
    }
    // It still works: what fits is taken.
    suite.give_image(&daemon);
    daemon.banger(["image", "remove", &suite.reference()]).ok();
    daemon.clear();
    drop(daemon);
    drop(small);
    fs::remove_file(big).unwrap();
    Verdict::Passed
}

/// Output of a session that counts, from a stream of events: each number once, in order.
fn is_count(text: &str) -> bool {
    text.lines()
        .enumerate()
        .all(|(at, line)| line == format!("count {}", at + 1))
}

/// Counts for ten seconds.
const COUNT: &str = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo count $i; sleep 0.25; done";

/// A command whose caller is attached to it all the time hears it to its end, whatever the daemon goes through.
fn exec_goes_on(suite: &Suite, disturb: impl FnOnce()) {
    let (first_word, reads) = std::sync::mpsc::channel();
    let caller = suite.exec(&[], COUNT).telling(first_word);
    let caller = std::thread::spawn(move || caller.done());
    reads.recv_timeout(LONG).expect("output came");
    disturb();
    let done = caller.join().unwrap();
    assert!(
        done.status.success() && is_count(&done.out()) && done.out().lines().count() == 40,
        "{}",
        done.said()
    );
}

fn daemon_killed(suite: &Suite) -> Verdict {
    suite.vm();
    let id = suite
        .banger(["session", "start", "--quiet", VM, "--", "sh", "-c", COUNT])
        .ok()
        .out();
    let before = vmm(suite.daemon(), VM);
    // A client that reads over the daemon's death.
    let (first_word, reads) = std::sync::mpsc::channel();
    let reader = suite.banger(["session", "log", "--follow", &id]);
    let reader = reader.telling(first_word);
    let reader = std::thread::spawn(move || reader.done());
    reads.recv_timeout(LONG).expect("output came");
    exec_goes_on(suite, || {
        suite.daemon().kill();
        suite.daemon().start_again();
    });
    assert_eq!(
        vmm(suite.daemon(), VM),
        before,
        "the VM is the same process"
    );
    assert_eq!(
        suite
            .banger(["vm", "inspect", VM, "--output", "json"])
            .ok()
            .json()["state"],
        "running"
    );
    let listed = suite
        .banger(["session", "list", VM, "--output", "json"])
        .ok()
        .json();
    assert!(
        listed
            .as_array()
            .unwrap()
            .iter()
            .any(|session| session["id"] == id.as_str()),
        "{listed}"
    );
    let text = block(async {
        use futures::StreamExt;
        let client = suite.daemon().client().await;
        let mut log = client
            .sessions()
            .log(&id)
            .from(ReadFrom::Oldest)
            .follow()
            .stream();
        let mut text = String::new();
        while let Some(event) = log.next().await {
            match event.unwrap() {
                Event::Output(output) => text.push_str(&String::from_utf8_lossy(&output.data)),
                Event::Gap(gap) => panic!("{} bytes were lost", gap.lost_bytes),
                Event::Screen(_) | Event::Exited(_) => {}
            }
        }
        text
    });
    assert!(is_count(&text) && text.lines().count() == 40, "{text}");
    let read = reader.join().unwrap();
    assert!(
        read.status.success() && read.out() == text.trim_end(),
        "a reader goes on over the death\n{}",
        read.said()
    );
    assert_eq!(suite.sh("echo alive").ok().out(), "alive");
    suite.banger(["session", "remove", &id]).ok();
    Verdict::Passed
}

fn daemon_stopped(suite: &Suite) -> Verdict {
    suite.vm();
    let before = vmm(suite.daemon(), VM);
    exec_goes_on(suite, || {
        suite.daemon().stop();
        assert!(
            !suite.daemon().socket().exists(),
            "the socket goes with the daemon"
        );
        assert!(
            fs::read_to_string(format!("/proc/{}/stat", before.as_raw_nonzero())).is_ok(),
            "the VM runs on"
        );
        suite.daemon().start_again();
    });
    assert_eq!(vmm(suite.daemon(), VM), before);
    assert_eq!(suite.sh("echo alive").ok().out(), "alive");
    Verdict::Passed
}

fn killed_in_creation(suite: &Suite) -> Verdict {
    suite.vm();
    let reference = suite.reference();
    let mut child = suite
        .banger([
            "vm", "create", &reference, "--name", "half", "--memory", "256M",
        ])
        .spawn();
    until("the creation is known", LONG, || {
        suite.daemon().vms().contains(&"half".to_owned())
    });
    suite.daemon().kill();
    suite.daemon().start_again();
    until("the half-made VM is gone", LONG, || {
        !suite.daemon().vms().contains(&"half".to_owned())
    });
    let status = banger_e2e::command::ended(&mut child, LONG).expect("its client ends");
    // The client's request may have been made again by its id, and have succeeded.
    if status.success() {
        suite.banger(["vm", "remove", "half"]).ok();
    }
    let operations = suite
        .banger(["operation", "list", "--output", "json"])
        .ok()
        .json();
    let running = operations
        .as_array()
        .unwrap()
        .iter()
        .filter(|operation| operation["state"] == "running")
        .count();
    assert_eq!(running, 0, "{operations}");
    assert_eq!(suite.sh("echo alive").ok().out(), "alive");
    Verdict::Passed
}

/// How long the removal of a VM whose VMM does nothing any more may take, its client's start included.
const REMOVED_WITHIN: Duration = Duration::from_secs(20);

fn held_for_ever(suite: &Suite) -> Verdict {
    let daemon = suite.own_daemon("own/held", DaemonOptions::default());
    let reference = suite.reference();
    for is_adopted in [false, true] {
        let words = [
            "vm",
            "create",
            &reference,
            "--name",
            "held",
            "--memory",
            "192M",
            "--network",
            "none",
        ];
        daemon.banger(words).timeout(LONG).ok();
        let held = vmm(&daemon, "held");
        kill_process(held, Signal::STOP).unwrap();
        if is_adopted {
            daemon.kill();
            daemon.start_again();
        }
        let begin = std::time::Instant::now();
        daemon.banger(["vm", "remove", "held"]).timeout(LONG).ok();
        let took = begin.elapsed();
        println!("held: removed in {took:?}, adopted: {is_adopted}");
        assert!(took < REMOVED_WITHIN, "{took:?}");
        // Where its daemon was killed it is somebody else's child, who may take his time to bury it.
        let stat = fs::read_to_string(format!("/proc/{}/stat", held.as_raw_nonzero()));
        let is_gone = stat.map_or(true, |stat| {
            stat.rsplit(')')
                .next()
                .is_some_and(|rest| rest.trim_start().starts_with('Z'))
        });
        assert!(is_gone);
        assert_eq!(daemon.entries("vms"), Vec::<String>::new());
    }
    daemon.clear();
    Verdict::Passed
}
