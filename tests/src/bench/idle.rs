//! What banger takes while nothing happens.

use std::fs;

use crate::stand::{Stand, VM};
use crate::table::Table;

pub(crate) fn measure(stand: &Stand, table: &mut Table) {
    let daemon = || {
        let pid = stand.daemon.pid().as_raw_nonzero();
        fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap()
    };
    let used = daemon();
    stand.daemon.stop();
    stand.daemon.start_again();
    stand.sh("true");
    let fresh = daemon();
    let vmm = crate::bare::pid(&stand.daemon, VM);
    let vmm = fs::read_to_string(format!("/proc/{vmm}/smaps_rollup")).unwrap();
    let agent = stand.sh("cat /proc/1/smaps_rollup");
    for (what, text) in [
        ("bangerd with one VM, idle, after a restart", fresh),
        (
            "bangerd, idle, after a kernel import and all of the above",
            used,
        ),
        ("the agent in a guest, idle", agent),
        ("QEMU of a 1 GiB VM, idle", vmm),
    ] {
        let words = format!(
            "{:.1} MiB RSS, {:.1} MiB PSS",
            field(&text, "Rss:"),
            field(&text, "Pss:")
        );
        table.line(what, words, String::new(), String::new());
    }
}

/// A field of `smaps_rollup`, MiB.
fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}
