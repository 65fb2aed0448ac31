//! Files of this machine as a tar archive, made while it is sent.
//!
//! Permissions, times, links, hard links, extended attributes and holes are kept. Sockets are left out: they are
//! nothing without their process. The tree may be in use: what goes meanwhile is left out, and what becomes shorter is filled
//! with zeros, as tar(1) does. All of that is told.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use banger_archive::TarWriter;
use banger_core::tree::{DataRange, RANGES_MAX, TreeEntry, TreeKind};
use banger_proto::v1;
use banger_proto::v1::omission::Reason;
use bytes::Bytes;
use rustix::io::Errno;

/// Content is read in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
/// Directories in each other that are gone down: what an archive may hold.
const DEPTH_MAX: usize = 512;
/// Longest list of names of attributes, and longest value, as the kernel has them.
const XATTR_MAX_BYTES: usize = 64 << 10;
/// Attributes that are kept: the rest belongs to this machine.
const XATTRS_KEPT: [&str; 3] = ["security.capability", "user.", "system.posix_acl_"];
/// Blocks of stat(2), whatever the file system's are.
const BLOCK_BYTES: u64 = 512;
/// Omissions that are told one by one, as a VM tells them.
const OMISSIONS_TOLD: usize = 64;

/// What is packed.
pub struct PackedTree {
    tree: Tree,
    omitted: Omitted,
}

/// What was not packed, or not as it is; whole when packing has ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Omitted(Arc<Mutex<v1::Omissions>>);

impl Omitted {
    fn add(&self, path: &[u8], reason: Reason) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.count += 1;
        if told.first.len() < OMISSIONS_TOLD {
            told.first.push(v1::Omission {
                path: String::from_utf8_lossy(path).into_owned(),
                reason: reason.into(),
            });
        }
    }

    /// What there is to tell.
    pub(super) fn told(&self) -> Option<v1::Omissions> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (told.count > 0).then(|| told.clone())
    }
}

enum Tree {
    /// A file or a directory, by its own name.
    Named(PathBuf),
    /// What is in a directory.
    Content(PathBuf),
    /// An archive that is made already.
    Archive(Box<dyn Read + Send>),
}

impl std::fmt::Debug for PackedTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PackedTree").field(&self.name()).finish()
    }
}

impl PackedTree {
    fn of(tree: Tree) -> Self {
        let omitted = Omitted::default();
        Self { tree, omitted }
    }

    /// A file, or a directory with all that is in it, by its own name. A symbolic link here is followed; those below
    /// are kept.
    pub fn named(path: impl Into<PathBuf>) -> Self {
        Self::of(Tree::Named(path.into()))
    }

    /// What is in a directory, without the directory itself.
    pub fn content_of(directory: impl Into<PathBuf>) -> Self {
        Self::of(Tree::Content(directory.into()))
    }

    /// A tar archive that is made already, and not compressed.
    pub fn archive(archive: impl Read + Send + 'static) -> Self {
        Self::of(Tree::Archive(Box::new(archive)))
    }

    /// Whether all of it is in one entry at the top.
    pub(super) const fn has_top(&self) -> bool {
        matches!(self.tree, Tree::Named(_))
    }

    /// What will not be packed, or not as it is.
    pub(super) fn omitted(&self) -> Omitted {
        self.omitted.clone()
    }

    /// What it is called in errors.
    pub(crate) fn name(&self) -> PathBuf {
        match &self.tree {
            Tree::Named(path) | Tree::Content(path) => path.clone(),
            Tree::Archive(_) => PathBuf::from("-"),
        }
    }

    /// Writes the archive.
    pub(crate) fn write_to(self, writer: &mut dyn Write) -> io::Result<()> {
        let mut packer = Packer {
            tar: TarWriter::new(writer),
            links: HashMap::new(),
            omitted: self.omitted,
        };
        match self.tree {
            Tree::Named(path) => {
                let name = name_of(&path)?;
                let real = fs::canonicalize(&path).map_err(|error| at(&path, error))?;
                packer.one(&real, &name, 0)?;
            }
            Tree::Content(path) => packer.content(&path, b"", 0)?,
            Tree::Archive(mut archive) => {
                return io::copy(&mut archive, packer.tar.get_mut()).map(drop);
            }
        }
        packer.tar.finish().map(drop)
    }
}

impl<P: AsRef<Path>> From<P> for PackedTree {
    fn from(path: P) -> Self {
        Self::named(path.as_ref())
    }
}

