//! From a record to a running guest, in steps that undo themselves: any failure leaves no process and, for a
//! VM that was being made, no file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_core::guest::{Guest, GuestConfig, GuestInfo};
use banger_core::image::Image;
use banger_core::kernel::Kernel;
use banger_core::operation::{Progress, Stage, StageKey};
use banger_core::vm::Vm;
use banger_core::vmm::{Drive, DriveAccess, LaunchPlan, Machine};
use banger_core::{Name, SignedDuration, Timestamp, VmId};
use tokio_util::sync::CancellationToken;

use super::link;
use super::stop::Ladder;
use crate::Context;
use crate::error::AppError;
use crate::host;
use crate::image::Images;
use crate::kernel::Kernels;
use crate::operation::OperationTask;
use crate::paths;

/// How much of a console's end an error carries.
const CONSOLE_TAIL_BYTES: u64 = 2048;
/// The image label that names the kernel of its VMs, where nothing else does.
const KERNEL_LABEL: &str = "dev.banger.kernel";

/// For guests whose changes are told: directories are renamed by copying them.
const PLAIN_OVERLAY: &str = "banger.overlay=plain";

/// Whether a VM belongs to a build, which keeps what its steps write and nothing else.
fn is_build(vm: &Vm) -> bool {
    vm.spec.labels.contains_key(super::BUILD_LABEL)
}

/// What a boot works with.
#[derive(Clone)]
pub(super) struct Booter {
    pub(super) context: Arc<Context>,
    pub(super) images: Arc<Images>,
    pub(super) kernels: Arc<Kernels>,
    pub(super) task: Arc<OperationTask>,
    /// Given up by a later request.
    pub(super) cancel: CancellationToken,
    /// Becomes the VM's writable disk.
    pub(super) disk: Option<Arc<Path>>,
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

    /// The kernel of a VM that names none: its image's, else the host's default.
    async fn kernel_of(&self, image: &Image) -> Result<Kernel, AppError> {
        let label = || image.config.labels.get(KERNEL_LABEL).map(String::as_str);
        let Some(wanted) = image.kernel.as_ref().map(Name::as_str).or_else(label) else {
            return self.kernels.default().await?.ok_or(AppError::NoKernel);
        };
        match self.kernels.get(wanted).await {
            Err(AppError::NotFound { .. }) => Err(AppError::ImageKernelMissing {
                image: image
                    .references
                    .first()
                    .cloned()
                    .unwrap_or_else(|| image.id.to_string()),
                kernel: wanted.chars().take(banger_core::name::NAME_MAX).collect(),
            }),
            found => found,
        }
    }

    async fn image(&self, reference: &str, pull_if_missing: bool) -> Result<Image, AppError> {
        match self.images.find(reference).await? {
            Some(image) => Ok(image),
            None if pull_if_missing => self.images.pull_within(reference, &self.task).await,
            None => Err(AppError::ImageMissing {
                reference: reference.to_owned(),
            }),
        }
    }

    /// What a VM that was made before was resolved to.
    pub(super) async fn resolved(&self, vm: &Vm) -> Result<Resolved, AppError> {
        let missing = |resource| AppError::NotFound {
            resource,
            name: vm.spec.image.clone(),
        };
        let image = vm.image.ok_or_else(|| missing("image"))?;
        let kernel = vm.kernel.ok_or_else(|| missing("kernel"))?;
        Ok(Resolved {
            image: self.images.get(&image.to_string()).await?,
            kernel: self.kernels.get(&kernel.to_string()).await?,
        })
    }

    /// Boots a VM whose image and kernel are resolved. On failure nothing of it runs.
    pub(super) async fn boot(&self, vm: &Vm, resolved: &Resolved) -> Result<Booted, AppError> {
        self.stage("admit", async { host::admit(&self.context, &vm.spec) })
            .await?;
        self.stage("disks", self.disks(vm)).await?;
        let initramfs = self
            .stage("initramfs", self.kernels.initramfs(&resolved.kernel))
            .await?;
        let plan = self.plan(vm, resolved, initramfs);
        self.stage(
            "probe",
            host::probe(&self.context, &plan.kernel, &plan.initramfs),
        )
        .await?;
        let launched = Timestamp::now();
        let machine = self.stage("launch", self.launch(&plan)).await?;
        match self.bring_up(vm, resolved, machine.clone()).await {
            Ok((guest, info)) => Ok(Booted {
                machine,
                guest,
                timing: self.timing(launched, &info),
            }),
            Err(error) => {
                self.undo_launch(vm.id, machine).await;
                Err(error)
            }
        }
    }

    async fn disks(&self, vm: &Vm) -> Result<(), AppError> {
        let dir = self.context.paths.vm(vm.id);
        tokio::fs::create_dir_all(&dir)
            .await
            .map_err(|source| AppError::MakeDirectory { path: dir, source })?;
        let upper = self.context.paths.upper_disk(vm.id);
        if tokio::fs::try_exists(&upper).await.unwrap_or(false) {
            return Ok(());
        }
        if let Some(disk) = &self.disk {
            let moved = tokio::fs::rename(disk, &upper).await;
            return moved.map_err(|source| AppError::MakeDirectory {
                path: upper,
                source,
            });
        }
        self.images
            .create_upper(upper, vm.spec.disk_mib << 20)
            .await
    }

