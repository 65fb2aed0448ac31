//! Sessions: they go on without a client, and no byte of theirs is lost unsaid.

use std::time::Duration;

use banger_e2e::command::until;
use banger_e2e::{Case, DaemonOptions, Lane, Verdict};
use banger_sdk::{Command, Event, Outcome, ReadFrom, SignalTarget};
use futures::{StreamExt, TryStreamExt};

use crate::suite::{LONG, Suite, VM, block, refused};

/// What a reader that stops may cost the daemon and the agent.
const READER_COST_KIB: u64 = 48 << 10;
/// Sessions that run at once in one VM.
const MANY: usize = 200;
/// Much more than any buffer on the way holds.
const FLOOD_BYTES: i64 = 96 << 20;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_session_goes_on_without_its_client",
            lane: Lane::Shared,
            test: life,
        },
        Case {
            name: "following_a_log_ends_with_the_session_and_has_all",
            lane: Lane::Shared,
            test: follow,
        },
        Case {
            name: "replay_from_an_offset_gives_the_same_bytes",
            lane: Lane::Shared,
            test: replay,
        },
        Case {
            name: "what_a_log_no_longer_keeps_is_told",
            lane: Lane::Shared,
            test: gap,
        },
        Case {
            name: "a_log_keeps_on_the_disk_what_the_memory_cannot_and_the_vm_stops_clean",
            lane: Lane::Own,
            test: spilled,
        },
        Case {
            name: "what_is_killed_for_want_of_memory_says_so_and_the_vm_goes_on",
            lane: Lane::Own,
            test: out_of_memory,
        },
        Case {
            name: "a_log_is_read_from_its_last_lines_and_from_a_time",
            lane: Lane::Shared,
            test: tail,
        },
        Case {
            name: "a_process_has_the_streams_umask_and_limits_it_is_given",
            lane: Lane::Shared,
            test: process,
        },
        Case {
            name: "who_steals_a_session_detaches_the_other_writer",
            lane: Lane::Shared,
            test: steal,
        },
        Case {
            name: "a_signal_reaches_the_whole_group",
            lane: Lane::Shared,
            test: group,
        },
        Case {
            name: "children_of_a_removed_session_die_with_it",
            lane: Lane::Shared,
            test: children,
        },
        Case {
            name: "a_reader_that_stops_costs_bounded_memory_and_loses_nothing",
            lane: Lane::Shared,
            test: slow_reader,
        },
        Case {
            name: "many_sessions_at_once_keep_their_output_apart",
            lane: Lane::Shared,
            test: many,
        },
    ]
}

/// Starts a session of the shared VM by the command, and returns its id.
fn start(suite: &Suite, options: &[&str], script: &str) -> String {
    suite.vm();
    let words = ["session", "start", "--quiet"]
        .into_iter()
        .chain(options.iter().copied());
    suite
        .banger(words.chain([VM, "--", "sh", "-c", script]))
        .ok()
        .out()
}

fn life(suite: &Suite) -> Verdict {
    let id = start(
        suite,
        &["-i"],
        "echo begun; read line; echo got $line; exit 3",
    );
    let listed = suite
        .banger(["session", "list", VM, "--output", "json"])
        .ok()
        .json();
    let listed = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|session| session["id"] == id.as_str())
        .unwrap();
    assert_eq!(listed["state"], "running", "{listed}");
    let done = suite
        .banger(["session", "attach", &id])
        .stdin("a line\n")
        .done();
    assert_eq!(
        (done.code(), done.out()),
        (3, "begun\ngot a line".into()),
        "{}",
        done.said()
    );
    let again = suite.banger(["session", "log", &id]).ok().out();
    assert_eq!(again, "begun\ngot a line");
    let part = suite
        .banger(["session", "log", &id, "--offset", "6"])
        .ok()
        .out();
    assert_eq!(part, "got a line");
    assert_eq!(suite.banger(["session", "wait", &id]).done().code(), 3);
    suite.banger(["session", "remove", &id]).ok();
    refused(
        suite.banger(["session", "log", &id]),
        125,
        "SESSION_NOT_FOUND",
    );
    Verdict::Passed
}

