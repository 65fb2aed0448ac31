//! VMs: who may ask what, and the index of runners.

mod boot;
mod link;
mod runner;
mod spec;
mod stop;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_core::lifecycle::Verb;
use banger_core::operation::OperationKind;
use banger_core::vm::{Phase, Vm, VmState};
use banger_core::vmm::{Console, Machine, VmmExit};
use banger_core::{Name, OperationId, Timestamp, VmId};
use banger_store::{RequestKey, StoreError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::Context;
use crate::error::AppError;
use crate::image::Images;
use crate::kernel::Kernels;
use crate::operation::{Begun, Operations};
use crate::page::{self, Paged};
use boot::Booter;
use runner::{Beginning, Command, Runner};
pub use spec::VmRequest;
pub(crate) use spec::check_env;
pub use view::VmView;
use view::settled;

/// The label of VMs that belong to a build. Only the daemon gives it; at its start it removes them.
pub(crate) const BUILD_LABEL: &str = "banger.dev/build";
/// How often a generated name may collide before the request fails.
const NAME_TRIES: usize = 16;

/// The VMs of this host.
pub struct Vms {
    context: Arc<Context>,
    operations: Arc<Operations>,
    images: Arc<Images>,
    kernels: Arc<Kernels>,
    runners: Arc<Mutex<Runners>>,
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
    ) -> Self {
        Self {
            context: context.clone(),
            operations: operations.clone(),
            images: images.clone(),
            kernels: kernels.clone(),
            runners: Arc::default(),
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
            .operations
            .begin(OperationKind::CreateVm, request.image.clone(), key)
            .await?
        {
            Begun::Joined(id) => return Ok(id),
            Begun::New(task) => Arc::new(task),
        };
        self.begin(request, self.booter(task.clone())).await?;
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
            .operations
            .begin(OperationKind::CreateVm, target, None)
            .await?
        {
            Begun::Joined(id) => return Ok(id),
            Begun::New(task) => Arc::new(task),
        };
        let mut booter = self.booter(task.clone());
        booter.disk = disk.map(Arc::from);
        self.begin(request, booter).await?;
        Ok(task.id())
    }

    async fn begin(&self, request: &VmRequest, booter: Booter) -> Result<(), AppError> {
        let task = booter.task.clone();
        match self.insert(request).await {
            Ok(vm) => {
                let beginning = Beginning::Create {
                    booter,
                    kernel: request.kernel.clone(),
                    pull_if_missing: request.pull_if_missing,
                };
                self.run(vm, beginning);
                Ok(())
            }
            Err(error) => {
                task.fail(error.to_failure()).await;
                Err(error)
            }
        }
    }

    async fn insert(&self, request: &VmRequest) -> Result<Vm, AppError> {
        let limit = self.context.config.max_vms;
        if self.lock().by_id.len() >= limit {
            return Err(AppError::TooManyVms { limit });
        }
        let generate = || {
            petname::petname(2, "-")
                .and_then(|name| name.parse().ok())
                .unwrap_or_else(fallback_name)
        };
        let mut tries = 0;
        loop {
            let vm = Vm {
                id: VmId::new(),
                spec: spec::spec(request, generate)?,
                image: None,
                kernel: None,
                state: VmState::Creating,
                generation: 1,
                boot_timing: Vec::new(),
                last_stop: None,
                create_time: Timestamp::now(),
                start_time: None,
                stop_time: None,
            };
            tries += 1;
            match self.context.store.insert_vm(&vm).await {
                Ok(()) => return Ok(vm),
                Err(StoreError::NameTaken { .. })
                    if request.name.is_empty() && tries < NAME_TRIES => {}
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

    fn booter(&self, task: Arc<crate::operation::OperationTask>) -> Booter {
        Booter {
            context: self.context.clone(),
            images: self.images.clone(),
            kernels: self.kernels.clone(),
            cancel: task.cancelled().clone(),
            disk: None,
            task,
        }
    }

    fn run(&self, vm: Vm, beginning: Beginning) {
        let (id, name) = (vm.id, vm.spec.name.clone());
        let (runner, commands, view) = Runner::new(self.context.clone(), vm);
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

    /// Puts a VM of an earlier daemon under a runner.
    pub(crate) fn restore(&self, vm: Vm, machine: Option<Arc<dyn Machine>>) {
        let beginning = match (machine, vm.state.phase()) {
            (Some(machine), _) => Beginning::Adopted(machine),
            (None, Phase::Deleting | Phase::Creating) => Beginning::Delete,
            (None, _) => Beginning::Rest,
        };
        self.run(vm, beginning);
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
        let handle = handle.filter(|handle| !handle.view.borrow().deleted);
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
            before.is_none_or(|before| **id < before) && !view.deleted && labels.iter().all(has)
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
        let running = index
            .by_id
            .values()
            .filter(|handle| handle.view.borrow().phase() == Phase::Running)
            .count();
        (index.by_id.len(), running)
    }

    async fn ask(
        &self,
        handle: &Handle,
        verb: Verb,
        booter: Option<Booter>,
    ) -> Result<(), AppError> {
        let (answer, answered) = oneshot::channel();
        let command = Command {
            verb,
            booter,
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
        let mut handle = self.handle(named)?;
        let phase = handle.view.borrow().phase();
        if matches!(phase, Phase::Stopped | Phase::Failed) {
            let id = handle.view.borrow().vm.id;
            if let Begun::New(task) = self
                .operations
                .begin(OperationKind::StartVm, id.to_string(), None)
                .await?
            {
                let task = Arc::new(task);
                if let Err(error) = self
                    .ask(&handle, Verb::Start, Some(self.booter(task.clone())))
                    .await
                {
                    task.fail(error.to_failure()).await;
                    return Err(error);
                }
            }
        } else {
            self.ask(&handle, Verb::Start, None).await?;
        }
        let view = settled(&mut handle.view, |view| {
            !matches!(view.phase(), Phase::Creating | Phase::Starting)
        })
        .await?;
        match &view.vm.state {
            VmState::Running => Ok(view.vm),
            VmState::Failed(failure) => Err(AppError::Failed(failure.clone())),
            state => Err(AppError::Overtaken {
                vm: view.vm.spec.name.clone(),
                phase: state.phase(),
                verb: Verb::Start,
            }),
        }
    }

    /// Shuts a VM down by the ladder, or at once with [`Verb::Kill`], and waits until it is off.
    ///
    /// # Errors
    /// If its state forbids it, or its process cannot be ended.
    pub async fn stop(&self, named: &str, verb: Verb) -> Result<Arc<Vm>, AppError> {
        let mut handle = self.handle(named)?;
        self.ask(&handle, verb, None).await?;
        let view = settled(&mut handle.view, |view| {
            view.deleted || !matches!(view.phase(), Phase::Stopping | Phase::Deleting)
        })
        .await?;
        Ok(view.vm)
    }

    /// Throws a VM away and waits until nothing is left.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn delete(&self, named: &str) -> Result<(), AppError> {
        let mut handle = self.handle(named)?;
        self.ask(&handle, Verb::Delete, None).await?;
        settled(&mut handle.view, |view| view.deleted)
            .await
            .map(drop)
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
        VmmExit::Other { detail } => detail.clone(),
    }
}

/// A ladder of SIGKILL alone, for a machine that belongs to no VM.
pub(crate) fn end_now(config: &crate::AppConfig, machine: Arc<dyn Machine>) -> stop::Ladder {
    stop::Ladder::hard(config, machine)
}
