//! A fake VM that lives, and the agent in it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use banger_core::VmId;
use banger_core::guest::BoxedChannel;
use banger_core::vmm::{
    Accelerator, DriveMetrics, LaunchPlan, Machine, ProcessIdentity, VmmError, VmmExit, VmmMetrics,
};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::FakeHost;
use super::console::FakeConsole;

/// What a channel buffers in each direction: as much as a socket does.
const CHANNEL_BYTES: usize = 64 * 1024;

/// A VM, alive or ended.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) plan: LaunchPlan,
    pub(super) identity: ProcessIdentity,
    console: Arc<FakeConsole>,
    /// Set once.
    exit: watch::Sender<Option<VmmExit>>,
    /// Cancelled when the conversation that was opened last is over.
    conversation: Mutex<CancellationToken>,
    /// Whether its vCPUs are held: its agent is not polled meanwhile.
    paused: watch::Sender<bool>,
    /// Whether it was killed while nothing could end it.
    is_doomed: AtomicBool,
    /// Held while its agent is polled: whoever paused it knows that nothing is under way.
    step: Mutex<()>,
}

impl Body {
    pub(super) fn new(
        plan: LaunchPlan,
        identity: ProcessIdentity,
        console: Arc<FakeConsole>,
    ) -> Self {
        let exit = watch::Sender::new(None);
        Self {
            plan,
            identity,
            console,
            exit,
            conversation: Mutex::default(),
            paused: watch::Sender::new(false),
            is_doomed: AtomicBool::new(false),
            step: Mutex::default(),
        }
    }

    pub(super) fn boot(&self) -> u64 {
        self.identity.start_ticks
    }

    /// A signal that nothing withstands comes when the body can be ended.
    pub(super) fn kill(&self, can_end: bool) {
        match can_end {
            true => self.crash(),
            false => self.is_doomed.store(true, Ordering::Relaxed),
        }
    }

    /// It can be ended again.
    pub(super) fn meet_its_doom(&self) {
        if self.is_doomed.load(Ordering::Relaxed) {
            self.crash();
        }
    }

    pub(super) fn exit(&self) -> Option<VmmExit> {
        self.exit.borrow().clone()
    }

    pub(super) fn crash(&self) {
        self.end(VmmExit::Other {
            detail: "the fake VMM ended".into(),
        });
    }

    pub(super) fn power_off(&self) {
        self.end(VmmExit::GuestPowerOff);
    }

    pub(super) fn cut(&self) {
        drop(self.new_conversation());
    }

    /// The first end counts.
    fn end(&self, how: VmmExit) {
        self.exit.send_if_modified(|exit| {
            let is_first = exit.is_none();
            exit.get_or_insert(how);
            is_first
        });
        self.new_conversation().cancel();
    }

    /// Whether the control socket answers.
    fn control(&self, during: &'static str) -> Result<(), VmmError> {
        match self.exit() {
            None => Ok(()),
            Some(_) => Err(VmmError::Control {
                during,
                source: io::ErrorKind::NotConnected.into(),
            }),
        }
    }

    /// Runs what the guest does, but not while it is paused.
    async fn run_unless_paused(&self, work: impl Future<Output = ()>) {
        let mut paused = self.paused.subscribe();
        let mut work = std::pin::pin!(work);
        loop {
            // The sender lives in the body.
            if paused.wait_for(|paused| !paused).await.is_err() {
                return;
            }
            tokio::select! {
                biased; // a VM that is paused does nothing more
                // cancel-safe: looks at a level
                _ = paused.wait_for(|paused| *paused) => {}
                // stays pinned, and is polled again after the pause
                () = poll_fn(|task| self.step(work.as_mut(), task)) => return,
            }
        }
    }

    fn step(&self, work: Pin<&mut impl Future<Output = ()>>, task: &mut Context<'_>) -> Poll<()> {
        let _step = self.step.lock().expect("no holder panics");
        // The pause wakes the task by its own arm.
        match *self.paused.borrow() {
            true => Poll::Pending,
            false => work.poll(task),
        }
    }

    /// Ends the conversation before.
    fn new_conversation(&self) -> CancellationToken {
        let mut conversation = self.conversation.lock().expect("no holder panics");
        let next = CancellationToken::new();
        std::mem::replace(&mut *conversation, next.clone()).cancel();
        next
    }
}

/// What the agent of a fake VM has: its end of a conversation, and power over its VM.
#[derive(Debug)]
pub struct FakeGuest {
    /// The agent's end of the stream.
    pub stream: DuplexStream,
    body: Arc<Body>,
}

