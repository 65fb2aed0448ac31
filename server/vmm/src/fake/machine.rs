//! A fake VM that lives, and the agent in it.

use std::io;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use banger_core::VmId;
use banger_core::guest::BoxedChannel;
use banger_core::vmm::{LaunchPlan, Machine, ProcessIdentity, VmmError, VmmExit};
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

    /// The first end counts.
    fn end(&self, how: VmmExit) {
        self.exit.send_if_modified(|exit| {
            let is_first = exit.is_none();
            exit.get_or_insert(how);
            is_first
        });
        self.new_conversation().cancel();
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

    /// What the VM was launched with.
    #[must_use]
    pub fn plan(&self) -> &LaunchPlan {
        &self.body.plan
    }

    /// Powers the VM off. The conversation ends with it.
    pub fn power_off(&self) {
        self.body.end(VmmExit::GuestPowerOff);
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

#[async_trait]
impl Machine for FakeMachine {
    fn identity(&self) -> &ProcessIdentity {
        &self.body.identity
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
        self.host.0.tasks.spawn(async move {
            // Dropped when the conversation is over, so that the other end sees the end of the stream.
            over.run_until_cancelled(agent).await;
        });
        Ok(Box::new(ours))
    }

    async fn power_button(&self) -> Result<(), VmmError> {
        if self.body.exit().is_some() {
            let source = io::ErrorKind::NotConnected.into();
            return Err(VmmError::Control {
                during: "system_powerdown",
                source,
            });
        }
        if !self.host.faults().ignores_power_button {
            self.body.end(VmmExit::GuestPowerOff);
        }
        Ok(())
    }

    fn terminate(&self) -> Result<(), VmmError> {
        if !self.host.faults().ignores_terminate {
            self.body.crash();
        }
        Ok(())
    }

    fn kill(&self) -> Result<(), VmmError> {
        if !self.host.faults().ignores_kill {
            self.body.crash();
        }
        Ok(())
    }
}
