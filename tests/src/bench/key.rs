//! How long a key press takes to be seen: from a terminal's byte to its echo by the guest's kernel.

use std::time::{Duration, Instant};

use banger_sdk::{Command, Event};
use futures::TryStreamExt as _;

use crate::channel::{RawGuest, beside_calls};
use crate::stand::{Stand, VM, block};
use crate::table::{Figures, Table};

/// Rounds, in turns.
const ROUNDS: usize = 5;
/// Key presses per round.
const KEYS: usize = 40;
/// Between two of them, as fast fingers do it: one by one, not in bulk.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn measure(stand: &Stand, table: &mut Table) {
    let mut raw = RawGuest::boot(stand, "key", "");
    raw.greet();
    let [mut ours, mut theirs, mut calls]: [Figures; 3] = Default::default();
    block(async {
        let client = stand.daemon.client().await;
        let command = Command::new(["cat"]).terminal(24, 80);
        let mut process = client.sessions().exec(VM, command).await.unwrap();
        let input = process.input();
        for round in 0..=ROUNDS {
            for _ in 0..KEYS {
                tokio::time::sleep(PAUSE).await;
                let begin = Instant::now();
                input.write("x").await.unwrap();
                loop {
                    let event = process.next().await.unwrap();
                    if let Event::Output(output) = event.expect("cat goes on") {
                        assert_eq!(output.data, "x");
                        break;
                    }
                }
                if round > 0 {
                    ours.add_ms(begin.elapsed());
                }
            }
            for _ in 0..KEYS {
                tokio::time::sleep(PAUSE).await;
                let begin = Instant::now();
                client.sessions().list(VM).try_next().await.unwrap();
                if round > 0 {
                    calls.add_ms(begin.elapsed());
                }
            }
            for _ in 0..KEYS {
                tokio::time::sleep(PAUSE).await;
                let took = raw.echo();
                if round > 0 {
                    theirs.add_ms(took);
                }
            }
        }
    });
    table.line(
        "a key press, until its echo is there",
        ours.text("ms"),
        format!("raw 64-byte echo {}", theirs.text("ms")),
        format!("{:.1} ×", ours.median() / theirs.median()),
    );
    beside_calls(table, &ours, &calls);
}
