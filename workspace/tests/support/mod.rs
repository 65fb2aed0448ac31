//! Both halves of a workspace connected directly, and git as a user runs it.
#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod half;
pub(crate) mod history;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use banger_workspace::client::collect::{Options, Source};
use banger_workspace::client::land::{Landed, Landing, Limits, Place};
use banger_workspace::client::{Error, Result};
use banger_workspace::command::{Cancel, HostLauncher};
use banger_workspace::guest::{self, Answer, Export, Restore, Restored, WorkError};
use banger_workspace::wire::{Base, KnownRepository, Part};

/// The name of the VM.
pub(crate) const VM: &str = "dev";

/// The directory of a bench; the bench that made it removes it.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _made: Option<tempfile::TempDir>,
}

impl Directory {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A user's machine and a VM, as directories.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) directory: Directory,
    pub(crate) here: PathBuf,
    pub(crate) guest: PathBuf,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let made = tempfile::tempdir().unwrap();
        let bench = Self::at(made.path());
        std::fs::create_dir_all(&bench.here).unwrap();
        std::fs::create_dir_all(bench.directory.path().join("vm")).unwrap();
        Self {
            directory: Directory {
                _made: Some(made),
                ..bench.directory
            },
            ..bench
        }
    }

    /// The one in a directory that something else made, and removes.
    pub(crate) fn at(directory: &Path) -> Self {
        let path = std::fs::canonicalize(directory).unwrap();
        Self {
            here: path.join("here"),
            guest: path.join("vm/work"),
            directory: Directory { path, _made: None },
        }
    }

    /// Whether the file system keeps with a tree in which state it was made.
    pub(crate) fn keeps_states(&self) -> bool {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(self.directory.path(), "user.banger.test", b"", flags).is_ok()
    }

    /// With a repository that has one commit.
    pub(crate) fn with_repository() -> Self {
        let bench = Self::new();
        git(&bench.here, &["init", "-q", "-b", "main"]);
        write(&bench.here, "file", "one\ntwo\nthree\n");
        write(&bench.here, "other", "other\n");
        commit(&bench.here, "first");
        bench
    }

    pub(crate) fn guest_place(&self) -> guest::Place {
        guest::Place {
            launcher: Arc::new(HostLauncher),
            cancel: Cancel::default(),
            path: self.guest.clone(),
        }
    }

    pub(crate) fn place(&self) -> Place {
        let state = self.directory.path().join("state");
        Place::find(&self.here, &state, false, &Cancel::default()).unwrap()
    }

    /// Carries the workspace into the VM. Returns what was made there, and the base.
    pub(crate) fn prepare(&self, options: &Options) -> (Restored, Base) {
        self.try_prepare(options, &Restore::default(), &mut |_| true)
            .unwrap()
    }

    /// The same; `each` sees every part, and cuts the stream by false.
    pub(crate) fn try_prepare(
        &self,
        options: &Options,
        restore: &Restore,
        each: &mut (dyn FnMut(&Part) -> bool + Send),
    ) -> std::result::Result<(Restored, Base), String> {
        let mut source = Source::open(&self.here, options, &Cancel::default()).unwrap();
        let base = source.base();
        let (parts, come) = sync_channel::<Part>(8);
        let (answers, told) = sync_channel::<Answer>(64);
        let place = self.guest_place();
        let restored = std::thread::scope(|scope| {
            let making = scope.spawn(move || {
                let mut come = come.into_iter();
                let mut next = move || come.next();
                let mut answer = |answer| answers.send(answer).is_ok();
                guest::restore(&place, restore, &mut next, &mut answer)
            });
            let mut sink = |part: Part| match each(&part) && parts.send(part).is_ok() {
                true => Ok(()),
                false => Err(Error::Gone),
            };
            let sent = send(&mut source, &told, &mut sink);
            // What is told meanwhile is taken, so that nobody waits.
            drop(parts);
            while told.recv().is_ok() {}
            (sent, making.join().unwrap())
        });
        match restored {
            (_, Err(error)) => Err(chain(&error)),
            (Err(error), Ok(_)) => Err(chain(&error)),
            (Ok(()), Ok(restored)) => Ok((restored, base)),
        }
    }

    /// All that was done in the VM.
    pub(crate) fn exported(&self, base: &Base) -> std::result::Result<Vec<Part>, WorkError> {
        let mut parts = Vec::new();
        let request = Export {
            base: base.clone(),
            had_git: !base.repositories.is_empty(),
            max_bytes: 0,
        };
        guest::export(&self.guest_place(), &request, &mut |part| {
            parts.push(part);
            true
        })?;
        Ok(parts)
    }

    /// Brings back what was done since `prepared`.
    pub(crate) fn export(&self, prepared: &Base) -> Landed {
        let place = self.place();
        let base = place.base(VM, prepared).unwrap();
        let parts = self.exported(&base).unwrap();
        land(&place, &base, parts).unwrap()
    }
}

/// An error with all of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}