/// The last name of a path; of `.` and the like, that of what it leads to.
fn name_of(path: &Path) -> io::Result<Vec<u8>> {
    let name = match path.file_name() {
        Some(name) => Some(name.to_owned()),
        None => fs::canonicalize(path)?.file_name().map(ToOwned::to_owned),
    };
    let nameless = || io::Error::other("the root directory has no name: give what is in it");
    Ok(name.ok_or_else(nameless)?.into_vec())
}

struct Packer<'a> {
    tar: TarWriter<&'a mut dyn Write>,
    /// The first path of each file that has several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    omitted: Omitted,
}

impl Packer<'_> {
    /// What is in a directory, in the order of the names' bytes.
    fn content(&mut self, directory: &Path, inside: &[u8], depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            let problem = format!("`{}` lies too deep", directory.display());
            return Err(io::Error::other(problem));
        }
        let names = fs::read_dir(directory).map_err(|error| at(directory, error))?;
        let mut names: Vec<_> = names
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<_>>()
            .map_err(|error| at(directory, error))?;
        names.sort_unstable();
        for name in names {
            let path = match inside {
                b"" => name.as_bytes().to_vec(),
                inside => [inside, name.as_bytes()].join(&b'/'),
            };
            match self.one(&directory.join(name), &path, depth) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.omitted.add(&path, Reason::Vanished);
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// One entry and what is beneath it.
    fn one(&mut self, path: &Path, inside: &[u8], depth: usize) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path).map_err(|error| at(path, error))?;
        let kind = metadata.file_type();
        if kind.is_file() {
            return self.file(path, inside);
        }
        if kind.is_socket() {
            self.omitted.add(inside, Reason::Socket);
            return Ok(());
        }
        let mut entry = entry(path, inside, &metadata)?;
        if kind.is_dir() {
            entry.xattrs = xattrs(
                |names| rustix::fs::llistxattr(path, names),
                |name, value| rustix::fs::lgetxattr(path, name, value),
            )
            .map_err(|error| at(path, error))?;
            self.tar.entry(&entry)?;
            return self.content(path, inside, depth + 1);
        }
        if !self.is_link(&metadata, &mut entry) {
            self.links_to(&metadata, inside);
        }
        self.tar.entry(&entry)
    }

    /// Whether another name of it came before: then it is a link to that.
    fn is_link(&self, metadata: &Metadata, entry: &mut TreeEntry) -> bool {
        let first = self.links.get(&(metadata.dev(), metadata.ino()));
        if let Some(first) = first {
            let target = first.clone();
            entry.kind = TreeKind::HardLink { target };
        }
        first.is_some()
    }

    /// Remembers the first name of what has several.
    fn links_to(&mut self, metadata: &Metadata, inside: &[u8]) {
        if metadata.nlink() > 1 {
            let key = (metadata.dev(), metadata.ino());
            self.links.insert(key, inside.to_vec());
        }
    }

    /// A regular file. All that is told of it is of the one that is read.
    fn file(&mut self, path: &Path, inside: &[u8]) -> io::Result<()> {
        let file = open(path).map_err(|error| at(path, error))?;
        let metadata = file.metadata().map_err(|error| at(path, error))?;
        let mut entry = entry(path, inside, &metadata)?;
        if self.is_link(&metadata, &mut entry) {
            return self.tar.entry(&entry);
        }
        entry.xattrs = xattrs(
            |names| rustix::fs::flistxattr(&file, names),
            |name, value| rustix::fs::fgetxattr(&file, name, value),
        )
        .map_err(|error| at(path, error))?;
        self.links_to(&metadata, inside);
        let size = metadata.len();
        let ranges = ranges(&file, &metadata);
        entry.kind = match &ranges {
            None => TreeKind::File { size },
            Some(ranges) => TreeKind::SparseFile {
                size,
                ranges: ranges.clone(),
            },
        };
        self.tar.entry(&entry)?;
        let whole = DataRange {
            offset: 0,
            length: size,
        };
        let mut is_short = false;
        for range in ranges.unwrap_or_else(|| vec![whole]) {
            is_short |= self.range(&file, path, &range)?;
        }
        // Where only a hole went, no byte was missed.
        if is_short || file.metadata().is_ok_and(|now| now.len() < size) {
            self.omitted.add(&entry.path, Reason::Shrank);
        }
        Ok(())
    }

    /// The bytes of a range; whether some of them were not there.
    fn range(&mut self, file: &File, path: &Path, range: &DataRange) -> io::Result<bool> {
        let mut is_short = false;
        let end = range.offset + range.length;
        let mut offset = range.offset;
        let most = usize::try_from(range.length).unwrap_or(PIECE_BYTES);
        let mut buffer = vec![0; PIECE_BYTES.min(most)];
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(buffer.len());
            let want = buffer.len().min(left);
            let mut read = file
                .read_at(&mut buffer[..want], offset)
                .map_err(|error| read_of(path, error))?;
            // It became shorter while it was read.
            if read == 0 {
                buffer[..want].fill(0);
                (read, is_short) = (want, true);
            }
            self.tar.data(&buffer[..read])?;
            offset += read as u64;
        }
        Ok(is_short)
    }
}

