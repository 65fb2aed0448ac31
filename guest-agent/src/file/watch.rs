//! Tells what changes in a directory, or of a file: inotify(7).
//!
//! Below a directory that is watched with all that is in it, directories that are made or moved in are watched from
//! then on; what is in them already is told as new, so that nothing is missed, though it may be told twice. Other file
//! systems are not gone into. When the kernel's queue overflows, because there are too many changes or the host reads
//! too slowly, that is told, and everything is watched anew.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use banger_proto::guest::v1::file_event::Kind;
use banger_proto::guest::v1::watch_files_response::Message;
use banger_proto::guest::v1::{
    FileEvent, Heartbeat, WatchFilesRequest, WatchFilesResponse, WatchOverflow, WatchStarted,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::{Here, wrong};
use crate::refusal::{Problem, Refusal};
use crate::tree::{PATH_MAX_BYTES, by_descriptor, failed, split, walk};

/// The longest silence.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Directories of one watch.
const DIRECTORIES_MAX: usize = 8192;
/// Directories in each other that are gone down: each takes a descriptor meanwhile.
const DEPTH_MAX: usize = 256;
/// Events that are read at once: some hundreds.
const BUFFER_BYTES: usize = 32 << 10;

type Deliver<'a> = &'a mut dyn FnMut(WatchFilesResponse) -> bool;

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    On,
    Anew,
    End,
}

pub(super) fn watch(
    here: &Here,
    request: &WatchFilesRequest,
    deliver: Deliver<'_>,
) -> Result<(), Refusal> {
    let mut watcher = Watcher::open(here, request)?;
    let directories = u32::try_from(watcher.paths.len()).unwrap_or(u32::MAX);
    if !hand(deliver, Message::Started(WatchStarted { directories })) {
        return Ok(());
    }
    loop {
        match watcher.run(deliver)? {
            Next::On => {}
            Next::End => return Ok(()),
            Next::Anew => {
                // First, for both together might be more than the bounds of fs.inotify.
                drop(watcher);
                watcher = match Watcher::open(here, request) {
                    Ok(watcher) => watcher,
                    Err(Refusal::Path {
                        problem: Problem::NotFound | Problem::NotDirectory,
                        ..
                    }) => {
                        hand(deliver, gone());
                        return Ok(());
                    }
                    Err(refusal) => return Err(refusal),
                };
                if !hand(deliver, Message::Overflow(WatchOverflow {})) {
                    return Ok(());
                }
            }
        }
    }
}

fn hand(deliver: Deliver<'_>, message: Message) -> bool {
    deliver(WatchFilesResponse {
        message: Some(message),
    })
}

fn event(kind: Kind, path: Vec<u8>, is_directory: bool, rename: u32) -> Message {
    Message::Event(FileEvent {
        kind: kind.into(),
        path: path.into(),
        is_directory,
        rename,
    })
}

fn gone() -> Message {
    event(Kind::RootGone, Vec::new(), false, 0)
}

/// An event of the kernel's, without the buffer it came in.
struct Seen {
    wd: i32,
    flags: ReadFlags,
    cookie: u32,
    name: Vec<u8>,
}

struct Watcher<'a> {
    here: &'a Here,
    inotify: OwnedFd,
    /// What is watched, by its path: held open, it would never be gone.
    inside: Vec<u8>,
    root_wd: i32,
    /// Device and number of what is watched.
    root: (u64, u64),
    recursive: bool,
    path: Vec<u8>,
    /// Relative paths of what is watched.
    paths: HashMap<i32, Vec<u8>>,
}