fn send(
    source: &mut Source,
    told: &std::sync::mpsc::Receiver<Answer>,
    sink: &mut (dyn FnMut(Part) -> Result<()> + Send),
) -> Result<()> {
    let mut known: Vec<KnownRepository> = Vec::new();
    loop {
        match told.recv().map_err(|_| Error::Gone)? {
            Answer::Known(more) => {
                known.extend(more.repositories);
                if more.is_last {
                    break;
                }
            }
            Answer::Needed(_) | Answer::Progress(_) => {}
        }
    }
    source.send_manifest(&known, sink)?;
    let mut needed = Vec::new();
    loop {
        match told.recv().map_err(|_| Error::Gone)? {
            Answer::Needed(more) => {
                needed.extend(more.entries);
                if more.is_last {
                    break;
                }
            }
            Answer::Known(_) | Answer::Progress(_) => {}
        }
    }
    source.send_contents(&needed, sink)
}

pub(crate) fn land(place: &Place, base: &Base, parts: Vec<Part>) -> Result<Landed> {
    let mut landing = Landing::begin(place, VM, base, Limits::default())?;
    for part in parts {
        landing.part(part)?;
    }
    landing.finish()
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_EDITOR", "true")
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com"])
        .args([
            "-c",
            "protocol.file.allow=always",
            "-c",
            "core.quotePath=false",
        ]);
    command
}

/// Runs git as a user would; what it says is returned without the last line's end.
pub(crate) fn git<S: AsRef<OsStr>>(directory: &Path, words: &[S]) -> String {
    let output = try_git(directory, words);
    let words: Vec<&OsStr> = words.iter().map(AsRef::as_ref).collect();
    output.unwrap_or_else(|error| panic!("git {words:?} in {}: {error}", directory.display()))
}

/// The same, where it may fail.
pub(crate) fn try_git<S: AsRef<OsStr>>(
    directory: &Path,
    words: &[S],
) -> std::result::Result<String, String> {
    let output = command(directory).args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr) + &text(&output.stdout)),
    }
}

/// What git says, byte for byte.
pub(crate) fn git_bytes(directory: &Path, words: &[&str]) -> Vec<u8> {
    let output = command(directory).args(words).output().unwrap();
    assert!(output.status.success(), "git {words:?}");
    output.stdout
}

pub(crate) fn write(directory: &Path, name: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
    let at = directory.join(name.as_ref());
    std::fs::create_dir_all(at.parent().unwrap()).unwrap();
    std::fs::write(at, content).unwrap();
}

pub(crate) fn commit(directory: &Path, message: &str) -> String {
    git(directory, &["add", "-A"]);
    git(directory, &["commit", "-q", "--allow-empty", "-m", message]);
    git(directory, &["rev-parse", "HEAD"])
}

/// What is at a path, for comparisons: kind and permissions, content or target.
pub(crate) fn tree(top: &Path) -> std::collections::BTreeMap<OsString, (String, Vec<u8>)> {
    let mut found = std::collections::BTreeMap::new();
    walk(top, Path::new(""), &mut found);
    found
}

fn walk(
    top: &Path,
    inside: &Path,
    found: &mut std::collections::BTreeMap<OsString, (String, Vec<u8>)>,
) {
    use std::os::unix::fs::PermissionsExt;
    for entry in std::fs::read_dir(top.join(inside)).unwrap() {
        let name = entry.unwrap().file_name();
        if name == ".git" {
            continue;
        }
        let at = inside.join(&name);
        let full = top.join(&at);
        let metadata = full.symlink_metadata().unwrap();
        let key = at.as_os_str().to_owned();
        if metadata.is_dir() {
            let before = found.len();
            walk(top, &at, found);
            if found.len() == before {
                found.insert(key, ("directory".to_owned(), Vec::new()));
            }
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(full).unwrap();
            found.insert(
                key,
                ("link".to_owned(), target.as_os_str().as_bytes().to_vec()),
            );
        } else {
            let is_executable = metadata.permissions().mode() & 0o100 != 0;
            let kind = if is_executable { "program" } else { "file" };
            found.insert(key, (kind.to_owned(), std::fs::read(full).unwrap()));
        }
    }
}

/// Lands `parts`, which must be refused, with nothing of it left.
pub(crate) fn refused(bench: &Bench, parts: Vec<Part>) -> Error {
    let refs = git(&bench.here, &["for-each-ref"]);
    let error = match land(&bench.place(), &Base::default(), parts) {
        Err(error) => error,
        Ok(landed) => panic!("{landed:?}"),
    };
    assert_eq!(git(&bench.here, &["for-each-ref"]), refs);
    let own = bench.here.join(".git/banger");
    let left: Vec<_> = std::fs::read_dir(own)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    error
}

/// A VM that has a repository with one commit, and the base of it.
pub(crate) fn prepared() -> (Bench, Base) {
    let bench = Bench::with_repository();
    let (_, base) = bench.prepare(&Options::default());
    (bench, base)
}
