//! Eight VMs at once, through the SDK.

use std::time::{Duration, Instant};

use banger_e2e::Daemon;
use banger_sdk::{Client, Command, NetworkMode};
use futures::future::join_all;

use crate::stand::Stand;

/// How many.
pub(crate) const SIZE: usize = 8;

/// The names of a fleet.
pub(crate) fn names() -> Vec<String> {
    (0..SIZE).map(|number| format!("fleet-{number}")).collect()
}

/// Makes a fleet at once, and lets a command run in each; the times until each was ready and had run it.
pub(crate) async fn create(stand: &Stand, client: &Client) -> Vec<(Duration, Duration)> {
    let begin = Instant::now();
    let one = |name: String| async move {
        let create = client.vms().create(&stand.reference).name(&name);
        let create = create.memory_mib(512).network(NetworkMode::None);
        create.await.unwrap();
        let ready = begin.elapsed();
        let command = Command::new(["/bin/echo", "first-output"]);
        let echo = client.sessions().exec(&name, command).await.unwrap();
        let output = echo.output().await.unwrap();
        assert_eq!(output.stdout, b"first-output\n".as_slice());
        (ready, begin.elapsed())
    };
    join_all(names().into_iter().map(one)).await
}

/// Removes a fleet at once.
pub(crate) async fn delete(client: &Client) {
    let one = |name: String| async move { client.vms().delete(name).await.unwrap() };
    join_all(names().into_iter().map(one)).await;
}

/// A field of a process's `smaps_rollup`, KiB.
pub(crate) fn resident_kib(daemon: &Daemon) -> f64 {
    let pid = daemon.pid().as_raw_nonzero();
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
