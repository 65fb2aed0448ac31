//! The VMM that is recorded for a VM and that no runner holds: of a launch that failed or was given up, or of an
//! earlier daemon.

use std::sync::Arc;

use banger_core::VmId;
use banger_core::vmm::Machine;
use tokio_util::sync::CancellationToken;

use super::boot::erase_process;
use super::stop::Ladder;
use crate::Context;
use crate::error::AppError;

/// The recorded VMM, if it lives.
///
/// # Errors
/// If that cannot be found out: then it may live.
pub(crate) async fn find(
    context: &Context,
    vm: VmId,
) -> Result<Option<Arc<dyn Machine>>, AppError> {
    let Some(identity) = context.store.get_process(vm).await? else {
        return Ok(None);
    };
    let dir = context.paths.vm(vm);
    Ok(context.vmm.adopt(vm, &dir, &identity).await?)
}

/// Ends the recorded VMM, if it lives. One disk has one VMM, and what is removed is used by none.
///
/// # Errors
/// If it does not end, or may live.
pub(super) async fn end(context: &Context, vm: VmId) -> Result<(), AppError> {
    let Some(machine) = find(context, vm).await? else {
        return Ok(());
    };
    tracing::warn!(%vm, pid = machine.identity().pid, "ending a VMM that nobody holds");
    let ladder = Ladder::hard(&context.config, machine);
    // Nothing can hurry SIGKILL.
    ladder.climb(&CancellationToken::new()).await?;
    erase_process(context, vm).await;
    Ok(())
}