fn follow(suite: &Suite) -> Verdict {
    let id = start(
        suite,
        &[],
        "for i in 1 2 3 4 5; do echo line $i; sleep 0.3; done; echo err >&2",
    );
    let done = suite.banger(["session", "log", "--follow", &id]).ok();
    assert_eq!(done.out(), "line 1\nline 2\nline 3\nline 4\nline 5");
    assert_eq!(done.err(), "err");
    let only = suite
        .banger(["session", "log", "--stream", "stderr", &id])
        .ok();
    assert_eq!((only.out(), only.err()), (String::new(), "err".into()));
    suite.banger(["session", "remove", &id]).ok();
    Verdict::Passed
}

/// A log's output from an offset, and the offset after it.
async fn read(client: &banger_sdk::Client, id: &str, from: ReadFrom) -> (Vec<u8>, i64, i64) {
    let mut log = client.sessions().log(id).from(from).follow().stream();
    let (mut bytes, mut lost, mut end) = (Vec::new(), 0, 0);
    while let Some(event) = log.next().await {
        match event.unwrap() {
            Event::Output(output) => {
                bytes.extend_from_slice(&output.data);
                end = output.offset + i64::try_from(output.data.len()).unwrap();
            }
            Event::Gap(gap) => {
                lost += gap.lost_bytes;
                end = gap.offset + gap.lost_bytes;
            }
            Event::Screen(_) | Event::Exited(_) => {}
        }
    }
    (bytes, lost, end)
}

fn replay(suite: &Suite) -> Verdict {
    let id = start(suite, &[], "head -c 400000 /dev/urandom; echo; seq 1 5000");
    block(async {
        let client = suite.daemon().client().await;
        let (all, lost, end) = read(&client, &id, ReadFrom::Oldest).await;
        assert_eq!((lost, end), (0, i64::try_from(all.len()).unwrap()));
        for from in [0_usize, 1, 65_536, 399_999, all.len() - 1, all.len()] {
            let offset = ReadFrom::Offset(i64::try_from(from).unwrap());
            let (part, lost, _) = read(&client, &id, offset).await;
            assert_eq!(lost, 0);
            assert!(part == all[from..], "the bytes from {from} are the same");
        }
        client.sessions().delete(&id).await.unwrap();
    });
    Verdict::Passed
}

fn gap(suite: &Suite) -> Verdict {
    // More than the memory and the disk keep.
    let total = 70 << 20;
    let id = start(
        suite,
        &[],
        &format!("head -c {total} /dev/zero | tr '\\0' x"),
    );
    block(async {
        let client = suite.daemon().client().await;
        client.sessions().wait(&id).await.unwrap();
        let (kept, lost, end) = read(&client, &id, ReadFrom::Offset(0)).await;
        assert_eq!(end, total);
        assert!(lost > 0, "a log of {total} bytes is not kept whole");
        assert_eq!(
            lost + i64::try_from(kept.len()).unwrap(),
            total,
            "each byte is there or told as lost"
        );
        client.sessions().delete(&id).await.unwrap();
    });
    Verdict::Passed
}

fn out_of_memory(suite: &Suite) -> Verdict {
    let daemon = suite.own_daemon("own/memory", DaemonOptions::default());
    let (name, reference) = ("small", suite.reference());
    let create = ["vm", "create", &reference, "--name", name];
    let small = ["--memory", "256M", "--network", "none"];
    daemon
        .banger([&create[..], &small].concat())
        .timeout(LONG)
        .ok();
    let sh = |script: &str| {
        let words = ["vm", "exec", name, "--", "sh", "-c", script];
        daemon.banger(words).timeout(LONG).done()
    };
    let session = |script: &str| {
        let words = [
            "session", "start", "--quiet", name, "--", "sh", "-c", script,
        ];
        daemon.banger(words).timeout(LONG).ok().out()
    };
    let bystander = session("exec sleep 100000");
    // Nearly all there is in one go, by the kernel: what asks for a little at a time first has all else read again and again.
    let size = "$(awk '/^MemTotal/ { print int($2 * 0.95) }' /proc/meminfo)k";
    let greedy = format!("exec dd if=/dev/zero of=/dev/null count=1 bs={size} 2>/dev/null");
    let greedy = greedy.as_str();
    let done = sh(greedy);
    assert_eq!(done.code(), 128 + 9, "{}", done.said());
    let told = done.err();
    assert!(told.contains("killed for want of memory"), "{told}");
    let id = session(greedy);
    block(async {
        let client = daemon.client().await;
        let exit = client.sessions().wait(&id).await;
        assert_eq!(Outcome::of(&exit).reason(), "KILLED_BY_OOM");
    });
    // The VM goes on, with all that ran in it.
    let shown = ["session", "inspect", &bystander, "--output", "json"];
    let shown = daemon.banger(shown).ok().json();
    assert_eq!(shown["state"], "running", "{shown:#}");
    assert_eq!(sh("echo here").out(), "here");
    daemon.clear();
    Verdict::Passed
}

