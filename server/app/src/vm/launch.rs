//! What a driver does for a VM that waits for the host's disk: launches and adoptions, each on a thread of its own. A disk
//! that hangs holds that thread, and neither the runtime's nor whoever gave the work up.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banger_core::VmId;
use banger_core::vmm::{LaunchPlan, Machine, ProcessIdentity};
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::disks::{late, overtaken};
use crate::Context;
use crate::error::AppError;

/// How long it may take to find out whether a VMM lives, and to take it over.
const ADOPTED_WITHIN: Duration = Duration::from_secs(10);

/// Launches whose threads have not ended, by their VMs. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Launches(Arc<Mutex<HashSet<VmId>>>);

impl Launches {
    fn lock(&self) -> MutexGuard<'_, HashSet<VmId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, vm: VmId) -> Launching {
        self.lock().insert(vm);
        Launching {
            launches: self.clone(),
            vm,
        }
    }
}

/// A launch under way.
struct Launching {
    launches: Launches,
    vm: VmId,
}

impl Drop for Launching {
    fn drop(&mut self) {
        self.launches.lock().remove(&self.vm);
    }
}

/// Starts a VMM. Once `given_up`, it ends soon ([`late`]): what was started is killed then, and where the
/// host's disk hangs [`adopt`] tells nothing of the VM until it is.
///
/// # Errors
/// Why there is none.
pub(super) async fn launch(
    context: &Arc<Context>,
    plan: LaunchPlan,
    given_up: &CancellationToken,
) -> Result<Arc<dyn Machine>, AppError> {
    let vm = plan.vm;
    // Dropped with this call.
    let wanted = given_up.child_token();
    let unwanted = wanted.clone();
    let _guard = wanted.drop_guard();
    let (launching, on_thread) = (context.launches.begin(vm), context.clone());
    let mut launch = context.tasks.spawn_blocking(move || {
        let _launching = launching;
        let handle = Handle::current();
        let journal = |identity: &ProcessIdentity| {
            // The row must be there before the guest runs.
            let put = on_thread.store.put_process(vm, identity);
            tokio::task::block_in_place(|| handle.block_on(put)).map_err(io::Error::other)
        };
        handle.block_on(async {
            tokio::select! {
                biased; // what nobody wants any more is not begun
                // cancel-safe: `cancelled` holds no state
                () = unwanted.cancelled() => Err(overtaken()),
                // A driver's launch is safe to drop: what it had started is killed.
                launched = on_thread.vmm.launch(&plan, &journal) => Ok(launched?),
            }
        })
    });
    tokio::select! {
        biased; // what is there is not left behind
        // cancel-safe: the thread goes on
        launched = &mut launch => launched.unwrap_or_else(|error| Err(broken(error))),
        // cancel-safe: waits for an instant, and a level
        () = late(given_up) => {
            tracing::error!(%vm, "the host's disk hangs: the launch of a VMM is left behind");
            Err(overtaken())
        }
    }
}

/// The VMM of this identity, if it lives.
///
/// # Errors
/// If that cannot be found out in time, or a launch that was given up has not ended: then it may live.
pub(crate) async fn adopt(
    context: &Context,
    vm: VmId,
    dir: PathBuf,
    identity: ProcessIdentity,
) -> Result<Option<Arc<dyn Machine>>, AppError> {
    let vmm = context.vmm.clone();
    let adopting = context
        .tasks
        .spawn_blocking(move || Handle::current().block_on(vmm.adopt(vm, &dir, &identity)));
    match tokio::time::timeout(ADOPTED_WITHIN, adopting).await {
        Ok(adopted) => adopted.map_or_else(|error| Err(broken(error)), |adopted| Ok(adopted?)),
        Err(_elapsed) => Err(AppError::DiskHangs {
            during: "find the VM's process",
        }),
    }
}

/// Tells of a launch that was given up and has not ended.
///
/// # Errors
/// If there is one.
pub(crate) fn check_ended(context: &Context, vm: VmId) -> Result<(), AppError> {
    match context.launches.lock().contains(&vm) {
        true => Err(AppError::DiskHangs {
            during: "end the launch of the VM's process",
        }),
        false => Ok(()),
    }
}

fn broken(error: JoinError) -> AppError {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_cancelled) => AppError::Interrupted,
    }
}
