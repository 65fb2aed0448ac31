//! VMs: who may ask what, and the index of runners.

mod activity;
pub(crate) mod admission;
mod boot;
mod change;
mod disks;
mod files;
mod grow;
mod hold;
pub(crate) mod launch;
mod link;
mod places;
mod ports;
mod queue;
mod reach;
pub(crate) mod recorded;
pub(crate) mod restart;
mod runner;
mod setup;
mod spec;
mod stats;
mod stop;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banger_core::lifecycle::Verb;
use banger_core::operation::OperationKind;
use banger_core::vm::{Phase, Vm, VmChange, VmSpec, VmState};
use banger_core::vmm::{Console, Machine, VmmExit};
use banger_core::{Name, OperationId, Scope, Timestamp, VmId};
use banger_store::{RequestKey, StoreError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::Context;
use crate::credentials;
use crate::error::AppError;
use crate::host;
use crate::image::Images;
use crate::kernel::Kernels;
use crate::operation::{Begun, Operations};
use crate::page::{self, Paged};
use crate::volume::Volumes;
pub(crate) use activity::Use;
pub use admission::{Account, Capacity, Limits, Promised, Resource, Share};
use admission::{Admission, Admitted};
use boot::{Booter, Boots};
pub use change::pending;
pub use files::VmFile;
pub(crate) use places::{Place, Places};
pub use queue::QueueState;
use runner::{Beginning, Command, Runner};
pub use spec::VmRequest;
pub(crate) use spec::{check_env_keys, check_labels};
pub use stats::{DriveRates, HostStats, Meter, Rates, Round, VmStats};
pub use view::VmView;
use view::settled;

/// The label of VMs that belong to a build. Only the daemon gives it; at its start it removes them.
pub(crate) const BUILD_LABEL: &str = "banger.dev/build";
/// Whether a VM belongs to a build, which keeps what its steps write and nothing else.
fn is_build(vm: &Vm) -> bool {
    vm.spec.labels.contains_key(BUILD_LABEL)
}

/// How much longer than for its end somebody waits for a runner to tell of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often a generated name may collide before the request fails.
const NAME_TRIES: usize = 16;

/// The VMs of this host.
pub struct Vms {
    context: Arc<Context>,
    boots: Boots,
    runners: Arc<Mutex<Runners>>,
    /// Whose are found.
    scope: Scope,
}

/// What a verb needs beside the VM.
enum With {
    Nothing,
    Change(VmChange),
    KeptLogs,
}

/// What a starting daemon finds of a VM's machine.
pub(crate) enum Found {
    /// It runs.
    Alive(Arc<dyn Machine>),
    /// It is off.
    Off,
    /// It may run, and could not be taken over. The VM was here before.
    Unknown(VmState),
}

#[derive(Default)]
struct Runners {
    by_id: BTreeMap<VmId, Handle>,
    by_name: HashMap<Name, VmId>,
}

#[derive(Clone)]
struct Handle {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<VmView>,
}

impl std::fmt::Debug for Vms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vms").finish_non_exhaustive()
    }
}

impl Vms {
    pub(crate) fn new(
        context: &Arc<Context>,
        operations: &Arc<Operations>,
        images: &Arc<Images>,
        kernels: &Arc<Kernels>,
        volumes: &Volumes,
        admission: Admission,
    ) -> Self {
        Self {
            context: context.clone(),
            boots: Boots {
                context: context.clone(),
                operations: operations.clone(),
                images: images.clone(),
                kernels: kernels.clone(),
                volumes: volumes.clone(),
                admission,
            },
            runners: Arc::default(),
            scope: Scope::Everybody,
        }
    }

    /// The same VMs, of which those that `scope` does not see do not exist.
    pub(crate) fn seen_by(&self, scope: &Scope) -> Self {
        Self {
            context: self.context.clone(),
            boots: self.boots.clone(),
            runners: self.runners.clone(),
            scope: scope.clone(),
        }
    }

