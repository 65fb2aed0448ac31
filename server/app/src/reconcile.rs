//! What a daemon does before it serves: it finds again what runs, ends what was half done, sweeps what no
//! record owns.

use std::collections::HashSet;
use std::sync::Arc;

use banger_core::vm::{Phase, StopOutcome, Vm, VmState};
use banger_core::vmm::{Machine, StopRung};
use banger_core::{Timestamp, VmId, chain};
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::error::AppError;
use crate::paths::remove_tree;

/// What a start found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// VMs that ran on and were taken over.
    pub adopted_vms: usize,
    /// VMs that had run and whose process is gone.
    pub lost_vms: usize,
    /// VMs whose making or removal was cut off; they are being removed.
    pub removed_vms: usize,
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
    let vms = app.context.store.all_vms().await?;
    let known: HashSet<VmId> = vms.iter().map(|vm| vm.id).collect();
    found.swept += end_strays(app, &vms).await?;
    for vm in vms {
        restore(app, vm, &mut found).await?;
    }
    found.swept += sweep_directories(app, &known).await?;
    found.swept += app.images.sweep().await?;
    found.swept += app.kernels.sweep().await?;
    Ok(found)
}

async fn restore(app: &App, mut vm: Vm, found: &mut Reconciled) -> Result<(), AppError> {
    let machine = adopt(app, &vm).await?;
    match (vm.state.phase(), machine) {
        // Its build ended with the daemon.
        (_, machine) if vm.spec.labels.contains_key(crate::vm::BUILD_LABEL) => {
            found.removed_vms += 1;
            save(app, &mut vm, VmState::Deleting).await?;
            app.vms.restore(vm, machine);
        }
        // Half made: undone. Its operation has failed with the daemon.
        (Phase::Creating, machine) => {
            found.removed_vms += 1;
            save(app, &mut vm, VmState::Deleting).await?;
            app.vms.restore(vm, machine);
        }
        (Phase::Deleting, machine) => {
            found.removed_vms += 1;
            app.vms.restore(vm, machine);
        }
        (_, Some(machine)) => {
            found.adopted_vms += 1;
            app.vms.restore(vm, Some(machine));
        }
        (Phase::Running | Phase::Starting | Phase::Stopping, None) => {
            found.lost_vms += 1;
            app.context.store.erase_process(vm.id).await?;
            vm.last_stop = Some(StopOutcome {
                rung: StopRung::AlreadyGone,
                took: std::time::Duration::ZERO,
            });
            vm.stop_time = Some(Timestamp::now());
            let state = if vm.spec.ephemeral {
                VmState::Deleting
            } else {
                VmState::Stopped
            };
            save(app, &mut vm, state).await?;
            app.vms.restore(vm, None);
        }
        (Phase::Stopped | Phase::Failed, None) => app.vms.restore(vm, None),
    }
    Ok(())
}

async fn adopt(app: &App, vm: &Vm) -> Result<Option<Arc<dyn Machine>>, AppError> {
    let Some(identity) = app.context.store.get_process(vm.id).await? else {
        return Ok(None);
    };
    Ok(app
        .context
        .vmm
        .adopt(vm.id, &app.context.paths.vm(vm.id), &identity)
        .await?)
}

async fn save(app: &App, vm: &mut Vm, state: VmState) -> Result<(), AppError> {
    vm.state = state;
    vm.generation += 1;
    app.context.store.update_vm(vm).await?;
    Ok(())
}

/// Ends VMMs that were started and not recorded, or recorded as something else.
async fn end_strays(app: &App, vms: &[Vm]) -> Result<u64, AppError> {
    let mut ended = 0;
    for (id, identity) in app
        .context
        .vmm
        .find_strays(&app.context.paths.vms())
        .await?
    {
        let recorded = match vms.iter().any(|vm| vm.id == id) {
            true => app.context.store.get_process(id).await?,
            false => None,
        };
        if recorded.as_ref() == Some(&identity) {
            continue;
        }
        tracing::warn!(vm = %id, pid = identity.pid, "ending a VMM that no record owns");
        if let Some(machine) = app
            .context
            .vmm
            .adopt(id, &app.context.paths.vm(id), &identity)
            .await?
        {
            let ladder = crate::vm::end_now(&app.context.config, machine);
            if let Err(error) = ladder.climb(&CancellationToken::new()).await {
                tracing::error!(vm = %id, error = chain(&error), "a VMM that no record owns does not end");
            }
        }
        ended += 1;
    }
    Ok(ended)
}

/// Removes the directories of VMs that no record has.
async fn sweep_directories(app: &App, known: &HashSet<VmId>) -> Result<u64, AppError> {
    let dir = app.context.paths.vms();
    let unreadable = |source| AppError::ReadDirectory {
        path: dir.clone(),
        source,
    };
    let mut swept = 0;
    let mut entries = tokio::fs::read_dir(&dir).await.map_err(unreadable)?;
    while let Some(entry) = entries.next_entry().await.map_err(unreadable)? {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.parse::<VmId>().ok());
        if id.is_some_and(|id| known.contains(&id)) {
            continue;
        }
        let path = entry.path();
        let removed = remove_tree(path.clone()).await;
        removed.map_err(|source| AppError::RemoveDirectory { path, source })?;
        swept += 1;
    }
    Ok(swept)
}
