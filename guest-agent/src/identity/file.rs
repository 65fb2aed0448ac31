//! Files of a user.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use crate::refusal::{Refusal, describe};
use crate::session::users::Identity;
use crate::sys::FileRights;

/// Mode of directories that are made in a home.
const PRIVATE: u32 = 0o700;
/// Mode of other directories that are made.
const PUBLIC: u32 = 0o755;
/// The most of a file that is there already and is looked at.
const EXISTING_MAX_BYTES: u64 = 1 << 20;
/// The end of the name that a file has until it is whole.
const UNFINISHED: &str = ".banger-new";

/// A user, and the root the user lives in.
#[derive(Debug)]
pub(super) struct User<'a> {
    root: &'a Path,
    identity: Identity,
}

impl<'a> User<'a> {
    /// A user, whose home is made if it is missing.
    pub(super) fn new(root: &'a Path, identity: Identity) -> Result<Self, Refusal> {
        let user = Self { root, identity };
        let home = inside(root, &user.identity.home);
        user.make_home(&home)
            .map_err(|error| failed(&user.identity.home, "making the home directory", &error))?;
        Ok(user)
    }

    fn make_home(&self, home: &Path) -> io::Result<()> {
        if home.is_dir() {
            return Ok(());
        }
        if let Some(parent) = home.parent() {
            make(parent, PUBLIC)?;
        }
        make(home, PRIVATE)?;
        chown(home, Some(self.identity.uid), Some(self.identity.gid))
    }

    /// A path as the guest sees it: `~/` is the home.
    fn path(&self, path: &str) -> Result<String, Refusal> {
        let absolute = match path.strip_prefix("~/") {
            Some(rest) => format!("{}/{rest}", self.identity.home.trim_end_matches('/')),
            None => path.to_owned(),
        };
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        if absolute.starts_with('/') && Path::new(&absolute).components().all(is_plain) {
            return Ok(absolute);
        }
        Err(Refusal::invalid(
            "a path is neither absolute nor in a home, or leads upwards",
        ))
    }

    /// The rights with which a file at `path` is looked at and written.
    fn rights(&self, path: &str) -> Result<(FileRights, u32), Refusal> {
        if !Path::new(path).starts_with(&self.identity.home) {
            return Ok((FileRights::own(), PUBLIC));
        }
        let Identity {
            uid, gid, groups, ..
        } = &self.identity;
        let rights = FileRights::of(*uid, *gid, groups);
        let rights = rights.map_err(|error| failed(path, "taking the user's rights", &error))?;
        Ok((rights, PRIVATE))
    }

    /// What is in a file now; nothing where there is none.
    pub(super) fn read(&self, path: &str) -> Result<String, Refusal> {
        let path = self.path(path)?;
        let _rights = self.rights(&path)?.0;
        read(&inside(self.root, &path)).map_err(|error| failed(&path, "reading", &error))
    }

    /// Replaces a file, with all directories on the way.
    pub(super) fn write(&self, path: &str, mode: u32, content: &[u8]) -> Result<(), Refusal> {
        let path = self.path(path)?;
        let (_rights, directories) = self.rights(&path)?;
        let owner = Some((self.identity.uid, self.identity.gid));
        write(&inside(self.root, &path), directories, mode, owner, content)
            .map_err(|error| failed(&path, "writing", &error))
    }

    /// Sees to it that nobody else can write to one of the user's directories.
    pub(super) fn close(&self, path: &str) -> Result<(), Refusal> {
        let path = self.path(path)?;
        let _rights = self.rights(&path)?.0;
        let directory = inside(self.root, &path);
        let close = || {
            let mode = fs::metadata(&directory)?.permissions().mode();
            match mode & 0o022 {
                0 => Ok(()),
                _ => fs::set_permissions(&directory, fs::Permissions::from_mode(mode & !0o022)),
            }
        };
        close().map_err(|error| failed(&path, "changing the mode", &error))
    }
}

/// A path of the guest, where the root is not ours.
pub(super) fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

pub(super) fn failed(path: &str, step: &str, error: &io::Error) -> Refusal {
    Refusal::File {
        path: path.to_owned(),
        detail: format!("{step}: {}", describe(error)),
    }
}

/// The text of a file; nothing where there is none, or one that nobody would write by hand.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        opened => opened?,
    };
    let mut text = Vec::new();
    file.take(EXISTING_MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > EXISTING_MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Replaces a file by one that is whole.
pub(super) fn write(
    path: &Path,
    directories: u32,
    mode: u32,
    owner: Option<(u32, u32)>,
    content: &[u8],
) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make(directory, directories)?;
    let mut name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_owned();
    name.push(UNFINISHED);
    let unfinished = directory.join(name);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    let written = file.write_all(content).and_then(|()| {
        if let Some((uid, gid)) = owner {
            rustix::fs::fchown(
                &file,
                Some(rustix::fs::Uid::from_raw(uid)),
                Some(rustix::fs::Gid::from_raw(gid)),
            )?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        fs::rename(&unfinished, path)
    });
    if written.is_err() {
        // The first error is what is told.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn make(directory: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(directory)
}
