//! Who listens in a running VM. Looking does not count as using it.

use banger_core::lifecycle::Verb;
use banger_core::port::{Listeners, Probe};
use banger_core::vm::Phase;

use super::Vms;
use crate::error::AppError;

impl Vms {
    /// Who the guest says listens in it.
    ///
    /// # Errors
    /// If the VM does not exist or run, or its agent does not answer.
    pub async fn ports(&self, named: &str, probe: Probe) -> Result<Listeners, AppError> {
        let view = self.watch(named)?.borrow().clone();
        if view.phase() != Phase::Running {
            return Err(AppError::WrongState {
                vm: view.vm.spec.name.clone(),
                phase: view.phase(),
                verb: Verb::Use,
            });
        }
        let guest = view.guest.as_ref().ok_or_else(|| view.agent_away())?;
        Ok(guest.list_ports(probe).await?)
    }
}
