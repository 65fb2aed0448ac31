//! A directory or a tar archive, seen as names and their bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::Reading;
use super::rootfs::Measured;
use crate::limits::SYMLINK_HOPS_MAX;
use crate::store::StoreError;
use crate::store::source::Region;
use crate::tar::{Budget, EntryKind, FileInput, TarError, TarReader, normalise, parent_and_name};

/// Named byte runs of one source.
#[derive(Debug)]
pub(super) struct Bundle {
    path: PathBuf,
    content: Content,
    /// What the archive is as a layer, where it had to be decompressed.
    measured: Option<Measured>,
}

#[derive(Debug)]
enum Content {
    Directory(File),
    Archive {
        file: Arc<File>,
        members: HashMap<Box<[u8]>, Member>,
    },
}

#[derive(Debug)]
enum Member {
    Bytes { offset: u64, len: u64 },
    Link(Box<[u8]>),
}

impl Bundle {
    /// Opens a directory, or an archive that may be compressed. Blocks.
    pub(super) fn open(path: &Path, reading: &Reading) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::source(path))?;
        if file.metadata().map_err(StoreError::source(path))?.is_dir() {
            return Ok(Self {
                path: path.to_owned(),
                content: Content::Directory(file),
                measured: None,
            });
        }
        let (file, measured) = plain(file, path, reading)?;
        let members = members(&file).map_err(|source| StoreError::Archive {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            content: Content::Archive {
                file: Arc::new(file),
                members,
            },
            measured,
        })
    }

    /// The bytes of `name`, a path inside the bundle; `None` when there is no such file.
    pub(super) fn get(&self, name: &str) -> Result<Option<Region>, StoreError> {
        match &self.content {
            Content::Directory(directory) => {
                open_beneath(directory, name).map_err(StoreError::source(&self.path))
            }
            Content::Archive { file, members } => {
                let Ok(mut name) = normalise(name.as_bytes()) else {
                    return Ok(None);
                };
                for _ in 0..SYMLINK_HOPS_MAX {
                    match members.get(&name) {
                        Some(Member::Bytes { offset, len }) => {
                            return Ok(Some(Region::new(Arc::clone(file), *offset, *len)));
                        }
                        Some(Member::Link(target)) => name.clone_from(target),
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
        }
    }

    /// The bytes of `name`, which must be there.
    pub(super) fn need(&self, name: &str) -> Result<Region, StoreError> {
        self.get(name)?.ok_or_else(|| StoreError::MissingMember {
            path: self.path.clone(),
            member: name.to_owned(),
        })
    }

    /// A document of at most `limit` bytes.
    pub(super) fn document(&self, name: &str, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.need(name)?.read_all(limit).map_err(|_| self.bad(name))
    }

    /// The error of a member that makes no sense.
    pub(super) fn bad(&self, name: &str) -> StoreError {
        StoreError::BadMember {
            path: self.path.clone(),
            member: name.chars().take(200).collect(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the whole is as a layer, where that is known.
    pub(super) fn into_measured(self) -> Option<Measured> {
        self.measured
    }
}

/// A regular file under `directory`, reached without any link.
fn open_beneath(directory: &File, name: &str) -> io::Result<Option<Region>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    Ok(metadata
        .is_file()
        .then(|| Region::new(Arc::new(file), 0, metadata.len())))
}

/// The archive decompressed, if it has to be, and what it is then.
fn plain(
    file: File,
    path: &Path,
    reading: &Reading,
) -> Result<(File, Option<Measured>), StoreError> {
    let len = file.metadata().map_err(StoreError::source(path))?.len();
    let region = Region::new(
        Arc::new(file.try_clone().map_err(StoreError::source(path))?),
        0,
        len,
    );
    if !super::rootfs::is_compressed(&region).map_err(StoreError::source(path))? {
        return Ok((file, None));
    }
    let mut measured = super::rootfs::measure(&region, path, reading)?;
    let plain = measured.plain.take().unwrap_or(file);
    Ok((plain, Some(measured)))
}

fn members(file: &File) -> Result<HashMap<Box<[u8]>, Member>, TarError> {
    let budget = Budget::default();
    let input =
        FileInput::new(file.try_clone().map_err(TarError::Read)?).map_err(TarError::Read)?;
    let mut reader = TarReader::new(input, &budget);
    let mut members = HashMap::new();
    while let Some(entry) = reader.next_entry()? {
        let member = match entry.kind {
            EntryKind::File(content) => match &*content.extents {
                [] => Member::Bytes { offset: 0, len: 0 },
                [only] if only.len == content.size => Member::Bytes {
                    offset: only.offset,
                    len: only.len,
                },
                _ => continue, // a sparse member is nothing any tool writes
            },
            EntryKind::HardLink { target } => Member::Link(target),
            EntryKind::Symlink { target } => {
                let parent = parent_and_name(&entry.path).0;
                match normalise(&[parent, b"/", &target].concat()) {
                    Ok(target) => Member::Link(target),
                    Err(_) => continue, // it leads out of the archive: as good as missing
                }
            }
            _ => continue,
        };
        members.insert(entry.path, member);
    }
    Ok(members)
}