    /// Accepts a VM to be made, and returns the operation that makes it. When it has succeeded, its target is
    /// the VM's id. Whatever fails undoes everything.
    ///
    /// # Errors
    /// If the request is wrong, the name is taken, or the host is full; then nothing was made.
    pub async fn create(
        &self,
        request: &VmRequest,
        key: Option<&RequestKey>,
    ) -> Result<OperationId, AppError> {
        spec::check_reserved(&request.labels)?;
        // A repeat joins before anything is looked at: its name is taken, by itself.
        let task = match self
            .boots
            .operations
            .begin(
                OperationKind::CreateVm,
                &request.owner,
                request.image.clone(),
                key,
            )
            .await?
        {
            Begun::Joined(id) => return Ok(id),
            Begun::New(task) => Arc::new(task),
        };
        self.begin(request, self.boots.booter(task.clone())).await?;
        Ok(task.id())
    }

    /// Accepts a VM for a build, whose writable disk is moved from `disk` where there is one.
    pub(crate) async fn create_for_build(
        &self,
        request: &VmRequest,
        disk: Option<PathBuf>,
    ) -> Result<OperationId, AppError> {
        let target = request.image.clone();
        let task = match self
            .boots
            .operations
            .begin(OperationKind::CreateVm, &request.owner, target, None)
            .await?
        {
            Begun::Joined(id) => return Ok(id),
            Begun::New(task) => Arc::new(task),
        };
        let mut booter = self.boots.booter(task.clone());
        booter.disk = disk.map(Arc::from);
        self.begin(request, booter).await?;
        Ok(task.id())
    }

    async fn begin(&self, request: &VmRequest, mut booter: Booter) -> Result<(), AppError> {
        booter.files = request.files.clone().into();
        let task = booter.task.clone();
        match self.insert(request).await {
            Ok((vm, admitted)) => {
                let beginning = Beginning::Create {
                    booter,
                    kernel: request.kernel.clone(),
                    pull_if_missing: request.pull_if_missing,
                };
                self.run(vm, admitted, beginning);
                Ok(())
            }
            Err(error) => {
                task.fail(error.to_failure()).await;
                Err(error)
            }
        }
    }

