//! What a daemon does before it serves: it finds again what runs, ends what was half done, sweeps what no
//! record owns.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use banger_core::vm::{Phase, StopOutcome, Vm, VmState};
use banger_core::vmm::{Machine, ProcessIdentity, StopRung};
use banger_core::{Timestamp, VmId, chain};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::error::AppError;
use crate::paths;
use crate::vm::{Found, recorded};

/// The reasons of VMs that ran and ended by themselves.
const ENDS: [&str; 2] = ["VM_ENDED", "VMM_MEMORY_LIMIT"];

/// VMMs that are taken over at once: each costs some descriptors and waits for its control socket.
const ADOPTED_AT_ONCE: usize = 32;

/// How long a VMM may take to let its vCPUs go on.
const LET_GO: Duration = Duration::from_secs(1);

/// What a start found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// VMs that ran on and were taken over.
    pub adopted_vms: usize,
    /// VMs that had run and whose process is gone.
    pub lost_vms: usize,
    /// VMs whose step (start, stop, pause, resume, removal) was cut off; it goes on to its end.
    pub finished_vms: usize,
    /// VMs whose making, or whose build, was cut off; they are being removed.
    pub undone_vms: usize,
    /// VMs whose process may run and could not be taken over; they are FAILED.
    pub unknown_vms: usize,
    /// Operations that were cut off.
    pub interrupted_operations: usize,
    /// Processes, directories and files that no record owned.
    pub swept: u64,
}

pub(crate) async fn reconcile(app: &App) -> Result<Reconciled, AppError> {
    let mut found = Reconciled {
        interrupted_operations: app.operations.reconcile().await?,
        ..Reconciled::default()
    };
    app.volumes.restore().await?;
    let vms = app.context.store.all_vms().await?;
    let known: HashSet<VmId> = vms.iter().map(|vm| vm.id).collect();
    found.swept += end_strays(app, &vms).await?;
    let mut adopting = futures::stream::iter(vms)
        .map(async |vm| (adopt(app, &vm).await, vm))
        .buffered(ADOPTED_AT_ONCE);
    while let Some((adopted, vm)) = adopting.next().await {
        match adopted {
            Ok(machine) => restore(app, vm, machine, &mut found).await,
            Err(error) => restore_unknown(app, vm, error, &mut found).await,
        }
    }
    drop(adopting);
    let is_known = |name: &str| name.parse().is_ok_and(|id| known.contains(&id));
    found.swept += paths::sweep(&app.context.paths.vms(), is_known).await?;
    found.swept += app.volumes.sweep().await?;
    // What cannot be swept takes space, and keeps no daemon from serving.
    match app.images.sweep().await {
        Ok(swept) => found.swept += swept,
        Err(error) => {
            tracing::error!(error = chain(&error), "could not sweep what no image needs");
        }
    }
    found.swept += app.kernels.sweep().await?;
    Ok(found)
}

/// Takes over the VMM of a VM, if it lives. One that is to run does: a daemon that died while it held the vCPUs, on a
/// disk that failed too, could not say that it did.
async fn adopt(app: &App, vm: &Vm) -> Result<Option<Arc<dyn Machine>>, AppError> {
    let machine = recorded::find(&app.context, vm.id).await?;
    if let Some(machine) = machine.as_ref().filter(|_| vm.state == VmState::Running) {
        let let_go = tokio::time::timeout(LET_GO, machine.resume()).await;
        if !matches!(let_go, Ok(Ok(()))) {
            tracing::warn!(vm = %vm.id, ?let_go, "the VMM of a VM that is to run does not answer");
        }
    }
    Ok(machine)
}

/// Of one VM nobody knows whether it runs: that keeps no daemon from serving the others. Whoever starts or removes it
/// ends what is left first.
async fn restore_unknown(app: &App, mut vm: Vm, error: AppError, found: &mut Reconciled) {
    tracing::error!(vm = %vm.id, error = chain(&error), "could not take over a VM's process");
    found.unknown_vms += 1;
    if !matches!(vm.state.phase(), Phase::Creating | Phase::Deleting) {
        let source = Box::new(error);
        let failure = AppError::NotAdopted { source }.to_failure();
        vm.shape = None;
        save(app, &mut vm, VmState::Failed(Box::new(failure))).await;
    }
    app.vms.restore(vm, Found::Unknown);
}

