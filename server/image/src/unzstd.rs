//! Decompressing zstd in memory that has a bound over all who do it at once.
//!
//! A decoder keeps as much of what it has written as the header of its frame demands: the frame's *window*. Those that
//! common tools demand are free; the larger ones share what [`WINDOWS_MIB_MAX`] says, and wait for their turn. Nobody
//! waits for a window while holding one: a decoder gives its own up first, between two frames.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use zstd::stream::raw::{DParameter, Decoder, Operation as _};

use crate::limits::{WINDOW_BYTES_FREE, WINDOWS_MIB_MAX};
use crate::watched::GivenUp;

/// The first bytes of a frame (RFC 8878 §3.1.1). What begins otherwise is skipped, or no zstd, and needs no window.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The longest header of a frame.
const HEADER_BYTES_MAX: usize = 18;
const MIB: u64 = 1 << 20;

/// What all decoders may demand together. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    left: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Windows {
    pub(crate) fn new() -> Self {
        Self {
            left: Arc::new(Semaphore::new(WINDOWS_MIB_MAX as usize)),
            waiting: Arc::default(),
        }
    }

    /// Those of this process: its memory is what is bounded.
    pub(crate) fn of_process() -> Self {
        static WINDOWS: std::sync::LazyLock<Windows> = std::sync::LazyLock::new(Windows::new);
        WINDOWS.clone()
    }

    /// Waits for a window. Blocks, until `cancel` is cancelled.
    fn take(&self, bytes: u64, cancel: &CancellationToken) -> io::Result<OwnedSemaphorePermit> {
        let mib = u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX);
        // One that is larger than all there may be has them alone: its decoder refuses it.
        let mib = mib.min(WINDOWS_MIB_MAX);
        let free = self.left.clone();
        if let Ok(share) = free.clone().try_acquire_many_owned(mib) {
            return Ok(share);
        }
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::debug!(mib, waiting, "a zstd window waits for memory");
        let share = futures::executor::block_on(async {
            // cancel-safe: a place in line is given up
            tokio::select! {
                biased; // giving up before more waiting
                () = cancel.cancelled() => Err(io::Error::other(GivenUp)),
                share = free.acquire_many_owned(mib) => Ok(share.expect("never closed")),
            }
        });
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        share
    }
}

/// What all frames of a stream hold, one after the other. Blocks.
pub(crate) struct Unzstd<R> {
    reader: R,
    decoder: Decoder<'static>,
    window_log_max: u32,
    windows: Windows,
    cancel: CancellationToken,
    /// The largest window that the decoder has had, and may still have the memory of.
    had: u64,
    share: Option<OwnedSemaphorePermit>,
    header: Header,
    is_in_frame: bool,
}

impl<R> fmt::Debug for Unzstd<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unzstd").finish_non_exhaustive()
    }
}

impl<R: BufRead> Unzstd<R> {
    /// Refuses windows of more than `2^window_log_max` bytes; waits for no other after `cancel` was cancelled.
    pub(crate) fn new(
        reader: R,
        window_log_max: u32,
        windows: Windows,
        cancel: CancellationToken,
    ) -> io::Result<Self> {
        Ok(Self {
            reader,
            decoder: decoder(window_log_max)?,
            window_log_max,
            windows,
            cancel,
            had: 0,
            share: None,
            header: Header::default(),
            is_in_frame: false,
        })
    }

    /// Reads the header of the next frame, and waits for its window. False at the end of the stream.
    fn begin_frame(&mut self) -> io::Result<bool> {
        self.header = Header::default();
        while let Some(missing) = self.header.missing() {
            let available = self.reader.fill_buf()?;
            if available.is_empty() {
                return match self.header.bytes() {
                    [] => Ok(false),
                    _ => Err(incomplete()),
                };
            }
            let taken = missing.min(available.len());
            self.header.extend(&available[..taken]);
            self.reader.consume(taken);
        }
        let window = self.header.window_bytes();
        let is_allowed = window <= 1 << self.window_log_max;
        if is_allowed && window > self.had.max(WINDOW_BYTES_FREE) {
            // The memory goes first, and then its share.
            self.decoder = decoder(self.window_log_max)?;
            self.share = None;
            self.share = Some(self.windows.take(window, &self.cancel)?);
            self.had = window;
        }
        Ok(true)
    }

    /// Decompresses what is there of the frame. Returns how much came out, and whether the input is at its end.
    fn step(&mut self, buf: &mut [u8]) -> io::Result<(usize, bool)> {
        let is_header = !self.header.rest().is_empty();
        let input = match is_header {
            true => self.header.rest(),
            false => self.reader.fill_buf()?,
        };
        let is_over = input.is_empty();
        let done = self.decoder.run_on_buffers(input, buf)?;
        match is_header {
            true => self.header.given += done.bytes_read,
            false => self.reader.consume(done.bytes_read),
        }
        if done.remaining == 0 {
            self.is_in_frame = false;
            self.decoder.reinit()?;
        }
        Ok((done.bytes_written, is_over))
    }
}

