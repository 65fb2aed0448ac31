use std::fs::File;

use super::super::spill::{SPILL_MAX_BYTES, SPILLS_MAX_BYTES};
use super::*;
use futures::FutureExt as _;

/// The largest frame there is.
const PIECE: usize = 32 << 10;

/// Where logs spill to, in a directory of its own.
fn home(directory: &std::path::Path) -> Arc<Home> {
    let home = Home::default();
    home.set(Arc::new(File::open(directory).unwrap().into()));
    Arc::new(home)
}

/// The byte at an offset.
fn byte(offset: u64) -> u8 {
    (offset ^ (offset >> 8) ^ (offset >> 16)).to_le_bytes()[0]
}

async fn write(log: &Arc<Log>, pieces: u64) {
    for _ in 0..pieces {
        let from = log.range().1;
        let piece: Vec<u8> = (from..from + PIECE as u64).map(byte).collect();
        log.append(Stream::Stdout, piece.into());
        log.settle().await;
    }
}

/// Reads from `offset` to the end: how much was there, and how much was lost.
async fn read(log: &Arc<Log>, mut offset: u64) -> (u64, u64) {
    let (mut kept, mut lost) = (0, 0);
    loop {
        let frames = match log.find(offset) {
            Found::Output(frame) => vec![frame],
            Found::Spilled(segment) => log.load(segment).await.unwrap(),
            Found::Gap { lost_bytes, .. } => {
                lost += lost_bytes;
                offset += lost_bytes;
                continue;
            }
            Found::Nothing | Found::End => return (kept, lost),
        };
        let from = offset;
        for frame in frames.iter().filter(|frame| frame.end() > from) {
            let frame = frame.from(offset);
            let wrong = (offset..)
                .zip(&frame.data)
                .find(|(at, found)| byte(*at) != **found);
            assert_eq!(wrong, None);
            kept += frame.data.len() as u64;
            offset = frame.end();
        }
    }
}

fn log() -> Arc<Log> {
    Arc::new(Log::new(Arc::default(), Arc::default()))
}

fn output(found: Found) -> Frame {
    match found {
        Found::Output(frame) => frame,
        other => panic!("no output but {other:?}"),
    }
}

#[test]
fn a_reader_finds_the_middle_of_a_frame() {
    let log = log();
    log.append(Stream::Stdout, Bytes::from_static(b"hello"));
    let frame = output(log.find(2));
    assert_eq!((frame.offset, &frame.data[..]), (2, &b"llo"[..]));
    assert!(matches!(log.find(5), Found::Nothing));
    log.close();
    assert!(matches!(log.find(5), Found::End));
}

#[test]
fn small_output_of_one_stream_is_merged() {
    let log = log();
    for _ in 0..1000 {
        log.append(Stream::Stdout, Bytes::from_static(b"x"));
    }
    assert!(log.state().frames.len() < 50);
    log.append(Stream::Stderr, Bytes::from_static(b"e"));
    assert_eq!(output(log.find(1000)).stream, Stream::Stderr);
    assert_eq!(log.range(), (0, 1001));
}

#[tokio::test]
async fn what_is_evicted_is_a_gap() {
    let log = log();
    write(&log, 80).await;
    let (start, end) = log.range();
    assert_eq!(end, 80 * (32 << 10));
    assert!(end - start <= LOG_MAX_BYTES as u64 && end - start > LOG_MAX_BYTES as u64 / 2);
    assert!(matches!(log.find(5), Found::Gap { offset: 5, lost_bytes } if lost_bytes == start - 5));
}

#[tokio::test]
async fn nothing_is_evicted_before_a_holding_reader() {
    let log = log();
    let hold = log.hold(0);
    write(&log, 80).await;
    assert_eq!(log.range().0, 0);
    assert!(!log.has_room());
    hold.advance(80 * (32 << 10));
    assert!(log.has_room());
    drop(hold);
    write(&log, 1).await;
    assert!(log.range().0 > 0);
}

#[tokio::test]
async fn a_log_that_passes_keeps_what_its_reader_may_lack_and_uses_no_disk() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(directory.path());
    let log = Arc::new(Log::new(Arc::default(), Arc::clone(&home)));
    log.let_pass();
    let hold = log.hold(0);
    let pieces = 4 * PASSING_BYTES as u64 / PIECE as u64;
    for _ in 0..pieces {
        write(&log, 1).await;
        hold.advance(log.range().1);
    }
    let (start, end) = log.range();
    assert!(end - start >= PASSING_BYTES as u64, "{start} {end}");
    assert!(log.state().cost <= PASSING_MAX_BYTES + 2 * PIECE);
    assert_eq!(home.used(), 0);
    // Its connection broke, and it comes back for what was on its way.
    drop(hold);
    write(&log, 1).await;
    assert!(log.state().cost <= LOG_MAX_BYTES);
    assert_eq!(log.range().0, start);
    let from = end - PASSING_BYTES as u64;
    let whole = PASSING_BYTES + PIECE;
    assert_eq!(read(&log, from).await, (whole as u64, 0));
    let _hold = log.hold(from);
    write(&log, 1).await;
    assert!(log.range().0 <= from);
}

#[test]
fn an_abandoned_log_has_room() {
    let log = log();
    let _hold = log.hold(0);
    log.append(Stream::Stdout, Bytes::from(vec![7; LOG_MAX_BYTES]));
    assert!(!log.has_room());
    log.abandon();
    assert!(log.has_room());
}

