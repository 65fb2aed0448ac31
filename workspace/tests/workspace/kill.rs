//! Either half is killed, or the stream between them cut, at random points of a prepare and an export.
//!
//! Each half is a process of its own; what they say goes through a relay here, which stands for the daemon. After each
//! disturbance the tree in the VM is the one that was there or the one that was sent, every repository here has all of the
//! export's references or none, and nothing else of the owner's was touched; a repeat makes all of it and leaves nothing
//! beside it. `WORKSPACE_KILLS` says how many points (16), `WORKSPACE_FIRST` from which seed on, `WORKSPACE_SEED` repeats the
//! one that a failure prints.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use crate::support::half::{self, Work};
use crate::support::{Bench, VM, commit, git, tree, try_git, write};
use banger_workspace::client::collect::Options;
use rustix::io::{FdFlags, fcntl_setfd};

/// Points of disturbance, unless `WORKSPACE_KILLS` says how many.
const POINTS: u64 = 16;
/// How long all processes of a run may take to be gone.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn a_half_of_a_workspace_when_it_is_asked_for() {
    half::become_one();
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    ClientKilled,
    GuestKilled,
    /// As when the daemon is killed: both see the end of the stream.
    Cut,
}

/// When it does.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Never,
    /// When so many bytes have gone through.
    Byte(u64),
    /// So long after the begin: this reaches what happens when nothing is said.
    After(Duration),
}

/// What a run without a disturbance took.
#[derive(Debug, Clone, Copy)]
struct Whole {
    bytes: u64,
    took: Duration,
}

/// A relay's view of one run.
struct Relay {
    passed: AtomicU64,
    stop_at: u64,
    stopped: SyncSender<()>,
}

