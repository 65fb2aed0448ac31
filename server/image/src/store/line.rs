//! The layers of one image in their order: which of them is decompressed next, and where on the disk its files go.
//!
//! A layer whose files' place is known is written there while it is decompressed; any other is spooled, and copied once all
//! layers are there. The place is known when all layers below have been read. So where there are few processors, layers
//! are decompressed one after another: that is no slower, since each takes a processor, and nothing is written twice.

use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::watch;

use crate::ext4::Cursor;
use crate::limits::LAYERS_DECOMPRESSED_MAX;

/// Processors that a layer keeps busy: one decompresses, another hashes, writes and receives.
const PROCESSORS_OF_LAYER: usize = 2;

/// The line of an image's layers.
#[derive(Debug)]
pub(super) struct Line {
    /// The disk that all are written to.
    disk: Arc<File>,
    /// How many blocks of it the files of each layer take, where that is known.
    blocks: watch::Sender<Vec<Option<u64>>>,
    /// Layers that are decompressed at the same time.
    width: usize,
}

impl Line {
    /// Of `count` layers, of which nothing is known yet.
    pub(super) fn new(disk: Arc<File>, count: usize) -> Self {
        let processors = available_parallelism().map_or(1, NonZeroUsize::get);
        let width = (processors / PROCESSORS_OF_LAYER).clamp(1, LAYERS_DECOMPRESSED_MAX);
        Self::of_width(disk, count, width)
    }

    fn of_width(disk: Arc<File>, count: usize, width: usize) -> Self {
        Self {
            disk,
            blocks: watch::Sender::new(vec![None; count]),
            width,
        }
    }

    /// How many layers are worked on at the same time: one is fetched while others are decompressed. More would take from
    /// these what they will need less later.
    pub(super) const fn at_once(&self) -> usize {
        self.width + 1
    }

    /// The disk.
    pub(super) fn disk(&self) -> Arc<File> {
        Arc::clone(&self.disk)
    }

    /// Whether it is the turn of a layer to be decompressed.
    pub(super) fn is_turn(&self, number: usize) -> bool {
        self.is_turn_after(number, &self.blocks.borrow())
    }

    /// Waits for the turn of a layer. It does not come if a layer below is given up.
    pub(super) async fn turn(&self, number: usize) {
        let mut blocks = self.blocks.subscribe();
        // It ends with `self` alone.
        let _ = blocks
            .wait_for(|blocks| self.is_turn_after(number, blocks))
            .await;
    }

    fn is_turn_after(&self, number: usize, blocks: &[Option<u64>]) -> bool {
        let before = (number + 1).saturating_sub(self.width);
        blocks[..before].iter().all(Option::is_some)
    }

    /// Where the files of a layer begin, if all layers below have been read.
    pub(super) fn start(&self, number: usize) -> Option<Cursor> {
        let below: Option<u64> = self.blocks.borrow()[..number].iter().copied().sum();
        below.map(|blocks| Cursor::new().behind(blocks))
    }

    /// Is told how many blocks the files of a layer take, once it has been read.
    pub(super) fn read(&self, number: usize, blocks: u64) {
        self.blocks
            .send_modify(|known| known[number] = Some(blocks));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn line(width: usize) -> Line {
        let disk = Arc::new(tempfile::tempfile().unwrap());
        Line::of_width(disk, 4, width)
    }

    #[test]
    fn one_after_another_each_begins_where_the_one_below_ends() {
        let line = line(1);
        assert!(line.is_turn(0) && !line.is_turn(1));
        assert!(line.turn(1).now_or_never().is_none());
        assert_eq!(line.start(0), Some(Cursor::new()));
        line.read(0, 7);
        assert!(line.turn(1).now_or_never().is_some());
        assert!(!line.is_turn(2));
        assert_eq!(line.start(1), Some(Cursor::new().behind(7)));
        line.read(1, 5);
        assert_eq!(line.start(2), Some(Cursor::new().behind(12)));
    }

    #[test]
    fn side_by_side_the_lowest_alone_has_its_place() {
        let line = line(2);
        assert!(line.is_turn(1) && !line.is_turn(2));
        assert_eq!(line.start(1), None);
        // One that was faster than the one below does not let others before that.
        line.read(1, 5);
        assert!(!line.is_turn(2));
        line.read(0, 7);
        assert!(line.is_turn(2) && line.is_turn(3));
        assert_eq!(line.start(2), Some(Cursor::new().behind(12)));
        assert_eq!(line.start(3), None);
    }
}
