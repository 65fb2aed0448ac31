//! Processes as whoever runs git has them: on a host by the standard library, in a guest by its agent, which also waits
//! for them.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is to be started.
#[derive(Debug)]
pub struct Plan {
    /// The program's name and its arguments. The name is looked for in the environment's `PATH`.
    pub arguments: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it starts.
    pub directory: PathBuf,
    /// Become its standard input, output and error.
    pub stdio: [OwnedFd; 3],
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It returned this code.
    Code(i32),
    /// A signal of this number ended it.
    Signal(i32),
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "returned {code}"),
            Self::Signal(signal) => write!(formatter, "was ended by signal {signal}"),
        }
    }
}

/// Starts processes.
pub trait Launcher: fmt::Debug + Send + Sync {
    /// Starts what was planned as the leader of a process group of its own.
    ///
    /// # Errors
    /// Why nothing runs; [`io::ErrorKind::NotFound`] where there is no such program.
    fn launch(&self, plan: Plan) -> io::Result<Running>;
}

/// Kills a process group, unless its leader was waited for already.
pub type Kill = Arc<dyn Fn() + Send + Sync>;

/// A process that runs.
pub struct Running {
    /// Tells once how it ended.
    pub ending: Receiver<Ending>,
    /// Kills it and its process group.
    pub kill: Kill,
}

impl fmt::Debug for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Running").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Inner {
    is_cancelled: AtomicBool,
    next: AtomicU64,
    running: Mutex<Vec<(u64, Kill)>>,
}

/// Ends what runs, now and later.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Inner>);

impl fmt::Debug for Cancel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Cancel")
            .field(&self.is_cancelled())
            .finish()
    }
}

impl Cancel {
    fn running(&self) -> MutexGuard<'_, Vec<(u64, Kill)>> {
        // A list of handles is consistent between any two statements.
        self.0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills what runs; what is started from now on is killed at once.
    pub fn cancel(&self) {
        self.0.is_cancelled.store(true, Ordering::SeqCst);
        for (_, kill) in self.running().iter() {
            kill();
        }
    }

    /// Whether somebody gave up.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::SeqCst)
    }

    /// Ends `running` when it has run for `within`, and whenever this is cancelled.
    pub(super) fn guard(&self, running: Running, within: Duration) -> Guarded {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.running().push((number, Arc::clone(&running.kill)));
        // Whoever cancelled before it was in the list has not seen it.
        if self.is_cancelled() {
            (running.kill)();
        }
        let watch = std::thread::spawn(move || match running.ending.recv_timeout(within) {
            Ok(ending) => Some(ending),
            // Nobody would tell its end.
            Err(RecvTimeoutError::Disconnected) => {
                (running.kill)();
                None
            }
            Err(RecvTimeoutError::Timeout) => {
                (running.kill)();
                // What was killed ends; who waits for it tells so.
                let _ = running.ending.recv();
                None
            }
        });
        Guarded {
            cancel: self.clone(),
            number,
            watch: Some(watch),
        }
    }
}

/// A process that ends in time.
#[derive(Debug)]
pub(super) struct Guarded {
    cancel: Cancel,
    number: u64,
    watch: Option<JoinHandle<Option<Ending>>>,
}

impl Guarded {
    /// Waits for its end; none where it was ended for being late.
    pub(super) fn wait(&mut self) -> Option<Ending> {
        self.watch.take()?.join().ok().flatten()
    }

    /// Whether somebody gave up on it.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let number = self.number;
        let mut running = self.cancel.running();
        if let Some(at) = running.iter().position(|(other, _)| *other == number) {
            let (_, kill) = running.swap_remove(at);
            drop(running);
            if self.watch.is_some() {
                kill();
            }
        }
    }
}