impl Relay {
    /// Carries bytes until one side has ended, or the point is reached at which nothing more is carried.
    fn carry(&self, mut from: &UnixStream, mut to: &UnixStream) {
        let mut piece = vec![0; 64 << 10];
        loop {
            let length = from.read(&mut piece).unwrap_or(0);
            if length == 0 {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            let before = self.passed.fetch_add(length as u64, Ordering::SeqCst);
            let left = usize::try_from(self.stop_at.saturating_sub(before)).unwrap_or(usize::MAX);
            let is_last = left < length;
            if to.write_all(&piece[..length.min(left)]).is_err() {
                // Nobody takes it: whoever sends is to see that.
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
            if is_last {
                let _ = self.stopped.try_send(());
                return;
            }
        }
    }
}

/// Runs both halves, disturbs them, and waits until nothing of either is left, git included. Whether both ended well.
fn run(bench: &Bench, work: Work, moment: Moment, disturbance: Disturbance) -> (bool, Whole) {
    // Whatever is started inherits the writing end: when all of it is closed, all of them have ended.
    let (alive, lives) = rustix::pipe::pipe().unwrap();
    fcntl_setfd(&alive, FdFlags::CLOEXEC).unwrap();
    let (client, theirs) = UnixStream::pair().unwrap();
    let mut client_half = half::start(work, "client", bench, theirs);
    let (guest, theirs) = UnixStream::pair().unwrap();
    let mut guest_half = half::start(work, "guest", bench, theirs);
    drop(lives);
    let (stopped, is_stopped) = sync_channel(1);
    let relay = Relay {
        passed: AtomicU64::new(0),
        stop_at: match moment {
            Moment::Byte(byte) => byte,
            Moment::Never | Moment::After(_) => u64::MAX,
        },
        stopped,
    };
    let begun = Instant::now();
    let gone = watch(alive);
    std::thread::scope(|scope| {
        scope.spawn(|| relay.carry(&client, &guest));
        scope.spawn(|| relay.carry(&guest, &client));
        let ended_before = await_moment(moment, &is_stopped, &gone);
        if !ended_before {
            disturb(disturbance, &mut client_half, &mut guest_half);
            // Whoever lives on sees the end of the stream, as from a daemon that lost the other side.
            let _ = client.shutdown(Shutdown::Both);
            let _ = guest.shutdown(Shutdown::Both);
            gone.recv_timeout(PATIENCE).expect("all of it ends");
        }
    });
    let whole = Whole {
        bytes: relay.passed.load(Ordering::SeqCst),
        took: begun.elapsed(),
    };
    let client = client_half.wait().unwrap().success();
    let guest = guest_half.wait().unwrap().success();
    (client && guest, whole)
}

/// Tells when nobody has the other end of a pipe any more.
fn watch(alive: OwnedFd) -> Receiver<()> {
    let (tell, gone) = channel();
    std::thread::spawn(move || {
        let mut alive = std::fs::File::from(alive);
        let _ = alive.read(&mut [0]);
        let _ = tell.send(());
    });
    gone
}

/// Waits for the moment. Whether all of it ended before.
fn await_moment(moment: Moment, stopped: &Receiver<()>, gone: &Receiver<()>) -> bool {
    match moment {
        Moment::Never => {
            gone.recv_timeout(PATIENCE).expect("all of it ends");
            true
        }
        Moment::After(after) => gone.recv_timeout(after).is_ok(),
        Moment::Byte(_) => {
            let begun = Instant::now();
            // Either comes; which of them is known by looking at both.
            while begun.elapsed() < PATIENCE {
                if stopped.recv_timeout(Duration::from_millis(5)).is_ok() {
                    return false;
                }
                if gone.try_recv().is_ok() {
                    return true;
                }
            }
            panic!("neither the point nor the end comes");
        }
    }
}

fn disturb(disturbance: Disturbance, client: &mut Child, guest: &mut Child) {
    // One that has ended already is none to kill.
    match disturbance {
        Disturbance::ClientKilled => drop(client.kill()),
        Disturbance::GuestKilled => drop(guest.kill()),
        Disturbance::Cut => {}
    }
}

/// What must be the same, whole, before or after: per repository its references, index and HEAD, and the files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Picture {
    files: BTreeMap<OsString, (String, Vec<u8>)>,
    repositories: BTreeMap<PathBuf, String>,
}

/// The repositories of the scene.
const PLACES: [&str; 3] = ["", "library", "new inside"];

fn picture(top: &Path) -> Option<Picture> {
    if !top.exists() {
        return None;
    }
    let mut repositories = BTreeMap::new();
    for place in PLACES {
        let at = top.join(place);
        if !at.join(".git").exists() {
            continue;
        }
        let told = [
            git(&at, &["for-each-ref", "--format=%(objectname) %(refname)"]),
            git(&at, &["rev-parse", "HEAD"]),
            git(&at, &["symbolic-ref", "HEAD"]),
            git(&at, &["ls-files", "--stage"]),
            git(&at, &["status", "--porcelain", "--ignore-submodules=all"]),
        ];
        repositories.insert(at.strip_prefix(top).unwrap().to_owned(), told.join("\n"));
    }
    Some(Picture {
        files: tree(top),
        repositories,
    })
}

/// The references of an export, for each git directory that has some.
fn landed(bench: &Bench) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let own = bench.here.join(".git");
    let mut stores = vec![own.clone(), own.join("modules/library")];
    let apart = std::fs::read_dir(own.join("banger/stores").join(VM));
    stores.extend(
        apart
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    for store in stores {
        let format = "--format=%(objectname) %(refname)";
        if let Ok(refs) = try_git(&store, &["for-each-ref", format, "refs/banger"]) {
            found.insert(store, refs);
        }
    }
    found
}

/// A bench that is copied for each point.
struct Scene {
    bench: Bench,
    /// References that were there, and those that a whole run makes, by places beneath the owner's directory.
    before: BTreeMap<PathBuf, String>,
    after: BTreeMap<PathBuf, String>,
    guest_before: Option<Picture>,
    guest_after: Option<Picture>,
    here: Option<Picture>,
    whole: Whole,
}

fn copied(bench: &Bench) -> Bench {
    let copy = Bench::new();
    for part in ["here", "vm", "base"] {
        let from = bench.directory.path().join(part);
        if !from.exists() {
            continue;
        }
        let _ = std::fs::remove_dir_all(copy.directory.path().join(part));
        let done = Command::new("cp")
            .arg("-a")
            .arg(from)
            .arg(copy.directory.path())
            .status();
        assert!(done.unwrap().success());
    }
    copy
}

/// A repository with a submodule, branches, and work of every kind.
fn repository(bench: &Bench) {
    let library = bench.directory.path().join("library");
    std::fs::create_dir(&library).unwrap();
    git(&library, &["init", "-q", "-b", "main"]);
    write(&library, "inside", "inside\n");
    commit(&library, "library");
    let here = &bench.here;
    git(here, &["init", "-q", "-b", "main"]);
    write(here, "file", "one\n");
    write(here, "dir/large", noise(1 << 20));
    commit(here, "first");
    let at = library.display().to_string();
    git(here, &["submodule", "--quiet", "add", &at, "library"]);
    commit(here, "a submodule");
    git(here, &["branch", "topic"]);
}

/// Bytes that no compression makes less of, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..length).map(|_| random.u8(..)).collect()
}

