//! Files, links and nodes that have a name of their own until they are whole, and then take their final one at once.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Names that are tried: that one is taken is an accident, or somebody's joke.
const NAMES_TRIED: usize = 16;

/// Something without its final name; it goes again unless it gets that.
#[derive(Debug)]
pub(crate) struct Unfinished {
    parent: OwnedFd,
    name: String,
    file: Option<File>,
    is_published: bool,
}

impl Unfinished {
    /// An empty file of the caller's in `parent`, which nobody else may read.
    pub(crate) fn file(parent: OwnedFd) -> rustix::io::Result<Self> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (name, file) = named(|name| {
            let mode = Mode::RUSR | Mode::WUSR;
            rustix::fs::openat(&parent, name, flags, mode).map(File::from)
        })?;
        Ok(Self {
            parent,
            name,
            file: Some(file),
            is_published: false,
        })
    }

    /// A symbolic link in `parent`.
    pub(crate) fn symlink(parent: OwnedFd, target: &[u8]) -> rustix::io::Result<Self> {
        let target = OsStr::from_bytes(target);
        Self::nameless(parent, |parent, name| {
            rustix::fs::symlinkat(target, parent, name)
        })
    }

    /// A further name for the file `name` in `from`.
    pub(crate) fn hard_link(
        parent: OwnedFd,
        from: &OwnedFd,
        name: &[u8],
    ) -> rustix::io::Result<Self> {
        let old = OsStr::from_bytes(name);
        Self::nameless(parent, |parent, name| {
            rustix::fs::linkat(from, old, parent, name, AtFlags::empty())
        })
    }

    /// A pipe or a device.
    pub(crate) fn node(parent: OwnedFd, kind: FileType, device: Dev) -> rustix::io::Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR;
        Self::nameless(parent, |parent, name| {
            rustix::fs::mknodat(parent, name, kind, mode, device)
        })
    }

    fn nameless(
        parent: OwnedFd,
        make: impl Fn(&OwnedFd, &str) -> rustix::io::Result<()>,
    ) -> rustix::io::Result<Self> {
        let (name, ()) = named(|name| make(&parent, name))?;
        Ok(Self {
            parent,
            name,
            file: None,
            is_published: false,
        })
    }

    /// The directory it lies in, and its name until it is whole.
    pub(crate) fn place(&self) -> (&OwnedFd, &[u8]) {
        (&self.parent, self.name.as_bytes())
    }

    /// The file. **Only of one that was made as a file.**
    pub(crate) fn as_file(&self) -> &File {
        self.file.as_ref().expect("a file was made")
    }

    /// Gives it its final name; the file again, or for anything else the directory it lies in.
    pub(crate) fn publish(
        mut self,
        name: &[u8],
        flags: RenameFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let name = OsStr::from_bytes(name);
        rustix::fs::renameat_with(&self.parent, &*self.name, &self.parent, name, flags)?;
        match self.file.take() {
            Some(file) => {
                self.is_published = true;
                Ok(file.into())
            }
            // Its first name goes even so: over another name of the same file, rename(2) does nothing.
            None => rustix::io::dup(&self.parent),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_published {
            // What cannot be removed, because the directory went, is gone with it.
            let _ = rustix::fs::unlinkat(&self.parent, &*self.name, AtFlags::empty());
        }
    }
}

/// Makes something under a name that nothing has.
fn named<T>(
    mut make: impl FnMut(&str) -> rustix::io::Result<T>,
) -> rustix::io::Result<(String, T)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let base = now.map_or(0, |now| now.as_secs() ^ u64::from(now.subsec_nanos()) << 32);
    for _ in 0..NAMES_TRIED {
        let number = base.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let name = format!(".banger-{number:016x}");
        match make(&name) {
            Err(Errno::EXIST) => {}
            made => return made.map(|made| (name, made)),
        }
    }
    Err(Errno::EXIST)
}
