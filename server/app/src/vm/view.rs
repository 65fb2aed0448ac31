//! What everybody but the runner sees of a VM.

use std::sync::Arc;

use banger_core::guest::Guest;
use banger_core::vm::{Phase, Vm};
use banger_core::vmm::Machine;
use tokio::sync::watch;

use super::activity::Activity;
use super::link::LinkError;
use crate::error::AppError;
use crate::look::DiskLook;

/// A VM as its runner last published it.
#[derive(Clone)]
pub struct VmView {
    /// The record.
    pub vm: Arc<Vm>,
    /// The connection to its agent, while there is one.
    pub guest: Option<Arc<dyn Guest>>,
    /// Its VMM, while there is one.
    pub machine: Option<Arc<dyn Machine>>,
    /// Whether it is being used.
    pub(crate) activity: Arc<Activity>,
    /// Why its agent could not be reached the last time.
    pub(crate) link_error: LinkError,
    /// Held by whoever looks at its disk.
    pub(crate) disk_look: DiskLook,
    /// It is gone; nothing follows.
    pub deleted: bool,
}

impl std::fmt::Debug for VmView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VmView")
            .field("vm", &self.vm)
            .field("guest", &self.guest.is_some())
            .field("machine", &self.machine.is_some())
            .field("deleted", &self.deleted)
            .finish()
    }
}

impl VmView {
    /// The error of whoever needs the agent now.
    pub(crate) fn agent_away(&self) -> AppError {
        AppError::AgentAway {
            vm: self.vm.spec.name.clone(),
            source: self.link_error.get(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.vm.state.phase()
    }
}

/// Waits for a level: the first view for which `settled` holds. A runner that has ended counts as interrupted.
pub(crate) async fn settled(
    view: &mut watch::Receiver<VmView>,
    settled: impl Fn(&VmView) -> bool,
) -> Result<VmView, AppError> {
    view.wait_for(|view| settled(view))
        .await
        .map(|view| view.clone())
        .map_err(|_| AppError::Interrupted)
}
