//! Files that lie over the image's own while sessions run, so that programs find names and name servers and
//! nothing of it reaches the writable disk: what a build keeps is what its steps wrote.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount_bind, unmount};

use super::files::{HOSTS, Names, RESOLVER, report};

/// Where the files are. `/run` is memory.
const PLACE: &str = "/run/banger";

/// The files, lent or not.
#[derive(Debug)]
pub struct Lent {
    names: Names,
    mounts: Vec<Mount>,
}

#[derive(Debug)]
struct Mount {
    over: PathBuf,
    /// The place was made for the mount, and goes with it.
    made: bool,
}

impl Lent {
    pub(super) fn new(names: Names) -> Self {
        let mounts = Vec::new();
        Self { names, mounts }
    }

    /// Lays the files over the image's. Lending twice changes nothing.
    pub fn lend(&mut self) {
        if !self.mounts.is_empty() {
            return;
        }
        for (path, text) in [
            (HOSTS, self.names.hosts()),
            (RESOLVER, self.names.resolver()),
        ] {
            let Some(text) = text else { continue };
            match lend(Path::new(path), &text) {
                Ok(mount) => self.mounts.extend(mount),
                // The names then do not resolve, which the program that needs them tells.
                Err(error) => report(Path::new(path), Err(error)),
            }
        }
    }

    /// Takes the files away.
    pub fn take_back(&mut self) {
        for mount in self.mounts.drain(..).rev() {
            if let Err(error) = take_back(&mount) {
                report(&mount.over, Err(error));
            }
        }
    }
}

fn lend(path: &Path, text: &str) -> io::Result<Option<Mount>> {
    let name = path.file_name().unwrap_or_default();
    let file = Path::new(PLACE).join(name);
    fs::create_dir_all(PLACE)?;
    fs::write(&file, text)?;
    let Some((over, made)) = place(path)? else {
        return Ok(None);
    };
    mount_bind(&file, &over)?;
    rustix::mount::mount_remount(&over, MountFlags::BIND | MountFlags::NOSUID, "")?;
    Ok(Some(Mount { over, made }))
}

/// The file to lie over, and whether it had to be made; none where a link leads into memory, in which the
/// file was made.
fn place(path: &Path) -> io::Result<Option<(PathBuf, bool)>> {
    match fs::canonicalize(path) {
        Ok(found) => return Ok(Some((found, false))),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    let Ok(target) = fs::read_link(path) else {
        File::create_new(path)?;
        return Ok(Some((path.to_owned(), true)));
    };
    // A link that leads nowhere yet, as systemd's resolver leaves it: it is served where it leads to memory.
    let target = normal(&path.parent().unwrap_or(Path::new("/")).join(target));
    if !target.starts_with("/run/") {
        return Ok(None);
    }
    fs::create_dir_all(target.parent().unwrap_or(Path::new("/run")))?;
    File::create(&target)?;
    Ok(Some((target, true)))
}

/// The path without `..`, by its words alone: what is missing cannot be a link.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

fn take_back(mount: &Mount) -> io::Result<()> {
    unmount(&mount.over, UnmountFlags::DETACH)?;
    if mount.made && fs::metadata(&mount.over)?.len() == 0 {
        fs::remove_file(&mount.over)?;
    }
    Ok(())
}
