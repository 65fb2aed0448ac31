//! Starting a QEMU, so that at every instant it is either recorded, found as a stray, or killed.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use banger_core::vmm::{Accelerator, LaunchPlan, VmmError, VmmExit};
use rustix::process::Signal;
use tokio::net::UnixStream;

use super::command::{self, Host, Sockets};
use super::machine::{Control, QemuMachine, Supervised};
use super::qmp::Qmp;
use super::{Found, Journal, QemuConfig, QemuDriver, tsc};
use crate::ceilings::{Ceilings, User};
use crate::console::ConsoleWriter;
use crate::dir::VmDir;
use crate::process::Process;
use crate::{log, program, sys};

/// What to install where QEMU is missing.
pub(super) const PROGRAM_PACKAGE: &str = "qemu-system-x86";

/// What to install where the firmware is missing.
pub(super) const FIRMWARE_PACKAGE: &str = "qemu-system-data";

/// Where distributions put qboot.
pub(super) const FIRMWARE_PLACES: [&str; 4] = [
    "/usr/share/qemu/qboot.rom",
    "/usr/local/share/qemu/qboot.rom",
    "/usr/share/qemu/bios-microvm.bin",
    "/usr/share/qboot/bios.bin",
];

/// How long a QEMU that was killed has to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How long a broken connection waits for the news that the whole QEMU ended.
const SIGN_TO_END: Duration = Duration::from_millis(500);

/// The names of the sockets in a VM's directory.
pub(super) const SOCKETS: Sockets<&str> = Sockets {
    control: "qmp.sock",
    agent: "agent.sock",
    console: "console.sock",
};

/// Finds what every launch needs.
pub(super) async fn find(config: &QemuConfig) -> Result<Found, VmmError> {
    let program = program::find(&config.program).ok_or_else(|| VmmError::ProgramMissing {
        program: config.program.display().to_string(),
        package: PROGRAM_PACKAGE,
    })?;
    let firmware = FIRMWARE_PLACES
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file());
    let firmware = firmware.ok_or_else(|| VmmError::FileMissing {
        path: FIRMWARE_PLACES[0].into(),
        package: FIRMWARE_PACKAGE,
    })?;
    let measured = tokio::task::spawn_blocking(tsc::measure_khz);
    let version = program::version_or_unknown(&program).await?;
    let tsc_khz = measured.await.ok();
    Ok(Found {
        program,
        firmware,
        version,
        tsc_khz,
    })
}

/// Starts QEMU for `plan`. Dropped half-way, it leaves no process.
pub(super) async fn launch(
    driver: &QemuDriver,
    found: &Found,
    plan: &LaunchPlan,
    accelerator: Accelerator,
    journal: &Journal<'_>,
) -> Result<QemuMachine, VmmError> {
    let prepared =
        Prepared::make(driver, plan).map_err(|source| not_started(&found.program, source))?;
    let (held, console) = prepared.spawn(driver, found, plan, accelerator)?;
    match start_guest(driver, plan, &held, console, journal).await {
        Ok((control, dir)) => {
            let control = Control::new(Some(control), driver.config.control_timeout);
            Ok(QemuMachine::new(held.release(), dir, control))
        }
        Err(error) => {
            held.kill_and_wait().await;
            Err(error)
        }
    }
}

/// What exists before the process does.
struct Prepared {
    dir: VmDir,
    listeners: Sockets<OwnedFd>,
    console: ConsoleWriter,
    log: fs::File,
    log_start: u64,
}

impl Prepared {
    fn make(driver: &QemuDriver, plan: &LaunchPlan) -> io::Result<Self> {
        let dir = VmDir::open(&plan.dir)?;
        let mut console = ConsoleWriter::open(&plan.dir, driver.config.console_max_bytes)?;
        if !console.is_empty() {
            console.mark("the VM was started again");
        }
        let (log, log_start) = log::open(&plan.dir)?;
        let listeners = Sockets {
            control: dir.listen(SOCKETS.control)?.into(),
            agent: dir.listen(SOCKETS.agent)?.into(),
            console: dir.listen(SOCKETS.console)?.into(),
        };
        Ok(Self {
            dir,
            listeners,
            console,
            log,
            log_start,
        })
    }