    fn plan(&self, vm: &Vm, resolved: &Resolved, initramfs: PathBuf) -> LaunchPlan {
        let drive = |path, access, serial: &str| Drive {
            path,
            access,
            serial: serial.to_owned(),
        };
        LaunchPlan {
            vm: vm.id,
            dir: self.context.paths.vm(vm.id),
            kernel: self.kernels.vmlinux(&resolved.kernel),
            initramfs,
            kernel_args: match is_build(vm) {
                true => vec![PLAIN_OVERLAY.to_owned()],
                false => Vec::new(),
            },
            vcpu_count: vm.spec.vcpu_count,
            memory_mib: vm.spec.memory_mib,
            drives: vec![
                drive(
                    self.images.rootfs(&resolved.image),
                    DriveAccess::ReadOnly,
                    "base",
                ),
                drive(
                    self.context.paths.upper_disk(vm.id),
                    DriveAccess::ReadWrite,
                    "upper",
                ),
            ],
            network: vm.spec.network,
        }
    }

    async fn launch(&self, plan: &LaunchPlan) -> Result<Arc<dyn Machine>, AppError> {
        let handle = tokio::runtime::Handle::current();
        let journal = |identity: &banger_core::vmm::ProcessIdentity| {
            // The driver calls this from its own blocking step: the row must be there before the guest runs.
            let put = self.context.store.put_process(plan.vm, identity);
            tokio::task::block_in_place(|| handle.block_on(put)).map_err(std::io::Error::other)
        };
        Ok(self.context.vmm.launch(plan, &journal).await?)
    }

    async fn bring_up(
        &self,
        vm: &Vm,
        resolved: &Resolved,
        machine: Arc<dyn Machine>,
    ) -> Result<(Arc<dyn Guest>, GuestInfo), AppError> {
        let hello = self.unless_given_up(self.hello(vm.id, &*machine));
        let (guest, info) = self.stage("boot", hello).await?;
        let configure =
            self.unless_given_up(configure(&self.context, vm, &resolved.image, &*guest));
        self.stage("configure", configure).await?;
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
            connected = connected => connected,
            // cancel-safe: `wait` loses nothing when dropped
            exit = machine.wait() => {
                let detail = super::describe_exit(&exit);
                Err(AppError::BootEnded { detail, console: console_tail(&self.context, vm).await })
            }
            () = tokio::time::sleep(limit) => Err(AppError::BootTimeout { limit, console: console_tail(&self.context, vm).await }),
        }
    }

    async fn undo_launch(&self, vm: VmId, machine: Arc<dyn Machine>) {
        // Nothing can hurry SIGKILL.
        match Ladder::hard(&self.context.config, machine)
            .climb(&CancellationToken::new())
            .await
        {
            Ok(_) => erase_process(&self.context, vm).await,
            Err(error) => {
                tracing::error!(%vm, error = banger_core::chain(&error), "could not end the VMM of a failed boot");
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

/// Tells a guest who it is. Done after each boot, and again after a daemon's restart that came in between.
pub(super) async fn configure(
    context: &Context,
    vm: &Vm,
    image: &Image,
    guest: &dyn Guest,
) -> Result<(), AppError> {
    let limit = context.config.configure_timeout;
    let mut env: std::collections::BTreeMap<String, String> =
        image.config.env.iter().cloned().collect();
    env.extend(vm.spec.env.clone());
    let config = GuestConfig {
        hostname: vm.spec.name.to_string(),
        env,
        user: image.config.user.clone(),
        working_dir: image.config.working_dir.clone(),
        network: vm.spec.network.guest_network(),
        keep_pristine: is_build(vm),
    };
    let configured = tokio::time::timeout(limit, guest.configure(&config)).await;
    let configured = configured.unwrap_or(Err(banger_core::guest::GuestError::Deadline {
        during: "configure",
        limit,
    }));
    configured.map_err(|source| AppError::Configure { source })
}

/// The end of a VM's console, with control characters made harmless.
pub(super) async fn console_tail(context: &Context, vm: VmId) -> String {
    let console = context.vmm.console(&context.paths.vm(vm));
    let mut offset = 0;
    let mut tail = Vec::new();
    // Bounded by the console's own bound.
    while let Ok(chunk) = console.read(offset, 1 << 20).await {
        if chunk.data.is_empty() {
            break;
        }
        offset = chunk.offset + chunk.data.len() as u64;
        tail.extend_from_slice(&chunk.data);
        let excess = tail
            .len()
            .saturating_sub(usize::try_from(CONSOLE_TAIL_BYTES).unwrap_or(usize::MAX));
        tail.drain(..excess);
    }
    let text = String::from_utf8_lossy(&tail);
    text.chars()
        .filter(|c| *c == '\n' || !c.is_control())
        .collect::<String>()
        .trim()
        .to_owned()
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

/// Removes a VM's files.
pub(super) async fn remove_files(context: &Context, vm: VmId) -> Result<(), AppError> {
    let path = context.paths.vm(vm);
    paths::remove_tree(path.clone())
        .await
        .map_err(|source| AppError::RemoveDirectory { path, source })
}
