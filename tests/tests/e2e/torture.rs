//! The torture of sessions: 50 at once that write pseudo-random bytes as fast as they can, readers and writers that stall,
//! leave and come back at random, bangerd killed and started again, the VM paused and resumed. Every byte comes once, in
//! its place; what the bounds of a log force out is told exactly; memory stays below what the bounds add up to.
//!
//! The seed is printed; `BANGER_SEED` repeats the sizes and the choices. `BANGER_TORTURE_KILLS` makes it longer.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Run, Verdict};
use banger_sdk::{Client, Command, Error, Event, Process, ReadFrom, types};
use futures::future::join_all;
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::campaign::{random, setting};
use crate::suite::{LONG, Suite};
use watched::Watched;

#[path = "../../guest/numbers.rs"]
mod numbers;
#[path = "torture/watched.rs"]
mod watched;

/// Sessions at once.
const SESSIONS: usize = 50;
/// How many of them take standard input and say it again.
const ECHOES: usize = 8;
/// How many of them write more than a log keeps.
const FLOODS: usize = 1;
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
    let put = "cat > /tmp/torrent && chmod +x /tmp/torrent";
    daemon
        .banger(["vm", "exec", VM, "--", "sh", "-c", put])
        .stdin(program)
        .timeout(LONG)
        .ok();
    let is_over = AtomicBool::new(false);
    let begin = Instant::now();
    let seeds: Vec<u64> = std::iter::repeat_with(|| random.u64(..))
        .take(SESSIONS)
        .collect();
    let seen = std::thread::scope(|scope| {
        let (daemon, is_over) = (&daemon, &is_over);
        let disturbing = scope.spawn(move || {
            let over = Over(is_over);
            let seen = disturb(daemon, &mut random);
            drop(over);
            seen
        });
        let done = run(daemon, &seeds, is_over);
        println!("  {done} in {:.0} s", begin.elapsed().as_secs_f64());
        disturbing.join().unwrap()
    });
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

/// What all slots did.
#[derive(Debug, Default)]
struct Done {
    sessions: Cell<u64>,
    bytes: Cell<u64>,
    lost: Cell<u64>,
    returns: Cell<u64>,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sessions, returns) = (self.sessions.get(), self.returns.get());
        let (bytes, lost) = (self.bytes.get() >> 20, self.lost.get() >> 20);
        write!(
            f,
            "{sessions} sessions, {bytes} MiB read, {lost} MiB told as lost, {returns} returns"
        )
    }
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

