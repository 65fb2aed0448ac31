//! Starting a Firecracker, so that at every instant it is either recorded, found as a stray, or killed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use banger_core::vmm::{LaunchPlan, NetworkPlan, VmmError, VmmExit};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use super::api::model::{Action, BootSource, Drive, Entropy, Metrics, Vsock};
use super::command::{self, API_SOCKET, LOG};
use super::doorstep::{self, Doorstep, VSOCK};
use super::jail::{self, Jail, JailUser, Sharing};
use super::machine::{Control, FirecrackerMachine, Supervised};
use super::{FirecrackerConfig, FirecrackerDriver, Found, Journal, metrics};
use crate::ceilings::{Ceilings, User};
use crate::console::ConsoleWriter;
use crate::dir::{VmDir, remove_if_there};
use crate::process::{self, Process};
use crate::{log, program, sys};

/// The pipe of the guest's console, in the process's root.
pub(super) const CONSOLE_PIPE: &str = "console.fifo";

/// How long a Firecracker that was killed has to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How long a broken connection waits for the news that the whole Firecracker ended.
const SIGN_TO_END: Duration = Duration::from_millis(500);

/// Between a socket's appearing and its listening lies one system call.
const LISTEN_PAUSE: Duration = Duration::from_millis(1);

/// The address of every guest: each has a vsock of its own. Below 3 are the host and nobody.
const GUEST_CID: u32 = 3;

/// Finds what every launch needs.
pub(super) async fn find(config: &FirecrackerConfig) -> Result<Found, VmmError> {
    let located = |path: &Path, key| {
        program::find(path).ok_or_else(|| VmmError::ReleaseMissing {
            program: path.display().to_string(),
            key,
        })
    };
    let program = located(&config.program, "firecracker")?;
    let is_jailed = rustix::process::geteuid().is_root() && config.jailer != Path::new("");
    let jailer = match is_jailed {
        true => Some(located(&config.jailer, "jailer")?),
        false => None,
    };
    Ok(Found {
        version: program::version_or_unknown(&program).await?,
        // The jailer names the jail by what links lead to.
        program: program.canonicalize().unwrap_or(program),
        jailer,
    })
}

/// Starts Firecracker for `plan`. Dropped half-way, it leaves no process.
pub(super) async fn launch(
    driver: &FirecrackerDriver,
    found: &Found,
    plan: &LaunchPlan,
    journal: &Journal<'_>,
) -> Result<FirecrackerMachine, VmmError> {
    check(plan)?;
    let prepared =
        Prepared::make(driver, found, plan).map_err(|source| not_started(found, source))?;
    let held = prepared.spawn(driver, found, plan)?;
    match held.start_guest(driver, plan, journal).await {
        Ok(control) => Ok(held.release(control)),
        Err(error) => {
            held.kill_and_wait().await;
            Err(error)
        }
    }
}

/// Refuses what Firecracker cannot do, before anything is made.
fn check(plan: &LaunchPlan) -> Result<(), VmmError> {
    match plan.network {
        NetworkPlan::None => {}
        NetworkPlan::User => {
            return Err(VmmError::Unsupported {
                what: "the user-mode network",
                driver: "firecracker",
                remedy: "Give the VM another network mode (`--network none`), or set driver = \"qemu\" or \"auto\" in the \
                         daemon's configuration: QEMU has a user-mode network.",
            });
        }
    }
    let refused = |detail: String| VmmError::Refused {
        during: "launch",
        detail,
    };
    if let Some(drive) = plan
        .drives
        .iter()
        .find(|drive| !command::is_drive_name(&drive.serial))
    {
        return Err(refused(format!(
            "`{}` cannot be a disk's name under Firecracker: letters, digits, `-`, `_` and `.` can",
            drive.serial
        )));
    }
    let length = command::kernel_line(plan).len();
    if length > command::MAX_KERNEL_LINE {
        return Err(refused(format!(
            "the guest kernel's command line has {length} bytes; {} fit",
            command::MAX_KERNEL_LINE
        )));
    }
    Ok(())
}

/// Where a process is: its root, which is its VM's directory where there is no jail.
#[derive(Debug)]
pub(super) struct Home {
    /// As the host sees it.
    pub(super) root: PathBuf,
    pub(super) dir: VmDir,
    pub(super) user: Option<JailUser>,
}

