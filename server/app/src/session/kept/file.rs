//! The file of one kept log.
//!
//! ```text
//! length of the header (4 bytes)   header (JSON)   piece*
//! piece: kind (1)   seconds (8)   nanoseconds (4)   length (4, of a gap 8)   bytes (none of a gap)
//! ```
//! Numbers are big-endian. A file that ends in the middle of a piece ends before it: its writer was cut off.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use banger_core::Timestamp;
use banger_core::session::{Attached, Session, SessionEvent, Stream};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Bytes that are read and written at once.
const BUFFER_BYTES: usize = 256 << 10;
/// The longest header: a command and an environment of 6 MiB together, each byte of them escaped, with room.
const HEADER_MAX_BYTES: u32 = 48 << 20;
/// The longest piece: more than any that a guest may send.
const PIECE_MAX_BYTES: u32 = 4 << 20;
/// The kind of a gap. Streams have their own numbers.
const GAP: u8 = 0;

/// What a log is of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Header {
    /// As it was when it was copied.
    pub(crate) session: Session,
    /// Of the first byte that was copied.
    pub(crate) start_offset: u64,
}

impl Header {
    pub(super) fn of(begun: Attached) -> Self {
        Self {
            session: begun.session,
            start_offset: begun.start_offset,
        }
    }
}

const fn kind(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}

fn stream(kind: u8) -> Option<Stream> {
    let all = [Stream::Stdout, Stream::Stderr];
    all.into_iter().find(|&stream| self::kind(stream) == kind)
}

/// Writes one.
#[derive(Debug)]
pub(super) struct Writer {
    file: BufWriter<File>,
    bytes: u64,
}

impl Writer {
    pub(super) fn create(path: &Path, header: &Header) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let text = serde_json::to_vec(header)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        file.write_all(&length.to_be_bytes())?;
        file.write_all(&text)?;
        Ok(Self {
            file,
            bytes: u64::from(length) + 4,
        })
    }

    /// Bytes so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn event(&mut self, event: &SessionEvent) -> io::Result<()> {
        match event {
            SessionEvent::Output {
                stream, time, data, ..
            } => {
                let length = u32::try_from(data.len()).map_err(io::Error::other)?;
                self.put(&[kind(*stream)])?;
                self.put(&time.as_second().to_be_bytes())?;
                self.put(&time.subsec_nanosecond().to_be_bytes())?;
                self.put(&length.to_be_bytes())?;
                self.put(data)
            }
            SessionEvent::Gap { lost_bytes, .. } => {
                self.put(&[GAP])?;
                self.put(&[0; 12])?;
                self.put(&lost_bytes.to_be_bytes())
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Leaves nothing in memory. How the bytes reach the disk is the host's business, as with the VM's console.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.file.flush()?;
        Ok(self.bytes)
    }
}

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Output(Stream, Timestamp, Bytes),
    Gap(u64),
}

impl Piece {
    /// Bytes of output that it stands for.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Output(_, _, data) => data.len() as u64,
            Self::Gap(lost) => *lost,
        }
    }
}

/// Reads one, piece by piece.
#[derive(Debug)]
pub(super) struct Reader {
    file: BufReader<File>,
    first: u64,
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Reader {
    pub(super) fn open(path: &Path) -> io::Result<(Self, Header)> {
        let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
        let length = u32::from_be_bytes(take(&mut file)?);
        if length > HEADER_MAX_BYTES {
            return Err(damaged("the header is too long"));
        }
        let mut text = Vec::new();
        file.by_ref().take(length.into()).read_to_end(&mut text)?;
        let header = serde_json::from_slice(&text)?;
        let first = u64::from(length) + 4;
        Ok((Self { file, first }, header))
    }

    /// Back to the first piece.
    pub(super) fn rewind(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.first)).map(drop)
    }

    /// The next piece; none at the end, or where the writer was cut off.
    pub(super) fn next(&mut self) -> io::Result<Option<Piece>> {
        match self.piece() {
            Ok(piece) => Ok(Some(piece)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn piece(&mut self) -> io::Result<Piece> {
        let [kind] = take(&mut self.file)?;
        let seconds = i64::from_be_bytes(take(&mut self.file)?);
        let nanos = i32::from_be_bytes(take(&mut self.file)?);
        if kind == GAP {
            return Ok(Piece::Gap(u64::from_be_bytes(take(&mut self.file)?)));
        }
        let length = u32::from_be_bytes(take(&mut self.file)?);
        if length > PIECE_MAX_BYTES {
            return Err(damaged("a piece is too long"));
        }
        let stream = stream(kind).ok_or_else(|| damaged("a piece is of no stream"))?;
        let time = Timestamp::new(seconds, nanos).map_err(io::Error::other)?;
        let mut data = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact(&mut data)?;
        Ok(Piece::Output(stream, time, data.into()))
    }
}

fn take<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