/// Runs all slots until it is over.
fn run(daemon: &Daemon, seeds: &[u64], is_over: &AtomicBool) -> Done {
    let done = Rc::new(Done::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let all = Rc::clone(&done);
    runtime.block_on(async move {
        let client = &daemon.client().await;
        let slots = seeds.iter().enumerate().map(|(number, seed)| {
            let slot = Slot {
                client,
                number,
                random: RefCell::new(fastrand::Rng::with_seed(*seed)),
                done: &all,
            };
            async move {
                let until_over = async {
                    while !is_over.load(Ordering::Acquire) {
                        slot.session().await;
                    }
                };
                let mut until_over = std::pin::pin!(until_over);
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
    Rc::into_inner(done).unwrap()
}

/// One of the sessions at once, one after the other.
struct Slot<'a> {
    client: &'a Client,
    number: usize,
    random: RefCell<fastrand::Rng>,
    done: &'a Done,
}

/// A session and what it says.
struct Work {
    id: String,
    seed: u64,
    length: u64,
    is_echo: bool,
    told: String,
}

/// What one reader put together.
struct Pieced {
    seed: u64,
    next: u64,
    lost: u64,
    hash: Sha256,
}

impl Pieced {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            next: 0,
            lost: 0,
            hash: Sha256::new(),
        }
    }

    /// Takes an event; true is the end.
    fn take(&mut self, event: Event, told: &str) -> bool {
        match event {
            Event::Output(output) => {
                let at = u64::try_from(output.offset).unwrap();
                assert_eq!(at, self.next, "{told}: output is at its place");
                let right = numbers::bytes(self.seed, at, output.data.len() as u64);
                assert!(right == output.data, "{told}: the bytes at {at} are right");
                self.hash.update(&output.data);
                self.next += output.data.len() as u64;
                false
            }
            Event::Gap(gap) => {
                assert_eq!(
                    u64::try_from(gap.offset).unwrap(),
                    self.next,
                    "{told}: a gap is at its place"
                );
                let lost = u64::try_from(gap.lost_bytes).unwrap();
                self.next += lost;
                self.lost += lost;
                false
            }
            Event::Screen(_) => panic!("{told}: a screen that nobody asked for"),
            Event::Exited(exit) => {
                let code = types::exit::How::Code(0);
                assert_eq!(exit.how, Some(code), "{told}: how it ended");
                true
            }
        }
    }
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
}

impl Slot<'_> {
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

    /// Starts a session, reads it to its end, compares, removes it.
    async fn session(&self) {
        let is_echo = self.number < ECHOES;
        let is_flood = (ECHOES..ECHOES + FLOODS).contains(&self.number);
        let seed = self.random.borrow_mut().u64(..);
        let length = if is_flood {
            FLOOD
        } else {
            self.up_to(LENGTH_MAX)
        };
        let command = if is_echo {
            Command::new(["cat"]).stdin()
        } else {
            Command::new([
                "/tmp/torrent".to_owned(),
                seed.to_string(),
                length.to_string(),
            ])
        };
        let told = format!("slot {}, seed {seed}, {length} bytes", self.number);
        let id = loop {
            match self.client.sessions().start(VM, command.clone()).await {
                Ok(session) => break session.id,
                Err(error) => passes(&error, &told),
            }
            self.rest().await;
        };
        let readers = if !is_echo && self.number.is_multiple_of(SECOND_READER_EVERY) {
            2
        } else {
            1
        };
        let work = Work {
            id,
            seed,
            length,
            is_echo,
            told,
        };
        let told = &work.told;
        let readings = (0..readers).map(|_| self.read(&work));
        for pieced in join_all(readings).await {
            assert_eq!(
                pieced.next, length,
                "{told}: all of it is there or told as lost"
            );
            add(&self.done.bytes, pieced.next - pieced.lost);
            add(&self.done.lost, pieced.lost);
            if is_flood {
                continue;
            }
            assert_eq!(pieced.lost, 0, "{told}: a log that keeps all loses nothing");
            let right = Sha256::digest(numbers::bytes(seed, 0, length));
            assert_eq!(
                pieced.hash.finalize(),
                right,
                "{told}: what was put together"
            );
        }
        add(&self.done.sessions, 1);
        while let Err(error) = self.client.sessions().delete(&work.id).await {
            passes(&error, told);
            self.rest().await;
        }
    }

    /// Puts the output together, over as many attachments as it takes. An echo is also written to.
    async fn read(&self, work: &Work) -> Pieced {
        let mut pieced = Pieced::new(work.seed);
        loop {
            let from = ReadFrom::Offset(i64::try_from(pieced.next).unwrap());
            let attach = self.client.sessions().attach(&work.id).from(from);
            let attach = if self.chance(50) {
                attach.hold_process()
            } else {
                attach
            };
            let is_whole = match attach.await {
                Ok(process) => self.stay(process, &mut pieced, work).await,
                Err(error) => Err(error),
            };
            match is_whole {
                Ok(true) => return pieced,
                Ok(false) => {}
                Err(error) => passes(&error, &work.told),
            }
            add(&self.done.returns, 1);
            if self.chance(50) {
                self.rest().await;
            }
        }
    }

    /// Reads for a while, and writes meanwhile; true is the session's end.
    async fn stay(
        &self,
        mut process: Process,
        pieced: &mut Pieced,
        work: &Work,
    ) -> Result<bool, Error> {
        let stays = work.length / STAYS_PART + 1;
        let input = process.input();
        let accepted = u64::try_from(process.session().stdin_offset).unwrap();
        let write = async {
            let mut at = accepted;
            while work.is_echo && at < work.length {
                let piece = self.up_to(PIECE_MAX).min(work.length - at);
                let bytes = numbers::bytes(work.seed, at, piece);
                // None is taken where the process has ended, which its exit tells.
                if input.write(bytes).await.is_err() {
                    break;
                }
                at += piece;
            }
            input.close();
            std::future::pending::<()>().await;
        };
        let read = async {
            let mut left = i128::from(self.up_to(stays));
            loop {
                let Some(event) = process.next().await? else {
                    return Ok(false);
                };
                let before = pieced.next;
                if pieced.take(event, &work.told) {
                    return Ok(true);
                }
                left -= i128::from(pieced.next - before);
                if left < 0 && self.chance(50) {
                    return Ok(false);
                }
                if left < 0 {
                    self.rest().await;
                    left = self.up_to(stays).into();
                }
            }
        };
        tokio::select! {
            read = read => read,
            () = write => Ok(false),
        }
    }
}