    /// Makes sure that there is room, and writes the record.
    async fn insert(&self, request: &VmRequest) -> Result<(Vm, Admitted), AppError> {
        files::check(&request.files)?;
        setup::check(&request.init, &request.identity)?;
        let profiles = &self.context.config.credentials;
        credentials::find(profiles, &request.owner, &request.identity.credentials)?;
        let volumes = self.boots.volumes.seen_by(&self.scope);
        let volumes = volumes.resolve(&request.volumes).await?;
        let mut vm = Vm {
            id: VmId::new(),
            spec: VmSpec {
                volumes,
                ..spec::spec(request, self.context.config.default_network, generated_name)?
            },
            image: None,
            kernel: None,
            owner: request.owner.clone(),
            state: VmState::Creating,
            shape: None,
            restart_count: 0,
            generation: 1,
            boot_timing: Vec::new(),
            last_stop: None,
            create_time: Timestamp::now(),
            start_time: None,
            stop_time: None,
            stuck: None,
        };
        host::admit_disk(&self.context)?;
        let capacity = host::capacity(&self.context)?;
        let admitted = self.boots.admission.create(&vm, &capacity)?;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.context.store.insert_vm(&vm).await {
                Ok(()) => return Ok((vm, admitted)),
                Err(StoreError::NameTaken { .. })
                    if request.name.is_empty() && tries < NAME_TRIES =>
                {
                    vm.spec.name = generated_name();
                }
                Err(StoreError::NameTaken { name, .. }) => {
                    return Err(AppError::NameTaken {
                        resource: "vm",
                        name,
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn run(&self, vm: Vm, admitted: Admitted, beginning: Beginning) {
        let (id, name) = (vm.id, vm.spec.name.clone());
        match beginning {
            Beginning::Create { .. } => self.context.events.vm_created(&vm),
            _ => self.context.events.vm_found(&vm),
        }
        let (runner, commands, view) = Runner::new(self.boots.clone(), vm, admitted);
        let runners = self.runners.clone();
        {
            let mut index = self.lock();
            index.by_name.insert(name.clone(), id);
            index.by_id.insert(id, Handle { commands, view });
        }
        self.context.tasks.spawn(async move {
            runner.run(beginning).await;
            let mut index = runners.lock().unwrap_or_else(PoisonError::into_inner);
            index.by_id.remove(&id);
            // The name may be a newer VM's by now.
            if index.by_name.get(&name) == Some(&id) {
                index.by_name.remove(&name);
            }
        });
    }

    /// Puts a VM of an earlier daemon under a runner. One whose VMM lives, or may, keeps its memory and its volumes.
    pub(crate) fn restore(&self, vm: Vm, found: Found) {
        let holds_machine = matches!(found, Found::Alive(_) | Found::Unknown(_));
        let admitted = self.boots.admission.restore(&vm, holds_machine);
        // Before anything else may ask for its volumes.
        let attached = || self.boots.volumes.attach_again(&vm);
        let beginning = match (found, vm.state.phase()) {
            (Found::Alive(machine), _) => Beginning::Adopted(machine, attached()),
            (Found::Unknown(before), _) => Beginning::Unknown(attached(), before),
            (Found::Off, Phase::Deleting | Phase::Creating) => Beginning::Delete,
            (Found::Off, _) => Beginning::Rest,
        };
        self.run(vm, admitted, beginning);
    }

    /// What is promised to all VMs, of what may be, and to each owner that is seen.
    ///
    /// # Errors
    /// If the host does not tell what it has.
    pub fn account(&self) -> Result<Account, AppError> {
        let capacity = host::capacity(&self.context)?;
        let mut account = self.boots.admission.account(&capacity);
        account.owners.retain(|(owner, _)| self.scope.sees(owner));
        Ok(account)
    }

    /// Every VM that exists, as it is now, oldest first.
    pub(crate) fn views(&self) -> Vec<VmView> {
        let index = self.lock();
        let views = index.by_id.values().map(|handle| handle.view.borrow());
        views
            .filter(|view| self.sees(view))
            .map(|view| view.clone())
            .collect()
    }

    /// Whether a VM is there, as far as whoever asks knows.
    fn sees(&self, view: &VmView) -> bool {
        !view.deleted && self.scope.sees(&view.vm.owner)
    }

    fn handle(&self, named: &str) -> Result<Handle, AppError> {
        let index = self.lock();
        let id = named.parse::<VmId>().ok().or_else(|| {
            named
                .parse::<Name>()
                .ok()
                .and_then(|name| index.by_name.get(&name).copied())
        });
        let handle = id.and_then(|id| index.by_id.get(&id));
        let handle = handle.filter(|handle| self.sees(&handle.view.borrow()));
        handle.cloned().ok_or_else(|| AppError::NotFound {
            resource: "vm",
            name: named.chars().take(128).collect(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Runners> {
        self.runners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A VM now and as it changes, by id or name.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn watch(&self, named: &str) -> Result<watch::Receiver<VmView>, AppError> {
        Ok(self.handle(named)?.view)
    }

    /// A VM as it is now, by id or name.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn get(&self, named: &str) -> Result<Arc<Vm>, AppError> {
        Ok(self.watch(named)?.borrow().vm.clone())
    }

    /// A page of the VMs that have all `labels`, newest first.
    #[must_use]
    pub fn list(
        &self,
        limit: usize,
        before: Option<VmId>,
        labels: &BTreeMap<String, String>,
    ) -> Paged<Arc<Vm>> {
        let index = self.lock();
        let views = index
            .by_id
            .iter()
            .rev()
            .map(|(id, handle)| (id, handle.view.borrow().clone()));
        let wanted = views.filter(|(id, view)| {
            let has =
                |(key, value): (&String, &String)| view.vm.spec.labels.get(key) == Some(value);
            before.is_none_or(|before| **id < before) && self.sees(view) && labels.iter().all(has)
        });
        page::cut(
            wanted.map(|(_, view)| view.vm).take(limit + 1).collect(),
            limit,
        )
    }

    /// How many VMs exist, and how many of them run.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let index = self.lock();
        let (mut count, mut running) = (0, 0);
        for handle in index.by_id.values() {
            let view = handle.view.borrow();
            if self.scope.sees(&view.vm.owner) {
                count += 1;
                running += usize::from(view.phase() == Phase::Running);
            }
        }
        (count, running)
    }

    async fn ask(&self, handle: &Handle, verb: Verb, with: With) -> Result<(), AppError> {
        let (answer, answered) = oneshot::channel();
        let keeps_logs = matches!(with, With::KeptLogs);
        let change = match with {
            With::Nothing | With::KeptLogs => None,
            With::Change(change) => Some(change),
        };
        let command = Command {
            verb,
            change,
            keeps_logs,
            answer,
        };
        // A runner that is gone has removed its VM, or stopped with the daemon.
        let gone = || {
            let view = handle.view.borrow();
            match (view.deleted, verb) {
                (true, Verb::Delete) => Ok(()),
                (true, _) => Err(AppError::NotFound {
                    resource: "vm",
                    name: view.vm.spec.name.to_string(),
                }),
                (false, _) => Err(AppError::Interrupted),
            }
        };
        if handle.commands.send(command).await.is_err() {
            return gone();
        }
        answered.await.unwrap_or_else(|_| gone())
    }

    /// Boots a VM and waits until its agent answers.
    ///
    /// # Errors
    /// If its state forbids it, or with what the boot failed of.
    pub async fn start(&self, named: &str) -> Result<Arc<Vm>, AppError> {
        self.boot(named, Verb::Start).await
    }

    /// Shuts a VM down by the ladder and boots it again, or boots it where it is off; waits until its agent
    /// answers.
    ///
    /// # Errors
    /// As [`Vms::start`].
    pub async fn restart(&self, named: &str) -> Result<Arc<Vm>, AppError> {
        self.boot(named, Verb::Restart).await
    }

    async fn boot(&self, named: &str, verb: Verb) -> Result<Arc<Vm>, AppError> {
        let mut handle = self.handle(named)?;
        self.ask(&handle, verb, With::Nothing).await?;
        let view = settled(&mut handle.view, |view| {
            view.deleted
                || !matches!(
                    view.phase(),
                    Phase::Creating | Phase::Starting | Phase::Stopping
                )
        })
        .await?;
        match &view.vm.state {
            VmState::Running if !view.deleted => Ok(view.vm),
            VmState::Failed(failure) => Err(AppError::Failed(failure.clone())),
            state => Err(AppError::Overtaken {
                vm: view.vm.spec.name.clone(),
                phase: state.phase(),
                verb,
            }),
        }
    }

    /// Shuts a VM down by the ladder, or at once with [`Verb::Kill`], and waits until it is off.
    ///
    /// # Errors
    /// If its state forbids it, or its process cannot be ended.
    pub async fn stop(&self, named: &str, verb: Verb) -> Result<Arc<Vm>, AppError> {
        self.stop_with(named, verb, With::Nothing).await
    }

    /// Shuts a VM down as [`Vms::stop`], and keeps the logs of its sessions first, even if its spec does not say so.
    ///
    /// # Errors
    /// As [`Vms::stop`].
    pub async fn stop_keeping_logs(&self, named: &str) -> Result<Arc<Vm>, AppError> {
        self.stop_with(named, Verb::Stop, With::KeptLogs).await
    }

    async fn stop_with(&self, named: &str, verb: Verb, with: With) -> Result<Arc<Vm>, AppError> {
        let mut handle = self.handle(named)?;
        self.ask(&handle, verb, with).await?;
        let view = settled(&mut handle.view, |view| match view.phase() {
            Phase::Stopping => view.deleted,
            // It goes: an ephemeral one, or by another request. It is off, if it can be ended at all.
            Phase::Deleting => view.deleted || view.vm.stuck.is_some(),
            _ => true,
        })
        .await?;
        match &view.vm.stuck {
            Some(failure) if !view.deleted => Err(AppError::Failed(failure.clone())),
            _ => Ok(view.vm),
        }
    }

    /// Holds a VM's vCPUs with [`Verb::Pause`], or lets them go on with [`Verb::Resume`], and waits until it is
    /// so.
    ///
    /// # Errors
    /// If its state forbids it, its driver cannot, or the VMM did not do it; then the VM is where it was.
    pub async fn hold(&self, named: &str, verb: Verb) -> Result<Arc<Vm>, AppError> {
        let handle = self.handle(named)?;
        let driver = self.context.driver_info.get();
        if driver.is_some_and(|driver| !driver.capabilities.pause) {
            return Err(AppError::DriverCannot {
                driver: driver
                    .map(|driver| driver.driver.clone())
                    .unwrap_or_default(),
                verb,
            });
        }
        self.ask(&handle, verb, With::Nothing).await?;
        let vm = handle.view.borrow().vm.clone();
        Ok(vm)
    }

    /// Changes a VM. [`pending`] tells of the answer what waits for the next start.
    ///
    /// # Errors
    /// If a value is wrong, its state forbids it, or it was changed since its caller looked.
    pub async fn update(&self, named: &str, change: VmChange) -> Result<Arc<Vm>, AppError> {
        let handle = self.handle(named)?;
        self.ask(&handle, Verb::Update, With::Change(change))
            .await?;
        let vm = handle.view.borrow().vm.clone();
        Ok(vm)
    }

    /// Throws a VM away and waits until nothing is left.
    ///
    /// # Errors
    /// If it does not exist, or something keeps it: its process does not end, its files cannot be removed, the host's
    /// disk hangs. Then it goes when that is over, and whoever asks again waits again.
    pub async fn delete(&self, named: &str) -> Result<(), AppError> {
        let mut handle = self.handle(named)?;
        let limit = self.context.config.gone_limit();
        let vm = handle.view.borrow().vm.spec.name.clone();
        let gone = async {
            self.ask(&handle, Verb::Delete, With::Nothing).await?;
            let is_over = |view: &VmView| view.deleted || view.vm.stuck.is_some();
            settled(&mut handle.view, is_over).await
        };
        // The runner tells by then, unless the database stands still.
        let view = match tokio::time::timeout(limit + ANSWER_WITHIN, gone).await {
            Ok(view) => view?,
            Err(_) => {
                return Err(AppError::NotRemoved {
                    vm,
                    limit,
                    source: None,
                });
            }
        };
        match &view.vm.stuck {
            Some(failure) if !view.deleted => Err(AppError::Failed(failure.clone())),
            _ => Ok(()),
        }
    }

    /// The console of a VM, whether it runs or not.
    ///
    /// # Errors
    /// If the VM does not exist.
    pub fn console(&self, named: &str) -> Result<Arc<dyn Console>, AppError> {
        let vm = self.get(named)?;
        Ok(self.context.vmm.console(&self.context.paths.vm(vm.id)))
    }
}

/// A name that people can remember.
fn generated_name() -> Name {
    petname::petname(2, "-")
        .and_then(|name| name.parse().ok())
        .unwrap_or_else(fallback_name)
}

fn fallback_name() -> Name {
    // Ids are hexadecimal and hyphens: a prefix makes a name of one.
    let id = VmId::new().to_string().replace('-', "");
    format!("vm-{}", &id[id.len() - 12..])
        .parse()
        .expect("hexadecimal digits make a name")
}

fn describe_exit(exit: &VmmExit) -> String {
    match exit {
        VmmExit::GuestPowerOff => "the guest powered itself off".into(),
        VmmExit::GuestReset => "the guest reset or panicked".into(),
        VmmExit::MemoryLimit { limit_mib } => {
            format!("its VMM wanted more than the {limit_mib} MiB of memory that it may have")
        }
        VmmExit::Other { detail } => detail.clone(),
    }
}
