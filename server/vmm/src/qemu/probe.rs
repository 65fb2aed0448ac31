//! Finding out by trying whether KVM can run the guest kernel.
//!
//! A `/dev/kvm` that opens is no proof: on some hosts it hangs or kills every guest. So the guest kernel is
//! booted once with its initramfs and no disk, until its agent speaks or a deadline passes. The answer is
//! remembered per boot of the host, QEMU's version, kernel and initramfs, in memory and in a file. Callers
//! that ask at the same time share one try.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_core::vmm::{Accelerator, LaunchPlan, Machine, NetworkPlan, VmmError, VmmExit};
use banger_core::{VmId, chain};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::machine::QemuMachine;
use super::{AcceleratorChoice, Found, QemuDriver};
use crate::console::ConsoleLog;
use crate::process::{find_strays, host_boot_id, kill_exactly};

/// Below the driver's directory.
const FILE: &str = "accelerators.json";

/// Before the random rest of the name of a try's directory, which lies in the driver's.
const DIR_PREFIX: &str = "probe-";

/// The most answers that are remembered; older ones go.
const MAX_REMEMBERED: usize = 32;

/// The device by which KVM is reached.
const DEVICE: &str = "/dev/kvm";

/// Guest memory of a try.
const MEMORY_MIB: u64 = 256;

/// The most of the console that a failed try is explained with.
const MAX_LAST_WORDS: usize = 200;

/// How long a QEMU that was killed has to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// What runs guests here, and why not something better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) accelerator: Accelerator,
    pub(super) warning: Option<String>,
}

/// What an answer holds for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key {
    host_boot_id: String,
    program: PathBuf,
    version: String,
    kernel: FileKey,
    initramfs: FileKey,
}

/// A file's content, as far as its metadata tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct FileKey {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified_ns: i128,
}

impl FileKey {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000
                + i128::from(metadata.mtime_nsec()),
        })
    }
}

/// Whether KVM works; an error is why it does not.
type Tried = Result<(), String>;

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    key: Key,
    /// Absent where KVM works.
    failure: Option<String>,
}

/// The answers that are known.
#[derive(Debug)]
pub(super) struct Accelerators {
    state_dir: PathBuf,
    /// Held during a try, so that there is one at a time.
    known: Mutex<HashMap<Key, Tried>>,
}

impl Accelerators {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            known: Mutex::default(),
        }
    }

    /// What runs `kernel` here. Safe to drop: a try that nobody awaits is ended.
    pub(super) async fn answer(
        &self,
        driver: &QemuDriver,
        found: &Found,
        kernel: &Path,
        initramfs: &Path,
    ) -> Result<Answer, VmmError> {
        let choice = driver.config.accelerator;
        if choice == AcceleratorChoice::Tcg {
            return Ok(Answer {
                accelerator: Accelerator::Tcg,
                warning: None,
            });
        }
        let tried = match device_opens() {
            Ok(()) => self.tried(driver, found, kernel, initramfs).await?,
            failure => failure,
        };
        match (tried, choice) {
            (Ok(()), _) => Ok(Answer {
                accelerator: Accelerator::Kvm,
                warning: None,
            }),
            (Err(detail), AcceleratorChoice::Kvm) => Err(VmmError::NoAccelerator {
                detail: format!("KVM: {detail}"),
            }),
            (Err(detail), AcceleratorChoice::Auto | AcceleratorChoice::Tcg) => Ok(Answer {
                accelerator: Accelerator::Tcg,
                warning: Some(format!(
                    "KVM cannot be used here ({detail}); QEMU translates the guest's instructions instead, \
                     which is many times slower"
                )),
            }),
        }
    }

    async fn tried(
        &self,
        driver: &QemuDriver,
        found: &Found,
        kernel: &Path,
        initramfs: &Path,
    ) -> Result<Tried, VmmError> {
        let key = key(found, kernel, initramfs)?;
        let mut known = self.known.lock().await;
        if let Some(tried) = known.get(&key) {
            return Ok(tried.clone());
        }
        let tried = match self.recall(&key) {
            Some(tried) => tried,
            None => {
                let tried = self.boot(driver, kernel, initramfs).await?;
                if let Err(detail) = &tried {
                    tracing::warn!(%detail, "KVM cannot run the guest kernel");
                }
                self.remember(&key, &tried);
                tried
            }
        };
        known.insert(key, tried.clone());
        Ok(tried)
    }

    /// Boots once under KVM. Leaves no process and no file, however it ends.
    async fn boot(
        &self,
        driver: &QemuDriver,
        kernel: &Path,
        initramfs: &Path,
    ) -> Result<Tried, VmmError> {
        let dir = tempfile::Builder::new()
            .prefix(DIR_PREFIX)
            .tempdir_in(&self.state_dir);
        let dir = dir.map_err(|source| VmmError::Control {
            during: "probe",
            source,
        })?;
        let plan = LaunchPlan {
            vm: VmId::new(),
            dir: dir.path().to_owned(),
            kernel: kernel.to_owned(),
            initramfs: initramfs.to_owned(),
            kernel_args: Vec::new(),
            vcpu_count: 1,
            memory_mib: MEMORY_MIB,
            drives: Vec::new(),
            network: NetworkPlan::None,
        };
        let machine = match driver
            .start(&plan, Accelerator::Kvm, &|_identity| Ok(()))
            .await
        {
            Ok(machine) => Killed(machine),
            Err(error) => return Ok(Err(chain(&error))),
        };
        let limit = driver.config.probe_timeout;
        let heard = tokio::time::timeout(limit, machine.0.hear_agent()).await;
        let tried = match heard {
            Ok(Ok(())) => Ok(()),
            Ok(Err(VmmError::Gone)) => Err(describe(&machine.0.wait().await, dir.path())),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_elapsed) => Err(format!(
                "the guest kernel did not reach its agent within {limit:?}{}",
                last_words(dir.path())
            )),
        };
        machine.end().await;
        Ok(tried)
    }

    fn recall(&self, key: &Key) -> Option<Tried> {
        let remembered = self
            .load()
            .into_iter()
            .find(|remembered| remembered.key == *key)?;
        Some(remembered.failure.map_or(Ok(()), Err))
    }

    /// An unreadable file is as good as none: the worst is one more try.
    fn load(&self) -> Vec<Remembered> {
        let bytes = fs::read(self.state_dir.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn remember(&self, key: &Key, tried: &Tried) {
        let mut all = self.load();
        all.retain(|remembered| remembered.key != *key);
        all.push(Remembered {
            key: key.clone(),
            failure: tried.clone().err(),
        });
        let excess = all.len().saturating_sub(MAX_REMEMBERED);
        all.drain(..excess);
        if let Err(error) = self.store(&all) {
            tracing::warn!(%error, "which accelerator works could not be remembered");
        }
    }

    fn store(&self, all: &[Remembered]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.state_dir)?;
        serde_json::to_writer(&mut file, all)?;
        file.persist(self.state_dir.join(FILE))?;
        Ok(())
    }
}

