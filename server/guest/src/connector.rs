//! Makes a guest of a channel: opens HTTP/2, says hello, and agrees on a generation.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use banger_core::VmId;
use banger_core::guest::{BoxedChannel, Guest, GuestConnector, GuestError, GuestInfo};
use banger_core::vmm::Accelerator;
use banger_proto::guest::{GENERATION, v1 as proto};
use tokio_util::task::TaskTracker;

use crate::coding::Coding;
use crate::convert::info;
use crate::guest::RemoteGuest;
use crate::judge::broken;
use crate::link::Link;

/// The least generation that this daemon understands.
pub(crate) const LEAST_GENERATION: u32 = 1;

/// How long each call may take. All of them bound waits on a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// The first answer: the guest may still boot, on an emulated processor.
    pub hello: Duration,
    /// Setting the guest up.
    pub configure: Duration,
    /// Starting a session, with its answer.
    pub start: Duration,
    /// Deleting a session, whose processes the agent waits for.
    pub delete: Duration,
    /// Putting a tree: what a build copies, onto an emulated disk.
    pub put: Duration,
    /// Taking the next piece of what is sent, or giving the next of what is read: a disk may be slow.
    pub taking: Duration,
    /// Flushing a disk, however much was written.
    pub flush: Duration,
    /// Growing a file system, however large the disk became.
    pub grow: Duration,
    /// Every other call that does not wait for a process.
    pub call: Duration,
    /// The longest silence in a session's events, and in any other stream of a guest that the processor itself runs; the
    /// agent sends a heartbeat every 2 s.
    pub silence: Duration,
    /// The same of a guest that is translated: its 2 s may take many more on a busy host.
    pub silence_translated: Duration,
}

impl Deadlines {
    /// Those of a guest that this runs.
    fn under(mut self, accelerator: Accelerator) -> Self {
        self.silence = match accelerator {
            Accelerator::Kvm => self.silence,
            Accelerator::Tcg | Accelerator::None => self.silence_translated,
        };
        self
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(60),
            configure: Duration::from_secs(30),
            start: Duration::from_secs(60),
            delete: Duration::from_secs(30),
            put: Duration::from_secs(3600),
            taking: Duration::from_secs(30),
            flush: Duration::from_secs(300),
            grow: Duration::from_secs(120),
            call: Duration::from_secs(20),
            silence: Duration::from_secs(5),
            silence_translated: Duration::from_secs(30),
        }
    }
}

/// Connects to agents.
#[derive(Debug, Clone, Default)]
pub struct Connector {
    deadlines: Deadlines,
    tasks: TaskTracker,
    coding: Coding,
}

impl Connector {
    /// With other deadlines than the defaults.
    #[must_use]
    pub fn new(deadlines: Deadlines) -> Self {
        Self {
            deadlines,
            ..Self::default()
        }
    }
}

#[async_trait]
impl GuestConnector for Connector {
    async fn connect(
        &self,
        vm: VmId,
        channel: BoxedChannel,
        accelerator: Accelerator,
    ) -> Result<(Arc<dyn Guest>, GuestInfo), GuestError> {
        let link = Link::open(channel, &self.tasks)
            .await
            .map_err(|_| GuestError::Lost { during: "hello" })?;
        let deadlines = self.deadlines.under(accelerator);
        let mut guest = RemoteGuest::new(vm, link, deadlines, self.coding.clone());
        let request = proto::HelloRequest {
            generation: GENERATION,
        };
        let hello = guest.hello(request).await?;
        let generation = agree(hello.generation)?;
        guest.generation = generation;
        Ok((Arc::new(guest), info(hello, generation)?))
    }
}

fn agree(generation: i32) -> Result<u32, GuestError> {
    if generation > GENERATION {
        return Err(broken("it chose a generation that was not offered"));
    }
    let generation = u32::try_from(generation).unwrap_or_default();
    if generation < LEAST_GENERATION {
        return Err(GuestError::TooOld {
            generation,
            least: LEAST_GENERATION,
        });
    }
    Ok(generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_translated_guest_may_be_silent_for_longer() {
        let silence = |accelerator| Deadlines::default().under(accelerator).silence;
        assert_eq!(silence(Accelerator::Kvm), Duration::from_secs(5));
        assert_eq!(silence(Accelerator::Tcg), Duration::from_secs(30));
        assert_eq!(silence(Accelerator::None), Duration::from_secs(30));
    }
}
