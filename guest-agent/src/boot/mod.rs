//! From the kernel's start of `/init` to a guest that can run sessions.
//!
//! ```text
//! kernel ─► mounts ─► modules ─► disks ─► overlay ─► pivot          (a thread)
//!                        └─► port, or vsock ─► AGENT ─► HELLO …     (another, meanwhile)
//! ```
//! A step that fails ends the boot but not the agent: it stays where it is and tells the host why.

pub(crate) mod cmdline;
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
use crate::init::Init;
use crate::vmm::Wishes;
pub use disks::{disk_of, wait_for_size};
pub use mounts::Kernel;
pub use uevent::{find_port, wait_for_vsock};

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
    /// The name of the upper disk's device.
    pub upper_device: String,
    /// The kernel's file systems, for finding further disks.
    pub kernel: Arc<Kernel>,
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
#[derive(Debug)]
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

/// A boot whose first step is done.
#[derive(Debug)]
pub struct Begun {
    steps: Steps,
    kernel: Result<Arc<Kernel>, BootError>,
}

/// Mounts what everything else is found by, the kernel's command line included.
#[must_use]
pub fn begin() -> Begun {
    let mut steps = Steps::new();
    let kernel = mounts::early().map(Arc::new);
    steps.done("mounts");
    Begun { steps, kernel }
}

impl Begun {
    /// The kernel's file systems.
    ///
    /// # Errors
    /// Why there are none.
    pub fn kernel(&self) -> io::Result<&Kernel> {
        let kernel = self.kernel.as_deref();
        kernel.map_err(|error| io::Error::other(error.to_string()))
    }

    /// Boots on. `ready` is called as soon as devices can be looked for; `init` is the image's, where it is to be
    /// process 1.
    #[must_use]
    pub fn run(self, init: Option<&Init>, ready: impl FnOnce(Arc<Kernel>)) -> Boot {
        let mut steps = self.steps;
        let booted = self
            .kernel
            .and_then(|kernel| boot(&mut steps, kernel, init, ready));
        if let Err(error) = booted {
            eprintln!("banger-agent: {error}");
            steps.boot.failure = Some(error.to_string());
        }
        steps.boot
    }
}

fn boot(
    steps: &mut Steps,
    kernel: Arc<Kernel>,
    init: Option<&Init>,
    ready: impl FnOnce(Arc<Kernel>),
) -> Result<(), BootError> {
    ready(Arc::clone(&kernel));
    let uevents = uevent::Uevents::open().during("listening for devices")?;
    let wishes = Wishes::read();
    modules::load(wishes.transport);
    steps.done("modules");
    let Some(disks) = disks::find(&kernel, &uevents, &wishes)? else {
        return Ok(()); // A kernel on trial has no disks: there is no root to go to.
    };
    steps.done("disks");
    let mounted = root::mount(&kernel, &disks)?;
    steps.done("overlay");
    root::enter()?;
    *MOUNTED.lock().unwrap_or_else(PoisonError::into_inner) = Some(mounted);
    mounts::late()?;
    if init.is_some() {
        Init::make_room();
    }
    steps.done("pivot");
    Ok(())
}
