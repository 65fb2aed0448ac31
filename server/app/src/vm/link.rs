//! Reaching the agent of a VM that runs: after a daemon's restart, or when the connection broke.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use banger_core::guest::{Guest, GuestInfo};
use banger_core::vm::{Phase, Vm};
use banger_core::vmm::Machine;
use banger_core::{Failure, VmId, chain};

use super::setup;
use crate::Context;
use crate::error::AppError;

/// Between two tries. An agent that does not answer is busy or broken: asking more often helps neither.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Opens a channel and hears who answers. Safe to drop; whoever waits has the limit.
pub(super) async fn connect(
    context: &Context,
    vm: VmId,
    machine: &dyn Machine,
) -> Result<(Arc<dyn Guest>, GuestInfo), AppError> {
    let channel = machine.open_channel().await?;
    let accelerator = machine.accelerator();
    Ok(context.connector.connect(vm, channel, accelerator).await?)
}

/// An agent that is being reached. Safe to drop; whoever waits has the limit.
pub(super) type Link = Pin<Box<dyn Future<Output = Arc<dyn Guest>> + Send>>;

/// Why an agent could not be reached the last time; nothing while it is there. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct LinkError(Arc<Mutex<Option<Box<Failure>>>>);

impl LinkError {
    pub(super) fn get(&self) -> Option<Box<Failure>> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    fn set(&self, error: Option<&AppError>) {
        let failure = error.map(|error| Box::new(error.to_failure()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }
}

/// Tries until the agent answers; whoever needs it meanwhile is told why it does not.
pub(super) fn reach(
    context: Arc<Context>,
    vm: Vm,
    machine: Arc<dyn Machine>,
    last: LinkError,
) -> Link {
    Box::pin(async move {
        last.set(None);
        loop {
            match attempt(&context, &vm, &*machine).await {
                Ok(guest) => {
                    tracing::info!(vm = %vm.id, "connected to the VM's agent");
                    last.set(None);
                    return guest;
                }
                Err(error) => {
                    tracing::warn!(vm = %vm.id, error = chain(&error), "the VM's agent cannot be reached; trying again");
                    last.set(Some(&error));
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    })
}

async fn attempt(
    context: &Context,
    vm: &Vm,
    machine: &dyn Machine,
) -> Result<Arc<dyn Guest>, AppError> {
    let limit = context.config.boot_timeout;
    let timed_out = AppError::BootTimeout {
        limit,
        console: String::new(),
    };
    let (guest, info) = tokio::time::timeout(limit, connect(context, vm.id, machine))
        .await
        .unwrap_or(Err(timed_out))?;
    let Some(image) = vm.image else {
        return Ok(guest);
    };
    let Some(image) = context.store.get_image(image).await? else {
        return Ok(guest);
    };
    // Of a VM that was being started the identity may be missing, which comes after the configuration.
    if !info.is_configured || vm.state.phase() == Phase::Starting {
        setup::complete(context, vm, &image, &*guest).await?;
    } else {
        // It may have been held since the last time, with its clock.
        setup::set_clock(context, vm, &image, &*guest).await;
    }
    Ok(guest)
}
