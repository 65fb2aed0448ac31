//! Names of living things, for completion in the shell.

use std::future::Future;
use std::time::Duration;

use banger_sdk::{Client, Host};
use clap_complete::engine::CompletionCandidate;
use futures::{StreamExt, TryStreamExt};

/// The variable by which a shell asks for completion.
pub(crate) const VARIABLE: &str = "BANGER_COMPLETE";
/// Completion answers within this time or not at all.
const LIMIT: Duration = Duration::from_millis(300);
/// Names that are offered at most.
pub(crate) const NAMES_MAX: usize = 500;

/// The names of the VMs.
pub(crate) fn vms() -> Vec<CompletionCandidate> {
    ask(|client| async move {
        let names = client
            .vms()
            .list()
            .take(NAMES_MAX)
            .map_ok(|vm| vm.spec.unwrap_or_default().name);
        names.try_collect().await
    })
}

/// The references of the images.
pub(crate) fn images() -> Vec<CompletionCandidate> {
    ask(|client| async move {
        let images: Vec<_> = client.images().list().take(NAMES_MAX).try_collect().await?;
        Ok(images
            .into_iter()
            .flat_map(|image| image.references)
            .collect())
    })
}

/// The names of the kernels.
pub(crate) fn kernels() -> Vec<CompletionCandidate> {
    ask(|client| async move {
        client
            .kernels()
            .list()
            .take(NAMES_MAX)
            .map_ok(|kernel| kernel.name)
            .try_collect()
            .await
    })
}

/// The names of the volumes.
pub(crate) fn volumes() -> Vec<CompletionCandidate> {
    ask(|client| async move {
        client
            .volumes()
            .list()
            .take(NAMES_MAX)
            .map_ok(|volume| volume.name)
            .try_collect()
            .await
    })
}

/// The names of the catalogs.
pub(crate) fn catalogs() -> Vec<CompletionCandidate> {
    ask(|client| async move {
        client
            .catalogs()
            .list()
            .take(NAMES_MAX)
            .map_ok(|catalog| catalog.name)
            .try_collect()
            .await
    })
}

/// The ids of the operations.
pub(crate) fn operations() -> Vec<CompletionCandidate> {
    ask(|client| async move {
        client
            .operations()
            .list()
            .take(NAMES_MAX)
            .map_ok(|operation| operation.id)
            .try_collect()
            .await
    })
}

/// What `find` finds, as it is offered.
fn ask<F, Fut>(find: F) -> Vec<CompletionCandidate>
where
    F: FnOnce(Client) -> Fut,
    Fut: Future<Output = banger_sdk::Result<Vec<String>>>,
{
    let found = names(find).into_iter();
    found.map(CompletionCandidate::new).collect()
}

/// What `find` finds; nothing when there is no daemon or it takes too long.
pub(crate) fn names<F, Fut>(find: F) -> Vec<String>
where
    F: FnOnce(Client) -> Fut,
    Fut: Future<Output = banger_sdk::Result<Vec<String>>>,
{
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return Vec::new();
    };
    let asking = async {
        let host = Host::from_env().ok()?;
        find(Client::connect(host).await.ok()?).await.ok()
    };
    let found =
        runtime.block_on(async { tokio::time::timeout(LIMIT, asking).await.ok().flatten() });
    found.unwrap_or_default()
}
