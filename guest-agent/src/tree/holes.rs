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

/// The ranges of a file with `size` bytes that have data; none where it has no holes, or a file system that does not know.
/// Of holes that are too many to tell, the smallest are told as data.
pub(super) fn ranges(file: &File, size: u64) -> Option<Vec<DataRange>> {
    let stored = file.metadata().ok()?.blocks().saturating_mul(BLOCK_BYTES);
    if stored >= size {
        return None;
    }
    let ranges = looked_for(file, size, RANGES_MAX);
    // Looking moved where the file is read.
    rustix::fs::seek(file, SeekFrom::Start(0)).ok()?;
    ranges
}

fn looked_for(file: &File, size: u64, most: usize) -> Option<Vec<DataRange>> {
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
        if end < begin {
            return None;
        }
        // Not each time that there is one too many: sorting takes its time.
        if ranges.len() >= 2 * most {
            merge(&mut ranges, most);
        }
        at = end.max(data + 1);
    }
    merge(&mut ranges, most);
    let told: i64 = ranges.iter().map(|range| range.length).sum();
    (u64::try_from(told).ok()? < size).then_some(ranges)
}

/// Leaves `most` ranges, or fewer if there are fewer: the smallest holes between them become data.
fn merge(ranges: &mut Vec<DataRange>, most: usize) {
    let surplus = ranges.len().saturating_sub(most);
    if surplus == 0 {
        return;
    }
    let hole =
        |(before, after): (&DataRange, &DataRange)| after.offset - (before.offset + before.length);
    let holes = ranges.iter().zip(&ranges[1..]).map(hole);
    // Of holes of one length, those at the beginning: by their numbers no two are the same.
    let mut holes: Vec<(i64, usize)> = holes.zip(1..).collect();
    holes.select_nth_unstable(surplus - 1);
    let mut filled = vec![false; ranges.len()];
    for (_, after) in &holes[..surplus] {
        filled[*after] = true;
    }
    let mut merged: Vec<DataRange> = Vec::with_capacity(most);
    for (range, is_filled) in ranges.drain(..).zip(filled) {
        match merged.last_mut().filter(|_| is_filled) {
            Some(last) => last.length = range.offset + range.length - last.offset,
            None => merged.push(range),
        }
    }
    *ranges = merged;
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
    fn the_smallest_of_too_many_holes_are_filled() {
        let range = |(offset, length)| DataRange { offset, length };
        let all = [(0, 1), (3, 1), (10, 2), (13, 1), (20, 5)];
        let merged = |most| {
            let mut ranges: Vec<DataRange> = all.map(range).into();
            merge(&mut ranges, most);
            let pairs = ranges.iter().map(|range| (range.offset, range.length));
            pairs.collect::<Vec<_>>()
        };
        assert_eq!(merged(5), all);
        assert_eq!(merged(4), [(0, 1), (3, 1), (10, 4), (20, 5)]);
        assert_eq!(merged(3), [(0, 4), (10, 4), (20, 5)]);
        assert_eq!(merged(1), [(0, 25)]);
    }

    #[test]
    fn a_file_with_too_many_holes_is_still_told_with_holes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        for place in 0..32 {
            let at = place * (64 << 10);
            std::os::unix::fs::FileExt::write_all_at(&file, b"x", at).unwrap();
        }
        let Some(ranges) = looked_for(&file, 4 << 20, 4) else {
            eprintln!(
                "SKIPPED a_file_with_too_many_holes_is_still_told_with_holes: no holes in this directory"
            );
            return;
        };
        assert!(ranges.len() <= 4, "{ranges:?}");
        for place in 0..32 {
            let at = place * (64 << 10);
            let is_told =
                |range: &DataRange| (range.offset..range.offset + range.length).contains(&at);
            assert!(ranges.iter().any(is_told), "{at} in {ranges:?}");
        }
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
