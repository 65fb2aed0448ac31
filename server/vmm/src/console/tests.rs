use std::time::Duration;

use banger_core::vmm::{Console, ConsoleChunk};
use bytes::Bytes;

use super::*;

fn log(dir: &Path) -> ConsoleLog {
    ConsoleLog::of(dir)
}

fn size_on_disk(dir: &Path) -> u64 {
    segments(&dir.join(DIR))
        .unwrap()
        .iter()
        .map(|(_, path)| path.metadata().unwrap().len())
        .sum()
}

#[test]
fn a_log_that_never_began_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(log(dir.path()).range().unwrap(), 0..0);
    assert_eq!(
        log(dir.path()).read_now(7, 10).unwrap(),
        ConsoleChunk {
            offset: 0,
            data: Bytes::new()
        }
    );
    assert_eq!(log(dir.path()).tail(10).unwrap(), b"");
}

#[test]
fn what_is_written_is_read_from_any_offset() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ConsoleWriter::open(dir.path(), 1000).unwrap();
    assert!(writer.is_empty());
    writer.append(b"hello world");
    assert!(!writer.is_empty());
    assert_eq!(log(dir.path()).range().unwrap(), 0..11);
    assert_eq!(
        log(dir.path()).read_now(6, 100).unwrap(),
        ConsoleChunk {
            offset: 6,
            data: Bytes::from_static(b"world")
        }
    );
    assert_eq!(log(dir.path()).read_now(0, 5).unwrap().data, "hello");
    assert_eq!(
        log(dir.path()).read_now(99, 5).unwrap(),
        ConsoleChunk {
            offset: 11,
            data: Bytes::new()
        }
    );
}

#[test]
fn a_flood_keeps_its_end_and_stays_in_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ConsoleWriter::open(dir.path(), 1000).unwrap();
    for number in 0..10_000_u32 {
        writer.append(format!("line {number:05}\n").as_bytes());
        assert!(size_on_disk(dir.path()) <= 1000);
    }
    writer.append(b"last words");
    let range = log(dir.path()).range().unwrap();
    assert_eq!(range.end, 10_000 * 11 + 10);
    assert!(
        range.end - range.start >= 500,
        "at least half of the bound is kept"
    );
    assert_eq!(log(dir.path()).tail(10).unwrap(), b"last words");
    let evicted = log(dir.path()).read_now(0, 10).unwrap();
    assert_eq!(
        evicted.offset, range.start,
        "the reader is told where it continues"
    );
}

#[test]
fn offsets_survive_a_restart_of_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..50_u64 {
        let mut writer = ConsoleWriter::open(dir.path(), 64).unwrap();
        assert_eq!(log(dir.path()).range().unwrap().end, round * 20);
        writer.append(&[b'x'; 20]);
    }
    assert!(size_on_disk(dir.path()) <= 64);
}

#[test]
fn the_tail_spans_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ConsoleWriter::open(dir.path(), 20).unwrap();
    writer.append(b"0123456789abcd");
    assert_eq!(log(dir.path()).tail(6).unwrap(), b"89abcd");
    assert_eq!(log(dir.path()).tail(1000).unwrap(), b"0123456789abcd");
}

#[test]
fn foreign_files_beside_the_segments_are_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ConsoleWriter::open(dir.path(), 1000).unwrap();
    writer.append(b"x");
    for name in [
        "notes.txt",
        "1.log",
        "-0000000000000000001.log",
        "0000000000000000000x.log",
    ] {
        fs::write(dir.path().join(DIR).join(name), "y").unwrap();
    }
    assert_eq!(log(dir.path()).range().unwrap(), 0..1);
}

#[test]
fn a_disk_that_takes_nothing_drops_output_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ConsoleWriter::open(dir.path(), 1000).unwrap();
    fs::remove_dir(dir.path().join(DIR)).unwrap();
    writer.append(b"lost");
    fs::create_dir(dir.path().join(DIR)).unwrap();
    writer.append(b"kept");
    assert_eq!(log(dir.path()).tail(100).unwrap(), b"kept");
}

#[tokio::test]
async fn a_reader_waits_for_growth_over_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ConsoleWriter::open(dir.path(), 16).unwrap();
    let reader = log(dir.path());
    for round in 0..10_u64 {
        let offset = round * 4;
        let (grown, ()) = tokio::join!(reader.grown(offset), async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            writer.append(b"four");
        });
        grown.unwrap();
        let chunk = reader.read(offset, 100).await.unwrap();
        assert_eq!(
            chunk,
            ConsoleChunk {
                offset,
                data: Bytes::from_static(b"four")
            }
        );
        reader.grown(offset).await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_may_come_before_the_first_launch_and_is_told_when_the_vm_is_deleted() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("vm");
    fs::create_dir(&dir).unwrap();
    let reader = log(&dir);
    let (grown, ()) = tokio::join!(reader.grown(0), async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        fs::remove_dir_all(&dir).unwrap();
    });
    grown.unwrap();
    assert!(reader.grown(0).await.is_err());
}

#[tokio::test]
async fn the_pump_writes_until_the_stream_ends() {
    let dir = tempfile::tempdir().unwrap();
    let writer = ConsoleWriter::open(dir.path(), 1 << 20).unwrap();
    let bytes = vec![b'z'; 300_000];
    pump(&bytes[..], writer).await;
    assert_eq!(log(dir.path()).range().unwrap(), 0..300_000);
}