fn work(top: &Path) {
    write(top, "file", "two\n");
    commit(top, "second");
    git(top, &["tag", "-a", "-m", "tag", "v1"]);
    write(top, "staged", noise(200 << 10));
    git(top, &["add", "staged"]);
    write(top, "file", "three\n");
    write(top, "untracked", noise(1 << 20));
    std::fs::create_dir_all(top.join("empty/deep")).unwrap();
    let library = top.join("library");
    write(&library, "inside", "changed\n");
    commit(&library, "in the submodule");
    write(&library, "more", "not committed\n");
}

fn prepare_scene(is_repeat: bool) -> Scene {
    let bench = Bench::new();
    repository(&bench);
    if is_repeat {
        let (_, base) = bench.prepare(&Options::default());
        half::remember(&bench, &base);
    }
    work(&bench.here);
    scene(bench, Work::Prepare)
}

fn export_scene(is_repeat: bool) -> Scene {
    let bench = Bench::new();
    repository(&bench);
    let (_, base) = bench.prepare(&Options::default());
    half::remember(&bench, &base);
    if is_repeat {
        write(&bench.guest, "file", "a first try\n");
        commit(&bench.guest, "a first try");
        bench.export(&base);
        git(&bench.guest, &["reset", "-q", "--hard", "HEAD~1"]);
    }
    work(&bench.guest);
    let inside = bench.guest.join("new inside");
    std::fs::create_dir(&inside).unwrap();
    git(&inside, &["init", "-q", "-b", "main"]);
    write(&inside, "inside", "new\n");
    commit(&inside, "new");
    // What the owner did meanwhile.
    write(&bench.here, "mine", "mine\n");
    scene(bench, Work::Export)
}

/// Runs it whole, on a copy.
fn scene(bench: Bench, work: Work) -> Scene {
    let whole_bench = copied(&bench);
    let (done, whole) = run(&whole_bench, work, Moment::Never, Disturbance::Cut);
    assert!(done, "a run without a disturbance");
    Scene {
        before: relative(&bench, &landed(&bench)),
        after: relative(&whole_bench, &landed(&whole_bench)),
        guest_before: picture(&bench.guest),
        guest_after: picture(&whole_bench.guest),
        here: picture(&bench.here),
        whole,
        bench,
    }
}

/// The refs of `found`, by their places beneath a bench, without the times in the names of what is kept.
fn relative(bench: &Bench, found: &BTreeMap<PathBuf, String>) -> BTreeMap<PathBuf, String> {
    let top = bench.here.as_path();
    let timeless = |refs: &String| -> String {
        let lines = refs.lines().map(|line| match line.split_once("/earlier/") {
            Some((before, rest)) => {
                let rest = rest.split_once('/').map_or(rest, |(_, rest)| rest);
                format!("{before}/earlier/{rest}\n")
            }
            None => format!("{line}\n"),
        });
        lines.collect()
    };
    found
        .iter()
        .map(|(store, refs)| (store.strip_prefix(top).unwrap().to_owned(), timeless(refs)))
        .filter(|(_, refs)| !refs.is_empty())
        .collect()
}

