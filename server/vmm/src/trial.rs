//! Whether a way to run guests really works: tried once by booting the guest kernel, and remembered.
//!
//! A device that opens is no proof: on some hosts KVM hangs or kills every guest. An answer holds for a boot
//! of the host, a program with its version, a kernel and an initramfs; it is kept in memory and in a file.
//! Callers that ask at the same time share one try.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_core::vmm::{LaunchPlan, Machine, NetworkPlan, VmmError, VmmExit};
use banger_core::{VmId, chain};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::console::ConsoleLog;
use crate::process::{find_strays, host_boot_id, kill_exactly};

/// The most answers that are remembered; older ones go.
const MAX_REMEMBERED: usize = 32;

/// The device by which KVM is reached.
const DEVICE: &str = "/dev/kvm";

/// Guest memory of a try.
const MEMORY_MIB: u64 = 256;

/// How long a VMM that was killed has to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// The most of the console that a failed try is explained with.
const MAX_LAST_WORDS: usize = 200;

/// What an answer holds for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    host_boot_id: String,
    program: PathBuf,
    version: String,
    kernel: FileKey,
    initramfs: FileKey,
}

impl Key {
    /// What an answer about these holds for.
    pub(crate) fn of(
        program: &Path,
        version: &str,
        kernel: &Path,
        initramfs: &Path,
    ) -> Result<Self, VmmError> {
        let read = || -> io::Result<Self> {
            Ok(Self {
                host_boot_id: host_boot_id()?,
                program: program.to_owned(),
                version: version.to_owned(),
                kernel: FileKey::of(kernel)?,
                initramfs: FileKey::of(initramfs)?,
            })
        };
        read().map_err(|source| VmmError::Control {
            during: "probe",
            source,
        })
    }
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

/// Whether it works; an error is why it does not.
pub(crate) type Tried = Result<(), String>;

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    key: Key,
    /// Absent where it works.
    failure: Option<String>,
}

/// What a driver's answers and tries are called below its directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    /// The file of the answers.
    pub(crate) file: &'static str,
    /// Before the random rest of the name of a try's directory; no other driver's begins so.
    pub(crate) dir_prefix: &'static str,
}

/// A machine of which a try can tell that its guest runs.
pub(crate) trait Audible: Machine {
    /// Resolves when any agent has spoken, before and without a handshake.
    fn hear_agent(&self) -> impl Future<Output = Result<(), VmmError>> + Send;
}

/// Waits for the agent of a try that was launched in `dir`, and ends its VMM however it went.
pub(crate) async fn listen<M: Audible>(machine: M, limit: Duration, dir: &Path) -> Tried {
    let machine = Killed(machine);
    let heard = tokio::time::timeout(limit, machine.0.hear_agent()).await;
    let tried = match heard {
        Ok(Ok(())) => Ok(()),
        Ok(Err(VmmError::Gone)) => Err(describe(&machine.0.wait().await, dir)),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_elapsed) => Err(format!(
            "the guest kernel did not reach its agent within {limit:?}{}",
            last_words(dir)
        )),
    };
    machine.end().await;
    tried
}

/// Kills its machine when dropped.
struct Killed<M: Machine>(M);

impl<M: Machine> Killed<M> {
    async fn end(self) {
        let killed = self.0.kill();
        let gone = tokio::time::timeout(KILL_LIMIT, self.0.wait()).await;
        tracing::debug!(?killed, ?gone, "the probe ended");
    }
}

impl<M: Machine> Drop for Killed<M> {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill() {
            tracing::error!(%error, "the probe's VMM could not be killed");
        }
    }
}

/// The answers that are known.
#[derive(Debug)]
pub(crate) struct Trials {
    state_dir: PathBuf,
    names: Names,
    /// Held during a try, so that there is one at a time.
    known: Mutex<HashMap<Key, Tried>>,
}

impl Trials {
    /// What is remembered below `state_dir`.
    pub(crate) fn new(state_dir: &Path, names: Names) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            names,
            known: Mutex::default(),
        }
    }

    /// The answer for `key`; where there is none, that of `boot`. Safe to drop if `boot` is.
    pub(crate) async fn answer(
        &self,
        key: Key,
        boot: impl Future<Output = Result<Tried, VmmError>>,
    ) -> Result<Tried, VmmError> {
        let mut known = self.known.lock().await;
        if let Some(tried) = known.get(&key) {
            return Ok(tried.clone());
        }
        let tried = match self.recall(&key) {
            Some(tried) => tried,
            None => {
                let tried = boot.await?;
                if let Err(detail) = &tried {
                    let program = key.program.display();
                    tracing::warn!(%detail, %program, "the guest kernel cannot be run through KVM");
                }
                self.remember(&key, &tried);
                tried
            }
        };
        known.insert(key, tried.clone());
        Ok(tried)
    }

    /// A directory for a try, and what is to be booted there: no disk, no network.
    pub(crate) fn plan(
        &self,
        kernel: &Path,
        initramfs: &Path,
    ) -> Result<(TempDir, LaunchPlan), VmmError> {
        let dir = tempfile::Builder::new()
            .prefix(self.names.dir_prefix)
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
            limits: None,
        };
        Ok((dir, plan))
    }

    /// Ends the tries that a daemon left which died during them.
    pub(crate) fn sweep(&self) {
        // Where nothing can be listed nothing was left.
        let Ok(state_dir) = self.state_dir.canonicalize() else {
            return;
        };
        let is_try = |dir: &Path| {
            let name = dir.file_name().and_then(|name| name.to_str());
            dir.parent() == Some(&state_dir)
                && name.is_some_and(|name| name.starts_with(self.names.dir_prefix))
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

    fn recall(&self, key: &Key) -> Option<Tried> {
        let remembered = self
            .load()
            .into_iter()
            .find(|remembered| remembered.key == *key)?;
        Some(remembered.failure.map_or(Ok(()), Err))
    }

    /// An unreadable file is as good as none: the worst is one more try.
    fn load(&self) -> Vec<Remembered> {
        let bytes = fs::read(self.state_dir.join(self.names.file)).unwrap_or_default();
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
        file.persist(self.state_dir.join(self.names.file))?;
        Ok(())
    }
}

/// Whether this user may use the device at all.
pub(crate) fn device_opens() -> Tried {
    let opened = fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    opened.map(drop).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{DEVICE}: permission denied; add the daemon's user to the group that owns it")
        }
        _ => format!("{DEVICE}: {error}"),
    })
}

/// Why a VMM that ended before its agent spoke did so.
fn describe(exit: &VmmExit, dir: &Path) -> String {
    match exit {
        VmmExit::GuestPowerOff => "the guest powered off before its agent spoke".into(),
        VmmExit::GuestReset => format!("the guest reset before its agent spoke{}", last_words(dir)),
        VmmExit::MemoryLimit { limit_mib } => {
            format!("the VMM wanted more than the {limit_mib} MiB of memory that it may have")
        }
        VmmExit::Other { detail } => format!("the VMM ended: {detail}"),
    }
}

/// The end of a try's console, to be appended to an explanation; empty where there is none.
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
