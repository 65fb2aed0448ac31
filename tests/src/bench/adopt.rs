//! A daemon that is killed and started again over running VMs: how long until it has taken all up, and whether what
//! runs in them notices.

use std::time::Instant;

use banger_sdk::{Client, Command, Event, SignalTarget};
use futures::StreamExt as _;

use crate::fleet;
use crate::stand::{Stand, block};
use crate::table::{Figures, Table};

const ROUNDS: usize = 5;
/// Counts, each number with the guest's own time.
const COUNTER: &str =
    "i=0; while :; do read up idle < /proc/uptime; echo $i $up; i=$((i+1)); sleep 0.1; done";

pub(crate) fn measure(stand: &Stand, table: &mut Table) {
    let sessions = block(async {
        let client = stand.daemon.client().await;
        fleet::create(stand, &client).await;
        let mut sessions = Vec::new();
        for name in fleet::names() {
            let command = Command::new(["/bin/sh", "-c", COUNTER]);
            sessions.push(client.sessions().start(name, command).await.unwrap().id);
        }
        sessions
    });
    let mut figures = Figures::default();
    for _ in 0..ROUNDS {
        stand.daemon.kill();
        let begin = Instant::now();
        // It takes up what it finds before it serves.
        stand.daemon.start_again();
        figures.add_ms(begin.elapsed());
        let running = block(async { stand.daemon.client().await.host_info().await });
        let running = usize::try_from(running.unwrap().running_vm_count).unwrap();
        assert!(running >= fleet::SIZE, "{running} VMs run");
    }
    let pauses = block(async {
        let client = stand.daemon.client().await;
        let mut pauses = Figures::default();
        for session in &sessions {
            pauses.add(longest_pause(&client, session).await);
        }
        fleet::delete(&client).await;
        pauses
    });
    table.line(
        "bangerd killed and started again over 8 VMs, until all are taken up",
        figures.text("ms"),
        String::new(),
        String::new(),
    );
    let text = format!(
        "none lost; the longest between two counts {:.2} s",
        pauses.at(1.0)
    );
    table.line(
        "a counter in each of them meanwhile",
        text,
        String::new(),
        String::new(),
    );
}

/// The longest time between two numbers of a counter, of which none may be missing, seconds.
async fn longest_pause(client: &Client, session: &str) -> f64 {
    let group = SignalTarget::Group;
    client.sessions().signal(session, 9, group).await.unwrap();
    let mut log = client.sessions().log(session).stream();
    let mut text = Vec::new();
    while let Some(event) = log.next().await {
        match event.unwrap() {
            Event::Output(output) => text.extend_from_slice(&output.data),
            Event::Gap(gap) => panic!("output was lost: {gap:?}"),
            _ => {}
        }
    }
    let text = String::from_utf8(text).unwrap();
    let mut last: Option<f64> = None;
    let mut longest: f64 = 0.0;
    for (expected, line) in text.lines().enumerate() {
        let (number, time) = line.split_once(' ').unwrap();
        assert_eq!(number, expected.to_string(), "a count is missing");
        let time: f64 = time.parse().unwrap();
        longest = longest.max(time - last.unwrap_or(time));
        last = Some(time);
    }
    assert!(last.is_some(), "it never counted");
    longest
}