#[tokio::test]
async fn the_common_bound_makes_every_log_smaller() {
    let total = Arc::<Total>::default();
    let new = |_| Arc::new(Log::new(Arc::clone(&total), Arc::default()));
    let logs: Vec<_> = (0..64).map(new).collect();
    for _ in 0..40 {
        for log in &logs {
            write(log, 1).await;
        }
    }
    let kept = total.0.load(Ordering::Relaxed);
    assert!(
        kept <= LOGS_MAX_BYTES + 64 * (LOG_LEAST_BYTES + (64 << 10)),
        "{kept}"
    );
    drop(logs);
    assert_eq!(total.0.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_the_memory_does_not_keep_is_on_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(directory.path());
    let log = Arc::new(Log::new(Arc::default(), Arc::clone(&home)));
    write(&log, 200).await;
    let end = 200 * PIECE as u64;
    assert_eq!(log.range(), (0, end));
    assert!(log.state().cost <= LOG_MAX_BYTES);
    assert!(home.used() >= end - LOG_MAX_BYTES as u64);
    for from in [0, 1, 12_345, end / 2, end - 1] {
        assert_eq!(read(&log, from).await, (end - from, 0));
    }
    drop(log);
    assert_eq!(home.used(), 0);
}

#[tokio::test]
async fn the_disk_is_a_ring_that_overwrites_its_oldest() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::new(Arc::default(), home(directory.path())));
    // Twice round, and some more.
    let pieces = 2 * SPILL_MAX_BYTES / PIECE as u64 + 77;
    write(&log, pieces).await;
    let (start, end) = log.range();
    let kept = end - start;
    assert!(kept > SPILL_MAX_BYTES / 10 * 9, "{kept}");
    assert!(kept <= SPILL_MAX_BYTES + LOG_MAX_BYTES as u64, "{kept}");
    assert_eq!(read(&log, 5).await, (kept, start - 5));
}

#[tokio::test]
async fn what_the_disk_lost_is_a_gap_and_the_rest_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::new(Arc::default(), home(directory.path())));
    write(&log, 100).await;
    let end = log.range().1;
    let disk = log.state().ring.disk();
    let segment = log.state().ring.segments()[0];
    disk.garble(&segment);
    let (kept, lost) = read(&log, 0).await;
    assert_eq!((kept + lost, lost), (end, segment.end));
}

#[tokio::test]
async fn a_log_without_its_disk_keeps_what_the_memory_has() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(directory.path());
    let log = Arc::new(Log::new(Arc::default(), Arc::clone(&home)));
    write(&log, 100).await;
    home.close();
    log.close_spill();
    let (start, end) = log.range();
    assert!(end - start <= LOG_MAX_BYTES as u64 && start > 0);
    write(&log, 100).await;
    let (kept, lost) = read(&log, 0).await;
    assert_eq!(kept + lost, 200 * PIECE as u64);
    assert!(kept <= LOG_MAX_BYTES as u64);
}

#[tokio::test]
async fn no_log_takes_more_than_all_may_have() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(directory.path());
    assert!(home.take(SPILLS_MAX_BYTES));
    let log = Arc::new(Log::new(Arc::default(), Arc::clone(&home)));
    write(&log, 100).await;
    assert!(log.range().0 > 0);
    assert_eq!(home.used(), SPILLS_MAX_BYTES);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_holds_the_process_for_its_time_and_no_longer() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::new(Arc::default(), home(directory.path())));
    let disk = log.state().ring.disk();
    let hangs = disk.hang();
    const PIECES: u64 = 80;
    let mut writing = Box::pin(write(&log, PIECES));
    for _ in 0..100 {
        assert!(writing.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    // It waits as for a file; what it wrote before is there for everybody meanwhile.
    let written = log.range().1;
    assert!(written > LOG_MAX_BYTES as u64 / 2 && written < PIECES * PIECE as u64);
    assert_eq!(read(&log, 0).await, (written, 0));
    tokio::time::advance(SPILL_WITHIN + Duration::from_secs(1)).await;
    // Without the disk from then on: nothing waits, and the memory stays within its bound.
    writing.await;
    let (start, end) = log.range();
    assert_eq!(end, PIECES * PIECE as u64);
    assert_eq!(read(&log, 0).await, (end - start, start));
    assert!(log.state().cost <= LOG_MAX_BYTES + PIECE);
    // Nor does the end of everything wait.
    log.close_spill();
    drop(hangs);
}

#[tokio::test]
async fn a_disk_that_comes_back_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::new(Arc::default(), home(directory.path())));
    let disk = log.state().ring.disk();
    let hangs = disk.hang();
    let mut spilled = log.spilled.subscribe();
    let mut writing = Box::pin(write(&log, 80));
    assert!(writing.as_mut().now_or_never().is_none());
    log.state().spilling = Spilling::Late;
    drop(writing);
    let late = log.range().1;
    write(&log, 40).await;
    drop(hangs);
    spilled.changed().await.unwrap();
    write(&log, 80).await;
    let (start, end) = log.range();
    assert_eq!(end, late + 120 * PIECE as u64);
    assert!(end - start > 2 * LOG_MAX_BYTES as u64, "{start} to {end}");
    assert_eq!(read(&log, start).await, (end - start, 0));
}

#[tokio::test]
async fn where_all_have_too_much_each_process_waits_earlier() {
    let total = Arc::<Total>::default();
    // There is no disk.
    let log = || Arc::new(Log::new(Arc::clone(&total), Arc::default()));
    let (greedy, other) = (log(), log());
    let (_all, hold) = (greedy.hold(0), other.hold(0));
    write(&other, 4).await;
    assert!(other.has_room());
    write(&greedy, (LOGS_MAX_BYTES / PIECE) as u64).await;
    assert!(!other.has_room());
    hold.advance(3 * PIECE as u64);
    assert!(other.has_room());
    drop(greedy);
}
