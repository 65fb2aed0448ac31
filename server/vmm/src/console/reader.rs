//! Any number of readers of a console log, alone or beside its writer, in this process or another.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use banger_core::vmm::{Console, ConsoleChunk};
use bytes::Bytes;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::{DIR, make_dir, segments};
use crate::sys;

/// The most that one read returns.
const MAX_READ: usize = 1024 * 1024;

/// Reads the console log of one VM.
#[derive(Debug, Clone)]
pub struct ConsoleLog {
    dir: PathBuf,
}

impl ConsoleLog {
    /// The log of the VM in `vm_dir`; it need not exist yet.
    #[must_use]
    pub fn of(vm_dir: &Path) -> Self {
        Self {
            dir: vm_dir.join(DIR),
        }
    }

    /// The offsets that can be read: from the oldest byte that is left to the end.
    ///
    /// # Errors
    /// If the log is there and cannot be read.
    pub fn range(&self) -> io::Result<Range<u64>> {
        let segments = segments(&self.dir)?;
        let (Some((start, _)), Some((last, path))) = (segments.first(), segments.last()) else {
            return Ok(0..0);
        };
        // A segment that is gone by now was evicted, so a newer one is there or will be: it ends at its start.
        let length = path.metadata().map_or(0, |metadata| metadata.len());
        Ok(*start..last + length)
    }

    /// Reads at most `max` bytes (and at most 1 MiB) from `offset`, from one segment. Blocks on the disk.
    ///
    /// # Errors
    /// If the log is there and cannot be read.
    pub fn read_now(&self, offset: u64, max: usize) -> io::Result<ConsoleChunk> {
        let max = max.min(MAX_READ);
        let mut at = offset;
        for (start, path) in segments(&self.dir)? {
            let Some(mut file) = open(&path)? else {
                continue;
            };
            let end = start + file.metadata()?.len();
            if at >= end {
                continue;
            }
            at = at.max(start);
            file.seek(SeekFrom::Start(at - start))?;
            let mut bytes = Vec::new();
            file.take(u64::try_from(max).expect("a length fits"))
                .read_to_end(&mut bytes)?;
            return Ok(ConsoleChunk {
                offset: at,
                data: bytes.into(),
            });
        }
        Ok(ConsoleChunk {
            offset: at.min(self.range()?.end),
            data: Bytes::new(),
        })
    }

    /// The last bytes of the log, at most `max`: a panic's last words are there.
    ///
    /// # Errors
    /// If the log is there and cannot be read.
    pub fn tail(&self, max: usize) -> io::Result<Vec<u8>> {
        let range = self.range()?;
        let length = u64::try_from(max).expect("a length fits");
        let mut at = range.end.saturating_sub(length).max(range.start);
        let mut bytes = Vec::new();
        while at < range.end && bytes.len() < max {
            let chunk = self.read_now(at, max - bytes.len())?;
            if chunk.data.is_empty() {
                break;
            }
            at = chunk.offset + u64::try_from(chunk.data.len()).expect("a length fits");
            bytes.extend_from_slice(&chunk.data);
        }
        Ok(bytes)
    }
}

#[async_trait]
impl Console for ConsoleLog {
    async fn read(&self, offset: u64, max_bytes: usize) -> io::Result<ConsoleChunk> {
        let log = self.clone();
        tokio::task::spawn_blocking(move || log.read_now(offset, max_bytes)).await?
    }

    /// Woken by the kernel; never polls. An error where the VM's directory is gone.
    async fn grown(&self, offset: u64) -> io::Result<()> {
        // A VM that was never launched has no log yet, but may get one.
        make_dir(&self.dir)?;
        let watch = sys::watch(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)?;
        let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::DELETE_SELF;
        inotify::add_watch(watch.get_ref(), &self.dir, changes)?;
        // After the watch is set: growth between this look and the wait makes it readable at once.
        if !self.read(offset, 1).await?.data.is_empty() {
            return Ok(());
        }
        let _ready = watch.readable().await?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}
