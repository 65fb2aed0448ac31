//! The daemon from its configuration to its end, as a list.

use std::path::PathBuf;
use std::sync::Arc;

use banger_app::{App, AppError};
use banger_core::guest::GuestConnector;
use banger_core::vmm::Vmm;
use banger_store::{Store, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::grpc::access;
use crate::listen::{Doors, DoorsError, Outside};
use crate::lock::{LockError, StateLock};
use crate::serve::{self, ServeError};

/// Why the daemon did not start, or ended otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The state directory could not be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database could not be opened.
    #[error("could not open the database `{}`", path.display())]
    Store {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// What an earlier daemon left could not be put in order.
    #[error("could not take up the state of an earlier daemon")]
    Reconcile(#[source] AppError),
    /// What it serves on could not be had.
    #[error(transparent)]
    Doors(#[from] DoorsError),
    /// Serving failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs the daemon with a driver and a way to agents, until `stop`. VMs outlive it.
///
/// # Errors
/// If it cannot start, or serving fails.
pub async fn run(
    config: Config,
    vmm: Arc<dyn Vmm>,
    connector: Arc<dyn GuestConnector>,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    run_with(config, vmm, connector, Outside::default(), stop).await
}

/// As [`run`], with what comes from `outside` of the configuration.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    vmm: Arc<dyn Vmm>,
    connector: Arc<dyn GuestConnector>,
    outside: impl Into<Outside>,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let outside = outside.into();
    let lock = StateLock::acquire(&config.state_dir)?;
    let path = config.database();
    let store = Store::open(&path)
        .await
        .map_err(|source| DaemonError::Store { path, source })?;
    let (app, found) = App::start(config.app(), store, vmm, connector)
        .await
        .map_err(DaemonError::Reconcile)?;
    tracing::info!(?found, "took up the state directory");
    let app = Arc::new(app);
    let served = serve_until(&config, &app, &lock, outside, stop.clone()).await;
    let grace = config.grace();
    let begin = Instant::now();
    let in_order = app.shut_down(grace).await;
    tracing::info!(
        in_order,
        took_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
        "stopped; VMs run on"
    );
    served
}

async fn serve_until(
    config: &Config,
    app: &Arc<App>,
    lock: &StateLock,
    outside: Outside,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let doors = Doors::open(config, outside, lock).await?;
    tell_service_manager(&[sd_notify::NotifyState::Ready]);
    tracing::info!(
        socket = %config.socket.display(),
        tcp = ?doors.addresses(),
        state_dir = %config.state_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    let tasks = TaskTracker::new();
    let (connections, _socket) = doors.accept(&tasks, &stop)?;
    // Beside the first calls: one that comes before it is done waits for it, as it would have without it.
    tasks.spawn_blocking(|| {
        access::warm_up();
        App::warm_up();
    });
    let telling = stop.clone();
    let tell = async move {
        telling.cancelled().await;
        tell_service_manager(&[sd_notify::NotifyState::Stopping]);
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        // cancel-safe: neither is dropped before serving has ended
        ended = serve::serve(app.clone(), connections, &config.limits, stop, config.grace()) => ended?,
        () = tell => unreachable!("it never ends"),
    };
    tasks.close();
    tasks.wait().await;
    if !ended {
        tracing::warn!("calls were cut off at the end of the grace");
    }
    Ok(())
}

/// Does nothing where no service manager listens.
fn tell_service_manager(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "could not tell the service manager");
    }
}