impl Home {
    pub(super) fn open(root: PathBuf, user: Option<JailUser>) -> io::Result<Self> {
        Ok(Self {
            dir: VmDir::open(&root)?,
            root,
            user,
        })
    }

    /// A file as the host sees it, by the path that the process knows.
    pub(super) fn on_host(&self, path: &str) -> PathBuf {
        match (self.user, path.strip_prefix('/')) {
            (Some(_), Some(below)) => self.root.join(below),
            _ => self.root.join(path),
        }
    }
}

/// What exists before the process does.
struct Prepared {
    home: Home,
    jail: Option<Jail>,
    boot: BootSource,
    drives: Vec<Drive>,
    doorstep: Doorstep,
    console: ConsoleWriter,
    pipes: Pipes,
    /// Tells when the API's socket appears.
    watch: AsyncFd<std::os::fd::OwnedFd>,
    log: File,
    log_start: u64,
}

/// The pipes' reading ends, and the console's writing end for the process.
struct Pipes {
    console: pipe::Receiver,
    metrics: pipe::Receiver,
    console_writer: File,
}

impl Prepared {
    fn make(driver: &FirecrackerDriver, found: &Found, plan: &LaunchPlan) -> io::Result<Self> {
        let mut console = ConsoleWriter::open(&plan.dir, driver.config.console_max_bytes)?;
        if !console.is_empty() {
            console.mark("the VM was started again");
        }
        let (log, log_start) = log::open(&plan.dir)?;
        remove_if_there(&plan.dir.join(LOG))?;
        let own_log = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(plan.dir.join(LOG))?;
        drop(own_log);
        let jail = match found.jailer {
            Some(_) => Some(driver.users.make(plan.vm, &plan.dir, &found.program)?),
            None => {
                jail::clear(&plan.dir)?;
                None
            }
        };
        let root = jail.as_ref().map_or(&plan.dir, |jail| &jail.root).clone();
        let home = Home::open(root, jail.as_ref().map(|jail| jail.user))?;
        doorstep::sweep(&home.dir, API_SOCKET)?;
        let pipes = Pipes::make(&home.root, jail.as_ref())?;
        let (boot, drives) = files(plan, jail.as_ref())?;
        Ok(Self {
            doorstep: Doorstep::open(&home.dir, home.user)?,
            watch: watch(&home.root)?,
            home,
            jail,
            boot,
            drives,
            console,
            pipes,
            log,
            log_start,
        })
    }

    /// Starts the process. No await between here and the guard that kills it.
    fn spawn(
        self,
        driver: &FirecrackerDriver,
        found: &Found,
        plan: &LaunchPlan,
    ) -> Result<Held, VmmError> {
        let failed = |source| not_started(found, source);
        let mut command = match (&found.jailer, &self.jail) {
            (Some(jailer), Some(jail)) => {
                let mut command = Command::new(jailer);
                command.args(command::jailer_arguments(plan, &found.program, jail));
                command
            }
            _ => {
                let mut command = Command::new(&found.program);
                command.args(command::arguments(plan));
                command
            }
        };
        command
            .current_dir(&plan.dir)
            // The daemon's environment may hold secrets, and a guest may take Firecracker over.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(self.pipes.console_writer)
            .stderr(self.log);
        sys::detach_with_files(&mut command, Vec::new());
        let user = match &self.jail {
            Some(_) => User::Own,
            None => User::Shared,
        };
        let ceilings = Ceilings::of(driver.cgroups(), plan, user);
        let mut child = ceilings.spawn(&mut command, plan).map_err(failed)?;
        let process = match Process::of_child(child.id()) {
            Ok(process) => process,
            Err(source) => {
                // It has ended already, or cannot be held: either way it must not stay.
                let killed = child.kill().and_then(|()| child.wait());
                tracing::debug!(?killed, "a Firecracker that could not be held is gone");
                ceilings.undo();
                let detail = log::tail(&plan.dir, self.log_start);
                return Err(match detail.is_empty() {
                    true => failed(source),
                    false => VmmError::EndedEarly { detail },
                });
            }
        };
        let supervised = Supervised::start(
            driver,
            process,
            (plan.vm, plan.dir.clone(), self.log_start),
            self.doorstep,
            ceilings.into_holder(),
        );
        supervised.follow_console(self.pipes.console, self.console);
        supervised.follow_metrics(self.pipes.metrics);
        Ok(Held {
            supervised: Some(supervised),
            home: Some(self.home),
            boot: self.boot,
            drives: self.drives,
            watch: self.watch,
        })
    }
}