fn spilled(suite: &Suite) -> Verdict {
    let daemon = suite.own_daemon("own/spill", DaemonOptions::default());
    let name = "spill";
    let reference = suite.reference();
    let create = [
        "vm",
        "create",
        &reference,
        "--name",
        name,
        "--network",
        "none",
    ];
    daemon.banger(create).timeout(LONG).ok();
    let run = |words: &[&str]| daemon.banger(words).timeout(LONG).ok().out();
    let script = "seq 1 2000000";
    let id = run(&[
        "session", "start", "--quiet", name, "--", "sh", "-c", script,
    ]);
    daemon.banger(["session", "wait", &id]).timeout(LONG).ok();
    block(async {
        let client = daemon.client().await;
        let (bytes, lost, _) = read(&client, &id, ReadFrom::Oldest).await;
        let expected: String = (1..=2_000_000)
            .map(|number| format!("{number}\n"))
            .collect();
        assert_eq!(lost, 0);
        assert!(
            bytes == expected.as_bytes(),
            "{} bytes of {}",
            bytes.len(),
            expected.len()
        );
    });
    let tail = run(&["session", "log", "--tail", "2", &id]);
    assert_eq!(tail, "1999999\n2000000");
    // An open file would keep the disk from being marked clean, which the agent then says.
    run(&["vm", "stop", name]);
    let console = run(&["vm", "console", name]);
    assert!(!console.contains("stays writable"), "{console}");
    daemon.clear();
    Verdict::Passed
}

fn tail(suite: &Suite) -> Verdict {
    let id = start(suite, &["-i"], "seq 1 100; read line; echo late");
    let log = |words: &[&str]| {
        suite
            .banger(["session", "log"])
            .args(words)
            .arg(&id)
            .ok()
            .out()
    };
    until("the first part is written", LONG, || {
        log(&["--tail", "1"]) == "100"
    });
    // A moment in whole seconds that is after it.
    let now = suite
        .sh("sleep 1.1; date -u +%Y-%m-%dT%H:%M:%SZ")
        .ok()
        .out();
    suite
        .banger(["session", "attach", "--no-replay", &id])
        .stdin("\n")
        .ok();
    assert_eq!(log(&["--tail", "2"]), "100\nlate");
    assert_eq!(log(&["--since", &now]), "late");
    assert!(log(&["--since", "1h"]).starts_with("1\n2\n"));
    suite.banger(["session", "remove", &id]).ok();
    Verdict::Passed
}

fn process(suite: &Suite) -> Verdict {
    let options = [
        "--merge-output",
        "--umask",
        "077",
        "--ulimit",
        "nofile=123:456",
        "--user",
        "app",
    ];
    let script = "echo out; echo err >&2; umask; ulimit -n; ulimit -Hn; id -un";
    let done = suite.exec(&options, script).ok();
    assert_eq!(
        (done.out(), done.err()),
        ("out\nerr\n0077\n123\n456\napp".into(), String::new())
    );
    let id = start(
        suite,
        &["--keep-children"],
        "setsid sleep 3000 >/dev/null 2>&1 & exit 4",
    );
    assert_eq!(suite.banger(["session", "wait", &id]).done().code(), 4);
    let shown = suite
        .banger(["session", "inspect", &id, "--output", "json"])
        .ok()
        .json();
    assert_eq!(shown["usage"]["process_count"], 1, "{shown}");
    suite.banger(["session", "remove", &id]).ok();
    assert_eq!(suite.sh("pidof sleep | wc -w").ok().out(), "0");
    Verdict::Passed
}