impl<R: BufRead> Read for Unzstd<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_in_frame {
                if !self.begin_frame()? {
                    return Ok(0);
                }
                self.is_in_frame = true;
            }
            let (written, is_over) = self.step(buf)?;
            if written > 0 {
                return Ok(written);
            }
            if is_over && self.is_in_frame {
                return Err(incomplete());
            }
        }
    }
}

fn incomplete() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "incomplete frame")
}

fn decoder(window_log_max: u32) -> io::Result<Decoder<'static>> {
    let mut decoder = Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(window_log_max))?;
    Ok(decoder)
}

/// The header of a frame, which its decoder needs too.
#[derive(Debug, Default)]
struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    length: usize,
    /// How much of it the decoder has.
    given: usize,
}

impl Header {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.given..self.length]
    }

    fn extend(&mut self, more: &[u8]) {
        self.bytes[self.length..][..more.len()].copy_from_slice(more);
        self.length += more.len();
    }

    /// How much more of it there is, as far as is known; `None` where it is whole, or none.
    fn missing(&self) -> Option<usize> {
        let known = self.bytes();
        let whole = match known.get(MAGIC.len()) {
            None if known.len() == MAGIC.len() && known != MAGIC => return None,
            None => MAGIC.len() + usize::from(known.len() == MAGIC.len()),
            Some(_) => Fields::of(known).end,
        };
        (whole > known.len()).then(|| whole - known.len())
    }

    /// The window that the frame demands; 0 where it is none.
    fn window_bytes(&self) -> u64 {
        let known = self.bytes();
        if !known.starts_with(&MAGIC) || known.len() <= MAGIC.len() || self.missing().is_some() {
            return 0;
        }
        let fields = Fields::of(known);
        let mut content = [0; 8];
        let size = &known[fields.content..fields.end];
        content[..size.len()].copy_from_slice(size);
        // Sizes of two bytes begin where those of one end.
        let offset = if size.len() == 2 { 256 } else { 0 };
        let content = u64::from_le_bytes(content).saturating_add(offset);
        match fields.window {
            None => content,
            Some(at) => {
                let base = 1_u64 << (10 + (known[at] >> 3));
                let window = base + base / 8 * u64::from(known[at] & 7);
                // A decoder makes none larger than what comes.
                if size.is_empty() {
                    window
                } else {
                    window.min(content)
                }
            }
        }
    }
}

/// Where the fields of a header are.
struct Fields {
    /// The window descriptor; absent where the window is the whole content.
    window: Option<usize>,
    /// The content's size, up to the end.
    content: usize,
    end: usize,
}

impl Fields {
    /// Of a header of which the descriptor is known.
    fn of(known: &[u8]) -> Self {
        let descriptor = known[MAGIC.len()];
        let is_single = descriptor & 0x20 != 0;
        let window = MAGIC.len() + 1;
        let dictionary = window + usize::from(!is_single);
        let content = dictionary + [0, 1, 2, 4][usize::from(descriptor & 3)];
        let size = match descriptor >> 6 {
            0 => usize::from(is_single),
            flag => 1 << flag,
        };
        Self {
            window: (!is_single).then_some(window),
            content,
            end: content + size,
        }
    }
}

#[cfg(test)]
impl Windows {
    /// How many decoders wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// All of them, once no decoder has one.
    pub(crate) fn take_all(&self) -> OwnedSemaphorePermit {
        let bytes = u64::from(WINDOWS_MIB_MAX) * MIB;
        let all = self.take(bytes, &CancellationToken::new());
        all.expect("nobody gives up")
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};
    use std::sync::mpsc;

    use super::*;

    const LOG_MAX: u32 = 26;

