//! Writes tar archives (ustar with PAX records where ustar has no room): the same tree, the same bytes.

use std::io::{self, Write};

use banger_core::tree::{DataRange, TreeEntry, TreeKind};
use tar::{EntryType, Header};

const BLOCK: u64 = 512;
/// What the name fields of ustar hold.
const NAME_BYTES: usize = 100;
/// The largest numbers of ustar's octal fields: seven digits for owners, eleven for lengths and times.
const ID_MAX: u32 = 0o777_7777;
const SIZE_MAX: u64 = 0o777_7777_7777;

/// An archive being written.
#[derive(Debug)]
pub struct TarWriter<W> {
    inner: W,
    /// Bytes of the last file still to come, and the padding after them.
    left: u64,
    padding: u64,
    is_finished: bool,
}

impl<W: Write> TarWriter<W> {
    /// Writes to `inner`.
    pub const fn new(inner: W) -> Self {
        Self {
            inner,
            left: 0,
            padding: 0,
            is_finished: false,
        }
    }

    /// Appends an entry; a file's content follows by [`TarWriter::data`].
    ///
    /// # Errors
    /// When writing fails, or the content of the last file was not whole.
    pub fn entry(&mut self, entry: &TreeEntry) -> io::Result<()> {
        self.end_file()?;
        let mut path = entry.path.clone();
        let mut map = Vec::new();
        let (kind, link, size) = match &entry.kind {
            TreeKind::File { size } => (EntryType::Regular, None, *size),
            TreeKind::SparseFile { size, ranges } => {
                map = sparse_map(*size, ranges);
                let stored = entry.kind.stored_bytes();
                (EntryType::Regular, None, stored + map.len() as u64)
            }
            TreeKind::Directory | TreeKind::OpaqueDirectory => {
                path.push(b'/');
                (EntryType::Directory, None, 0)
            }
            TreeKind::Symlink { target } => (EntryType::Symlink, Some(target), 0),
            TreeKind::HardLink { target } => (EntryType::Link, Some(target), 0),
            TreeKind::Fifo => (EntryType::Fifo, None, 0),
            TreeKind::CharDevice { .. } => (EntryType::Char, None, 0),
            TreeKind::BlockDevice { .. } => (EntryType::Block, None, 0),
            TreeKind::Removed => {
                let problem = "a removal is no entry of an archive";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
        };
        let records = records(entry, &path, link, size);
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            name(&mut header, b"PaxHeaders/entry");
            number(&mut header, records.len() as u64, 0);
            header.set_mode(0o644);
            header.set_cksum();
            self.inner.write_all(header.as_bytes())?;
            self.inner.write_all(&records)?;
            self.pad(padding(records.len() as u64))?;
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        match entry.kind {
            TreeKind::SparseFile { .. } => {
                name(&mut header, &[&b"GNUSparseFile.0/"[..], &path].concat());
            }
            _ => name(&mut header, &path),
        }
        if let Some(link) = link {
            let length = link.len().min(NAME_BYTES);
            header.as_old_mut().linkname[..length].copy_from_slice(&link[..length]);
        }
        header.set_mode(entry.mode.into());
        header.set_uid(entry.uid.min(ID_MAX).into());
        header.set_gid(entry.gid.min(ID_MAX).into());
        number(&mut header, size.min(SIZE_MAX), entry.mtime.0);
        if let TreeKind::CharDevice { major, minor } | TreeKind::BlockDevice { major, minor } =
            entry.kind
        {
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        header.set_cksum();
        self.inner.write_all(header.as_bytes())?;
        self.inner.write_all(&map)?;
        (self.left, self.padding) = (size - map.len() as u64, padding(size));
        Ok(())
    }

    /// Appends content of the last file.
    ///
    /// # Errors
    /// When writing fails, or there is more than the file was said to have.
    pub fn data(&mut self, data: &[u8]) -> io::Result<()> {
        self.pass(data.len())?;
        self.inner.write_all(data)
    }

    /// Content of the last file goes past this writer, after all that was written so far.
    ///
    /// # Errors
    /// When there is more than the file was said to have.
    pub fn pass(&mut self, length: usize) -> io::Result<()> {
        self.left = self
            .left
            .checked_sub(length as u64)
            .ok_or_else(|| io::Error::other("a file is longer than it was said to be"))?;
        Ok(())
    }

    /// What is written to.
    pub const fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Whether the archive was ended.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When writing fails, or the content of the last file was not whole.
    pub fn end(&mut self) -> io::Result<()> {
        self.end_file()?;
        self.is_finished = true;
        self.inner.write_all(&[0; 1024])
    }

    fn end_file(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::other("a file is shorter than it was said to be"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.pad(padding)
    }

    fn pad(&mut self, bytes: u64) -> io::Result<()> {
        let zeros = [0; 512];
        self.inner
            .write_all(&zeros[..usize::try_from(bytes).unwrap_or(zeros.len())])
    }

    /// Ends the archive and gives back what it was written to.
    ///
    /// # Errors
    /// When writing fails, or the content of the last file was not whole.
    pub fn finish(mut self) -> io::Result<W> {
        self.end()?;
        Ok(self.inner)
    }
}

const fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// Where a file has data, as the GNU format 1.0 has it before the data: decimal lines, padded to a block (GNU tar
/// manual, "Storing Sparse Files"). A hole at the end is told by no data there, without which GNU tar makes the file end
/// before it.
fn sparse_map(size: u64, ranges: &[DataRange]) -> Vec<u8> {
    let end = ranges.last().map_or(0, |range| range.offset + range.length);
    let hole = (end < size).then_some((size, 0));
    let told = ranges.iter().map(|range| (range.offset, range.length));
    let told: Vec<(u64, u64)> = told.chain(hole).collect();
    let mut map = format!("{}\n", told.len());
    for (offset, length) in told {
        map.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut map = map.into_bytes();
    let padded = map.len() + usize::try_from(padding(map.len() as u64)).unwrap_or_default();
    map.resize(padded, 0);
    map
}

/// The name, cut where it does not fit: then a record has it.
fn name(header: &mut Header, path: &[u8]) {
    let length = path.len().min(NAME_BYTES);
    header.as_old_mut().name[..length].copy_from_slice(&path[..length]);
}

/// Length and time, which a record has where they do not fit.
fn number(header: &mut Header, size: u64, mtime: i64) {
    header.set_size(size);
    header.set_mtime(u64::try_from(mtime).unwrap_or_default().min(SIZE_MAX));
}

/// What ustar has no room for.
fn records(entry: &TreeEntry, path: &[u8], link: Option<&Vec<u8>>, size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &str, value: &[u8]| {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        records.extend_from_slice(format!("{length} {key}=").as_bytes());
        records.extend_from_slice(value);
        records.push(b'\n');
    };
    if let TreeKind::SparseFile { size, .. } = &entry.kind {
        add("GNU.sparse.major", b"1");
        add("GNU.sparse.minor", b"0");
        add("GNU.sparse.name", path);
        add("GNU.sparse.realsize", size.to_string().as_bytes());
    } else if path.len() > NAME_BYTES {
        add("path", path);
    }
    if let Some(link) = link
        && link.len() > NAME_BYTES
    {
        add("linkpath", link);
    }
    if size > SIZE_MAX {
        add("size", size.to_string().as_bytes());
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if id > ID_MAX {
            add(key, id.to_string().as_bytes());
        }
    }
    let (seconds, nanos) = entry.mtime;
    if nanos != 0 || u64::try_from(seconds).is_ok_and(|seconds| seconds > SIZE_MAX) || seconds < 0 {
        add("mtime", time(seconds, nanos).as_bytes());
    }
    for (key, value) in &entry.xattrs {
        add(&format!("SCHILY.xattr.{key}"), value);
    }
    records
}

/// Seconds with a fraction; before 1970 the fraction counts downwards.
fn time(seconds: i64, nanos: u32) -> String {
    let (sign, seconds, nanos) = match (seconds, nanos) {
        (seconds, 0) if seconds < 0 => ("-", seconds.unsigned_abs(), 0),
        (seconds, nanos) if seconds < 0 => {
            ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos)
        }
        (seconds, nanos) => ("", seconds.unsigned_abs(), nanos),
    };
    if nanos == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}