    /// Starts the process with its guest held. No await between here and the guard that kills it.
    fn spawn(
        self,
        driver: &QemuDriver,
        found: &Found,
        plan: &LaunchPlan,
        accelerator: Accelerator,
    ) -> Result<(Held, ConsoleWriter), VmmError> {
        let failed = |source| not_started(&found.program, source);
        let sockets = Sockets {
            control: sys::number_in_child(&self.listeners.control),
            agent: sys::number_in_child(&self.listeners.agent),
            console: sys::number_in_child(&self.listeners.console),
        };
        let host = Host {
            firmware: &found.firmware,
            accelerator,
            tsc_khz: found.tsc_khz,
            sockets,
        };
        let mut command = Command::new(&found.program);
        command
            .args(command::arguments(plan, &host))
            .current_dir(&plan.dir)
            // The daemon's environment may hold secrets, and a guest may take QEMU over.
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::null())
            .stdout(self.log.try_clone().map_err(failed)?)
            .stderr(self.log);
        let Sockets {
            control,
            agent,
            console,
        } = self.listeners;
        sys::detach_with_files(&mut command, vec![control, agent, console]);
        let ceilings = Ceilings::of(driver.cgroups(), plan, User::Shared);
        let mut child = ceilings.spawn(&mut command, plan).map_err(failed)?;
        let process = match Process::of_child(child.id()) {
            Ok(process) => process,
            Err(source) => {
                // It has ended already, or cannot be held: either way it must not stay.
                let killed = child.kill().and_then(|()| child.wait());
                tracing::debug!(?killed, "a QEMU that could not be held is gone");
                ceilings.undo();
                return Err(
                    ended_early(&plan.dir, self.log_start).unwrap_or_else(|| failed(source))
                );
            }
        };
        let supervised = Supervised::start(
            driver,
            process,
            ceilings.into_holder(),
            plan.dir.clone(),
            self.log_start,
        );
        Ok((
            Held {
                supervised: Some(supervised),
                dir: Some(self.dir),
            },
            self.console,
        ))
    }
}

fn ended_early(dir: &Path, log_start: u64) -> Option<VmmError> {
    let detail = log::tail(dir, log_start);
    (!detail.is_empty()).then_some(VmmError::EndedEarly { detail })
}

/// A QEMU that is killed when dropped.
struct Held {
    supervised: Option<Supervised>,
    dir: Option<VmDir>,
}

impl Held {
    fn supervised(&self) -> &Supervised {
        self.supervised.as_ref().expect("it is held until released")
    }

    fn dir(&self) -> &VmDir {
        self.dir.as_ref().expect("it is held until the guest runs")
    }

    fn release(mut self) -> Supervised {
        self.supervised.take().expect("it is released once")
    }

    async fn kill_and_wait(self) {
        let killed = self.kill();
        // The supervisor reaps it; should the kernel not let it go, the caller's error says enough.
        let gone = tokio::time::timeout(KILL_LIMIT, self.supervised().gone()).await;
        tracing::debug!(?killed, ?gone, "a QEMU that was not wanted was killed");
    }
}

impl Held {
    fn kill(&self) -> io::Result<bool> {
        self.supervised
            .as_ref()
            .map_or(Ok(false), |held| held.process.signal(Signal::KILL))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::error!(%error, "a QEMU that was not wanted could not be killed");
        }
    }
}

/// Records the process, connects to it, and lets its guest run.
async fn start_guest(
    driver: &QemuDriver,
    plan: &LaunchPlan,
    held: &Held,
    console: ConsoleWriter,
    journal: &Journal<'_>,
) -> Result<(Arc<Qmp>, VmDir), VmmError> {
    let supervised = held.supervised();
    journal(supervised.process.identity()).map_err(|source| VmmError::Journal { source })?;
    let dir = held.dir();
    let limits = (driver.config.launch_timeout, driver.config.control_timeout);
    let connected = async {
        let pid = supervised.process.identity().pid;
        supervised
            .holder
            .enter_scope(&driver.scopes, plan, pid)
            .await;
        supervised.follow_console(connect(dir, SOCKETS.console, "console").await?, console);
        let stream = connect(dir, SOCKETS.control, "control").await?;
        let control = supervised.open_control(stream, limits).await?;
        control.execute("cont").await?;
        Ok(control)
    };
    let connected = tokio::select! {
        biased; // an exit explains the failure of everything else
        // cancel-safe: looks at a level
        exit = supervised.gone() => return Err(early(exit)),
        // cancel-safe: what is dropped here is not used again
        connected = connected => connected,
    };
    let control = match connected {
        Ok(control) => control,
        // A broken connection is often the first sign of an end, which is then the better explanation.
        Err(error) => match tokio::time::timeout(SIGN_TO_END, supervised.gone()).await {
            Ok(exit) => return Err(early(exit)),
            Err(_elapsed) => return Err(error),
        },
    };
    Ok((
        control,
        dir.try_clone().map_err(|source| VmmError::Control {
            during: "launch",
            source,
        })?,
    ))
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

async fn connect(dir: &VmDir, name: &str, during: &'static str) -> Result<UnixStream, VmmError> {
    let stream = dir.connect(name).await;
    stream.map_err(|source| VmmError::Control { during, source })
}

fn not_started(program: &Path, source: io::Error) -> VmmError {
    VmmError::Spawn {
        program: program.display().to_string(),
        source,
    }
}
