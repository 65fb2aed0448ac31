//! What VMs use, who listens in them, and what happens on the host.

use banger_e2e::command::until;
use banger_e2e::{Case, Lane, Verdict};
use serde_json::Value;

use crate::suite::{LONG, Suite, VM};
use crate::terminal::{Terminal, size};

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_busy_vm_uses_processor_time_on_host_and_guest",
            lane: Lane::Shared,
            test: stats,
        },
        Case {
            name: "a_listener_is_found_with_its_process_and_its_page",
            lane: Lane::Shared,
            test: ports,
        },
        Case {
            name: "the_life_of_a_vm_is_told_in_order",
            lane: Lane::Shared,
            test: events,
        },
        Case {
            name: "the_live_table_fits_its_terminal_and_gives_it_back",
            lane: Lane::Shared,
            test: top,
        },
        Case {
            name: "a_console_ends_with_its_last_lines",
            lane: Lane::Shared,
            test: tail,
        },
    ]
}

fn json(suite: &Suite, words: &[&str]) -> Value {
    let words = words.iter().copied().chain(["--output", "json"]);
    suite.banger(words).ok().json()
}

/// Starts a script in the shared VM that goes on, and returns its session.
fn start(suite: &Suite, script: &str) -> String {
    suite.vm();
    let words = ["session", "start", "--quiet", VM, "--", "sh", "-c", script];
    suite.banger(words).ok().out()
}

fn number(value: &Value) -> i64 {
    value
        .as_i64()
        .unwrap_or_else(|| panic!("{value} is a number"))
}

fn stats(suite: &Suite) -> Verdict {
    let session = start(suite, "while :; do :; done");
    let before = json(suite, &["vm", "stats", VM]);
    until("the busy loop is seen on both sides", LONG, || {
        let now = json(suite, &["vm", "stats", VM]);
        let grown = |pointer: &str| {
            let of = |stats: &Value| number(stats.pointer(pointer).unwrap_or(&Value::Null));
            of(&now) - of(&before)
        };
        // A second of it, of which a busy machine may give the guest little.
        grown("/host/cpu_time_ms") > 500 && grown("/guest/cpu/user_ms") > 100
    });
    let busy = json(suite, &["vm", "stats", VM]);
    suite.banger(["session", "remove", &session]).ok();
    assert!(
        busy["host"]["cpu_percent"].as_f64().unwrap() > 0.0,
        "{busy:#}"
    );
    assert_eq!(busy["guest_error"], Value::Null, "{busy:#}");
    let (host, guest) = (&busy["host"], &busy["guest"]);
    let memory = number(&guest["memory_total_bytes"]);
    assert!((256 << 20..=512 << 20).contains(&memory), "{busy:#}");
    assert!(
        number(&guest["memory_available_bytes"]) < memory,
        "{busy:#}"
    );
    assert!(number(&host["rss_bytes"]) > 32 << 20, "{busy:#}");
    assert!(number(&host["thread_count"]) > 0, "{busy:#}");
    assert!(number(&guest["process_count"]) >= 2, "{busy:#}");
    assert!(number(&guest["uptime_ms"]) > 0, "{busy:#}");
    assert_eq!(guest["interfaces"][0]["name"], "eth0", "{busy:#}");
    let size = number(&busy["disk_size_bytes"]);
    assert!(number(&busy["disk_allocated_bytes"]) < size, "{busy:#}");
    assert!(number(&guest["disk_total_bytes"]) <= size, "{busy:#}");
    assert!(number(&guest["disk_used_bytes"]) < size / 2, "{busy:#}");
    let drives = host["drives"].as_array().unwrap();
    assert!(
        drives.iter().any(|drive| number(&drive["read_bytes"]) > 0),
        "the guest has read its base disk: {busy:#}"
    );
    Verdict::Passed
}

