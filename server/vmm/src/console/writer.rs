//! The one writer of a console log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{DIR, make_dir, segment_name, segments};

/// What is read from the VMM at once: a burst of boot messages.
const READ_BYTES: usize = 64 * 1024;

/// Segments that are kept: the one that is written, and the one before.
const KEPT_SEGMENTS: usize = 2;

/// Appends to a console log and keeps it within its bound.
#[derive(Debug)]
pub(crate) struct ConsoleWriter {
    dir: PathBuf,
    max_segment: u64,
    segment: Option<Segment>,
    failed: bool,
}

#[derive(Debug)]
struct Segment {
    file: File,
    start: u64,
    length: u64,
}

impl ConsoleWriter {
    /// Continues the log of the VM in `vm_dir`, or starts it. `max_bytes` bounds all segments together.
    ///
    /// # Errors
    /// If the log's directory cannot be made or read.
    pub(crate) fn open(vm_dir: &Path, max_bytes: u64) -> io::Result<Self> {
        let dir = vm_dir.join(DIR);
        make_dir(&dir)?;
        let segment = match segments(&dir)?.pop() {
            None => None,
            Some((start, path)) => {
                let file = OpenOptions::new().append(true).open(path)?;
                let length = file.metadata()?.len();
                Some(Segment {
                    file,
                    start,
                    length,
                })
            }
        };
        let kept = u64::try_from(KEPT_SEGMENTS).expect("a small constant");
        Ok(Self {
            dir,
            max_segment: (max_bytes / kept).max(1),
            segment,
            failed: false,
        })
    }

    /// Appends all of `bytes`, or drops what the disk does not take.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.append_some(bytes) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    self.failed = false;
                }
                Err(error) => return self.complain(&error),
            }
        }
    }

    /// Says in the log, on a line of its own, that something is missing here.
    pub(crate) fn mark(&mut self, note: &str) {
        self.append(format!("\r\n[banger: {note}]\r\n").as_bytes());
    }

    /// Whether nothing was ever written.
    pub(crate) fn is_empty(&self) -> bool {
        self.segment
            .as_ref()
            .is_none_or(|segment| segment.start + segment.length == 0)
    }

    fn append_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let max = self.max_segment;
        let segment = self.writable_segment()?;
        let room = usize::try_from(max - segment.length).unwrap_or(usize::MAX);
        let count = segment.file.write(&bytes[..bytes.len().min(room)])?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        segment.length += u64::try_from(count).expect("a length fits");
        Ok(count)
    }

    /// The newest segment, with room for at least a byte.
    fn writable_segment(&mut self) -> io::Result<&mut Segment> {
        let full = |segment: &Segment| segment.length >= self.max_segment;
        if self.segment.as_ref().is_none_or(full) {
            let start = self
                .segment
                .as_ref()
                .map_or(0, |last| last.start + last.length);
            self.segment = Some(self.new_segment(start)?);
        }
        Ok(self.segment.as_mut().expect("it was just made"))
    }

    fn new_segment(&self, start: u64) -> io::Result<Segment> {
        // Old ones go first, so that the bound holds at every instant.
        let mut old = segments(&self.dir)?;
        while old.len() >= KEPT_SEGMENTS {
            fs::remove_file(old.remove(0).1)?;
        }
        let path = self.dir.join(segment_name(start));
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        Ok(Segment {
            file,
            start,
            length: 0,
        })
    }

    fn complain(&mut self, error: &io::Error) {
        if !self.failed {
            let dir = self.dir.display();
            tracing::warn!(%error, %dir, "the console log cannot be written: output is dropped");
        }
        self.failed = true;
    }
}

/// Appends what `stream` gives until it ends. Always takes it, so that no guest waits for the host's disk.
pub(crate) async fn pump<S: AsyncRead + Unpin>(mut stream: S, mut writer: ConsoleWriter) {
    let mut chunk = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        let appended = tokio::task::spawn_blocking(move || {
            writer.append(&chunk[..count]);
            (writer, chunk)
        });
        // An error means that the runtime is shutting down.
        let Ok(back) = appended.await else { return };
        (writer, chunk) = back;
    }
}
