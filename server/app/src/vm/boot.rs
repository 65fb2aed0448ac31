//! From a record to a running guest, in steps that undo themselves: any failure leaves no process and, for a
//! VM that was being made, no file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use banger_core::guest::{Guest, GuestIdentity, GuestInfo};
use banger_core::image::Image;
use banger_core::kernel::Kernel;
use banger_core::operation::{OperationKind, Progress, Stage, StageKey};
use banger_core::vm::{Shape, Vm};
use banger_core::vmm::{Console, Drive, DriveAccess, LaunchPlan, Machine, ProcessLimits, VmmExit};
use banger_core::{Name, SignedDuration, Timestamp, VmId};
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::disks::{Disks, Turn, Upper};
use super::files::{self, VmFile};
use super::grow;
use super::launch;
use super::queue::Ticket;
use super::stop::Ladder;
use super::{is_build, link, recorded, setup};
use crate::Context;
use crate::error::AppError;
use crate::host;
use crate::image::Images;
use crate::kernel::Kernels;
use crate::operation::{Begun, OperationTask, Operations};
use crate::paths;
use crate::volume::Volumes;
use crate::volume::attach::Attached;

/// How much of a console's end an error carries.
const CONSOLE_TAIL_BYTES: usize = 2048;
/// How long the host's disk may take to give it.
const CONSOLE_WITHIN: Duration = Duration::from_secs(2);
/// The label of an image's configuration that names the kernel of its VMs, where neither they nor the image were given
/// one. Its maker wishes so, who knows nothing of this host: where there is no such kernel, or it is no name at all, the
/// host's default is as good.
const KERNEL_LABEL: &str = "dev.banger.kernel";

/// For guests whose changes are told: directories are renamed by copying them.
const PLAIN_OVERLAY: &str = "banger.overlay=plain";
/// How long a channel that broke during a boot waits for the news that its VMM ended.
const SIGN_TO_END: Duration = Duration::from_millis(500);

/// What boots are made with.
#[derive(Clone)]
pub(super) struct Boots {
    pub(super) context: Arc<Context>,
    pub(super) operations: Arc<Operations>,
    pub(super) images: Arc<Images>,
    pub(super) kernels: Arc<Kernels>,
    pub(super) volumes: Volumes,
    pub(super) admission: Admission,
}

impl Boots {
    /// A boot that is the work of `task`.
    pub(super) fn booter(&self, task: Arc<OperationTask>) -> Booter {
        Booter {
            context: self.context.clone(),
            images: self.images.clone(),
            kernels: self.kernels.clone(),
            volumes: self.volumes.clone(),
            cancel: task.cancelled().clone(),
            disk: None,
            files: Arc::default(),
            task,
        }
    }

    /// A start of a VM, as an operation of its own.
    pub(super) async fn begin_start(&self, vm: &Vm) -> Result<Booter, AppError> {
        let begun = self
            .operations
            .begin(OperationKind::StartVm, &vm.owner, vm.id.to_string(), None)
            .await?;
        match begun {
            Begun::New(task) => Ok(self.booter(Arc::new(task))),
            Begun::Joined(_) => unreachable!("only a request with an id joins another"),
        }
    }
}

/// What a boot works with.
#[derive(Clone)]
pub(super) struct Booter {
    pub(super) context: Arc<Context>,
    pub(super) images: Arc<Images>,
    pub(super) kernels: Arc<Kernels>,
    pub(super) volumes: Volumes,
    pub(super) task: Arc<OperationTask>,
    /// Given up by a later request.
    pub(super) cancel: CancellationToken,
    /// Becomes the VM's writable disk.
    pub(super) disk: Option<Arc<Path>>,
    /// What a new VM is given before it is running.
    pub(super) files: Arc<[VmFile]>,
}

/// The first half: names are resolved to what is on this host.
pub(super) struct Resolved {
    pub(super) image: Image,
    pub(super) kernel: Kernel,
}

/// The second half: a guest that is set up.
pub(super) struct Booted {
    pub(super) machine: Arc<dyn Machine>,
    pub(super) guest: Arc<dyn Guest>,
    pub(super) timing: Vec<Stage>,
    pub(super) shape: Shape,
    /// Its volumes, until its VMM is gone.
    pub(super) attached: Attached,
}