fn ports(suite: &Suite) -> Verdict {
    let page = "<html><title>Hello &amp; welcome</title></html>";
    let script = format!(
        "mkdir -p /tmp/www && echo '{page}' > /tmp/www/index.html && exec busybox httpd -f -p 8099 -h /tmp/www"
    );
    let session = start(suite, &script);
    let found = || {
        let ports = json(suite, &["vm", "ports", VM, "--probe"]);
        let ports = ports.as_array().unwrap().clone();
        ports.into_iter().find(|port| port["port"] == 8099)
    };
    until("the listener is found and asked", LONG, || {
        found().is_some_and(|port| port["http"] != Value::Null)
    });
    let port = found().unwrap();
    let inspected = json(suite, &["session", "inspect", &session]);
    assert_eq!(port["protocol"], "tcp", "{port}");
    assert_eq!(
        port["process"]["pid"], inspected["pid"],
        "{port} {inspected}"
    );
    assert_eq!(port["process"]["uid"], 0, "{port}");
    assert_eq!(
        port["http"],
        serde_json::json!({ "status": 200, "title": "Hello & welcome" })
    );
    suite.banger(["session", "remove", &session]).ok();
    until("the listener is gone with its session", LONG, || {
        found().is_none()
    });
    Verdict::Passed
}

fn events(suite: &Suite) -> Verdict {
    let reference = suite.reference();
    suite.vm();
    let create = [
        "vm", "create", &reference, "--name", "told", "--memory", "256M",
    ];
    suite.banger(create).ok();
    suite.banger(["vm", "stop", "told"]).ok();
    suite.banger(["vm", "remove", "told"]).ok();
    let lines = suite.banger(["events", "--output", "json"]).ok().out();
    let items: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (snapshot, events) = items.split_last().unwrap();
    assert_eq!(snapshot["type"], "snapshot");
    assert_eq!(snapshot["dropped_count"], 0);
    let sequences: Vec<i64> = events
        .iter()
        .map(|event| number(&event["sequence"]))
        .collect();
    let expected: Vec<i64> = (sequences[0]..).take(sequences.len()).collect();
    assert_eq!(sequences, expected);
    assert_eq!(sequences.last(), snapshot["sequence"].as_i64().as_ref());
    let moves: Vec<String> = events
        .iter()
        .filter(|event| event["vm"]["name"] == "told")
        .map(|event| {
            let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let vm = &event["vm"];
            let words = [&event["kind"], &vm["from"], &vm["to"], &vm["reason"]];
            words.map(word).join(" ").trim_end().to_owned()
        })
        .collect();
    assert_eq!(
        moves,
        [
            "vm-created - creating",
            "vm-state-changed creating running",
            "vm-state-changed running stopping",
            "vm-state-changed stopping stopped agent",
            "vm-state-changed stopped deleting",
            "vm-deleted deleting -",
        ]
    );
    let shared: Vec<&Value> = snapshot["vms"].as_array().unwrap().iter().collect();
    assert!(
        shared
            .iter()
            .any(|vm| vm["name"] == VM && vm["state"] == "running"),
        "{snapshot}"
    );
    Verdict::Passed
}

fn top(suite: &Suite) -> Verdict {
    suite.vm();
    let once = json(suite, &["vm", "top", "--once"]);
    let row = once
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == VM);
    assert!(
        row.is_some_and(|row| row["host"]["cpu_percent"].is_number()),
        "{once:#}"
    );
    let mut terminal = Terminal::open(suite, &["vm", "top", "--interval", "500ms"]);
    terminal.see("sorted by cpu");
    terminal.see(VM);
    assert!(!terminal.is_cooked());
    terminal.type_in("m");
    terminal.see("sorted by memory");
    terminal.resize(size(10, 60));
    terminal.type_in("n");
    terminal.see("sorted by name");
    let text = terminal.text();
    assert!(text.contains("\u{1b}[?1049h"), "it takes the other screen");
    assert!(!text.contains("\u{1b}[?1049l"), "and keeps it: {text}");
    terminal.type_in("\u{3}");
    terminal.see("\u{1b}[?25h\u{1b}[?1049l");
    assert!(terminal.is_cooked());
    assert_eq!(terminal.end(), 0);
    Verdict::Passed
}

fn tail(suite: &Suite) -> Verdict {
    suite
        .sh("for i in 1 2 3; do echo line-$i-of-the-tail > /dev/console; done")
        .ok();
    let out = suite
        .banger(["vm", "console", VM, "--tail", "2"])
        .ok()
        .out();
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    assert_eq!(lines, ["line-2-of-the-tail", "line-3-of-the-tail"], "{out}");
    Verdict::Passed
}
