//! The torture of sessions: 50 at once that write pseudo-random bytes as fast as they can, readers and writers that stall,
//! leave and come back at random, writers that take a session from each other, and beside them execs and files on their
//! way in and out; bangerd killed and started again, the VM paused and resumed. Every byte comes once, in its place; what
//! the bounds of a log force out is told exactly; memory stays below what the bounds add up to.
//!
//! The seed is printed; `BANGER_SEED` repeats the sizes and the choices. `BANGER_TORTURE_KILLS` makes it longer.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Run, Verdict};
use banger_sdk::{Client, Error};
use futures::future::join_all;
use tokio::time::sleep;

use self::done::{Done, add};
use self::files::Moving;
use self::watched::Watched;
use crate::campaign::{random, setting};
use crate::suite::{LONG, Suite};

mod done;
mod duel;
mod execs;
mod files;
#[path = "../../guest/numbers.rs"]
mod numbers;
mod pieced;
mod sessions;
mod watched;

/// Sessions at once.
const SESSIONS: usize = 50;
/// How many of them take standard input and say it again.
const ECHOES: usize = 8;
/// How many of them write more than a log keeps.
const FLOODS: usize = 1;
/// How many of them are written to by two who take them from each other.
const DUELS: usize = 4;
/// Execs at once, beside the sessions.
const EXECS: usize = 4;
/// Files that go in and out at once, beside the sessions.
const FILES: usize = 2;
/// Readers of every so many sessions are two.
const SECOND_READER_EVERY: usize = 5;
/// How often bangerd is killed.
const KILLS: u64 = 20;
/// Every so many times the VM is paused and resumed, too.
const PAUSED_EVERY: u64 = 5;
/// The longest time between two kills.
const PAUSE: Duration = Duration::from_millis(1200);
/// The most that a session writes, of which its log keeps all.
const LENGTH_MAX: u64 = 2 << 20;
/// More than a log keeps: the agent's `SPILL_MAX_BYTES` and `LOG_MAX_BYTES`, and what is on the way.
const FLOOD: u64 = 72 << 20;
/// The longest that a reader stays away or stalls.
const AWAY: Duration = Duration::from_millis(800);
/// A reader does something else after at most this part of all the bytes.
const STAYS_PART: u64 = 4;
/// The most that is written to a session at once.
const PIECE_MAX: u64 = 100_000;
/// How long the sessions of the end may take after the last kill.
const END: Duration = Duration::from_secs(300);
/// The VM's name.
const VM: &str = "torture";

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![Case {
        name: "sessions_under_torture_lose_no_byte_and_repeat_none",
        lane: Lane::Own,
        test: torture,
    }]
}

fn torture(suite: &Suite) -> Verdict {
    let daemon = suite.own_daemon("own/torture", DaemonOptions::default());
    let mut random = random("torture");
    let reference = suite.reference();
    let create = [
        "vm",
        "create",
        &reference,
        "--name",
        VM,
        "--network",
        "none",
    ];
    daemon
        .banger(create)
        .args(["--memory", "512M"])
        .timeout(LONG)
        .ok();
    let program = program(suite);
    let put = "mkdir /tmp/ran && cat > /tmp/torrent && chmod +x /tmp/torrent";
    daemon
        .banger(["vm", "exec", VM, "--", "sh", "-c", put])
        .stdin(program)
        .timeout(LONG)
        .ok();
    let is_over = AtomicBool::new(false);
    let begin = Instant::now();
    let seeds: Vec<u64> = std::iter::repeat_with(|| random.u64(..))
        .take(SESSIONS + EXECS + FILES)
        .collect();
    let (seen, done) = std::thread::scope(|scope| {
        let (daemon, is_over) = (&daemon, &is_over);
        let disturbing = scope.spawn(move || {
            let over = Over(is_over);
            let seen = disturb(daemon, &mut random);
            drop(over);
            seen
        });
        let done = run(suite, daemon, &seeds, is_over);
        println!("  {done} in {:.0} s", begin.elapsed().as_secs_f64());
        (disturbing.join().unwrap(), done)
    });
    execs::check(&daemon, &done);
    done.check();
    let agent = watched::agent_peak_kib(&daemon, VM);
    println!(
        "  peak memory: bangerd {} KiB, agent {agent} KiB",
        seen.peak_kib()
    );
    seen.check(agent);
    daemon.clear();
    Verdict::Passed
}

/// The program `tests/guest/torrent.rs`.
fn program(suite: &Suite) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/torrent.rs");
    let program = suite.scratch.path().join("torrent");
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let words = [
        "--edition",
        "2024",
        "-O",
        "-C",
        "target-feature=+crt-static",
        "-C",
        "strip=symbols",
    ];
    Run::new(compiler)
        .args(words)
        .arg("-o")
        .args([&program, &source])
        .ok();
    std::fs::read(program).unwrap()
}

