//! A driver without processes, for tests of the layers above.
//!
//! A [`FakeHost`] stands for the machine: fake VMs live on it and outlive the drivers made for it, as real
//! VMMs outlive the daemon. The agent in each VM is a function of the test's own. Faults are switched on
//! and off while VMs run.
//!
//! It is always compiled: it is small, needs nothing, and nothing reaches it unless it is named.

mod console;
mod machine;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use banger_core::VmId;
use banger_core::vmm::{
    Accelerator, Capabilities, Console, DriverInfo, LaunchPlan, Machine, ProcessIdentity, Vmm,
    VmmError,
};
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use console::FakeConsole;
pub use machine::FakeGuest;
use machine::{Body, FakeMachine};

/// What runs in a fake VM for each conversation, until it returns or the conversation ends.
pub type Agent = Arc<dyn Fn(FakeGuest) -> BoxFuture<'static, ()> + Send + Sync>;

/// Above every pid that Linux gives, so that no real process can be meant.
const FIRST_PID: u32 = 1 << 30;

/// What goes wrong from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of a test"
)]
pub struct Faults {
    /// Nobody finds out what the driver can do.
    pub probe_hangs: bool,
    /// No VM can be taken over, as where the host has no descriptor left.
    pub adoption_fails: bool,
    /// Launches fail as if the VMM ended early.
    pub launch_fails: bool,
    /// Launches fail after they were recorded, and what they started lives on, as where the daemon could not end it.
    pub launch_cut_off: bool,
    /// A launch takes this long.
    pub launch_takes: Duration,
    /// Launches and adoptions hold their threads, as on a disk that hangs, until that is over.
    pub threads_hang: bool,
    /// A launch goes on only when this many have been under way at the same time.
    pub launches_together: usize,
    /// No agent ever says hello.
    pub never_answers: bool,
    /// VMs that are launched now die by themselves after this time.
    pub dies_after: Option<Duration>,
    /// The control socket takes commands and never answers.
    pub control_hangs: bool,
    /// The power button does nothing.
    pub ignores_power_button: bool,
    /// Asking the VMM to end does nothing.
    pub ignores_terminate: bool,
    /// Not even killing does anything, as with a process that hangs in the kernel: it ends when that lets it go.
    pub ignores_kill: bool,
}

/// The machine on which fake VMs live. Clones are the same host.
#[derive(Clone)]
pub struct FakeHost(Arc<Host>);

struct Host {
    agent: Agent,
    tasks: TaskTracker,
    state: Mutex<State>,
    /// The faults are others.
    switched: Condvar,
    /// How many launches are under way, and how many have been at most.
    launching: watch::Sender<(usize, usize)>,
}

#[derive(Default)]
struct State {
    faults: Faults,
    launches: u32,
    bodies: HashMap<VmId, Arc<Body>>,
    consoles: HashMap<PathBuf, Arc<FakeConsole>>,
}

impl FakeHost {
    /// A host with no VM, whose VMs will run `agent`.
    #[must_use]
    pub fn new(agent: Agent) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Host {
            agent,
            tasks: TaskTracker::new(),
            state,
            switched: Condvar::new(),
            launching: watch::Sender::new((0, 0)),
        }))
    }

    /// A driver for this host, as a daemon that just started has it.
    #[must_use]
    pub fn driver(&self) -> FakeDriver {
        FakeDriver { host: self.clone() }
    }

    /// Switches faults; those that are not named are off.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        state.faults = faults;
        self.0.switched.notify_all();
        if !state.faults.ignores_kill {
            for body in state.bodies.values() {
                body.meet_its_doom();
            }
        }
    }

    /// The VMs that live.
    #[must_use]
    pub fn living(&self) -> Vec<VmId> {
        let state = self.state();
        let living = state
            .bodies
            .iter()
            .filter(|(_, body)| body.exit().is_none());
        living.map(|(vm, _)| *vm).collect()
    }

    /// Which launch a VM that lives came of.
    #[must_use]
    pub fn boot(&self, vm: VmId) -> Option<u64> {
        let state = self.state();
        let body = state.bodies.get(&vm)?;
        body.exit().is_none().then(|| body.boot())
    }

    /// How many launches were begun.
    #[must_use]
    pub fn launches(&self) -> u32 {
        self.state().launches
    }

    /// How many launches are under way.
    #[must_use]
    pub fn launching(&self) -> usize {
        self.0.launching.borrow().0
    }

    /// How many launches have been under way at the same time, at most.
    #[must_use]
    pub fn most_launches_at_once(&self) -> usize {
        self.0.launching.borrow().1
    }

    /// Ends a VM as if its VMM had crashed; does nothing where it does not live.
    pub fn crash(&self, vm: VmId) {
        if let Some(body) = self.state().bodies.get(&vm) {
            body.crash();
        }
    }

    /// Ends a VM as if its guest had powered itself off; does nothing where it does not live.
    pub fn power_off(&self, vm: VmId) {
        if let Some(body) = self.state().bodies.get(&vm) {
            body.power_off();
        }
    }

    /// Breaks the stream to a VM's agent, which goes on.
    pub fn cut(&self, vm: VmId) {
        if let Some(body) = self.state().bodies.get(&vm) {
            body.cut();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder panics")
    }

    fn faults(&self) -> Faults {
        self.state().faults.clone()
    }

    /// What waits for the disk.
    fn touch_disk(&self) {
        let hangs = |state: &mut State| state.faults.threads_hang;
        let held = self.0.switched.wait_while(self.state(), hangs);
        drop(held.expect("no holder panics"));
    }

    fn console(&self, dir: &Path) -> Arc<FakeConsole> {
        Arc::clone(self.state().consoles.entry(dir.to_owned()).or_default())
    }

    /// A VM of this plan, alive from now on.
    fn body(&self, plan: &LaunchPlan) -> Arc<Body> {
        let console = self.console(&plan.dir);
        let mut state = self.state();
        state.launches += 1;
        let identity = ProcessIdentity {
            pid: FIRST_PID + state.launches,
            start_ticks: u64::from(state.launches),
            executable: "/nonexistent/fake-vmm".into(),
            host_boot_id: "fake".into(),
        };
        let body = Arc::new(Body::new(plan.clone(), identity, console));
        state.bodies.insert(plan.vm, Arc::clone(&body));
        body
    }
}

