use std::time::Duration;

use banger_proto::guest::v1::Stream;

use super::*;

async fn log(pieces: &[&'static str]) -> Arc<Log> {
    let log = Arc::new(Log::new(Arc::default(), Arc::default()));
    for (index, piece) in pieces.iter().enumerate() {
        // Apart, so that each is a frame of its own.
        let stream = [Stream::Stdout, Stream::Stderr][index % 2];
        log.append(stream, piece.as_bytes().into());
        log.settle().await;
    }
    log
}

async fn located(log: &Arc<Log>, from: ReadFrom) -> Result<u64, String> {
    let options = ReadOptions {
        from: Some(from),
        hold_process: false,
    };
    let found = locate(log, log.range(), &options).await;
    found.map_err(|refusal| refusal.to_string())
}

#[tokio::test]
async fn lines_are_counted_from_the_end_over_all_frames() {
    let log = log(&["one\ntw", "o\nth", "ree\n"]).await;
    for (lines, offset) in [(0, 14), (1, 8), (2, 4), (3, 0), (4, 0), (1_000_000, 0)] {
        let found = located(&log, ReadFrom::TailLines(lines)).await;
        assert_eq!(found, Ok(offset), "{lines} lines");
    }
    let open = self::log(&["one\ntwo"]).await;
    assert_eq!(located(&open, ReadFrom::TailLines(1)).await, Ok(4));
    let empty = self::log(&[]).await;
    assert_eq!(located(&empty, ReadFrom::TailLines(3)).await, Ok(0));
}

#[tokio::test]
async fn bytes_are_counted_from_the_end_as_far_as_they_are_kept() {
    let log = log(&["0123456789"]).await;
    for (bytes, offset) in [(0, 10), (3, 7), (10, 0), (i64::MAX, 0)] {
        assert_eq!(located(&log, ReadFrom::TailBytes(bytes)).await, Ok(offset));
    }
}

#[tokio::test]
async fn a_time_finds_the_first_output_at_or_after_it() {
    let log = log(&["early"]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let between = SystemTime::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    log.append(Stream::Stderr, "late".into());
    let since = |time: SystemTime| ReadFrom::Since(time.into());
    assert_eq!(located(&log, since(SystemTime::UNIX_EPOCH)).await, Ok(0));
    assert_eq!(located(&log, since(between)).await, Ok(5));
    let future = SystemTime::now() + Duration::from_secs(60);
    assert_eq!(located(&log, since(future)).await, Ok(9));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let log = log(&["abc"]).await;
    for (from, text) in [
        (
            ReadFrom::Offset(4),
            "the output has 3 bytes, and 4 was asked",
        ),
        (ReadFrom::Offset(-1), "an offset is negative"),
        (ReadFrom::TailBytes(-1), "a number of bytes is negative"),
        (ReadFrom::TailLines(-1), "a number of lines is negative"),
        (
            ReadFrom::TailLines(1_000_001),
            "more than 1000000 lines were asked",
        ),
    ] {
        assert_eq!(located(&log, from).await, Err(text.to_owned()));
    }
}