/// Says that it is over, however the thread ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Kills bangerd and starts it again, and pauses the VM now and then.
fn disturb(daemon: &Daemon, random: &mut fastrand::Rng) -> Watched {
    let mut watched = Watched::default();
    for kill in 1..=setting("BANGER_TORTURE_KILLS", KILLS) {
        std::thread::sleep(PAUSE.mul_f64(random.f64()));
        if kill.is_multiple_of(PAUSED_EVERY) {
            daemon.banger(["vm", "pause", VM]).timeout(LONG).ok();
            std::thread::sleep(PAUSE.mul_f64(random.f64()));
            daemon.banger(["vm", "resume", VM]).timeout(LONG).ok();
        }
        watched.look(daemon);
        daemon.kill();
        daemon.start_again();
    }
    watched.look(daemon);
    watched
}

/// Runs all slots until it is over.
fn run(suite: &Suite, daemon: &Daemon, seeds: &[u64], is_over: &AtomicBool) -> Done {
    let done = Done::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = &daemon.client().await;
        let slots = seeds.iter().enumerate().map(|(number, seed)| {
            let slot = Slot {
                client,
                number,
                random: RefCell::new(fastrand::Rng::with_seed(*seed)),
                done: &done,
            };
            let scratch = suite.scratch.path();
            async move {
                let mut until_over = std::pin::pin!(slot.until(is_over, scratch));
                loop {
                    let was_over = is_over.load(Ordering::Acquire);
                    let limit = if was_over { END } else { LONG };
                    match tokio::time::timeout(limit, &mut until_over).await {
                        Ok(()) => return,
                        Err(_) => assert!(!was_over, "slot {number} hangs\n{}", daemon.log()),
                    }
                }
            }
        });
        join_all(slots).await;
    });
    done
}

/// What a slot does, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A session that takes standard input and says it again.
    Echo,
    /// The same with two writers, who take it from each other.
    Duel,
    /// A session that writes more than a log keeps.
    Flood,
    /// A session that writes.
    Torrent,
    /// An exec.
    Exec,
    /// A file that goes in and comes out.
    File,
}

impl Kind {
    /// Of each kind so many; the rest of the sessions only write.
    fn of(number: usize) -> Self {
        let mut end = 0;
        let kinds = [
            (Self::Echo, ECHOES),
            (Self::Flood, FLOODS),
            (Self::Duel, DUELS),
            (Self::Torrent, SESSIONS - ECHOES - FLOODS - DUELS),
            (Self::Exec, EXECS),
        ];
        for (kind, count) in kinds {
            end += count;
            if number < end {
                return kind;
            }
        }
        Self::File
    }
}

/// What is done at once with all other slots.
struct Slot<'a> {
    client: &'a Client,
    number: usize,
    random: RefCell<fastrand::Rng>,
    done: &'a Done,
}

/// An error that a killed daemon or a paused VM explains; one that it does not is the test's end.
fn passes(error: &Error, told: &str) {
    let reason = error.reason();
    let expected = [
        "WRONG_STATE",
        "VM_WRONG_STATE",
        "AGENT_LOST",
        "AGENT_SILENT",
        "DRAINING",
        "VM_BUSY",
    ];
    let is_explained = error.is_connection_lost()
        || expected.contains(&reason)
        || error.code() == banger_sdk::Code::Unavailable;
    assert!(is_explained, "{told}: {reason}: {error}");
    assert!(
        !reason.is_empty(),
        "{told}: an error without a reason: {error}"
    );
}

impl Slot<'_> {
    /// Does what it is for until it is over.
    async fn until(&self, is_over: &AtomicBool, scratch: &Path) {
        let kind = Kind::of(self.number);
        let mut moving = None;
        if kind == Kind::File {
            moving = Some(Moving::new(self, scratch));
        }
        while !is_over.load(Ordering::Acquire) {
            match (&mut moving, kind) {
                (Some(moving), _) => moving.round(self).await,
                (None, Kind::Exec) => self.exec().await,
                (None, _) => self.session(kind).await,
            }
        }
        // Once more when nothing disturbs it.
        match (moving, kind) {
            (Some(moving), _) => moving.end(self).await,
            (None, Kind::Exec) => self.exec().await,
            (None, _) => {}
        }
    }

    fn up_to(&self, most: u64) -> u64 {
        self.random.borrow_mut().u64(1..=most)
    }

    fn chance(&self, percent: u32) -> bool {
        self.random.borrow_mut().u32(..100) < percent
    }

    async fn rest(&self) {
        let share = self.random.borrow_mut().f64();
        sleep(AWAY.mul_f64(share)).await;
    }
}