impl Scene {
    fn point(&self, work: Work, told: &str, moment: Moment, disturbance: Disturbance) {
        let bench = copied(&self.bench);
        run(&bench, work, moment, disturbance);
        self.check(&bench, told);
        let (done, _) = run(&bench, work, Moment::Never, Disturbance::Cut);
        assert!(done, "{told}: the repeat failed");
        assert_eq!(
            relative(&bench, &landed(&bench)),
            self.after,
            "{told}: after the repeat"
        );
        assert_eq!(
            picture(&bench.guest),
            self.guest_after,
            "{told}: after the repeat"
        );
        let beside = std::fs::read_dir(bench.guest.parent().unwrap()).unwrap();
        assert_eq!(beside.count(), 1, "{told}: something lies beside the tree");
        let left = std::fs::read_dir(bench.here.join(".git/banger"));
        let left = left.into_iter().flatten().flatten();
        let left: Vec<OsString> = left.map(|entry| entry.file_name()).collect();
        assert!(left.iter().all(|name| name == "stores"), "{told}: {left:?}");
        for store in landed(&bench).keys() {
            git(store, &["fsck", "--strict", "--no-dangling"]);
            let packs = std::fs::read_dir(store.join("objects/pack"));
            let keeps = packs.into_iter().flatten().flatten();
            let mut keeps = keeps.map(|entry| entry.path());
            assert!(
                keeps.all(|path| path.extension().is_none_or(|end| end != "keep")),
                "{told}: a pack is held"
            );
        }
    }

    /// After a disturbance all is as it was, or as it is to be.
    fn check(&self, bench: &Bench, told: &str) {
        let guest = picture(&bench.guest);
        assert!(
            guest == self.guest_before || guest == self.guest_after,
            "{told}: half a tree is in the VM"
        );
        for (store, refs) in relative(bench, &landed(bench)) {
            let is = |whole: &BTreeMap<PathBuf, String>| whole.get(&store) == Some(&refs);
            let is_whole = is(&self.before) || is(&self.after);
            assert!(
                is_whole,
                "{told}: half of an export is in {store:?}:\n{refs}"
            );
        }
        let mine = |picture: Option<Picture>| {
            let mut picture = picture.unwrap();
            for told in picture.repositories.values_mut() {
                let lines = told.lines().filter(|line| !line.contains(" refs/banger/"));
                *told = lines.collect::<Vec<_>>().join("\n");
            }
            picture
        };
        assert_eq!(
            mine(picture(&bench.here)),
            mine(self.here.clone()),
            "{told}: something of the owner's"
        );
    }
}

#[test]
fn a_prepare_or_export_killed_at_any_point_is_whole_or_nothing_and_a_repeat_succeeds() {
    let number = |name: &str, default: u64| {
        let told = std::env::var(name).ok();
        told.map_or(default, |told| told.parse().expect("a number"))
    };
    let scenes = [
        (Work::Prepare, prepare_scene(false)),
        (Work::Prepare, prepare_scene(true)),
        (Work::Export, export_scene(false)),
        (Work::Export, export_scene(true)),
    ];
    let one = std::env::var("WORKSPACE_SEED").ok();
    let one: Option<u64> = one.map(|seed| seed.parse().expect("WORKSPACE_SEED is a number"));
    let first = one.unwrap_or_else(|| number("WORKSPACE_FIRST", 0));
    let count = one.map_or_else(|| number("WORKSPACE_KILLS", POINTS), |_| 1);
    for seed in first..first + count {
        let mut random = fastrand::Rng::with_seed(seed);
        let which = usize::try_from(seed % 4).unwrap();
        let (work, scene) = &scenes[which];
        let moment = match random.bool() {
            true => Moment::Byte(random.u64(..=scene.whole.bytes)),
            false => Moment::After(scene.whole.took.mul_f64(random.f64())),
        };
        let all = [
            Disturbance::ClientKilled,
            Disturbance::GuestKilled,
            Disturbance::Cut,
        ];
        let disturbance = all[random.usize(..all.len())];
        let told = format!("seed {seed}: {work:?} of scene {which}, {disturbance:?} at {moment:?}");
        println!("{told}");
        scene.point(*work, &told, moment, disturbance);
    }
}

#[test]
fn a_repository_that_cannot_be_written_to_is_left_out_whole_and_lands_with_a_repeat() {
    let Scene { bench, .. } = export_scene(false);
    // The submodule's own lock: its references cannot be changed.
    let lock = bench
        .here
        .join(".git/modules/library/refs/banger/dev/HEAD.lock");
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    std::fs::write(&lock, "").unwrap();
    let export = || run(&bench, Work::Export, Moment::Never, Disturbance::Cut);
    assert!(export().0);
    for (place, refs) in landed(&bench) {
        let is_locked = place.ends_with("modules/library");
        assert_eq!(refs.is_empty(), is_locked, "{}: {refs}", place.display());
    }
    std::fs::remove_file(&lock).unwrap();
    assert!(export().0);
    assert!(landed(&bench).values().all(|refs| !refs.is_empty()));
}