impl<'a> Watcher<'a> {
    fn open(here: &'a Here, request: &WatchFilesRequest) -> Result<Self, Refusal> {
        let path = request.path.to_vec();
        let inside = here.inside(&path)?;
        let root = here.open(&inside, OFlags::PATH, &path)?;
        let stat = rustix::fs::fstat(&root).map_err(|error| failed("reading", &path, error))?;
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| full("watching", &path, error))?;
        let mut watcher = Self {
            here,
            inotify,
            inside,
            root_wd: 0,
            root: (stat.st_dev, stat.st_ino),
            recursive: request.recursive,
            path,
            paths: HashMap::new(),
        };
        watcher.root_wd = watcher.add(&by_descriptor(&root), Vec::new())?;
        if watcher.recursive && FileType::from_raw_mode(stat.st_mode).is_dir() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let directory = here.open(&watcher.inside, flags, &watcher.path)?;
            watcher.below(&directory, b"", 0, &mut |_, _| true)?;
        }
        Ok(watcher)
    }

    fn add(&mut self, node: &std::path::Path, path: Vec<u8>) -> Result<i32, Refusal> {
        if self.paths.len() >= DIRECTORIES_MAX {
            let detail = format!("more than {DIRECTORIES_MAX} directories to watch");
            return Err(wrong(Problem::TooManyWatches, &self.path, &detail));
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::EXCL_UNLINK;
        let wd = inotify::add_watch(&self.inotify, node, flags)
            .map_err(|error| full("watching", &path, error))?;
        self.paths.insert(wd, path);
        Ok(wd)
    }

    /// Watches the directories in `directory`, called `path`, and tells `found` what else is there. Those that may not
    /// be read, and those that go meanwhile, are passed over.
    fn below(
        &mut self,
        directory: &OwnedFd,
        path: &[u8],
        depth: usize,
        found: &mut dyn FnMut(&[u8], bool) -> bool,
    ) -> Result<Next, Refusal> {
        if depth == DEPTH_MAX {
            let detail = "too many directories in each other";
            return Err(wrong(Problem::TooDeep, path, detail));
        }
        for name in walk::list(directory, path)? {
            let path = joined(path, &name);
            let nofollow = AtFlags::SYMLINK_NOFOLLOW;
            let Ok(stat) = rustix::fs::statat(directory, OsStr::from_bytes(&name), nofollow) else {
                continue;
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
            // A path that nobody could tell hides none of the others.
            if path.len() > PATH_MAX_BYTES {
                continue;
            }
            if !found(&path, is_directory) {
                return Ok(Next::End);
            }
            if is_directory
                && stat.st_dev == self.root.0
                && self.enter(directory, &name, &path, depth + 1, found)? == Next::End
            {
                return Ok(Next::End);
            }
        }
        Ok(Next::On)
    }

    /// Watches the directory `name` and what is below it.
    fn enter(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        depth: usize,
        found: &mut dyn FnMut(&[u8], bool) -> bool,
    ) -> Result<Next, Refusal> {
        let Ok(directory) = walk::open(parent, name, path, OFlags::RDONLY | OFlags::DIRECTORY)
        else {
            return Ok(Next::On);
        };
        // Before its names are read: what comes after is an event.
        match self.add(&by_descriptor(&directory), path.to_vec()) {
            Ok(_) => self.below(&directory, path, depth, found),
            Err(Refusal::Path {
                problem: Problem::AccessDenied | Problem::NotFound,
                ..
            }) => Ok(Next::On),
            Err(refusal) => Err(refusal),
        }
    }

    /// Waits for events and tells them.
    fn run(&mut self, deliver: Deliver<'_>) -> Result<Next, Refusal> {
        let silence = Timespec::try_from(HEARTBEAT).expect("a few seconds are a time");
        let mut ready = [PollFd::new(&self.inotify, PollFlags::IN)];
        match poll(&mut ready, Some(&silence)) {
            Ok(0) => {
                return Ok(match hand(deliver, Message::Heartbeat(Heartbeat {})) {
                    true => Next::On,
                    false => Next::End,
                });
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(failed("waiting", &self.path, error)),
        }
        for seen in self.read()? {
            match self.tell(seen, deliver)? {
                Next::On => {}
                next => return Ok(next),
            }
        }
        Ok(Next::On)
    }

    fn read(&self) -> Result<Vec<Seen>, Refusal> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut seen = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => seen.push(Seen {
                    wd: event.wd(),
                    flags: event.events(),
                    cookie: event.cookie(),
                    name: event
                        .file_name()
                        .map_or_else(Vec::new, |name| name.to_bytes().to_vec()),
                }),
                Err(Errno::AGAIN) => return Ok(seen),
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed("reading changes", &self.path, error)),
            }
            if reader.is_buffer_empty() {
                return Ok(seen);
            }
        }
    }

    fn tell(&mut self, seen: Seen, deliver: Deliver<'_>) -> Result<Next, Refusal> {
        if seen.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Ok(Next::Anew);
        }
        let is_root = seen.wd == self.root_wd;
        let ends = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT;
        if is_root && seen.flags.intersects(ends | ReadFlags::IGNORED) {
            hand(deliver, gone());
            return Ok(Next::End);
        }
        if seen.flags.contains(ReadFlags::IGNORED) {
            self.paths.remove(&seen.wd);
            return Ok(Next::On);
        }
        let Some(directory) = self.paths.get(&seen.wd) else {
            return Ok(Next::On);
        };
        // What is said of a directory below by its own watch, its parent's says too.
        if seen.name.is_empty() && !is_root {
            return Ok(Next::On);
        }
        let path = match &seen.name[..] {
            b"" => directory.clone(),
            name => joined(directory, name),
        };
        let is_directory = seen.flags.contains(ReadFlags::ISDIR);
        for kind in kinds(seen.flags) {
            if !hand(
                deliver,
                event(kind, path.clone(), is_directory, seen.cookie),
            ) {
                return Ok(Next::End);
            }
            if self.recursive && is_directory && !path.is_empty() {
                match kind {
                    Kind::Created | Kind::MovedTo => return self.come(&path, deliver),
                    Kind::MovedFrom => self.leave(&path),
                    _ => {}
                }
            }
        }
        Ok(Next::On)
    }

    /// A directory came: it is watched, and what is in it is new.
    fn come(&mut self, path: &[u8], deliver: Deliver<'_>) -> Result<Next, Refusal> {
        let (parent, name) = split(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = self.here.root.at(&self.inside, flags).ok();
        let root = root.filter(|root| self.is_root(root));
        // It is gone already, or something else has its path: the next events tell of it.
        let Some(Ok(parent)) = root.map(|root| beneath(&root, parent)) else {
            return Ok(Next::On);
        };
        let mut tell = |path: &[u8], is_directory| {
            hand(
                deliver,
                event(Kind::Created, path.to_vec(), is_directory, 0),
            )
        };
        let depth = path.iter().filter(|&&byte| byte == b'/').count() + 1;
        self.enter(&parent, name, path, depth, &mut tell)
    }

    fn is_root(&self, found: &OwnedFd) -> bool {
        let stat = rustix::fs::fstat(found);
        stat.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.root)
    }

    /// A directory is elsewhere: what is in it is watched no more.
    fn leave(&mut self, path: &[u8]) {
        let is_inside = |other: &[u8]| {
            other
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        let inotify = &self.inotify;
        self.paths.retain(|&wd, other| {
            let leaves = is_inside(other);
            if leaves {
                // One that is gone already needs nothing.
                let _ = inotify::remove_watch(inotify, wd);
            }
            !leaves
        });
    }
}