impl fmt::Debug for FakeHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeHost")
            .field("living", &self.living())
            .finish_non_exhaustive()
    }
}

/// A launch that is under way.
struct Launching(FakeHost);

impl Launching {
    fn begin(host: &FakeHost) -> Self {
        host.0.launching.send_modify(|(now, most)| {
            *now += 1;
            *most = (*most).max(*now);
        });
        Self(host.clone())
    }
}

impl Drop for Launching {
    fn drop(&mut self) {
        self.0.0.launching.send_modify(|(now, _)| *now -= 1);
    }
}

/// The driver of a [`FakeHost`].
#[derive(Debug, Clone)]
pub struct FakeDriver {
    host: FakeHost,
}

impl FakeDriver {
    fn machine(&self, body: Arc<Body>) -> Arc<dyn Machine> {
        Arc::new(FakeMachine {
            host: self.host.clone(),
            body,
        })
    }
}

#[async_trait]
impl Vmm for FakeDriver {
    async fn probe(&self, _kernel: &Path, _initramfs: &Path) -> Result<DriverInfo, VmmError> {
        if self.host.faults().probe_hangs {
            std::future::pending::<()>().await;
        }
        Ok(DriverInfo {
            driver: "fake".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            accelerator: Accelerator::None,
            accelerator_warning: None,
            capabilities: Capabilities {
                pause: true,
                live_disk_growth: true,
                user_network: true,
            },
        })
    }

    async fn launch(
        &self,
        plan: &LaunchPlan,
        journal: &(dyn for<'a> Fn(&'a ProcessIdentity) -> io::Result<()> + Send + Sync),
    ) -> Result<Arc<dyn Machine>, VmmError> {
        let faults = self.host.faults();
        let _launching = Launching::begin(&self.host);
        self.host.touch_disk();
        let mut launching = self.host.0.launching.subscribe();
        // The sender lives in the host.
        let _ = launching
            .wait_for(|(_, most)| *most >= faults.launches_together)
            .await;
        tokio::time::sleep(faults.launch_takes).await;
        if faults.launch_fails {
            return Err(VmmError::EndedEarly {
                detail: "the test asked for it".into(),
            });
        }
        // From here on there is no await: a launch that is dropped leaves nothing.
        let body = self.host.body(plan);
        if let Err(source) = journal(&body.identity) {
            body.crash();
            return Err(VmmError::Journal { source });
        }
        if faults.launch_cut_off {
            return Err(VmmError::EndedEarly {
                detail: "the test cut it off".into(),
            });
        }
        if let Some(life) = faults.dies_after {
            let body = Arc::clone(&body);
            self.host.0.tasks.spawn(async move {
                tokio::time::sleep(life).await;
                body.crash();
            });
        }
        Ok(self.machine(body))
    }

    fn console(&self, dir: &Path) -> Arc<dyn Console> {
        self.host.console(dir)
    }

    async fn find_strays(&self, vms_dir: &Path) -> Result<Vec<(VmId, ProcessIdentity)>, VmmError> {
        let state = self.host.state();
        let strays = state
            .bodies
            .values()
            .filter(|body| body.exit().is_none() && body.plan.dir.starts_with(vms_dir));
        Ok(strays
            .map(|body| (body.plan.vm, body.identity.clone()))
            .collect())
    }

    async fn adopt(
        &self,
        vm: VmId,
        _dir: &Path,
        identity: &ProcessIdentity,
    ) -> Result<Option<Arc<dyn Machine>>, VmmError> {
        self.host.touch_disk();
        if self.host.faults().adoption_fails {
            let source = io::Error::from_raw_os_error(libc::EMFILE);
            return Err(VmmError::Signal { source });
        }
        let body = self.host.state().bodies.get(&vm).cloned();
        let living = body.filter(|body| body.exit().is_none() && body.identity == *identity);
        Ok(living.map(|body| self.machine(body)))
    }
}