async fn restore(app: &App, mut vm: Vm, machine: Option<Arc<dyn Machine>>, found: &mut Reconciled) {
    let alive_or_off = |machine: Option<_>| machine.map_or(Found::Off, Found::Alive);
    match (vm.state.phase(), machine) {
        // Its build ended with the daemon.
        (_, machine) if vm.spec.labels.contains_key(crate::vm::BUILD_LABEL) => {
            found.undone_vms += 1;
            save(app, &mut vm, VmState::Deleting).await;
            app.vms.restore(vm, alive_or_off(machine));
        }
        // Half made: undone. Its operation has failed with the daemon.
        (Phase::Creating, machine) => {
            found.undone_vms += 1;
            save(app, &mut vm, VmState::Deleting).await;
            app.vms.restore(vm, alive_or_off(machine));
        }
        (Phase::Deleting, machine) => {
            found.finished_vms += 1;
            app.vms.restore(vm, alive_or_off(machine));
        }
        (phase, Some(machine)) => {
            found.adopted_vms += 1;
            if !matches!(phase, Phase::Running | Phase::Paused) {
                found.finished_vms += 1;
            }
            app.vms.restore(vm, Found::Alive(machine));
        }
        (
            phase @ (Phase::Running
            | Phase::Pausing
            | Phase::Paused
            | Phase::Resuming
            | Phase::Starting
            | Phase::Stopping),
            None,
        ) => {
            found.lost_vms += 1;
            if let Err(error) = app.context.store.erase_process(vm.id).await {
                tracing::error!(vm = %vm.id, error = chain(&error), "could not erase the record of a VMM that is gone");
            }
            vm.last_stop = Some(StopOutcome {
                rung: StopRung::AlreadyGone,
                took: Duration::ZERO,
                kept_logs: None,
            });
            vm.stop_time = Some(Timestamp::now());
            vm.shape = None;
            let state = if vm.spec.ephemeral {
                VmState::Deleting
            } else {
                VmState::Stopped
            };
            save(app, &mut vm, state).await;
            // One that was being stopped is where its owner wanted it.
            let found = match phase {
                Phase::Stopping => Found::Off,
                _ => Found::Lost,
            };
            app.vms.restore(vm, found);
        }
        (Phase::Failed, None) => {
            let found = match ended_by_itself(&vm) {
                true => Found::Lost,
                false => Found::Off,
            };
            app.vms.restore(vm, found);
        }
        (Phase::Stopped, None) => app.vms.restore(vm, Found::Off),
    }
}

/// Whether a fault is one that the restart policy is for, and had not mended yet: not a start of its caller's that
/// failed, nor a process that could not be ended.
fn ended_by_itself(vm: &Vm) -> bool {
    let VmState::Failed(failure) = &vm.state else {
        return false;
    };
    vm.restart_count > 0 || ENDS.contains(&failure.reason.as_str())
}

/// Moves a VM. Where that cannot be stored, it is moved all the same: its runner stores it with the next move, and a
/// disk that is full keeps no daemon from serving.
async fn save(app: &App, vm: &mut Vm, state: VmState) {
    vm.state = state;
    vm.generation += 1;
    if let Err(error) = app.context.store.update_vm(vm).await {
        tracing::error!(vm = %vm.id, error = chain(&error), "could not store where a VM is");
        vm.generation -= 1;
    }
}

/// Ends VMMs that were started and not recorded, or recorded as something else.
async fn end_strays(app: &App, vms: &[Vm]) -> Result<u64, AppError> {
    let dir = app.context.paths.vms();
    let strays = app.context.vmm.find_strays(&dir).await?;
    let mut ended = 0;
    for (id, identity) in strays {
        let recorded = match vms.iter().any(|vm| vm.id == id) {
            true => app.context.store.get_process(id).await?,
            false => None,
        };
        if recorded.as_ref() == Some(&identity) {
            continue;
        }
        tracing::warn!(vm = %id, pid = identity.pid, "ending a VMM that no record owns");
        // One that does not end keeps no daemon from serving.
        match end_stray(app, id, &identity).await {
            Ok(()) => ended += 1,
            Err(error) => {
                tracing::error!(vm = %id, error = chain(&error), "a VMM that no record owns does not end");
            }
        }
    }
    Ok(ended)
}

async fn end_stray(app: &App, id: VmId, identity: &ProcessIdentity) -> Result<(), AppError> {
    let dir = app.context.paths.vm(id);
    let Some(machine) = app.context.vmm.adopt(id, &dir, identity).await? else {
        return Ok(());
    };
    let ladder = crate::vm::end_now(&app.context.config, machine);
    ladder.climb(&CancellationToken::new()).await.map(drop)
}
