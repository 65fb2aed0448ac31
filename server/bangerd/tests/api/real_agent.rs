//! An agent as it is in real VMs, behind a fake one: in this process, with a directory for the guest's files.

use std::path::Path;
use std::sync::Arc;

use banger_agent::agent::{Agent, Machine, Options};
use banger_agent::reap::Reaping;
use banger_agent::serve::serve;
use tokio_util::task::TaskTracker;

/// What runs in a fake VM. Its processes are the host's.
pub(crate) fn real_agent(root: &Path, tasks: &TaskTracker) -> banger_vmm::fake::Agent {
    let agent = Agent::new(&Options {
        root: root.into(),
        cgroups: None,
        reaping: Reaping::Own,
        machine: Machine::Foreign,
        init: None,
    });
    let reaping = agent.clone();
    tasks.spawn(async move { reaping.reap().await });
    Arc::new(move |guest| {
        let agent = agent.clone();
        Box::pin(async move {
            let _ = serve(&agent, guest.stream).await;
        })
    })
}