impl FakeGuest {
    /// Which VM it runs in.
    #[must_use]
    pub fn vm(&self) -> VmId {
        self.body.plan.vm
    }

    /// Which launch of the host's it came of.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.body.boot()
    }

    /// What the VM was launched with.
    #[must_use]
    pub fn plan(&self) -> &LaunchPlan {
        &self.body.plan
    }

    /// Powers the VM off. The conversation ends with it.
    pub fn power_off(&self) {
        self.body.power_off();
    }

    /// Resets the VM, which ends it.
    pub fn reset(&self) {
        self.body.end(VmmExit::GuestReset);
    }

    /// Writes to the VM's console.
    pub fn say(&self, bytes: &[u8]) {
        self.body.console.append(bytes);
    }
}

/// What a driver holds of a fake VM.
#[derive(Debug)]
pub(super) struct FakeMachine {
    pub(super) host: FakeHost,
    pub(super) body: Arc<Body>,
}

impl FakeMachine {
    async fn hang_if_asked(&self) {
        if self.host.faults().control_hangs {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Machine for FakeMachine {
    fn identity(&self) -> &ProcessIdentity {
        &self.body.identity
    }

    fn accelerator(&self) -> Accelerator {
        Accelerator::None
    }

    async fn wait(&self) -> VmmExit {
        let mut exit = self.body.exit.subscribe();
        match exit
            .wait_for(Option::is_some)
            .await
            .map(|exit| exit.clone())
        {
            Ok(Some(exit)) => exit,
            Ok(None) | Err(_) => {
                unreachable!("the sender lives in the body, and it waits for an exit")
            }
        }
    }

    async fn open_channel(&self) -> Result<BoxedChannel, VmmError> {
        let over = self.body.new_conversation();
        if self.host.faults().never_answers {
            self.wait().await;
        }
        if self.body.exit().is_some() {
            return Err(VmmError::Gone);
        }
        let (ours, stream) = duplex(CHANNEL_BYTES);
        let agent = (self.host.0.agent)(FakeGuest {
            stream,
            body: Arc::clone(&self.body),
        });
        let body = Arc::clone(&self.body);
        self.host.0.tasks.spawn(async move {
            // Dropped when the conversation is over, so that the other end sees the end of the stream.
            over.run_until_cancelled(body.run_unless_paused(agent))
                .await;
        });
        Ok(Box::new(ours))
    }

    async fn power_button(&self) -> Result<(), VmmError> {
        self.hang_if_asked().await;
        self.body.control("system_powerdown")?;
        if !self.host.faults().ignores_power_button {
            self.body.end(VmmExit::GuestPowerOff);
        }
        Ok(())
    }

    async fn pause(&self) -> Result<(), VmmError> {
        self.hang_if_asked().await;
        self.body.control("stop")?;
        let _step = self.body.step.lock().expect("no holder panics");
        self.body.paused.send_replace(true);
        Ok(())
    }

    async fn resume(&self) -> Result<(), VmmError> {
        self.hang_if_asked().await;
        self.body.control("cont")?;
        self.body.paused.send_replace(false);
        Ok(())
    }

    async fn metrics(&self) -> Result<VmmMetrics, VmmError> {
        self.body.control("metrics")?;
        let drives = self.body.plan.drives.iter();
        Ok(VmmMetrics {
            rss_bytes: self.body.plan.memory_mib << 20,
            thread_count: self.body.plan.vcpu_count,
            drives: drives
                .map(|drive| DriveMetrics {
                    serial: drive.serial.clone(),
                    ..DriveMetrics::default()
                })
                .collect(),
            ..VmmMetrics::default()
        })
    }

    async fn grow_drive(&self, serial: &str, _size_bytes: u64) -> Result<(), VmmError> {
        self.body.control("block_resize")?;
        match self
            .body
            .plan
            .drives
            .iter()
            .any(|drive| drive.serial == serial)
        {
            true => Ok(()),
            false => Err(VmmError::Refused {
                during: "block_resize",
                detail: format!("no drive `{serial}`"),
            }),
        }
    }

    fn terminate(&self) -> Result<(), VmmError> {
        if !self.host.faults().ignores_terminate {
            self.body.crash();
        }
        Ok(())
    }

    fn kill(&self) -> Result<(), VmmError> {
        self.body.kill(!self.host.faults().ignores_kill);
        Ok(())
    }
}