impl Pipes {
    fn make(root: &Path, jail: Option<&Jail>) -> io::Result<Self> {
        for name in [CONSOLE_PIPE, metrics::PIPE] {
            let path = root.join(name);
            remove_if_there(&path)?;
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        }
        // Firecracker opens this one by itself; the console it inherits.
        jail.map_or(Ok(()), |jail| jail.give(metrics::PIPE))?;
        Ok(Self {
            console: open_console(root)?,
            metrics: metrics::open(root)?,
            // Opened for both, so that it never breaks, whoever reads; without blocking, so that the guest never waits.
            console_writer: OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default())
                .open(root.join(CONSOLE_PIPE))?,
        })
    }
}

/// Opens the console's pipe for reading.
pub(super) fn open_console(root: &Path) -> io::Result<pipe::Receiver> {
    pipe::OpenOptions::new().open_receiver(root.join(CONSOLE_PIPE))
}

/// The files of a VM, by the paths that its process knows; linked into its jail, where it has one.
fn files(plan: &LaunchPlan, jail: Option<&Jail>) -> io::Result<(BootSource, Vec<Drive>)> {
    let put = |path: &Path, name: &str, sharing| match jail {
        Some(jail) => jail.put(path, name, sharing),
        None => path.to_str().map(str::to_owned).ok_or_else(|| {
            io::Error::other(format!(
                "`{}` is not UTF-8, as Firecracker's API is",
                path.display()
            ))
        }),
    };
    if let Some(jail) = jail {
        jail.put(&plan.dir.join(LOG), LOG, Sharing::Own)?;
    }
    let boot = BootSource {
        kernel_image_path: put(&plan.kernel, "kernel", Sharing::Shared)?,
        initrd_path: Some(put(&plan.initramfs, "initramfs", Sharing::Shared)?),
        boot_args: Some(command::kernel_line(plan)),
    };
    let mut drives = Vec::new();
    for (index, drive) in plan.drives.iter().enumerate() {
        let sharing = match drive.access {
            banger_core::vmm::DriveAccess::ReadOnly => Sharing::Shared,
            banger_core::vmm::DriveAccess::ReadWrite => Sharing::Own,
        };
        let path = put(&drive.path, &command::drive_id(index), sharing)?;
        drives.push(command::drive(index, path, drive.access));
    }
    Ok((boot, drives))
}

fn watch(root: &Path) -> io::Result<AsyncFd<std::os::fd::OwnedFd>> {
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, root, WatchFlags::CREATE)?;
    sys::watch(watch)
}

/// A Firecracker that is killed when dropped.
struct Held {
    supervised: Option<Supervised>,
    home: Option<Home>,
    boot: BootSource,
    drives: Vec<Drive>,
    watch: AsyncFd<std::os::fd::OwnedFd>,
}

impl Held {
    fn supervised(&self) -> &Supervised {
        self.supervised.as_ref().expect("it is held until released")
    }

    fn home(&self) -> &Home {
        self.home.as_ref().expect("it is held until released")
    }

    fn release(mut self, control: Control) -> FirecrackerMachine {
        let supervised = self.supervised.take().expect("it is released once");
        let home = self.home.take().expect("it is released once");
        FirecrackerMachine::new(supervised, home, control)
    }

    /// Waits for the API, configures the process, records it and lets its guest run.
    async fn start_guest(
        &self,
        driver: &FirecrackerDriver,
        plan: &LaunchPlan,
        journal: &Journal<'_>,
    ) -> Result<Control, VmmError> {
        let exit = self.supervised().exit();
        let started = tokio::select! {
            biased; // an exit explains the failure of everything else
            // cancel-safe: looks at a level
            exit = exit.gone() => return Err(early(exit)),
            // cancel-safe: what is dropped here is not used again
            started = self.start_guest_of_living(driver, plan, journal) => started,
        };
        match started {
            Err(error @ VmmError::Control { .. }) => {
                // A broken connection is often the first sign of an end, which is then the better explanation.
                match tokio::time::timeout(SIGN_TO_END, exit.gone()).await {
                    Ok(exit) => Err(early(exit)),
                    Err(_elapsed) => Err(error),
                }
            }
            started => started,
        }
    }

