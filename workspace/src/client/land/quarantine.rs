//! Where what comes is kept until it was checked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};

use super::{Coming, Limits};
use crate::client::error::{Error, Result};
use crate::client::lines::{shown, text};
use crate::client::store::Store;
use crate::command::{Cancel, Git, GitError};
use crate::wire::{Content, Fault, ObjectFormat, Repository};

/// The most memory that git takes for one thing: an object of a promised size is not believed.
const ALLOCATION_MAX: &str = "1g";
/// How long a pack may take to be checked.
const PACK_WITHIN: Duration = Duration::from_secs(1800);
/// Pieces of a pack on their way to git.
const PIECES_WAITING: usize = 4;
/// Directories of landings, beneath banger's own.
const INCOMING: &str = "incoming-";
/// One that has no lock yet.
const BEGUN: &str = "begun-";
/// Held while a landing goes on.
const LOCK: &str = "lock";
/// When a directory without a lock was left by a landing that was cut at once.
const UNLOCKED_FOR: Duration = Duration::from_secs(3600);

/// The directory of one landing; it goes with it.
#[derive(Debug)]
pub(super) struct Incoming {
    directory: PathBuf,
    _lock: File,
}

impl Incoming {
    pub(super) fn begin(store: &Store) -> Result<Self> {
        let own = store.own_directory();
        fs::create_dir_all(&own).map_err(Error::file("make", &own))?;
        sweep(&own);
        let id = uuid::Uuid::new_v4();
        let begun = own.join(format!("{BEGUN}{id}"));
        fs::create_dir(&begun).map_err(Error::file("make", &begun))?;
        let lock = begun.join(LOCK);
        let file = File::create_new(&lock).map_err(Error::file("make", &lock))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| Error::file("lock", &lock)(error.into()))?;
        // Under this name it is never seen without its lock held, which another landing would take for one that was cut.
        let directory = own.join(format!("{INCOMING}{id}"));
        fs::rename(&begun, &directory).map_err(Error::file("make", &directory))?;
        Ok(Self {
            directory,
            _lock: file,
        })
    }

    /// A repository for what comes to `store`, which sees the store's objects; its history may end at `shallow` too.
    pub(super) fn quarantine(
        &self,
        number: usize,
        store: &Store,
        shallow: &[String],
    ) -> Result<Store> {
        let directory = self.directory.join(format!("{number}.git"));
        let cancel = store.git().cancel();
        let made = Store::own(&directory, store.format(), b"", Some(store), cancel)?;
        if !shallow.is_empty() {
            let mut cut = made.cut()?;
            cut.extend(shallow.iter().cloned());
            made.set_cut(&cut)?;
        }
        Ok(made)
    }

    /// A repository for what comes and will not land.
    pub(super) fn scrap(
        &self,
        number: usize,
        message: &Repository,
        cancel: &Cancel,
    ) -> Result<Store> {
        let directory = self.directory.join(format!("{number}-scrap.git"));
        let format = match message.object_format() {
            ObjectFormat::Unspecified => ObjectFormat::Sha1,
            format => format,
        };
        Store::own(&directory, format, b"", None, cancel)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // What cannot be removed is swept by the next landing.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Removes what landings have left that were cut: nobody holds their locks.
fn sweep(own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_left = if name.starts_with(INCOMING) {
            match File::open(entry.path().join(LOCK)) {
                Ok(file) => {
                    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
                }
                // Its removal was cut, or goes on.
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            }
        } else {
            name.starts_with(BEGUN)
                && entry
                    .metadata()
                    .and_then(|metadata| metadata.modified())
                    .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > UNLOCKED_FOR))
        };
        if is_left {
            // Another landing may be removing it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// git in a quarantine.
pub(super) fn strict(quarantine: &Store) -> Git {
    let git = quarantine.git().clone();
    git.with_env("GIT_ALLOC_LIMIT", ALLOCATION_MAX)
        .with_deadline(PACK_WITHIN)
}

/// All that `git fsck` knows is wrong, but for what old histories have and harms nobody.
const STRICT: &str = "--strict=badTimezone=ignore,missingSpaceBeforeDate=ignore,zeroPaddedDate=ignore,zeroPaddedFilemode=ignore";

/// A pack on its way into a quarantine.
#[derive(Debug)]
pub(super) struct PackInto {
    pieces: Option<SyncSender<Bytes>>,
    git: JoinHandle<std::result::Result<Vec<u8>, GitError>>,
}

impl PackInto {
    /// How large it may be the judge has said before a piece comes here.
    fn begin(quarantine: &Store) -> Self {
        let (pieces, come): (_, Receiver<Bytes>) = sync_channel(PIECES_WAITING);
        let git = strict(quarantine);
        let git = std::thread::spawn(move || {
            let words = ["index-pack", "--stdin", "--fix-thin", STRICT];
            let carry = move |input: &mut dyn Write| {
                let mut come = come.into_iter();
                come.try_for_each(|piece| input.write_all(&piece))
            };
            git.feed(&words, carry)
        });
        Self {
            pieces: Some(pieces),
            git,
        }
    }

    fn end(mut self) -> std::result::Result<Vec<u8>, GitError> {
        drop(self.pieces.take());
        let panicked = |_| Err(GitError::Start(io::Error::other("the thread panicked")));
        self.git.join().unwrap_or_else(panicked)
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if let Some(pack) = self.pack.take() {
            // It was cut: git must have ended before its directory goes.
            let _ = pack.end();
        }
    }
}

impl Coming {
    pub(super) fn pack(&mut self, data: Bytes, is_last: bool, limits: Limits) -> Result<()> {
        let quarantine = &self.quarantine;
        let begin = || PackInto::begin(quarantine);
        let pack = self.pack.get_or_insert_with(begin);
        let pieces = pack.pieces.as_ref();
        let is_taken = pieces.is_some_and(|pieces| pieces.send(data).is_ok());
        if is_last {
            pack.pieces = None;
        }
        match is_taken {
            true => Ok(()),
            // git has ended before the pack did.
            false => self.end_pack(limits),
        }
    }

    /// Waits until the pack was checked, and looks at what it would become.
    pub(super) fn end_pack(&mut self, limits: Limits) -> Result<()> {
        let Some(pack) = self.pack.take() else {
            return Ok(());
        };
        pack.end().map_err(|source| match source {
            GitError::NotFound => Error::Git {
                what: "check the objects",
                source,
            },
            source => self.refused("the objects", source),
        })?;
        self.bound(limits)
    }

    /// What git refused.
    pub(super) fn refused(&self, what: &'static str, source: GitError) -> Error {
        Error::Objects {
            what,
            repository: shown(&self.message.path),
            source,
        }
    }

    fn bound(&self, limits: Limits) -> Result<()> {
        const WHAT: &str = "look at the objects that came";
        let git = strict(&self.quarantine);
        let packs = self.quarantine.directory().join("objects/pack");
        let entries = fs::read_dir(&packs).map_err(Error::file("read", &packs))?;
        let mut total: u64 = 0;
        for entry in entries.flatten() {
            let at = entry.path();
            if at.extension().is_none_or(|extension| extension != "idx") {
                continue;
            }
            let copy = |input: &mut dyn Write| io::copy(&mut File::open(&at)?, input).map(drop);
            let listed = git.feed(&["show-index"], copy);
            let listed = text(&listed.map_err(Error::git(WHAT))?);
            let ids = listed.lines().filter_map(|line| line.split(' ').nth(1));
            let ids: Vec<&str> = ids.collect();
            let feed =
                |input: &mut dyn Write| ids.iter().try_for_each(|id| writeln!(input, "{id}"));
            let words = [
                "cat-file",
                "--buffer",
                "--batch-check=%(objectsize) %(objectname)",
            ];
            let sizes = git.feed(&words, feed).map_err(Error::git(WHAT))?;
            for line in text(&sizes).lines() {
                let (size, id) = line.split_once(' ').unwrap_or(("", line));
                let size: u64 = size.parse().map_err(|_| Error::Answer {
                    what: "how large objects are",
                })?;
                total = total.saturating_add(size);
                if size > limits.object_bytes || total > limits.unpacked_bytes {
                    return Err(Error::Unsafe {
                        name: id.to_owned(),
                        problem: "is larger than may come",
                    });
                }
            }
        }
        Ok(())
    }
}

/// The contents of files, by the numbers of their entries.
#[derive(Debug)]
pub(super) struct Contents {
    directory: PathBuf,
    open: Option<(u32, File, Sha256)>,
    have: Vec<Option<Bytes>>,
}

impl Contents {
    pub(super) fn new(incoming: &Incoming) -> Result<Self> {
        let directory = incoming.directory.join("files");
        fs::create_dir(&directory).map_err(Error::file("make", &directory))?;
        Ok(Self {
            directory,
            open: None,
            have: Vec::new(),
        })
    }

    /// Where the content of an entry is.
    pub(super) fn at(&self, number: usize) -> PathBuf {
        self.directory.join(number.to_string())
    }

    /// Whether the content of an entry has come.
    pub(super) fn has(&self, number: usize) -> bool {
        self.have.get(number).is_some_and(Option::is_some)
    }

    /// SHA-256 of the content of an entry; empty if it has not come.
    pub(super) fn digest(&self, number: usize) -> Bytes {
        self.have.get(number).cloned().flatten().unwrap_or_default()
    }

    pub(super) fn write(&mut self, content: &Content) -> Result<()> {
        let number = usize::try_from(content.entry).unwrap_or(usize::MAX);
        let at = self.at(number);
        let (mut file, mut digest) = match self.open.take() {
            Some((open, file, digest)) if open == content.entry => (file, digest),
            _ => {
                let file = OpenOptions::new().write(true).create_new(true).open(&at);
                (file.map_err(Error::file("write", &at))?, Sha256::new())
            }
        };
        let written = file.write_all(&content.data);
        written.map_err(Error::file("write", &at))?;
        digest.update(&content.data);
        if !content.is_last {
            self.open = Some((content.entry, file, digest));
            return Ok(());
        }
        if digest.finalize()[..] != content.sha256[..] {
            return Err(Error::Unsafe {
                name: number.to_string(),
                problem: "is the number of a file whose content is not what its digest says",
            });
        }
        if self.have.len() <= number {
            self.have.resize(number + 1, None);
        }
        self.have[number] = Some(content.sha256.clone());
        Ok(())
    }

    /// Nothing may be half there.
    pub(super) fn end(&self) -> Result<()> {
        match &self.open {
            None => Ok(()),
            Some(_) => Err(Error::Snapshot(Fault::Cut)),
        }
    }
}
