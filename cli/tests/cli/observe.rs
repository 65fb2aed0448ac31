//! What VMs use, who listens in them, and what happens: tables, lines, JSON, and the live table in a terminal.

use portable_pty::PtySize;
use serde_json::{Value, json};

use super::fake::Fake;
use super::terminal::{SIZE, Terminal};
use super::*;

fn json_of(fake: &Fake, arguments: &[&str]) -> Value {
    let read = output(fake, &[arguments, &["--output", "json"]].concat());
    assert_eq!(code(&read), 0, "{}", text(&read.stderr));
    serde_json::from_slice(&read.stdout).unwrap()
}

fn json_lines(output: &Output) -> Vec<Value> {
    let lines = text(&output.stdout).lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn stats_in_json_keep_their_shape() {
    let fake = with_vm();
    let expected = json!({
        "vm": "00000000-0000-7000-8000-000000000001",
        "name": "web",
        "state": "running",
        "time": "2023-11-14T22:13:20Z",
        "host": {
            "cpu_time_ms": 12_000,
            "cpu_percent": 12.5,
            "rss_bytes": 100 << 20,
            "pss_bytes": 90 << 20,
            "thread_count": 4,
            "drives": [{
                "name": "upper", "read_bytes": 4096, "written_bytes": 8192, "read_count": 1, "write_count": 2
            }],
            "read_bytes_per_second": 1024.0,
            "written_bytes_per_second": 2048.0
        },
        "guest": {
            "memory_total_bytes": 512 << 20,
            "memory_available_bytes": 384 << 20,
            "memory_cached_bytes": 64 << 20,
            "load_1m": 0.25,
            "load_5m": 0.0,
            "load_15m": 0.0,
            "uptime_ms": 3_661_000,
            "cpu": { "user_ms": 5000, "system_ms": 0, "idle_ms": 0, "io_wait_ms": 0, "steal_ms": 0 },
            "disk_total_bytes": 8_589_934_592_i64,
            "disk_used_bytes": 1_073_741_824,
            "process_count": 7,
            "interfaces": [{ "name": "eth0", "received_bytes": 500, "sent_bytes": 700 }]
        },
        "guest_error": null,
        "disk_size_bytes": 8_589_934_592_i64,
        "disk_allocated_bytes": 20 << 20,
        "disk_error": null
    });
    assert_eq!(json_of(&fake, &["vm", "stats", "web"]), expected);
    assert_eq!(json_of(&fake, &["vm", "top", "--once"]), json!([expected]));
    let table = output(&fake, &["vm", "stats", "web"]);
    let table = text(&table.stdout);
    assert!(table.contains("CPU %:             12.5"), "{table}");
    assert!(
        table.contains("eth0: 500 B received, 700 B sent"),
        "{table}"
    );
    output(&fake, &["vm", "stop", "web"]);
    let stopped = json_of(&fake, &["vm", "stats", "web"]);
    assert_eq!(
        (&stopped["host"], &stopped["guest"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn the_table_is_printed_once_sorted_as_asked() {
    let fake = Fake::start();
    for name in ["a", "b", "c"] {
        output(&fake, &["vm", "create", "debian", "--name", name, "-q"]);
    }
    let names = |sort| {
        text(&output(&fake, &["vm", "top", "--once", "-q", "--sort", sort]).stdout).to_owned()
    };
    assert_eq!(names("cpu"), "c\nb\na\n");
    assert_eq!(
        names("memory"),
        "a\nb\nc\n",
        "what is equal is sorted by name"
    );
    let table = output(&fake, &["vm", "top", "--once"]);
    let table = text(&table.stdout);
    assert!(
        table.starts_with("NAME   STATE     CPU%   MEMORY"),
        "{table}"
    );
    assert!(
        table.contains("c      running   32.5   128.00 MiB / 512.00 MiB   100.00 MiB"),
        "{table}"
    );
    let piped = output(&fake, &["vm", "top"]);
    assert_eq!(code(&piped), 125);
    assert!(
        text(&piped.stderr).contains("--once"),
        "{}",
        text(&piped.stderr)
    );
}

#[test]
fn the_live_table_is_drawn_sorted_resized_and_taken_away() {
    let fake = with_vm();
    let mut terminal = Terminal::start(&fake, &["vm", "top", "--interval", "500ms"]);
    terminal.wait_for("\x1b[?1049h\x1b[?25l");
    terminal.wait_for("1 VMs, 1 running; every 500ms; sorted by cpu");
    terminal.wait_for("web    running");
    assert!(!terminal.is_cooked());
    terminal.type_keys(b"d");
    terminal.wait_for("sorted by disk");
    let narrow = PtySize { cols: 20, ..SIZE };
    terminal.master.resize(narrow).unwrap();
    terminal.wait_for("\x1b[Hbanger: 1 VMs, 1 run\x1b[K");
    terminal.type_keys(b"q");
    assert_eq!(terminal.end(), 0);
    terminal.wait_for("\x1b[?25h\x1b[?1049l");
    assert!(terminal.is_cooked());
}

#[test]
fn a_terminated_live_table_gives_the_terminal_back() {
    let fake = with_vm();
    let mut terminal = Terminal::start(&fake, &["vm", "top"]);
    terminal.wait_for("web    running");
    let pid = i32::try_from(terminal.child.process_id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(terminal.end(), 143);
    terminal.wait_for("\x1b[?25h\x1b[?1049l");
    assert!(terminal.is_cooked());
}

#[test]
fn ports_are_a_table_or_json() {
    let fake = with_vm();
    let table = output(&fake, &["vm", "ports", "web", "--probe"]);
    let lines: Vec<&str> = text(&table.stdout).lines().collect();
    assert_eq!(
        lines[1],
        "tcp        0.0.0.0   8080   7     httpd     1000   200 Hello"
    );
    assert_eq!(lines[2], "udp        ::1       53                     0");
    assert_eq!(
        json_of(&fake, &["vm", "ports", "web"])[0],
        json!({
            "protocol": "tcp", "address": "0.0.0.0", "port": 8080, "uid": 1000,
            "process": { "pid": 7, "name": "httpd", "uid": 1000 }, "http": null
        })
    );
}

#[test]
fn kept_events_are_shown_and_followed_ones_go_on() {
    let fake = with_vm();
    let kept = output(&fake, &["events"]);
    assert_eq!(
        text(&kept.stdout),
        "2023-11-14T22:13:21Z  1  vm-state-changed  web  running → failed (VM_ENDED)\n\
         2023-11-14T22:13:22Z  2  vm-state-changed  web  running → failed (VM_ENDED)\n"
    );
    let kept = json_lines(&output(&fake, &["events", "--output", "json"]));
    assert_eq!(
        kept[0],
        json!({
            "type": "event", "sequence": 1, "time": "2023-11-14T22:13:21Z", "kind": "vm-state-changed",
            "vm": {
                "id": "00000000-0000-7000-8000-000000000001", "name": "web",
                "from": "running", "to": "failed", "reason": "VM_ENDED"
            }
        })
    );
    assert_eq!(kept.len(), 3);
    assert_eq!(
        kept[2],
        json!({
            "type": "snapshot", "epoch": "epoch-1", "sequence": 2, "dropped_count": 0,
            "vms": [{ "id": "00000000-0000-7000-8000-000000000001", "name": "web", "state": "running" }]
        })
    );
    let mut terminal =
        Terminal::start(&fake, &["events", "--follow", "--kind", "vm-state-changed"]);
    terminal.wait_for("  3  vm-state-changed  web");
    terminal.type_keys(b"\x03");
    terminal.end();
}

#[test]
fn a_console_ends_with_its_last_lines() {
    let fake = with_vm();
    let tail = output(&fake, &["vm", "console", "web", "--tail", "1"]);
    assert_eq!(text(&tail.stdout), "agent ready\r\n");
    let both = output(
        &fake,
        &["vm", "console", "web", "--tail", "1", "--offset", "0"],
    );
    assert_eq!(code(&both), 125);
}
