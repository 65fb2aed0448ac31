//! The older part of a log, on the guest's disk: one file without a name per session, used as a ring.
//!
//! ```text
//!   0        next                       extent   capacity
//!   │ newer   │      older               │          │
//!   ├────┬────┼──────┬─────┬─────────────┤··········│
//!        segment     the first that is overwritten
//! ```
//! A *segment* is some frames that follow each other, written together and read together. Only where the segments are
//! is kept in memory. The file goes with its descriptor, so nothing is left whatever ends the agent. Root in the guest
//! can reach it through `/proc`: what is read back is checked, and what is not as it was written counts as lost.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use banger_proto::guest::v1::Stream;
use bytes::{Buf, BufMut, Bytes};
use rustix::fs::{Mode, OFlags, fstatvfs};

use super::log::Frame;

/// What a session keeps on the disk.
pub const SPILL_MAX_BYTES: u64 = 64 << 20;
/// What all sessions together keep there.
pub const SPILLS_MAX_BYTES: u64 = 1 << 30;
/// What a spill leaves free on the disk: the guest's own programs come first.
pub const DISK_LEFT_BYTES: u64 = 64 << 20;
/// Output in a segment; one that is a single frame may be larger.
pub const SEGMENT_BYTES: usize = 256 << 10;
/// Frames in a segment.
pub const SEGMENT_FRAMES: usize = 4096;
/// A frame's length, stream, and time in seconds and nanoseconds, before its bytes.
const HEADER_BYTES: usize = 4 + 1 + 8 + 4;

/// Where the spills of all sessions are.
#[derive(Debug, Default)]
pub struct Home {
    /// Known once the disk is mounted.
    directory: OnceLock<Arc<OwnedFd>>,
    used: AtomicU64,
    is_closed: AtomicBool,
}

impl Home {
    /// Spills are made in this directory from now on, whose file system has to know files without a name.
    pub fn set(&self, directory: Arc<OwnedFd>) {
        // It is told once; a second one would be the same.
        let _ = self.directory.set(directory);
    }

    /// No file is made any more: the disk is about to be marked clean.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes so many bytes more, if all bounds allow it.
    fn grow(&self, bytes: u64) -> bool {
        let Some(directory) = self.directory.get() else {
            return false;
        };
        let free =
            fstatvfs(directory).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        if free < DISK_LEFT_BYTES.saturating_add(bytes) {
            return false;
        }
        self.take(bytes)
    }

    /// Counts so many bytes more, if the common bound allows it.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let taken = |used: u64| {
            used.checked_add(bytes)
                .filter(|&used| used <= SPILLS_MAX_BYTES)
        };
        let order = Ordering::Relaxed;
        self.used.fetch_update(order, order, taken).is_ok()
    }

    fn open(&self) -> io::Result<File> {
        let directory = self.directory.get();
        let directory = directory.filter(|_| !self.is_closed());
        let directory = directory.ok_or(io::ErrorKind::NotFound)?;
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(directory, ".", flags, Mode::RUSR | Mode::WUSR);
        Ok(opened?.into())
    }
}

/// Some frames on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Of the first byte of output.
    pub offset: u64,
    /// After the last.
    pub end: u64,
    /// Of the first frame.
    pub time: SystemTime,
    position: u64,
    length: u64,
}

impl Segment {
    fn overlaps(&self, position: u64, length: u64) -> bool {
        self.position < position + length && position < self.position + self.length
    }
}

/// The segments of a log, oldest first, and the room for them.
#[derive(Debug)]
pub struct Ring {
    home: Arc<Home>,
    file: Arc<Mutex<Option<Arc<File>>>>,
    segments: VecDeque<Segment>,
    /// Where the next segment goes.
    next: u64,
    /// What the file takes of the disk.
    extent: u64,
    /// Less than the bound once the disk gave no more.
    capacity: u64,
}

impl Ring {
    /// Nothing is kept yet.
    #[must_use]
    pub fn new(home: Arc<Home>) -> Self {
        Self {
            home,
            file: Arc::default(),
            segments: VecDeque::new(),
            next: 0,
            extent: 0,
            capacity: SPILL_MAX_BYTES,
        }
    }

    /// The file, to be read and written outside of any lock.
    #[must_use]
    pub fn disk(&self) -> Disk {
        Disk {
            home: Arc::clone(&self.home),
            file: Arc::clone(&self.file),
        }
    }

    /// The segments, oldest first.
    #[must_use]
    pub const fn segments(&self) -> &VecDeque<Segment> {
        &self.segments
    }

    /// The segment that has this byte.
    #[must_use]
    pub fn find(&self, offset: u64) -> Option<Segment> {
        let index = self
            .segments
            .partition_point(|segment| segment.end <= offset);
        self.segments.get(index).copied()
    }

