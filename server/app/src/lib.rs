//! The domain services of banger: what the daemon does, independent of gRPC and of any VMM.
//!
//! ```text
//!   grpc ──▶ App ─┬─ images, kernels, catalogs ──▶ banger-image, banger-store
//!                 ├─ vms ── runner per VM ──▶ ports Vmm, Machine, GuestConnector
//!                 ├─ volumes ──▶ banger-store
//!                 ├─ sessions, files, tunnels ──▶ port Guest
//!                 └─ operations
//! ```
//! One *runner* task owns one VM. Everybody else sends it commands and watches its view. Callers may hang up
//! at any time: that cancels their waiting, never the work.
#![deny(unsafe_code)]

pub mod audit;
pub mod build;
pub mod catalog;
pub mod config;
pub mod credentials;
mod disk;
pub mod doctor;
pub mod error;
pub mod event;
pub mod export;
pub mod file;
pub mod host;
pub mod image;
pub mod kernel;
mod look;
pub mod operation;
pub mod page;
pub mod paths;
mod pauses;
mod pull_time;
mod reconcile;
mod reserve;
pub mod session;
pub mod ssh;
mod sys;
mod tree;
pub mod tunnel;
mod turns;
pub mod upload;
pub mod usage;
pub mod vm;
pub mod volume;
pub mod workspace;

use std::sync::Arc;
use std::time::Duration;

use banger_core::guest::GuestConnector;
use banger_core::vmm::{DriverInfo, Vmm};
use banger_core::{Identity, Owner, Role, Scope};
use banger_store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::AppConfig;
pub use error::AppError;
pub use reconcile::Reconciled;

use crate::paths::Paths;

/// What every service shares.
pub(crate) struct Context {
    pub(crate) config: AppConfig,
    pub(crate) paths: Paths,
    pub(crate) store: Store,
    pub(crate) vmm: Arc<dyn Vmm>,
    /// Its launches.
    pub(crate) launches: vm::launch::Launches,
    pub(crate) events: Arc<event::Events>,
    /// What files take is asked here.
    pub(crate) looks: look::Looks,
    /// Whose exports go on.
    pub(crate) exports: export::Exports,
    pub(crate) connector: Arc<dyn GuestConnector>,
    /// What the driver can do, once it was tried.
    pub(crate) driver_info: std::sync::OnceLock<DriverInfo>,
    /// Every task of the daemon runs here, so that shutdown can wait for all.
    pub(crate) tasks: TaskTracker,
    /// Calls are given up from here on: what their callers can take up again is left to the next daemon.
    pub(crate) leaving: CancellationToken,
    /// Work that makes something new is given up when this is cancelled.
    pub(crate) shutdown: CancellationToken,
}

/// For whom services are: the daemon itself, or a caller.
struct Caller {
    owner: Owner,
    scope: Scope,
    role: Role,
}

impl Default for Caller {
    fn default() -> Self {
        Self {
            owner: Owner::daemon(),
            scope: Scope::Everybody,
            role: Role::Admin,
        }
    }
}

/// All services of one daemon.
pub struct App {
    context: Arc<Context>,
    /// Long work.
    pub operations: Arc<operation::Operations>,
    /// Images.
    pub images: Arc<image::Images>,
    /// Catalogs.
    pub catalogs: Arc<catalog::Catalogs>,
    /// Kernels.
    pub kernels: Arc<kernel::Kernels>,
    /// VMs.
    pub vms: Arc<vm::Vms>,
    /// Volumes.
    pub volumes: volume::Volumes,
    /// Builds.
    pub builds: Arc<build::Builds>,
    /// Where archives, kernels and contexts are streamed to.
    pub uploads: Arc<upload::Uploads>,
    /// Sessions.
    pub sessions: session::Sessions,
    /// Files.
    pub files: file::Files,
    /// Workspaces.
    pub workspaces: workspace::Workspaces,
    /// Tunnels.
    pub tunnels: tunnel::Tunnels,
    /// Who may connect by ssh.
    pub ssh: ssh::Ssh,
    /// Looks whether the host is fit.
    pub doctor: Arc<doctor::Doctor>,
    audit: Arc<audit::Audit>,
    /// For whom all of this is.
    caller: Caller,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("state_dir", &self.context.paths.state_dir())
            .finish_non_exhaustive()
    }
}

impl App {
    /// Does what the first calls would otherwise wait for, once in a process. Blocks.
    pub fn warm_up() {
        banger_image::ImageReference::warm_up();
    }

