//! Holding a VM's vCPUs, and letting them go on.

use banger_core::guest::Guest;
use banger_core::vm::Vm;
use banger_core::vmm::{Machine, VmmError};
use tokio_util::sync::CancellationToken;

use super::setup;
use crate::Context;
use crate::error::AppError;

/// Holds the vCPUs, or lets them go on where that is not told in time. A later request makes it give up; the machine
/// is then ended anyhow.
pub(super) async fn pause(
    context: &Context,
    machine: &dyn Machine,
    hurry: &CancellationToken,
) -> Result<(), AppError> {
    let paused = within(context, "pause", machine, hurry, machine.pause()).await;
    if paused.is_err() && !hurry.is_cancelled() {
        // The VMM may have done it, and have been slow to say so.
        let let_go = within(context, "resume", machine, hurry, machine.resume()).await;
        if let Err(error) = let_go {
            tracing::debug!(error = banger_core::chain(&error), "could not undo a pause");
        }
    }
    paused
}

/// Lets the vCPUs go on, and sets the guest's clock, which stood still.
pub(super) async fn resume(
    context: &Context,
    vm: &Vm,
    machine: &dyn Machine,
    guest: Option<&dyn Guest>,
    hurry: &CancellationToken,
) -> Result<(), AppError> {
    within(context, "resume", machine, hurry, machine.resume()).await?;
    let Some((guest, image)) = guest.zip(vm.image) else {
        // Reaching the agent again sets the clock.
        return Ok(());
    };
    let Some(image) = context.store.get_image(image).await? else {
        return Ok(());
    };
    tokio::select! {
        biased; // a VM that is to go is not waited for
        // cancel-safe: `cancelled` holds no state
        () = hurry.cancelled() => {}
        // safe to give up: it is done again with the next connection
        () = setup::set_clock(context, vm, &image, guest) => {}
    }
    Ok(())
}

async fn within(
    context: &Context,
    during: &'static str,
    machine: &dyn Machine,
    hurry: &CancellationToken,
    step: impl Future<Output = Result<(), VmmError>>,
) -> Result<(), AppError> {
    let limit = context.config.pause_timeout;
    tokio::select! {
        biased; // a VM that is gone or to go is not waited for
        // cancel-safe: `wait` loses nothing when dropped
        _exit = machine.wait() => Err(VmmError::Gone.into()),
        // cancel-safe: `cancelled` holds no state
        () = hurry.cancelled() => Err(AppError::GivenUp { why: "another request took over" }),
        // a command that is given up half-way is followed by the machine's end, or by the same command again
        done = step => Ok(done?),
        () = tokio::time::sleep(limit) => Err(VmmError::Deadline { during, limit }.into()),
    }
}