/// Ends the tries that a daemon left which died during them.
pub(super) fn sweep(state_dir: &Path) {
    // Where nothing can be listed nothing was left.
    let Ok(state_dir) = state_dir.canonicalize() else {
        return;
    };
    let is_try = |dir: &Path| {
        let name = dir.file_name().and_then(|name| name.to_str());
        dir.parent() == Some(&state_dir) && name.is_some_and(|name| name.starts_with(DIR_PREFIX))
    };
    let strays = find_strays(&state_dir).unwrap_or_default();
    for stray in strays.iter().filter(|stray| is_try(&stray.dir)) {
        let killed = kill_exactly(&stray.identity);
        tracing::warn!(
            pid = stray.identity.pid,
            ?killed,
            "a probe of an earlier daemon was still running"
        );
    }
    let entries = fs::read_dir(&state_dir).into_iter().flatten().flatten();
    for dir in entries
        .map(|entry| entry.path())
        .filter(|path| is_try(path))
    {
        if let Err(error) = fs::remove_dir_all(&dir) {
            tracing::warn!(dir = %dir.display(), %error, "what an earlier probe left cannot be removed");
        }
    }
}

/// Kills its machine when dropped.
struct Killed(QemuMachine);

impl Killed {
    async fn end(self) {
        let killed = self.0.kill();
        let gone = tokio::time::timeout(KILL_LIMIT, self.0.wait()).await;
        tracing::debug!(?killed, ?gone, "the probe ended");
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill() {
            tracing::error!(%error, "the probe's QEMU could not be killed");
        }
    }
}

/// Whether this user may use the device at all.
fn device_opens() -> Tried {
    let opened = fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    opened.map(drop).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{DEVICE}: permission denied; add the daemon's user to the group that owns it")
        }
        _ => format!("{DEVICE}: {error}"),
    })
}

fn key(found: &Found, kernel: &Path, initramfs: &Path) -> Result<Key, VmmError> {
    let read = || -> io::Result<Key> {
        Ok(Key {
            host_boot_id: host_boot_id()?,
            program: found.program.clone(),
            version: found.version.clone(),
            kernel: FileKey::of(kernel)?,
            initramfs: FileKey::of(initramfs)?,
        })
    };
    read().map_err(|source| VmmError::Control {
        during: "probe",
        source,
    })
}

fn describe(exit: &VmmExit, dir: &Path) -> String {
    match exit {
        VmmExit::GuestPowerOff => "the guest powered off before its agent spoke".into(),
        VmmExit::GuestReset => format!("the guest reset before its agent spoke{}", last_words(dir)),
        VmmExit::Other { detail } => format!("QEMU ended: {detail}"),
    }
}

fn last_words(dir: &Path) -> String {
    let bytes = ConsoleLog::of(dir).tail(MAX_LAST_WORDS).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let words: String = text
        .split(|character: char| character.is_control())
        .collect::<Vec<_>>()
        .join(" ");
    match words.trim() {
        "" => String::new(),
        words => format!("; its last words: {words}"),
    }
}

#[cfg(test)]
mod tests;