    async fn start_guest_of_living(
        &self,
        driver: &FirecrackerDriver,
        plan: &LaunchPlan,
        journal: &Journal<'_>,
    ) -> Result<Control, VmmError> {
        const STEP: &str = "its start";
        let limit = driver.config.launch_timeout;
        let answers = tokio::time::timeout(limit, self.answers()).await;
        let answers = answers.map_err(|_elapsed| VmmError::Deadline {
            during: STEP,
            limit,
        })?;
        let failed = |source| VmmError::Control {
            during: STEP,
            source,
        };
        answers.map_err(failed)?;
        // The jailer has become Firecracker only now, under the same pid.
        let process = &self.supervised().process;
        let identity = process::identify(process.identity().pid).map_err(failed)?;
        if identity.start_ticks != process.identity().start_ticks {
            return Err(VmmError::Gone);
        }
        let control = Control::new(driver, self.supervised(), self.home(), identity)?;
        self.configure(&control, plan).await?;
        // Whoever adopts a recorded process can let its guest run without knowing the plan.
        journal(control.identity()).map_err(|source| VmmError::Journal { source })?;
        let holder = &self.supervised().holder;
        let pid = control.identity().pid;
        holder.enter_scope(&driver.scopes, plan, pid).await;
        control
            .put_within(limit, "InstanceStart", "/actions", &Action::InstanceStart)
            .await?;
        Ok(control)
    }

    /// Resolves when the API's socket takes connections.
    async fn answers(&self) -> io::Result<()> {
        let mut events = [0_u8; 1024];
        loop {
            match self.home().dir.connect(API_SOCKET).await {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    tokio::time::sleep(LISTEN_PAUSE).await;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let mut ready = self.watch.readable().await?;
                    while rustix::io::read(self.watch.get_ref(), &mut events).is_ok() {}
                    ready.clear_ready();
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn configure(&self, control: &Control, plan: &LaunchPlan) -> Result<(), VmmError> {
        control
            .put("machine", "/machine-config", &command::machine(plan))
            .await?;
        control.put("kernel", "/boot-source", &self.boot).await?;
        for drive in &self.drives {
            let path = format!("/drives/{}", drive.drive_id);
            control.put("disk", &path, drive).await?;
        }
        let vsock = Vsock {
            guest_cid: GUEST_CID,
            uds_path: VSOCK,
        };
        control.put("vsock", "/vsock", &vsock).await?;
        control
            .put("balloon", "/balloon", &command::balloon())
            .await?;
        control.put("entropy", "/entropy", &Entropy {}).await?;
        let metrics = Metrics {
            metrics_path: metrics::PIPE,
        };
        control.put("metrics", "/metrics", &metrics).await
    }

    async fn kill_and_wait(self) {
        let killed = self.kill();
        // The supervisor reaps it; should the kernel not let it go, the caller's error says enough.
        let gone = tokio::time::timeout(KILL_LIMIT, self.supervised().exit().gone()).await;
        tracing::debug!(
            ?killed,
            ?gone,
            "a Firecracker that was not wanted was killed"
        );
    }

    fn kill(&self) -> io::Result<bool> {
        self.supervised.as_ref().map_or(Ok(false), |held| {
            held.process.signal(rustix::process::Signal::KILL)
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::error!(%error, "a Firecracker that was not wanted could not be killed");
        }
    }
}

fn early(exit: VmmExit) -> VmmError {
    match exit {
        VmmExit::Other { detail } => VmmError::EndedEarly { detail },
        VmmExit::MemoryLimit { limit_mib } => VmmError::EndedEarly {
            detail: format!("it wanted more than the {limit_mib} MiB of memory that it may have"),
        },
        VmmExit::GuestPowerOff | VmmExit::GuestReset => VmmError::EndedEarly {
            detail: "before its guest ran".into(),
        },
    }
}

fn not_started(found: &Found, source: io::Error) -> VmmError {
    let program = found.jailer.as_ref().unwrap_or(&found.program);
    VmmError::Spawn {
        program: program.display().to_string(),
        source,
    }
}

/// What Firecracker said of its own end, in the log that it writes itself.
pub(super) fn last_words(dir: &Path) -> String {
    let bytes = fs::read(dir.join(LOG)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    line.unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(LAST_WORDS_MAX)
        .collect()
}

/// The most characters of its own log that an exit carries.
const LAST_WORDS_MAX: usize = 300;
