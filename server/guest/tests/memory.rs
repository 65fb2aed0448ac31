//! Bytes in bulk in bounded memory. One test alone in its process, because it looks at the process.
#![allow(missing_docs, clippy::unwrap_used)] // helpers of tests, outside of test functions

#[path = "guest/support/mod.rs"]
mod support;

use std::time::Duration;

use banger_core::session::{SessionEvent, SessionInput};
use bytes::Bytes;
use futures::StreamExt;
use support::{outcome, rig, shell};
use tokio::time::{sleep, timeout};

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_output_nor_input_in_bulk_costs_memory() {
    a_slow_holding_reader_gets_everything_in_bounded_memory().await;
    stdin_in_bulk_waits_for_the_process_and_arrives_whole().await;
    gigabytes_of_stdin_cost_no_more_than_megabytes().await;
}

async fn a_slow_holding_reader_gets_everything_in_bounded_memory() {
    let rig = rig().await;
    let before = resident();
    let mut session = rig
        .start(shell("head -c 100000000 /dev/zero; echo end >&2"))
        .await;
    sleep(Duration::from_millis(500)).await;
    let (mut bytes, mut pauses, mut peak) = (0, 0, 0);
    while let Some(event) = timeout(support::PATIENCE, session.events.next())
        .await
        .unwrap()
    {
        match event.unwrap() {
            SessionEvent::Output { data, .. } => bytes += data.len(),
            SessionEvent::Gap { .. } => panic!("a holding reader lost output"),
            _ => {}
        }
        if bytes / (10 * MIB) > pauses {
            pauses += 1;
            sleep(Duration::from_millis(50)).await;
            peak = peak.max(resident());
        }
    }
    assert_eq!(bytes, 100_000_004);
    assert!(
        peak.saturating_sub(before) < 40 * MIB,
        "{} MiB",
        (peak - before) / MIB
    );
}

async fn stdin_in_bulk_waits_for_the_process_and_arrives_whole() {
    const TOTAL: usize = 50 * MIB;
    let rig = rig().await;
    let before = resident();
    let mut asked = shell("sleep 0.5; wc -c; echo done");
    asked.stdin = true;
    let session = rig.start(asked).await;
    let input = session.input.clone();
    let writer = async move {
        let piece = Bytes::from(vec![7; MIB]);
        for offset in (0..TOTAL).step_by(MIB) {
            let data = piece.clone();
            input
                .send(SessionInput::Stdin {
                    offset: offset as u64,
                    data,
                })
                .await
                .unwrap();
        }
        input.send(SessionInput::CloseStdin).await.unwrap();
    };
    let watcher = async {
        sleep(Duration::from_millis(300)).await;
        resident().saturating_sub(before)
    };
    let ((), held, done) = tokio::join!(writer, watcher, outcome(session.events));
    assert_eq!(done.text(), format!("{TOTAL}\ndone\n"));
    assert_eq!(done.acked, TOTAL as u64);
    assert!(held < 30 * MIB, "{} MiB", held / MIB);
}

/// Both ends are this process: what it holds is what both hold, and the pipe between them.
async fn gigabytes_of_stdin_cost_no_more_than_megabytes() {
    const PIECES: usize = 2049;
    let rig = rig().await;
    let before = resident();
    // Slow to begin, so that whoever does not wait for it piles up what it did not take.
    let mut asked = shell("sleep 0.5; wc -c");
    asked.stdin = true;
    let session = rig.start(asked).await;
    let input = session.input.clone();
    let writer = async move {
        let (piece, mut peak) = (Bytes::from(vec![7; MIB]), 0);
        for index in 0..PIECES {
            let stdin = SessionInput::Stdin {
                offset: (index * MIB) as u64,
                data: piece.clone(),
            };
            timeout(support::PATIENCE, input.send(stdin))
                .await
                .unwrap()
                .unwrap();
            peak = peak.max(resident());
        }
        input.send(SessionInput::CloseStdin).await.unwrap();
        peak.saturating_sub(before)
    };
    let (held, done) = tokio::join!(writer, outcome(session.events));
    assert_eq!(done.text(), format!("{}\n", PIECES * MIB));
    assert_eq!(done.acked, (PIECES * MIB) as u64);
    assert!(held < 40 * MIB, "{} MiB", held / MIB);
}