fn steal(suite: &Suite) -> Verdict {
    let id = start(suite, &["-i"], "cat");
    block(async {
        let client = suite.daemon().client().await;
        let mut first = client.sessions().attach(&id).await.unwrap();
        let second = client.sessions().attach(&id).steal().await.unwrap();
        let error = loop {
            match first.next().await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason(), "WRITER_REPLACED", "{error}");
        let input = second.input();
        input.write("mine\n").await.unwrap();
        input.close();
        let output = second.output().await.unwrap();
        assert_eq!(output.stdout, b"mine\n");
    });
    suite.banger(["session", "remove", &id]).ok();
    Verdict::Passed
}

fn group(suite: &Suite) -> Verdict {
    let id = start(suite, &[], "/bin/sleep 1000 & /bin/sleep 1000; wait");
    block(async {
        let client = suite.daemon().client().await;
        client
            .sessions()
            .signal(&id, 15, SignalTarget::Group)
            .await
            .unwrap();
        let exit = client.sessions().wait(&id).await.unwrap();
        assert_eq!(exit.how, Some(banger_sdk::types::exit::How::Signal(15)));
    });
    let left = suite.sh("pidof sleep | wc -w").ok().out();
    assert_eq!(left, "0");
    suite.banger(["session", "remove", &id]).ok();
    Verdict::Passed
}

fn children(suite: &Suite) -> Verdict {
    let id = start(
        suite,
        &[],
        "setsid /bin/sleep 2000 & trap '' TERM HUP INT; /bin/sleep 2000",
    );
    until("the session's children run", LONG, || {
        suite.sh("pidof sleep | wc -w").ok().out() == "2"
    });
    suite.banger(["session", "remove", &id]).ok();
    assert_eq!(suite.sh("pidof sleep | wc -w").ok().out(), "0");
    Verdict::Passed
}

/// The resident memory of a process, from the text of its `status`, KiB.
fn resident(status: &str) -> u64 {
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn slow_reader(suite: &Suite) -> Verdict {
    let daemon = || {
        let pid = suite.daemon().pid().as_raw_nonzero();
        resident(&std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap())
    };
    let agent = || resident(&suite.sh("cat /proc/1/status").ok().out());
    let before = (daemon(), agent());
    let total = block(async {
        let client = suite.daemon().client().await;
        let command = Command::new(["sh", "-c", &format!("head -c {FLOOD_BYTES} /dev/zero")]);
        let mut process = client.sessions().exec(VM, command).await.unwrap();
        // A level would be better, but what is waited for is that nothing more happens.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let now = (daemon(), agent());
        println!(
            "  a reader that stopped: bangerd {} -> {} KiB, agent {} -> {} KiB",
            before.0, now.0, before.1, now.1
        );
        assert!(
            now.0 < before.0 + READER_COST_KIB,
            "bangerd grew from {} to {} KiB",
            before.0,
            now.0
        );
        assert!(
            now.1 < before.1 + READER_COST_KIB,
            "the agent grew from {} to {} KiB",
            before.1,
            now.1
        );
        let mut total = 0;
        while let Some(event) = process.next().await.unwrap() {
            match event {
                Event::Output(output) => total += i64::try_from(output.data.len()).unwrap(),
                Event::Gap(gap) => panic!("{} bytes were lost", gap.lost_bytes),
                Event::Screen(_) | Event::Exited(_) => {}
            }
        }
        total
    });
    assert_eq!(total, FLOOD_BYTES);
    Verdict::Passed
}

/// All of them run at once: each waits for a line, which comes when the last has begun.
fn many(suite: &Suite) -> Verdict {
    suite.vm();
    block(async {
        let client = suite.daemon().client().await;
        let sessions = client.sessions();
        let mut processes = Vec::new();
        for number in 0..MANY {
            let script = format!("read line; for i in 1 2 3; do echo {number} $i $line; done");
            let command = Command::new(["sh", "-c", &script]).stdin();
            processes.push(sessions.exec(VM, command).await.unwrap());
        }
        let listed: Vec<_> = sessions.list(VM).try_collect().await.unwrap();
        let running = listed.iter().filter(|session| session.exit.is_none());
        assert!(running.count() >= MANY, "{}", listed.len());
        let ends = processes
            .into_iter()
            .enumerate()
            .map(|(number, process)| async move {
                process.input().write("go\n").await.unwrap();
                let output = process.output().await.unwrap();
                let expected: String = (1..=3).map(|i| format!("{number} {i} go\n")).collect();
                assert_eq!(output.stdout, expected.into_bytes());
            });
        futures::future::join_all(ends).await;
    });
    Verdict::Passed
}
