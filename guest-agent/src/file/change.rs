//! Makes directories and links, renames, and changes attributes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use banger_proto::guest::v1::{
    FileInfo, MakeDirectoryRequest, MakeSymlinkRequest, RenameFileRequest, SetFileAttributesRequest,
};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
};
use rustix::io::Errno;

use super::{Here, wrong};
use crate::refusal::{Problem, Refusal};
use crate::tree::beneath::just_made;
use crate::tree::unfinished::Unfinished;
use crate::tree::{by_descriptor, failed, split};

/// Mode of directories about which nobody says anything.
const DIRECTORY_MODE: u32 = 0o755;

/// The bits of a mode, which the host has checked already.
pub(super) fn mode(bits: u32) -> Result<Mode, Refusal> {
    if bits > 0o7777 {
        return Err(Refusal::invalid("permissions are more than twelve bits"));
    }
    Ok(Mode::from_raw_mode(bits))
}

/// The time of the last change of content; that of the last look stays.
pub(super) fn times(time: prost_types::Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanos.clamp(0, 999_999_999).into(),
        },
    }
}

pub(super) fn make_directory(
    here: &Here,
    request: &MakeDirectoryRequest,
) -> Result<FileInfo, Refusal> {
    let path = &request.path[..];
    let permissions = mode(request.permissions.unwrap_or(DIRECTORY_MODE))?;
    if request.make_parents {
        let inside = here.inside(path)?;
        let made = make_directories(here, &inside, path, permissions)?;
        return here.describe(&made, b"", path);
    }
    let (parent, name) = here.entry(path)?;
    let made = make_one(&parent, &name, path, permissions)?;
    done(here.describe(&made, b"", path))
}

/// What went wrong when the change was made already, which the host must not take for a change that was not made.
pub(super) fn done<T>(after: Result<T, Refusal>) -> Result<T, Refusal> {
    after.map_err(|refusal| match refusal {
        Refusal::Path { path, detail, .. } => Refusal::Path {
            problem: Problem::Changed,
            path,
            detail: format!("it was done, and gone a moment later: {detail}"),
        },
        other => other,
    })
}

/// Makes a directory that is not there.
fn make_one(
    parent: &OwnedFd,
    name: &[u8],
    path: &[u8],
    permissions: Mode,
) -> Result<OwnedFd, Refusal> {
    rustix::fs::mkdirat(parent, OsStr::from_bytes(name), Mode::RWXU)
        .map_err(|error| failed("making the directory", path, error))?;
    // Not by mkdirat: the agent's mask is none of the user's.
    let made = just_made(parent, name, path, FileType::Directory).and_then(|(made, _)| {
        rustix::fs::chmod(by_descriptor(&made), permissions)
            .map_err(|error| failed("changing the mode", path, error))?;
        Ok(made)
    });
    done(made)
}

/// Makes a directory and what is missing on the way; the last one gets `permissions` if it is made.
pub(super) fn make_directories(
    here: &Here,
    inside: &[u8],
    path: &[u8],
    permissions: Mode,
) -> Result<OwnedFd, Refusal> {
    match here.root.at(inside, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(directory) => return Ok(directory),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(failed("entering", path, error)),
    }
    let (parent, name) = split(inside);
    let parent = make_directories(here, parent, path, Mode::from_raw_mode(DIRECTORY_MODE))?;
    match make_one(&parent, name, path, permissions) {
        // Somebody was faster; where that was a link, it may lead anywhere.
        Err(Refusal::Path {
            problem: Problem::Exists,
            ..
        }) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&parent, OsStr::from_bytes(name), flags, Mode::empty())
                .map_err(|error| failed("entering", path, error))
        }
        made => made,
    }
}

pub(super) fn rename(here: &Here, request: &RenameFileRequest) -> Result<FileInfo, Refusal> {
    let (from, name) = here.entry(&request.from)?;
    let (to, new_name) = here.entry(&request.to)?;
    let flags = match request.no_replace {
        true => RenameFlags::NOREPLACE,
        false => RenameFlags::empty(),
    };
    let (name, new_name) = (OsStr::from_bytes(&name), OsStr::from_bytes(&new_name));
    rustix::fs::renameat_with(&from, name, &to, new_name, flags)
        .map_err(|error| failed("renaming", blamed(error, request), error))?;
    done(here.look(&request.to, false))
}

/// Which of the two paths an error is about.
fn blamed(error: Errno, request: &RenameFileRequest) -> &[u8] {
    match error {
        Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR => &request.to,
        _ => &request.from,
    }
}

pub(super) fn set_attributes(
    here: &Here,
    request: &SetFileAttributesRequest,
) -> Result<FileInfo, Refusal> {
    let path = &request.path[..];
    let mut flags = OFlags::PATH;
    if request.no_follow {
        flags |= OFlags::NOFOLLOW;
    }
    let permissions = request.permissions.map(mode).transpose()?;
    let owner = here.owner(&request.owner)?;
    let found = here.open(&here.inside(path)?, flags, path)?;
    let stat = rustix::fs::fstat(&found).map_err(|error| failed("reading", path, error))?;
    let is_link = FileType::from_raw_mode(stat.st_mode).is_symlink();
    if let Some((uid, gid)) = owner {
        let owner = (Some(Uid::from_raw(uid)), gid.map(Gid::from_raw));
        rustix::fs::chownat(&found, "", owner.0, owner.1, AtFlags::EMPTY_PATH)
            .map_err(|error| failed("changing the owner", path, error))?;
    }
    if let Some(permissions) = permissions {
        if is_link {
            return Err(wrong(
                Problem::Unsupported,
                path,
                "a link has no permissions",
            ));
        }
        // After the owner: a change of owner takes setuid away.
        rustix::fs::chmod(by_descriptor(&found), permissions)
            .map_err(|error| failed("changing the mode", path, error))?;
    }
    if let Some(mtime) = request.mtime {
        set_time(here, &found, path, is_link, mtime)?;
    }
    here.look(path, !request.no_follow)
}

fn set_time(
    here: &Here,
    found: &OwnedFd,
    path: &[u8],
    is_link: bool,
    mtime: prost_types::Timestamp,
) -> Result<(), Refusal> {
    let set = if is_link {
        let (parent, name) = here.entry(path)?;
        let name = OsStr::from_bytes(&name);
        rustix::fs::utimensat(&parent, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
    } else {
        let path: &Path = &by_descriptor(found);
        rustix::fs::utimensat(rustix::fs::CWD, path, &times(mtime), AtFlags::empty())
    };
    set.map_err(|error| failed("setting the time", path, error))
}

pub(super) fn make_symlink(here: &Here, request: &MakeSymlinkRequest) -> Result<FileInfo, Refusal> {
    let path = &request.path[..];
    let (parent, name) = here.entry(path)?;
    let failed = |error| failed("making the link", path, error);
    if request.replace {
        Unfinished::symlink(parent, &request.target)
            .map_err(failed)?
            .publish(&name, RenameFlags::empty())
            .map_err(failed)?;
    } else {
        let target = OsStr::from_bytes(&request.target);
        rustix::fs::symlinkat(target, &parent, OsStr::from_bytes(&name)).map_err(failed)?;
    }
    done(here.look(path, false))
}