    /// Makes room for `frames`, giving up the oldest segments where it must, but none that ends after `keep`. The
    /// answer is where they are to be written, or nothing where there is no room.
    pub fn reserve(&mut self, frames: &[Frame], keep: u64) -> Option<Segment> {
        let (first, last) = (frames.first()?, frames.last()?);
        let length: usize = frames
            .iter()
            .map(|frame| HEADER_BYTES + frame.data.len())
            .sum();
        let length = length as u64;
        let (mut position, mut wraps) = (self.next, false);
        if position + length > self.capacity {
            (position, wraps) = (0, true);
        }
        let growth = (position + length).saturating_sub(self.extent);
        if growth > 0 && (position + length > self.capacity || !self.home.grow(growth)) {
            // The disk gives no more than it has: the oldest are overwritten from now on.
            if length > self.extent {
                return None;
            }
            self.capacity = self.extent;
            (position, wraps) = (0, position > 0);
        }
        // Behind the place from which it wraps are the oldest of all.
        let is_behind = |segment: &Segment| wraps && segment.position >= self.next;
        let is_lost = |segment: &&Segment| is_behind(segment) || segment.overlaps(position, length);
        let lost = self.segments.iter().take_while(is_lost).count();
        let extent = self.extent.max(position + length);
        if lost > 0 && self.segments[lost - 1].end > keep {
            let grown = extent - self.extent;
            self.home.used.fetch_sub(grown, Ordering::Relaxed);
            return None;
        }
        self.segments.drain(..lost);
        self.extent = extent;
        self.next = position + length;
        Some(Segment {
            offset: first.offset,
            end: last.end(),
            time: first.time,
            position,
            length,
        })
    }

    /// A segment was written.
    pub fn push(&mut self, segment: Segment) {
        self.segments.push_back(segment);
    }

    /// Gives up every segment up to this one, and this one.
    pub fn lose(&mut self, segment: &Segment) {
        self.segments.retain(|kept| kept.offset > segment.offset);
    }

    /// Gives up all.
    pub fn clear(&mut self) {
        self.segments.clear();
    }

    /// Gives up all, and the file, once no file is made any more. A disk that hangs is not waited for: who makes the file
    /// just then gives it up itself.
    pub fn close(&mut self) {
        self.clear();
        if let Ok(mut file) = self.file.try_lock() {
            file.take();
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.home.used.fetch_sub(self.extent, Ordering::Relaxed);
    }
}

/// The file of a ring. What it does may take as long as the disk takes.
#[derive(Debug, Clone)]
pub struct Disk {
    home: Arc<Home>,
    file: Arc<Mutex<Option<Arc<File>>>>,
}

impl Disk {
    fn file(&self) -> MutexGuard<'_, Option<Arc<File>>> {
        // It is there or not, so a panic elsewhere spoils nothing.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> io::Result<Arc<File>> {
        let mut file = self.file();
        if let Some(file) = &*file {
            return Ok(Arc::clone(file));
        }
        *file = Some(Arc::new(self.home.open()?));
        drop(file);
        // Who closed it meanwhile may have found the lock taken.
        let mut file = self.file();
        if self.home.is_closed() {
            file.take();
        }
        file.clone().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Writes the frames of `segment`.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn write(&self, segment: &Segment, frames: &[Frame]) -> io::Result<()> {
        let file = self.opened()?;
        let mut bytes = Vec::with_capacity(usize::try_from(segment.length).unwrap_or_default());
        for frame in frames {
            let since = frame.time.duration_since(SystemTime::UNIX_EPOCH);
            let since = since.unwrap_or_default();
            bytes.put_u32(u32::try_from(frame.data.len()).unwrap_or(u32::MAX));
            bytes.put_u8(u8::try_from(i32::from(frame.stream)).unwrap_or_default());
            bytes.put_u64(since.as_secs());
            bytes.put_u32(since.subsec_nanos());
            bytes.extend_from_slice(&frame.data);
        }
        file.write_all_at(&bytes, segment.position)
    }

    /// Reads the frames of `segment`.
    ///
    /// # Errors
    /// Those of the disk, and `InvalidData` for what is not as it was written.
    pub fn read(&self, segment: &Segment) -> io::Result<Vec<Frame>> {
        let file = self.file().clone().ok_or(io::ErrorKind::NotFound)?;
        let length = usize::try_from(segment.length).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, segment.position)?;
        decode(segment, bytes.into()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

fn decode(segment: &Segment, mut bytes: Bytes) -> Option<Vec<Frame>> {
    let mut frames = Vec::new();
    let mut offset = segment.offset;
    while bytes.has_remaining() {
        let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
        let stream = Stream::try_from(i32::from(bytes.try_get_u8().ok()?)).ok()?;
        let (seconds, nanos) = (bytes.try_get_u64().ok()?, bytes.try_get_u32().ok()?);
        if stream == Stream::Unspecified || length == 0 || length > bytes.remaining() {
            return None;
        }
        let since = Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanos.into()))?;
        frames.push(Frame {
            offset,
            stream,
            time: SystemTime::UNIX_EPOCH.checked_add(since)?,
            data: bytes.split_to(length),
        });
        offset = offset.checked_add(length as u64)?;
    }
    (offset == segment.end).then_some(frames)
}

#[cfg(test)]
impl Disk {
    /// Whatever is written or read from now on takes until the answer is dropped.
    pub(super) fn hang(&self) -> std::sync::mpsc::Sender<()> {
        use std::sync::mpsc::channel;
        let disk = self.clone();
        let (release, released) = channel();
        let (hang, hangs) = channel();
        std::thread::spawn(move || {
            let _file = disk.file();
            hang.send(()).unwrap();
            // The other end is only ever dropped.
            let _ = released.recv();
        });
        hangs.recv().unwrap();
        release
    }

    /// Overwrites the beginning of a segment, as root in the guest can.
    pub(super) fn garble(&self, segment: &Segment) {
        let file = self.file().clone().unwrap();
        file.write_all_at(&[0xff; 64], segment.position).unwrap();
    }
}
