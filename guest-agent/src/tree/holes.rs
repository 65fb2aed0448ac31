//! Where a file has data, and where it has holes (lseek(2), SEEK_DATA and SEEK_HOLE).

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use banger_proto::guest::v1::DataRange;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// The most ranges of one file, which the host has as its bound too.
const RANGES_MAX: usize = 16_384;
/// Blocks of stat(2), whatever the file system's are, and of tar: all ranges but the last are whole blocks.
const BLOCK_BYTES: u64 = 512;

/// The ranges of a file with `size` bytes that have data; none where it has no holes, or too many to tell, or a file
/// system that does not know.
pub(super) fn ranges(file: &File, size: u64) -> Option<Vec<DataRange>> {
    let stored = file.metadata().ok()?.blocks().saturating_mul(BLOCK_BYTES);
    if stored >= size {
        return None;
    }
    let ranges = looked_for(file, size);
    // Looking moved where the file is read.
    rustix::fs::seek(file, SeekFrom::Start(0)).ok()?;
    ranges
}

fn looked_for(file: &File, size: u64) -> Option<Vec<DataRange>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        let begin = data - data % BLOCK_BYTES;
        let end = rustix::fs::seek(file, SeekFrom::Hole(data))
            .ok()?
            .next_multiple_of(BLOCK_BYTES)
            .min(size);
        if end > begin {
            ranges.push(DataRange {
                offset: i64::try_from(begin).ok()?,
                length: i64::try_from(end - begin).ok()?,
            });
        }
        if ranges.len() > RANGES_MAX || end < begin {
            return None;
        }
        at = end.max(data + 1);
    }
    let told: i64 = ranges.iter().map(|range| range.length).sum();
    (u64::try_from(told).ok()? < size).then_some(ranges)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_file_without_holes_is_read_from_its_beginning() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello").unwrap();
        // Said to be longer than what it takes, as on file systems that compress.
        assert_eq!(ranges(&file, 1 << 20).map(|ranges| ranges.len()), Some(1));
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "hello");
    }

    #[test]
    fn holes_are_found_at_both_ends_and_between() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        let write = |offset, text: &str| {
            std::os::unix::fs::FileExt::write_all_at(&file, text.as_bytes(), offset).unwrap();
        };
        write(1 << 20, "a");
        write(3 << 20, "b");
        let Some(ranges) = ranges(&file, 4 << 20) else {
            eprintln!(
                "SKIPPED holes_are_found_at_both_ends_and_between: no holes in this directory"
            );
            return;
        };
        assert!(ranges.len() <= 2, "{ranges:?}");
        let told: i64 = ranges.iter().map(|range| range.length).sum();
        assert!(told < 2 << 20, "{ranges:?}");
        for at in [1 << 20, 3 << 20] {
            let is_told =
                |range: &DataRange| (range.offset..range.offset + range.length).contains(&at);
            assert!(ranges.iter().any(is_told), "{at} in {ranges:?}");
        }
    }
}
