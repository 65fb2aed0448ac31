//! What a daemon does before it serves: it finds again what runs, ends what was half done, sweeps what no
//! record owns.

use std::collections::HashSet;
use std::sync::Arc;

use banger_core::vm::{Phase, StopOutcome, Vm, VmState};
use banger_core::vmm::Machine;
use banger_core::{Timestamp, VmId, chain};
use futures::StreamExt as _;

use crate::App;
use crate::error::AppError;
use crate::paths::{self, Swept};
use crate::vm::{Found, recorded, restart};

/// VMMs that are taken over at once: each costs some descriptors and waits for its control socket.
const ADOPTED_AT_ONCE: usize = 32;

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
    /// The same, where they could not be ended or removed; the doctor shows them.
    pub unswept: u64,
}

impl Reconciled {
    fn count(&mut self, swept: Swept) {
        self.swept += swept.gone;
        self.unswept += swept.left;
    }

    /// What cannot be swept takes space, and keeps no daemon from serving.
    fn count_sweep(&mut self, what: &'static str, swept: Result<Swept, AppError>) {
        match swept {
            Ok(swept) => self.count(swept),
            Err(error) => {
                tracing::error!(
                    what,
                    error = chain(&error),
                    "could not sweep what no record owns"
                );
                self.unswept += 1;
            }
        }
    }
}

pub(crate) async fn reconcile(app: &App) -> Result<Reconciled, AppError> {
    let mut found = Reconciled {
        interrupted_operations: app.operations.reconcile().await?,
        ..Reconciled::default()
    };
    app.images.begin_losing().await?;
    app.volumes.restore().await?;
    let vms = app.context.store.all_vms().await?;
    let known: HashSet<VmId> = vms.iter().map(|vm| vm.id).collect();
    let strays = end_strays(app, &vms).await;
    found.count_sweep("processes", strays);
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
    let directories = paths::sweep(&app.context.paths.vms(), is_known).await;
    found.count_sweep("VM directories", directories);
    found.count_sweep("volumes", app.volumes.sweep().await);
    let all = |gone| Swept { gone, left: 0 };
    found.count_sweep("image files", app.images.sweep().await.map(all));
    found.count_sweep("kernels", app.kernels.sweep().await.map(all));
    Ok(found)
}

/// Takes over the VMM of a VM, if it lives. One that is to run does.
async fn adopt(app: &App, vm: &Vm) -> Result<Option<Arc<dyn Machine>>, AppError> {
    let machine = recorded::find(&app.context, vm.id).await?;
    if let Some(machine) = machine.as_ref().filter(|_| vm.state == VmState::Running) {
        recorded::let_go(vm.id, &**machine).await;
    }
    Ok(machine)
}

/// Of one VM nobody knows whether it runs: that keeps no daemon from serving the others. Its runner looks for it until
/// somebody knows; whoever starts or removes it ends what is left first.
async fn restore_unknown(app: &App, mut vm: Vm, error: AppError, found: &mut Reconciled) {
    tracing::error!(vm = %vm.id, error = chain(&error), "could not take over a VM's process");
    found.unknown_vms += 1;
    let before = vm.state.clone();
    let goes = vm.state.phase() == Phase::Creating || is_build(&vm);
    if vm.state.phase() == Phase::Deleting {
        // It is where it should be.
    } else if goes {
        save(app, &mut vm, VmState::Deleting).await;
    } else {
        let source = Box::new(error);
        let failure = AppError::NotAdopted { source }.to_failure();
        save(app, &mut vm, VmState::Failed(Box::new(failure))).await;
    }
    app.vms.restore(vm, Found::Unknown(before));
}

fn is_build(vm: &Vm) -> bool {
    vm.spec.labels.contains_key(crate::vm::BUILD_LABEL)
}

async fn restore(app: &App, mut vm: Vm, machine: Option<Arc<dyn Machine>>, found: &mut Reconciled) {
    let alive_or_off = |machine: Option<_>| machine.map_or(Found::Off, Found::Alive);
    match (vm.state.phase(), machine) {
        // Its build ended with the daemon.
        (_, machine) if is_build(&vm) => {
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
            vm.last_stop = Some(StopOutcome::BY_ITSELF);
            vm.stop_time = Some(Timestamp::now());
            vm.shape = None;
            // One that was being stopped is where its owner wanted it.
            if phase != Phase::Stopping {
                restart::count_anew(&mut vm);
                restart::plan_after_fault(&mut vm);
            }
            let state = if vm.spec.ephemeral {
                VmState::Deleting
            } else {
                VmState::Stopped
            };
            save(app, &mut vm, state).await;
            app.vms.restore(vm, Found::Off);
        }
        (Phase::Failed | Phase::Stopped, None) => app.vms.restore(vm, Found::Off),
    }
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
async fn end_strays(app: &App, vms: &[Vm]) -> Result<Swept, AppError> {
    let dir = app.context.paths.vms();
    let strays = app.context.vmm.find_strays(&dir).await?;
    let mut unowned = Vec::new();
    for (id, identity) in strays {
        let recorded = match vms.iter().any(|vm| vm.id == id) {
            true => app.context.store.get_process(id).await?,
            false => None,
        };
        if recorded.as_ref() == Some(&identity) {
            continue;
        }
        tracing::warn!(vm = %id, pid = identity.pid, "ending a VMM that no record owns");
        unowned.push((id, identity));
    }
    // All at once, and one that does not end keeps no daemon from serving.
    let ending = unowned.into_iter().map(async |(id, identity)| {
        let ended = recorded::end_stray(&app.context, id, identity).await;
        if let Err(error) = &ended {
            tracing::error!(vm = %id, error = chain(error), "a VMM that no record owns does not end");
        }
        ended.is_ok()
    });
    let ended = futures::future::join_all(ending).await;
    let gone = ended.iter().filter(|is_gone| **is_gone).count() as u64;
    Ok(Swept {
        gone,
        left: ended.len() as u64 - gone,
    })
}
