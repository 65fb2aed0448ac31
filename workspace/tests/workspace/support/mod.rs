//! Both halves of a workspace connected directly, and git as a user runs it.

pub(crate) mod half;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use banger_workspace::client::collect::{Options, Source};
use banger_workspace::client::land::{Landed, Landing, Limits, Place};
use banger_workspace::client::{Error, Result};
use banger_workspace::command::{Cancel, HostLauncher};
use banger_workspace::guest::{self, Answer, Export, Restore, Restored, WorkError};
use banger_workspace::wire::{Base, KnownRepository, Part};

pub(crate) use banger_histories::{commit, git, git_bytes, tree, try_git, write};

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