    /// Puts the services together, finds again what an earlier daemon left running, finishes or undoes what it
    /// left half done, and sweeps what nothing owns. Serve only after this.
    ///
    /// # Errors
    /// If the state directory cannot be read or written.
    pub async fn start(
        config: AppConfig,
        store: Store,
        vmm: Arc<dyn Vmm>,
        connector: Arc<dyn GuestConnector>,
    ) -> Result<(Self, Reconciled), AppError> {
        let paths = Paths::open(&config.state_dir)?;
        let context = Arc::new(Context {
            config,
            paths,
            store,
            vmm,
            launches: vm::launch::Launches::default(),
            events: Arc::default(),
            looks: look::Looks::default(),
            exports: export::Exports::default(),
            connector,
            driver_info: std::sync::OnceLock::new(),
            tasks: TaskTracker::new(),
            leaving: CancellationToken::new(),
            shutdown: CancellationToken::new(),
        });
        let operations = Arc::new(operation::Operations::new(&context));
        let files = banger_image::ImageStore::open(context.paths.state_dir())?;
        let kernels = Arc::new(kernel::Kernels::open(&context, &operations)?);
        let catalogs = catalog::Catalogs::new(&context, &operations, &kernels, &files);
        let catalogs = Arc::new(catalogs);
        let images = image::Images::new(&context, &operations, &catalogs, files);
        let images = Arc::new(images);
        let admission = vm::admission::Admission::new(&context.config);
        let volumes = volume::Volumes::new(&context, &operations, &admission);
        let vms = vm::Vms::new(
            &context,
            &operations,
            &images,
            &kernels,
            &volumes,
            admission,
        );
        let vms = Arc::new(vms);
        let builds = Arc::new(build::Builds::open(&context, &operations, &images, &vms)?);
        let uploads = Arc::new(upload::Uploads::new(&context));
        let sessions = session::Sessions::new(&context, &vms, &images);
        let files = file::Files::new(&context, &vms);
        let workspaces = workspace::Workspaces::new(&context, &vms);
        let tunnels = tunnel::Tunnels::new(&vms);
        let ssh = ssh::Ssh::new(&context, &vms);
        let doctor = Arc::new(doctor::Doctor::new(&context, &images, &kernels, &volumes));
        let audit = Arc::new(audit::Audit::new(&context));
        let app = Self {
            context,
            operations,
            images,
            catalogs,
            kernels,
            vms,
            volumes,
            builds,
            uploads,
            sessions,
            files,
            workspaces,
            tunnels,
            ssh,
            doctor,
            audit,
            caller: Caller::default(),
        };
        let reconciled = reconcile::reconcile(&app).await?;
        app.operations.keep_pruned();
        app.audit.keep_written();
        Ok((app, reconciled))
    }

    /// The same services as `caller` sees them: what it may not know of does not exist there, whatever it is called by.
    /// This is the one place where callers are told apart.
    #[must_use]
    pub fn seen_by(&self, caller: &Identity) -> Self {
        let scope = caller.scope();
        let vms = Arc::new(self.vms.seen_by(&scope));
        Self {
            context: self.context.clone(),
            operations: Arc::new(self.operations.seen_by(&scope)),
            images: self.images.clone(),
            catalogs: self.catalogs.clone(),
            kernels: self.kernels.clone(),
            volumes: self.volumes.seen_by(&scope),
            builds: self.builds.clone(),
            uploads: self.uploads.clone(),
            sessions: self.sessions.seen_by(&caller.owner, &vms),
            files: self.files.seen_by(&caller.owner, &vms),
            tunnels: self.tunnels.seen_by(&vms),
            workspaces: workspace::Workspaces::new(&self.context, &vms),
            ssh: self.ssh.seen_by(&vms),
            doctor: self.doctor.clone(),
            audit: self.audit.clone(),
            caller: Caller {
                owner: caller.owner.clone(),
                scope,
                role: caller.role,
            },
            vms,
        }
    }

    /// Who asks: the owner of what is made, whose request ids are meant.
    #[must_use]
    pub const fn caller(&self) -> &Owner {
        &self.caller.owner
    }

    /// Whose things who asks knows of.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.caller.scope
    }

    /// The role of who asks.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.caller.role
    }

    /// Says that the calls that still go on are about to be given up by the daemon, not by their callers: commands of
    /// execs run on. Their callers find them at the next daemon; those whom nobody comes back for, the agent ends.
    pub fn leave(&self) {
        self.context.leaving.cancel();
    }

    /// Ends the daemon's own work: waits for running operations up to `grace`, then gives them up, undone.
    /// VMs are left running. Returns whether everything ended by itself.
    pub async fn shut_down(&self, grace: Duration) -> bool {
        let drained = tokio::time::timeout(grace, self.operations.idle())
            .await
            .is_ok();
        self.context.shutdown.cancel();
        self.context.tasks.close();
        let ending = async {
            self.context.tasks.wait().await;
            // What is not on the disk by then the next daemon syncs.
            self.images.synced().await;
        };
        let ended = tokio::time::timeout(self.context.config.undo_timeout, ending)
            .await
            .is_ok();
        self.context.store.close().await;
        drained && ended
    }

    /// Watches what happens here, as far as who asks knows of it.
    #[must_use]
    pub fn watch_events(&self, from: &event::From, filter: event::Filter) -> event::Watch {
        let filter = event::Filter {
            scope: self.caller.scope.clone(),
            ..filter
        };
        self.context.events.watch(from, filter)
    }

    /// The audit log.
    #[must_use]
    pub const fn audit(&self) -> &Arc<audit::Audit> {
        &self.audit
    }

    /// Where tasks that belong to the daemon are spawned.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.context.tasks
    }

    /// The store, for answers kept by request id.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.context.store
    }
}
