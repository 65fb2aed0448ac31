//! The agent of a VM that is to be used.

use std::sync::Arc;

use banger_core::guest::Guest;
use banger_core::lifecycle::Verb;
use banger_core::vm::{Phase, Vm};

use super::{Use, VmView, Vms};
use crate::error::AppError;

impl Vms {
    /// A VM that runs, with its agent; a link that is broken may come back for a while. It counts as used until
    /// the last is dropped.
    pub(crate) async fn running(
        &self,
        named: &str,
    ) -> Result<(Arc<Vm>, Arc<dyn Guest>, Use), AppError> {
        let mut view = self.watch(named)?;
        let limit = self.context.config.reconnect_timeout;
        let ready = view.wait_for(|view| view.phase() != Phase::Running || view.guest.is_some());
        let seen = match tokio::time::timeout(limit, ready).await {
            Ok(seen) => seen.map_err(|_| AppError::Interrupted)?.clone(),
            Err(_) => return Err(self.watch(named)?.borrow().agent_away()),
        };
        match seen {
            VmView {
                guest: Some(guest),
                vm,
                activity,
                ..
            } if vm.state.phase() == Phase::Running => Ok((vm, guest, activity.begin())),
            VmView { vm, .. } => Err(AppError::WrongState {
                vm: vm.spec.name.clone(),
                phase: vm.state.phase(),
                verb: Verb::Use,
            }),
        }
    }
}
