use std::collections::BTreeMap;

use banger_core::session::{SessionSpec, Stream};
use banger_core::{SessionId, Timestamp, VmId};
use bytes::Bytes;

use super::super::file::{Header, Writer};
use super::*;

fn session() -> Session {
    Session {
        id: SessionId::new(),
        vm: VmId::new(),
        spec: SessionSpec {
            command: vec!["make".into()],
            env: BTreeMap::from([("A".into(), "b".into())]),
            ..SessionSpec::default()
        },
        state: SessionState::Running,
        pid: 7,
        start_time: Timestamp::UNIX_EPOCH,
        end_time: None,
        log_start_offset: 10,
        log_end_offset: 10,
        stdin_offset: 3,
        usage: None,
        is_spec_shortened: false,
    }
}

fn output(second: i64, text: &'static str) -> SessionEvent {
    SessionEvent::Output {
        offset: 0,
        stream: Stream::Stdout,
        time: Timestamp::from_second(second).unwrap(),
        data: Bytes::from_static(text.as_bytes()),
    }
}

/// From 10: `one\ntwo`, three bytes lost, `\nthree\n`; from 20 on at second 2.
fn written(dir: &Path) -> PathBuf {
    let path = dir.join("log");
    let header = Header {
        session: session(),
        start_offset: 10,
    };
    let mut writer = Writer::create(&path, &header).unwrap();
    writer.event(&output(1, "one\ntwo")).unwrap();
    let gap = SessionEvent::Gap {
        offset: 0,
        lost_bytes: 3,
    };
    writer.event(&gap).unwrap();
    writer.event(&output(2, "\nthree\n")).unwrap();
    writer.finish().unwrap();
    path
}

/// What comes: the output, how much of it is missing, where it begins and where it ends.
async fn read(path: &Path, from: ReadFrom) -> (String, u64, u64, u64) {
    let options = AttachOptions {
        from,
        ..AttachOptions::default()
    };
    let mut events = Kept::open(path)
        .unwrap()
        .events(&TaskTracker::new(), options);
    let (mut text, mut lost, mut start, mut next) = (String::new(), 0, 0, 0);
    while let Some(event) = events.next().await {
        match event.unwrap() {
            SessionEvent::Attached(begun) => {
                assert_eq!(begun.session.state, SessionState::Exited(Exit::VmGone));
                start = begun.start_offset;
                next = start;
            }
            SessionEvent::Output { offset, data, .. } => {
                assert_eq!(offset, next);
                next += data.len() as u64;
                text.push_str(std::str::from_utf8(&data).unwrap());
            }
            SessionEvent::Gap { offset, lost_bytes } => {
                assert_eq!(offset, next);
                next += lost_bytes;
                lost += lost_bytes;
            }
            SessionEvent::Exited { exit, end_offset } => {
                assert_eq!((exit, end_offset), (Exit::VmGone, next));
                return (text, lost, start, end_offset);
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("it has no exit");
}

#[tokio::test]
async fn a_kept_log_is_read_from_wherever_one_may_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let all = ("one\ntwo\nthree\n".to_owned(), 3, 10, 27);
    assert_eq!(read(&path, ReadFrom::Start).await, all);
    let of = |text: &str, lost, start| (text.to_owned(), lost, start, 27);
    assert_eq!(read(&path, ReadFrom::End).await, of("", 0, 27));
    assert_eq!(read(&path, ReadFrom::Offset(0)).await, of(&all.0, 13, 0));
    assert_eq!(
        read(&path, ReadFrom::Offset(18)).await,
        of("\nthree\n", 2, 18)
    );
    assert_eq!(read(&path, ReadFrom::Offset(100)).await, of("", 0, 27));
    assert_eq!(
        read(&path, ReadFrom::TailBytes(6)).await,
        of("three\n", 0, 21)
    );
    assert_eq!(read(&path, ReadFrom::TailLines(0)).await, of("", 0, 27));
    assert_eq!(
        read(&path, ReadFrom::TailLines(1)).await,
        of("three\n", 0, 21)
    );
    assert_eq!(
        read(&path, ReadFrom::TailLines(2)).await,
        of("two\nthree\n", 3, 14)
    );
    assert_eq!(read(&path, ReadFrom::TailLines(3)).await, all);
    assert_eq!(read(&path, ReadFrom::TailLines(9)).await, all);
    let since = |second| ReadFrom::Since(Timestamp::from_second(second).unwrap());
    assert_eq!(read(&path, since(0)).await, all);
    assert_eq!(read(&path, since(2)).await, of("\nthree\n", 0, 20));
    assert_eq!(read(&path, since(3)).await, of("", 0, 27));
}

#[tokio::test]
async fn a_log_whose_writer_was_cut_off_ends_before_that_piece() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let (text, lost, _, end) = read(&path, ReadFrom::Start).await;
    assert_eq!((text.as_str(), lost, end), ("one\ntwo", 3, 20));
    for length in 0..40 {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(Kept::open(&path).is_err(), "{length}");
    }
}
