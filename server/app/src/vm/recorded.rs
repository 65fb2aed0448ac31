//! The VMM that is recorded for a VM and that no runner holds: of a launch that failed or was given up, or of an
//! earlier daemon.

use std::sync::Arc;
use std::time::Duration;

use banger_core::VmId;
use banger_core::vmm::{Machine, ProcessIdentity};
use tokio_util::sync::CancellationToken;

use super::boot::erase_process;
use super::launch;
use super::stop::Ladder;
use crate::Context;
use crate::error::AppError;

/// How long a VMM may take to let its vCPUs go on.
const LET_GO: Duration = Duration::from_secs(1);

/// The recorded VMM, if it lives.
///
/// # Errors
/// If that cannot be found out: then it may live.
pub(crate) async fn find(
    context: &Context,
    vm: VmId,
) -> Result<Option<Arc<dyn Machine>>, AppError> {
    launch::check_ended(context, vm)?;
    let Some(identity) = context.store.get_process(vm).await? else {
        return Ok(None);
    };
    launch::adopt(context, vm, context.paths.vm(vm), identity).await
}

/// Lets the vCPUs of a VM that is to run go on: a daemon that died while it held them, on a disk that failed too, could
/// not say that it did.
pub(crate) async fn let_go(vm: VmId, machine: &dyn Machine) {
    let let_go = tokio::time::timeout(LET_GO, machine.resume()).await;
    if !matches!(let_go, Ok(Ok(()))) {
        tracing::warn!(%vm, ?let_go, "the VMM of a VM that is to run does not answer");
    }
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
    kill(context, machine).await?;
    erase_process(context, vm).await;
    Ok(())
}

/// Ends a VMM that no record owns; whether it lived.
///
/// # Errors
/// As [`end`].
pub(crate) async fn end_stray(
    context: &Context,
    vm: VmId,
    identity: ProcessIdentity,
) -> Result<bool, AppError> {
    let machine = launch::adopt(context, vm, context.paths.vm(vm), identity).await?;
    match machine {
        Some(machine) => kill(context, machine).await.map(|()| true),
        None => Ok(false),
    }
}

async fn kill(context: &Context, machine: Arc<dyn Machine>) -> Result<(), AppError> {
    let ladder = Ladder::hard(&context.config, machine);
    // Nothing can hurry SIGKILL.
    ladder.climb(&CancellationToken::new()).await.map(drop)
}