/// Why there is no guest.
pub(super) struct BootFailure {
    pub(super) error: AppError,
    /// What could not be undone.
    pub(super) left: Option<Box<Left>>,
}

/// What may still write to the VM's disk and volumes.
pub(super) enum Left {
    /// A VMM that does not end.
    Vmm {
        machine: Arc<dyn Machine>,
        attached: Attached,
    },
    /// A VMM of which nobody knows whether it lives.
    Unknown { why: AppError, attached: Attached },
}

impl From<AppError> for BootFailure {
    fn from(error: AppError) -> Self {
        Self { error, left: None }
    }
}

/// That an image's kernel is not here.
fn kernel_missing(image: &Image, kernel: &Name) -> AppError {
    let first = image.references.first().cloned();
    AppError::ImageKernelMissing {
        image: first.unwrap_or_else(|| image.id.to_string()),
        kernel: kernel.to_string(),
    }
}

impl Booter {
    async fn stage<T>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T, AppError>>,
    ) -> Result<T, AppError> {
        let key = StageKey::new(name);
        self.task.start(&key, None);
        let done = work.await?;
        self.task.finish(&key);
        Ok(done)
    }

    /// Races a step against being given up. Only for steps that are safe to drop.
    async fn unless_given_up<T>(
        &self,
        work: impl Future<Output = Result<T, AppError>>,
    ) -> Result<T, AppError> {
        tokio::select! {
            biased; // a VM that is to go must not go on booting
            // cancel-safe: `cancelled` holds no state
            () = self.cancel.cancelled() => Err(AppError::GivenUp { why: "another request took over" }),
            // the callers pass only futures that are safe to drop
            result = work => result,
        }
    }

    /// Finds the image, pulling it if that is wanted, and the kernel.
    pub(super) async fn resolve(
        &self,
        vm: &Vm,
        kernel: &str,
        pull_if_missing: bool,
    ) -> Result<Resolved, AppError> {
        let image = self
            .unless_given_up(self.image(&vm.spec.image, pull_if_missing))
            .await?;
        let kernel = match kernel {
            "" => self.kernel_of(&image).await?,
            named => self.kernels.get(named).await?,
        };
        Ok(Resolved { image, kernel })
    }

    /// The kernel of a VM that names none: its image's, else the one that its image's label wishes for, else the host's
    /// default.
    async fn kernel_of(&self, image: &Image) -> Result<Kernel, AppError> {
        if let Some(own) = &image.kernel {
            let found = self.kernels.find(own).await?;
            return found.ok_or_else(|| kernel_missing(image, own));
        }
        let label = image.config.labels.get(KERNEL_LABEL);
        let Some(wished) = label.and_then(|label| label.parse::<Name>().ok()) else {
            if label.is_some() {
                tracing::info!(image = %image.id, label = KERNEL_LABEL, "what the label says is not a kernel's name");
            }
            return self.kernels.default().await?.ok_or(AppError::NoKernel);
        };
        if let Some(found) = self.kernels.find(&wished).await? {
            return Ok(found);
        }
        tracing::info!(image = %image.id, kernel = %wished, "the kernel that the image's label names is not here");
        let default = self.kernels.default().await?;
        default.ok_or_else(|| kernel_missing(image, &wished))
    }

    async fn image(&self, reference: &str, pull_if_missing: bool) -> Result<Image, AppError> {
        let image = match self.images.find(reference).await? {
            Some(image) if self.images.has_files(&image).await => image,
            _ if pull_if_missing => {
                let pulled = self.images.pull_within(reference, None, &self.task);
                pulled.await?
            }
            _ => {
                return Err(AppError::ImageMissing {
                    reference: reference.to_owned(),
                });
            }
        };
        crate::image::check_platform(&image, reference)?;
        Ok(image)
    }

    /// What a VM that was made before was resolved to.
    pub(super) async fn resolved(&self, vm: &Vm) -> Result<Resolved, AppError> {
        let missing = |resource| AppError::NotFound {
            resource,
            name: vm.spec.image.clone(),
        };
        let image = vm.image.ok_or_else(|| missing("image"))?;
        let kernel = vm.kernel.ok_or_else(|| missing("kernel"))?;
        let image = self.images.get(&image.to_string()).await?;
        if !self.images.has_files(&image).await {
            // A tag may name other content by now.
            let named = image.references.first().unwrap_or(&vm.spec.image);
            let name = named
                .split_once('@')
                .map_or(named.as_str(), |(name, _)| name);
            let reference = format!("{name}@{}", image.digest);
            return Err(AppError::ImageMissing { reference });
        }
        Ok(Resolved {
            image,
            kernel: self.kernels.get(&kernel.to_string()).await?,
        })
    }

    /// Boots a VM whose image and kernel are resolved, when it is its turn. On failure nothing of it runs, but for
    /// what the failure carries.
    pub(super) async fn boot(
        &self,
        vm: &Vm,
        resolved: &Resolved,
        ticket: Option<Ticket>,
        disk_turn: Turn,
    ) -> Result<Booted, BootFailure> {
        let ticket = ticket.ok_or(AppError::GivenUp {
            why: "the boot was not admitted",
        })?;
        let turn = self.unless_given_up(async { Ok(ticket.turn(vm.owner.clone()).await) });
        // Held until the guest is up, or nothing of it is left.
        let _slot = self.stage("queued", turn).await?;
        let identity = self.unless_given_up(self.identity(vm, &resolved.image));
        let identity = identity.await?;
        let disks = self.disks(disk_turn).make(vm, &self.cancel);
        let (attached, upper) = self.stage("disks", disks).await?;
        let initramfs = self.unless_given_up(self.initramfs(&resolved.kernel));
        let initramfs = self.stage("initramfs", initramfs).await?;
        let plan = self.plan(vm, resolved, initramfs);
        let probe = host::probe(&self.context, &plan.kernel, &plan.initramfs);
        self.stage("probe", self.unless_given_up(probe)).await?;
        let launched = Timestamp::now();
        let machine = match self.stage("launch", self.launch(plan)).await {
            Ok(machine) => machine,
            Err(error) => return Err(self.undo_launch(vm.id, attached, error).await),
        };
        let brought = self.bring_up(vm, resolved, machine.clone(), identity).await;
        match brought {
            Ok((guest, info)) => Ok(Booted {
                shape: self.shape(vm, &upper, &*guest).await,
                machine,
                guest,
                timing: self.timing(launched, &info),
                attached,
            }),
            Err(error) => {
                let error = host::blame_full_disk(&self.context, error);
                Err(self.undo_boot(vm.id, machine, attached, error).await)
            }
        }
    }

    /// What the kernel starts the agent from. Safe to drop: others may wait for the same, so it is made all the same.
    async fn initramfs(&self, kernel: &Kernel) -> Result<PathBuf, AppError> {
        let (kernels, kernel) = (self.kernels.clone(), kernel.clone());
        let making = async move { kernels.initramfs(&kernel).await };
        let made = self.context.tasks.spawn(making).await;
        made.unwrap_or(Err(AppError::Interrupted))
    }

    /// Who the guest's user is to be. Its credentials are read before anything runs.
    async fn identity(&self, vm: &Vm, image: &Image) -> Result<Option<GuestIdentity>, AppError> {
        let reading = setup::identity(&self.context, vm, image);
        match vm.spec.identity.credentials.as_slice() {
            [] => reading.await,
            _ => self.stage("credentials", reading).await,
        }
    }

    /// How large the machine is. A disk that was to grow and did not is as it was: the VM runs with it.
    async fn shape(&self, vm: &Vm, upper: &Upper, guest: &dyn Guest) -> Shape {
        let wanted = vm.spec.shape();
        let Upper::Kept { mib } = upper else {
            return wanted;
        };
        let grown = async { Ok(guest.grow_disk(grow::UPPER, wanted.disk_mib << 20).await?) };
        match self.unless_given_up(grown).await {
            Ok(()) => wanted,
            Err(error) => {
                tracing::error!(vm = %vm.id, error = banger_core::chain(&error), "the file system of a VM's disk does not grow");
                Shape {
                    disk_mib: wanted.disk_mib.min(*mib),
                    ..wanted
                }
            }
        }
    }

    fn disks(&self, turn: Turn) -> Disks {
        Disks {
            context: self.context.clone(),
            images: self.images.clone(),
            volumes: self.volumes.clone(),
            moved: self.disk.clone(),
            turn,
        }
    }

    fn plan(&self, vm: &Vm, resolved: &Resolved, initramfs: PathBuf) -> LaunchPlan {
        let drive = |path, access, serial: &str| Drive {
            path,
            access,
            serial: serial.to_owned(),
        };
        let mut drives = vec![
            drive(
                self.images.rootfs(&resolved.image),
                DriveAccess::ReadOnly,
                "base",
            ),
            drive(
                self.context.paths.upper_disk(vm.id),
                DriveAccess::ReadWrite,
                grow::UPPER,
            ),
        ];
        drives.extend(self.volumes.drives(&vm.spec.volumes));
        LaunchPlan {
            vm: vm.id,
            dir: self.context.paths.vm(vm.id),
            kernel: self.kernels.vmlinux(&resolved.kernel),
            initramfs,
            kernel_args: kernel_args(vm),
            vcpu_count: vm.spec.vcpu_count,
            memory_mib: vm.spec.memory_mib,
            drives,
            network: vm.spec.network,
            limits: Some(ProcessLimits::of(
                vm.spec.vcpu_count,
                vm.spec.memory_mib,
                self.context.config.vmm_memory_overhead_mib,
            )),
        }
    }

    async fn launch(&self, plan: LaunchPlan) -> Result<Arc<dyn Machine>, AppError> {
        self.unless_given_up(recorded::end(&self.context, plan.vm))
            .await?;
        launch::launch(&self.context, plan, &self.cancel).await
    }

    async fn bring_up(
        &self,
        vm: &Vm,
        resolved: &Resolved,
        machine: Arc<dyn Machine>,
        identity: Option<GuestIdentity>,
    ) -> Result<(Arc<dyn Guest>, GuestInfo), AppError> {
        let context = &*self.context;
        let hello = self.unless_given_up(self.hello(vm.id, &*machine));
        let (guest, info) = self.stage("boot", hello).await?;
        // First, since it mounts the volumes: what lay on their paths before would be hidden.
        let configure = setup::configure(context, vm, &resolved.image, &*guest);
        self.stage("configure", self.unless_given_up(configure))
            .await?;
        if !self.files.is_empty() {
            let write = self.unless_given_up(files::write(&*guest, &self.files));
            self.stage("files", write).await?;
        }
        if let Some(identity) = identity {
            let set = self.unless_given_up(setup::set_identity(context, &*guest, &identity));
            self.stage("identity", set).await?;
        }
        if !vm.spec.init.is_agent() {
            let start = self.unless_given_up(setup::start_init(context, &*guest));
            self.stage("init", start).await?;
        }
        Ok((guest, info))
    }

    /// Waits for the agent's first word. The VMM's end or the limit ends the waiting.
    async fn hello(
        &self,
        vm: VmId,
        machine: &dyn Machine,
    ) -> Result<(Arc<dyn Guest>, GuestInfo), AppError> {
        let limit = self.context.config.boot_timeout;
        let connected = link::connect(&self.context, vm, machine);
        tokio::select! {
            biased; // an agent that answered wins over a VMM that ended right after
            connected = connected => match connected {
                Ok(connected) => Ok(connected),
                // A broken channel is often the first sign of an end, which then explains it.
                Err(error) => match tokio::time::timeout(SIGN_TO_END, machine.wait()).await {
                    Ok(exit) => Err(self.ended(vm, &exit).await),
                    Err(_elapsed) => Err(error),
                },
            },
            // cancel-safe: `wait` loses nothing when dropped
            exit = machine.wait() => Err(self.ended(vm, &exit).await),
            () = tokio::time::sleep(limit) => Err(AppError::BootTimeout { limit, console: console_tail(&self.context, vm).await }),
        }
    }

    async fn ended(&self, vm: VmId, exit: &VmmExit) -> AppError {
        AppError::BootEnded {
            detail: super::describe_exit(exit),
            console: console_tail(&self.context, vm).await,
        }
    }

    /// Makes sure that nothing is left of a launch that failed or was given up.
    async fn undo_launch(&self, vm: VmId, attached: Attached, error: AppError) -> BootFailure {
        match recorded::find(&self.context, vm).await {
            Ok(Some(machine)) => self.undo_boot(vm, machine, attached, error).await,
            Ok(None) => {
                erase_process(&self.context, vm).await;
                error.into()
            }
            Err(why) => {
                // The driver has most likely killed it. Its runner looks until somebody knows.
                tracing::error!(%vm, error = banger_core::chain(&why), "could not find out whether the VMM of a failed launch is gone");
                BootFailure {
                    error,
                    left: Some(Box::new(Left::Unknown { why, attached })),
                }
            }
        }
    }

    /// Ends the VMM of a failed boot; where it does not end, the failure carries it.
    async fn undo_boot(
        &self,
        vm: VmId,
        machine: Arc<dyn Machine>,
        attached: Attached,
        error: AppError,
    ) -> BootFailure {
        // Nothing can hurry SIGKILL.
        let ladder = Ladder::hard(&self.context.config, machine.clone());
        match ladder.climb(&CancellationToken::new()).await {
            Ok(_) => {
                erase_process(&self.context, vm).await;
                error.into()
            }
            Err(stuck) => {
                tracing::error!(%vm, error = banger_core::chain(&stuck), "could not end the VMM of a failed boot");
                BootFailure {
                    error,
                    left: Some(Box::new(Left::Vmm { machine, attached })),
                }
            }
        }
    }

    /// The operation's stages, then the guest's own steps, laid end to end from the launch on.
    fn timing(&self, launched: Timestamp, info: &GuestInfo) -> Vec<Stage> {
        let mut timing = self.task.stages();
        let mut at = launched;
        for (name, took) in &info.boot_steps {
            let took = SignedDuration::try_from(*took).unwrap_or(SignedDuration::ZERO);
            let end = at.checked_add(took).unwrap_or(at);
            let key = StageKey::new(&format!("guest-{name}"));
            timing.push(Stage {
                key,
                start_time: at,
                end_time: Some(end),
                done_bytes: 0,
                total_bytes: None,
            });
            at = end;
        }
        timing
    }
}

