//! From the kernel's start of `/init` to a guest that can run sessions.
//!
//! ```text
//! kernel ─► mounts ─► modules ─► disks ─► overlay ─► pivot          (a thread)
//!                        └─► port ─► AGENT ─► HELLO …               (another, meanwhile)
//! ```
//! A step that fails ends the boot but not the agent: it stays where it is and tells the host why.

pub mod console;
mod disks;
mod modules;
mod mounts;
mod root;
mod uevent;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::time::{ClockId, clock_gettime};

use crate::agent::Boot;
pub use mounts::Kernel;
pub use uevent::find_port;

/// The step of a boot that failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct BootError {
    what: String,
    source: io::Error,
}

impl BootError {
    fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            what: what.into(),
            source: source.into(),
        }
    }
}

/// Gives an error its step.
trait During<T> {
    fn during(self, what: impl Into<String>) -> Result<T, BootError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, what: impl Into<String>) -> Result<T, BootError> {
        self.map_err(|error| BootError::new(what, error))
    }
}

/// Handles on the mounted disks, which no path leads to any more.
#[derive(Debug, Clone)]
pub struct Mounted {
    /// The top of the read-only base disk.
    pub base: Arc<OwnedFd>,
    /// The top of the writable upper disk.
    pub upper: Arc<OwnedFd>,
    /// The directory of the upper disk with what was written.
    pub written: Arc<OwnedFd>,
}

static MOUNTED: Mutex<Option<Mounted>> = Mutex::new(None);

/// The mounted disks, once there are some.
#[must_use]
pub fn mounted() -> Option<Mounted> {
    MOUNTED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// Measures the steps.
struct Steps {
    boot: Boot,
    last: Instant,
}

impl Steps {
    fn new() -> Self {
        let mut boot = Boot::default();
        let up = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(up.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(up.tv_nsec).unwrap_or_default();
        boot.steps.push(("kernel", Duration::new(seconds, nanos)));
        Self {
            boot,
            last: Instant::now(),
        }
    }

    fn done(&mut self, name: &'static str) {
        let now = Instant::now();
        self.boot.steps.push((name, now - self.last));
        self.last = now;
    }
}

/// Boots, from the first mounts on. `ready` is called as soon as devices can be looked for.
#[must_use]
pub fn run(ready: impl FnOnce(Arc<Kernel>)) -> Boot {
    let mut steps = Steps::new();
    if let Err(error) = boot(&mut steps, ready) {
        eprintln!("banger-agent: {error}");
        steps.boot.failure = Some(error.to_string());
    }
    steps.boot
}

fn boot(steps: &mut Steps, ready: impl FnOnce(Arc<Kernel>)) -> Result<(), BootError> {
    let kernel = Arc::new(mounts::early()?);
    steps.done("mounts");
    ready(Arc::clone(&kernel));
    let uevents = uevent::Uevents::open().during("listening for devices")?;
    modules::load();
    steps.done("modules");
    let Some(disks) = disks::find(&kernel, &uevents)? else {
        return Ok(()); // A kernel on trial has no disks: there is no root to go to.
    };
    steps.done("disks");
    let mounted = root::mount(&disks)?;
    steps.done("overlay");
    root::enter()?;
    *MOUNTED.lock().unwrap_or_else(PoisonError::into_inner) = Some(mounted);
    mounts::late()?;
    steps.done("pivot");
    Ok(())
}