    /// A frame that demands a window of `2^log` bytes, whatever it holds.
    fn frame(content: &[u8], log: u32) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(content).unwrap();
        // Before the end is known.
        encoder.flush().unwrap();
        encoder.finish().unwrap()
    }

    fn reader<'a>(bytes: &'a [u8], windows: &Windows) -> Unzstd<BufReader<&'a [u8]>> {
        let reader = BufReader::with_capacity(1, bytes);
        Unzstd::new(reader, LOG_MAX, windows.clone(), CancellationToken::new()).unwrap()
    }

    fn demanded(frame: &[u8]) -> u64 {
        let mut header = Header::default();
        while let Some(missing) = header.missing() {
            header.extend(&frame[header.length..][..missing]);
        }
        header.window_bytes()
    }

    #[test]
    fn a_frame_says_what_it_demands() {
        for log in 10..=LOG_MAX {
            assert_eq!(demanded(&frame(b"x", log)), 1 << log);
        }
        // Where its content is known and less, that is all.
        for size in [0, 1, 255, 256, 65_791, 65_792, 3 << 20] {
            let whole = zstd::bulk::compress(&vec![7; size], 19).unwrap();
            assert_eq!(demanded(&whole), size as u64, "{size}");
        }
        let fraction = [&MAGIC[..], &[0, (16 << 3) | 3]].concat();
        assert_eq!(demanded(&fraction), (64 << 20) + 3 * (8 << 20));
        let with_dictionary = [&MAGIC[..], &[0x20 | 3, 1, 2, 3, 4, 9]].concat();
        assert_eq!(demanded(&with_dictionary), 9);
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0];
        assert_eq!(demanded(&skipped), 0);
    }

    #[test]
    fn all_frames_are_read_and_what_is_cut_off_is_told() {
        let skipped = [0x5f, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let large: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let (first, last) = (frame(b"first", 26), frame(b"last", 21));
        let bytes = [
            &first[..],
            &skipped,
            &frame(b"", 10),
            &frame(&large, 24),
            &last,
        ]
        .concat();
        let windows = Windows::new();
        let mut read = Vec::new();
        reader(&bytes, &windows).read_to_end(&mut read).unwrap();
        assert!(read == [b"first", &large[..], b"last"].concat());
        for cut in (1..first.len()).chain(bytes.len() - last.len() + 1..bytes.len()) {
            let mut read = Vec::new();
            let ended = reader(&bytes[..cut], &windows).read_to_end(&mut read);
            let error = ended.expect_err("it is cut off");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}: {error}");
        }
        let error = reader(&frame(b"x", 27), &windows).read(&mut [0]);
        assert!(error.unwrap_err().to_string().contains("too much memory"));
        let error = reader(b"no zstd at all", &windows).read(&mut [0]);
        assert!(error.unwrap_err().to_string().contains("Unknown frame"));
        assert_eq!(windows.left.available_permits(), WINDOWS_MIB_MAX as usize);
    }

    /// One decoder in a thread, which has read its frame's content and waits for the end of it.
    struct Held {
        end: mpsc::Sender<()>,
        thread: std::thread::JoinHandle<io::Result<()>>,
    }

    impl Held {
        fn begin(
            bytes: Vec<u8>,
            windows: &Windows,
            cancel: &CancellationToken,
        ) -> (Self, mpsc::Receiver<()>) {
            let ((end, ended), (tell, told)) = (mpsc::channel(), mpsc::channel());
            let (windows, cancel) = (windows.clone(), cancel.clone());
            let thread = std::thread::spawn(move || {
                let mut reader = Unzstd::new(&bytes[..], LOG_MAX, windows, cancel)?;
                reader.read_exact(&mut [0])?;
                tell.send(()).unwrap();
                let _ = ended.recv();
                Ok(())
            });
            (Self { end, thread }, told)
        }

        fn end(self) -> io::Result<()> {
            drop(self.end);
            self.thread.join().unwrap()
        }
    }

    fn until_waiting(windows: &Windows, count: usize) {
        while windows.waiting() != count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn large_windows_wait_for_each_other_and_small_ones_for_nobody() {
        let (windows, cancel) = (Windows::new(), CancellationToken::new());
        let begin = |log| Held::begin(frame(b"x", log), &windows, &cancel);
        let fit = WINDOWS_MIB_MAX / (1 << (LOG_MAX - 20));
        let holders: Vec<Held> = (0..fit)
            .map(|_| {
                let (held, reads) = begin(LOG_MAX);
                reads.recv().unwrap();
                held
            })
            .collect();
        assert_eq!(windows.left.available_permits(), 0);
        let (later, reads) = begin(LOG_MAX);
        until_waiting(&windows, 1);
        assert!(reads.try_recv().is_err());
        for log in [10, 21, 23] {
            let (common, reads) = begin(log);
            reads.recv().unwrap();
            common.end().unwrap();
        }
        // Who gives up waits no longer.
        let given_up = CancellationToken::new();
        let (never, _) = Held::begin(frame(b"x", 24), &windows, &given_up);
        until_waiting(&windows, 2);
        given_up.cancel();
        assert!(GivenUp::is_in(&never.end().unwrap_err()));
        let mut holders = holders.into_iter();
        holders.next().unwrap().end().unwrap();
        reads.recv().unwrap();
        later.end().unwrap();
        holders.for_each(|held| held.end().unwrap());
        assert_eq!(windows.left.available_permits(), WINDOWS_MIB_MAX as usize);
    }

    #[test]
    fn decoders_that_need_more_than_they_have_do_not_lock_each_other_up() {
        let (windows, cancel) = (Windows::new(), CancellationToken::new());
        let count = WINDOWS_MIB_MAX / 16;
        let all = Arc::new(std::sync::Barrier::new(count as usize));
        let growing = [frame(b"x", 24), frame(b"y", 25), frame(b"z", LOG_MAX)].concat();
        let threads: Vec<_> = (0..count)
            .map(|_| {
                let all = all.clone();
                let (bytes, windows, cancel) = (growing.clone(), windows.clone(), cancel.clone());
                std::thread::spawn(move || {
                    let mut read = String::from("x");
                    let mut reader = Unzstd::new(&bytes[..], LOG_MAX, windows, cancel).unwrap();
                    reader.read_exact(&mut [0]).unwrap();
                    // All of the memory is taken now.
                    all.wait();
                    reader.read_to_string(&mut read).unwrap();
                    assert_eq!(read, "xyz");
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(windows.left.available_permits(), WINDOWS_MIB_MAX as usize);
    }
}