/// Opens what was a regular file a moment ago. It may be another thing now: no link is followed, and no pipe waited for;
/// then it is not there any more.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let gone = || io::Error::new(io::ErrorKind::NotFound, "it is no regular file any more");
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(gone()),
        // A link, a socket.
        Err(error)
            if [Errno::LOOP, Errno::NXIO]
                .map(|e| Some(e.raw_os_error()))
                .contains(&error.raw_os_error()) =>
        {
            Err(gone())
        }
        Err(error) => Err(error),
    }
}

/// The error of a reading, which is of a file that was there whatever its kind says.
fn read_of(path: &Path, error: io::Error) -> io::Error {
    io::Error::other(format!("`{}`: {error}", path.display()))
}

/// An error, with the path that it is about; the end of the stream stays what it is.
fn at(path: &Path, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => error,
        kind => io::Error::new(kind, format!("`{}`: {error}", path.display())),
    }
}

/// What is told of it, but for its attributes.
fn entry(path: &Path, inside: &[u8], metadata: &Metadata) -> io::Result<TreeEntry> {
    let kind = metadata.file_type();
    let (major, minor) = (
        rustix::fs::major(metadata.rdev()),
        rustix::fs::minor(metadata.rdev()),
    );
    let kind = if kind.is_dir() {
        TreeKind::Directory
    } else if kind.is_symlink() {
        let target = fs::read_link(path).map_err(|error| at(path, error))?;
        TreeKind::Symlink {
            target: target.into_os_string().into_vec(),
        }
    } else if kind.is_fifo() {
        TreeKind::Fifo
    } else if kind.is_char_device() {
        TreeKind::CharDevice { major, minor }
    } else if kind.is_block_device() {
        TreeKind::BlockDevice { major, minor }
    } else {
        TreeKind::File { size: 0 }
    };
    Ok(TreeEntry {
        path: inside.to_vec(),
        kind,
        mode: u16::try_from(metadata.mode() & 0o7777).unwrap_or_default(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: (
            metadata.mtime(),
            u32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
        ),
        xattrs: BTreeMap::new(),
    })
}

/// Attributes, as `list` and `get` fill a buffer with them.
fn xattrs(
    list: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&str, &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<BTreeMap<String, Bytes>> {
    let mut found = BTreeMap::new();
    let mut names = vec![0; XATTR_MAX_BYTES];
    match list(&mut names[..]) {
        // Most have none.
        Ok(0) => return Ok(found),
        Ok(length) => names.truncate(length),
        Err(Errno::NOTSUP | Errno::ACCESS) => return Ok(found),
        Err(error) => return Err(error.into()),
    }
    let mut buffer = vec![0; XATTR_MAX_BYTES];
    for name in names.split(|&byte| byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        if !XATTRS_KEPT.iter().any(|kept| name.starts_with(kept)) {
            continue;
        }
        // One that went meanwhile, or may not be read, is not there.
        if let Ok(length) = get(name, &mut buffer[..]) {
            found.insert(name.to_owned(), Bytes::copy_from_slice(&buffer[..length]));
        }
    }
    Ok(found)
}

/// Where a file has data; none where it has no holes, or too many to tell.
fn ranges(file: &File, metadata: &Metadata) -> Option<Vec<DataRange>> {
    let size = metadata.len();
    if metadata.blocks().saturating_mul(BLOCK_BYTES) >= size {
        return None;
    }
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        let begin = data - data % BLOCK_BYTES;
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(data)).ok()?;
        let end = end.next_multiple_of(BLOCK_BYTES).min(size);
        if end > begin {
            ranges.push(DataRange {
                offset: begin,
                length: end - begin,
            });
        }
        if ranges.len() > RANGES_MAX || end < begin {
            return None;
        }
        at = end.max(data + 1);
    }
    let told: u64 = ranges.iter().map(|range| range.length).sum();
    (told < size).then_some(ranges)
}

#[cfg(test)]
mod tests;