fn kernel_args(vm: &Vm) -> Vec<String> {
    let mut words = setup::kernel_args(&vm.spec);
    if is_build(vm) {
        words.push(PLAIN_OVERLAY.to_owned());
    }
    words
}

/// The end of a VM's console, with control characters made harmless.
pub(super) async fn console_tail(context: &Context, vm: VmId) -> String {
    let console = context.vmm.console(&context.paths.vm(vm));
    let reading = async {
        // Beyond the end there is nothing but its offset.
        let end = console.read(u64::MAX, 1).await?.offset;
        tail(&*console, end.saturating_sub(CONSOLE_TAIL_BYTES as u64)).await
    };
    let tail = match tokio::time::timeout(CONSOLE_WITHIN, reading).await {
        Ok(Ok(tail)) => tail,
        // It explains an error: without it that is told all the same.
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    let text = String::from_utf8_lossy(&tail);
    text.chars()
        .filter(|c| *c == '\n' || !c.is_control())
        .collect::<String>()
        .trim()
        .to_owned()
}

/// What a console has from `offset` on, as much as a tail may have: one read ends with a segment of the log.
async fn tail(console: &dyn Console, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut tail = Vec::new();
    let mut at = offset;
    while tail.len() < CONSOLE_TAIL_BYTES {
        let chunk = console.read(at, CONSOLE_TAIL_BYTES - tail.len()).await?;
        if chunk.data.is_empty() {
            break;
        }
        at = chunk.offset + chunk.data.len() as u64;
        tail.extend_from_slice(&chunk.data);
    }
    Ok(tail)
}

/// Forgets a VM's process. A failure is logged: the next start of the daemon finds the process gone.
pub(super) async fn erase_process(context: &Context, vm: VmId) {
    if let Err(error) = context.store.erase_process(vm).await {
        tracing::error!(%vm, error = banger_core::chain(&error), "could not erase the record of a VMM");
    }
}

/// Puts what a VM wrote onto the host's disk: while it ran, the VMM left that to the page cache.
pub(super) async fn flush_disk(context: &Context, vm: VmId) -> std::io::Result<()> {
    match tokio::fs::File::open(context.paths.upper_disk(vm)).await {
        Ok(file) => file.sync_all().await,
        // It never got that far.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a VM's files, which nothing uses any more.
pub(super) async fn remove_files(context: &Context, vm: VmId) -> Result<(), AppError> {
    recorded::end(context, vm).await?;
    let path = context.paths.vm(vm);
    paths::remove_tree(path.clone())
        .await
        .map_err(|source| AppError::RemoveDirectory { path, source })
}