/// The directory at a relative path, where no link is followed.
fn beneath(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = OsStr::from_bytes(if path.is_empty() { b"." } else { path });
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root, path, flags, Mode::empty(), resolve)
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"" => name.to_vec(),
        directory => [directory, name].join(&b'/'),
    }
}

/// What an event of the kernel's means.
fn kinds(flags: ReadFlags) -> impl Iterator<Item = Kind> {
    [
        (ReadFlags::CREATE, Kind::Created),
        (ReadFlags::MOVED_FROM, Kind::MovedFrom),
        (ReadFlags::MOVED_TO, Kind::MovedTo),
        (ReadFlags::MODIFY, Kind::Modified),
        (ReadFlags::CLOSE_WRITE, Kind::Written),
        (ReadFlags::ATTRIB, Kind::Attributes),
        (ReadFlags::DELETE, Kind::Removed),
    ]
    .into_iter()
    .filter(move |(flag, _)| flags.contains(*flag))
    .map(|(_, kind)| kind)
}

/// A bound of the kernel's on watches tells of itself by errors that mean something else elsewhere.
fn full(step: &str, path: &[u8], error: Errno) -> Refusal {
    match error {
        Errno::NOSPC | Errno::MFILE => wrong(
            Problem::TooManyWatches,
            path,
            "the bound of fs.inotify is reached",
        ),
        error => failed(step, path, error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::session::users::{Identity, Users};
    use crate::tree::Root;

    fn root_beneath(path: &Path) -> Here {
        Here {
            root: Root::open(path).expect("a directory"),
            identity: Identity {
                uid: 0,
                gid: 0,
                groups: Vec::new(),
                name: "root".into(),
                home: "/".into(),
            },
            users: Users::default(),
        }
    }

    /// The kernel's queue is overrun while the first message is on its way; after that, all goes on as before.
    #[test]
    fn changes_that_are_too_many_are_told_as_lost() {
        let queue: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
            .expect("inotify has a bound")
            .trim()
            .parse()
            .expect("a number");
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let request = WatchFilesRequest {
            path: "/".into(),
            ..WatchFilesRequest::default()
        };
        let mut told = 0;
        let mut overflowed = false;
        let mut later = false;
        let mut deliver = |response: WatchFilesResponse| {
            match response.message.expect("a message") {
                Message::Started(_) => {
                    // Two events each at least, and no two alike in sequence, which the kernel would make one.
                    fs::write(&a, "").expect("a file");
                    for _ in 0..=queue / 2 {
                        fs::rename(&a, &b).expect("a file");
                        fs::rename(&b, &a).expect("a file");
                    }
                }
                Message::Overflow(_) => {
                    overflowed = true;
                    fs::write(dir.path().join("later"), "").expect("a file");
                }
                Message::Event(event) if overflowed => later |= event.path == b"later"[..],
                Message::Event(_) => told += 1,
                Message::Heartbeat(_) => panic!("nothing is told any more"),
            }
            !later
        };
        watch(&root_beneath(dir.path()), &request, &mut deliver).expect("a watch");
        assert!(overflowed && later);
        assert!(told <= queue, "{told} of {queue}");
    }
}
