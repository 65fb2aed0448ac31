//! Where a tar stream comes from.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::TarError;

/// A stream that only moves forward and knows where it is.
pub trait TarInput {
    /// Reads until `buf` is full or the stream ends; returns how much was read.
    ///
    /// # Errors
    /// When the stream cannot be read.
    fn read_up_to(&mut self, buf: &mut [u8]) -> io::Result<usize>;
    /// Passes over `len` bytes; false when the stream ends before.
    ///
    /// # Errors
    /// When the stream cannot be read.
    fn skip(&mut self, len: u64) -> io::Result<bool>;
    /// How many bytes were read or passed over.
    fn position(&self) -> u64;
}

/// Fills `buf`, or says where the archive ends.
pub(super) fn fill(input: &mut impl TarInput, buf: &mut [u8]) -> Result<(), TarError> {
    let read = input.read_up_to(buf).map_err(TarError::Read)?;
    if read < buf.len() {
        Err(TarError::Truncated {
            offset: input.position(),
        })
    } else {
        Ok(())
    }
}

/// A plain tar file: data is passed over by seeking.
#[derive(Debug)]
pub struct FileInput {
    file: BufReader<File>,
    position: u64,
    len: u64,
}

impl FileInput {
    /// Reads headers in pieces of this many bytes.
    const BUFFER_BYTES: usize = 16 << 10;

    /// From the file's beginning.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(mut file: File) -> io::Result<Self> {
        let len = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        Ok(Self {
            file: BufReader::with_capacity(Self::BUFFER_BYTES, file),
            position: 0,
            len,
        })
    }
}

impl TarInput for FileInput {
    fn read_up_to(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = read_up_to(&mut self.file, buf)?;
        self.position += read as u64;
        Ok(read)
    }

    fn skip(&mut self, len: u64) -> io::Result<bool> {
        if len > self.len.saturating_sub(self.position) {
            self.position = self.len;
            return Ok(false);
        }
        let step = i64::try_from(len).map_err(io::Error::other)?;
        self.file.seek_relative(step)?;
        self.position += len;
        Ok(true)
    }

    fn position(&self) -> u64 {
        self.position
    }
}

/// A stream that can only be read.
#[derive(Debug)]
pub struct StreamInput<R> {
    stream: R,
    position: u64,
}

impl<R: Read> StreamInput<R> {
    /// From where the stream is.
    pub const fn new(stream: R) -> Self {
        Self {
            stream,
            position: 0,
        }
    }
}

impl<R: Read> TarInput for StreamInput<R> {
    fn read_up_to(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = read_up_to(&mut self.stream, buf)?;
        self.position += read as u64;
        Ok(read)
    }

    fn skip(&mut self, len: u64) -> io::Result<bool> {
        let passed = io::copy(&mut (&mut self.stream).take(len), &mut io::sink())?;
        self.position += passed;
        Ok(passed == len)
    }

    fn position(&self) -> u64 {
        self.position
    }
}

/// Reads until `buf` is full or `from` ends.
///
/// # Errors
/// When `from` cannot be read.
pub fn read_up_to(from: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match from.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
