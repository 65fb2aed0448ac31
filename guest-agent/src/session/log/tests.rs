use super::*;

fn log() -> Arc<Log> {
    Arc::new(Log::new(Arc::default()))
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

#[test]
fn what_is_evicted_is_a_gap() {
    let log = log();
    for _ in 0..80 {
        log.append(Stream::Stdout, Bytes::from(vec![7; 32 << 10]));
    }
    let (start, end) = log.range();
    assert_eq!(end, 80 * (32 << 10));
    assert!(end - start <= LOG_MAX_BYTES as u64 && end - start > LOG_MAX_BYTES as u64 / 2);
    assert!(matches!(log.find(5), Found::Gap { offset: 5, lost_bytes } if lost_bytes == start - 5));
}

#[test]
fn nothing_is_evicted_before_a_holding_reader() {
    let log = log();
    let hold = log.hold(0);
    for _ in 0..80 {
        log.append(Stream::Stdout, Bytes::from(vec![7; 32 << 10]));
    }
    assert_eq!(log.range().0, 0);
    assert!(!log.has_room());
    hold.advance(80 * (32 << 10));
    assert!(log.has_room());
    drop(hold);
    log.append(Stream::Stdout, Bytes::from_static(b"x"));
    assert!(log.range().0 > 0);
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

#[test]
fn the_common_bound_makes_every_log_smaller() {
    let total = Arc::<Total>::default();
    let logs: Vec<_> = (0..64).map(|_| Log::new(Arc::clone(&total))).collect();
    for _ in 0..40 {
        for log in &logs {
            log.append(Stream::Stdout, Bytes::from(vec![7; 32 << 10]));
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
