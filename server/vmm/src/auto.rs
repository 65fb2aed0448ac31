//! The driver that a host's configuration chooses, or the first that really works; and, for VMs that run, the one
//! that launched them.
//!
//! `auto` takes Firecracker where it boots the guest kernel and can do what the VM asks for, else QEMU. Which
//! driver launched a VM is written into its directory before its process exists, so that a daemon with another
//! setting adopts it by the right one.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use banger_core::VmId;
use banger_core::doctor::Diagnosis;
use banger_core::vmm::{
    Console, DriverInfo, LaunchPlan, Machine, NetworkPlan, ProcessIdentity, Vmm, VmmError,
};

use crate::console::ConsoleLog;
use crate::process::Process;
use crate::{FirecrackerDriver, QemuDriver};

/// Below a VM's directory: which driver launched it.
const MARK: &str = "driver";

/// Which driver new VMs are launched by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverChoice {
    /// Firecracker if it really boots the guest kernel and can do what is asked, else QEMU.
    #[default]
    Auto,
    /// QEMU.
    Qemu,
    /// Firecracker or nothing.
    Firecracker,
}

/// One of the drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Qemu,
    Firecracker,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
        }
    }

    /// What is written in a VM's directory; VMs from before there was a mark are QEMU's. A mark that cannot be read says
    /// nothing: another driver would take over what it does not know, or call it gone.
    fn of(dir: &Path) -> Result<Self, VmmError> {
        let unknown = |source| VmmError::Unmarked {
            path: dir.join(MARK),
            source,
        };
        match fs::read_to_string(dir.join(MARK)) {
            Ok(word) if word.trim() == Self::Firecracker.as_str() => Ok(Self::Firecracker),
            Ok(word) if word.trim() == Self::Qemu.as_str() => Ok(Self::Qemu),
            Ok(_) => Err(unknown(io::ErrorKind::InvalidData.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Qemu),
            Err(error) => Err(unknown(error)),
        }
    }

    /// By a rename, so that there is never half a word.
    fn mark(self, dir: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        io::Write::write_all(&mut file, self.as_str().as_bytes())?;
        file.persist(dir.join(MARK))?;
        Ok(())
    }
}

/// Both drivers behind one port.
#[derive(Debug)]
pub struct AutoDriver {
    choice: DriverChoice,
    qemu: QemuDriver,
    firecracker: FirecrackerDriver,
    /// Whether it was told already that Firecracker does not work.
    has_told: AtomicBool,
}

impl AutoDriver {
    /// A driver that touches nothing before its first call.
    #[must_use]
    pub fn new(choice: DriverChoice, qemu: QemuDriver, firecracker: FirecrackerDriver) -> Self {
        Self {
            choice,
            qemu,
            firecracker,
            has_told: AtomicBool::new(false),
        }
    }

    fn driver(&self, kind: Kind) -> &dyn Vmm {
        match kind {
            Kind::Qemu => &self.qemu,
            Kind::Firecracker => &self.firecracker,
        }
    }

    /// The driver for a VM that boots `kernel`. `network` is what it asks for, where that is known.
    async fn pick(
        &self,
        kernel: &Path,
        initramfs: &Path,
        network: NetworkPlan,
    ) -> Result<Kind, VmmError> {
        match self.choice {
            DriverChoice::Qemu => return Ok(Kind::Qemu),
            DriverChoice::Firecracker => return Ok(Kind::Firecracker),
            DriverChoice::Auto => {}
        }
        match self.firecracker.works(kernel, initramfs).await? {
            Ok(()) if network == NetworkPlan::User => {
                tracing::debug!("a VM with the user-mode network is launched by QEMU");
                Ok(Kind::Qemu)
            }
            Ok(()) => Ok(Kind::Firecracker),
            Err(detail) => {
                let is_first = !self.has_told.swap(true, Ordering::Relaxed);
                if is_first && !self.firecracker.is_installed() {
                    tracing::info!("Firecracker is not installed; VMs run under QEMU");
                } else if is_first {
                    tracing::warn!(
                        "Firecracker cannot be used here ({detail}); VMs run under QEMU. Set driver = \"qemu\" to try no more, \
                         or driver = \"firecracker\" to have nothing else"
                    );
                }
                Ok(Kind::Qemu)
            }
        }
    }
}

#[async_trait]
impl Vmm for AutoDriver {
    async fn probe(&self, kernel: &Path, initramfs: &Path) -> Result<DriverInfo, VmmError> {
        let kind = self.pick(kernel, initramfs, NetworkPlan::None).await?;
        let mut info = self.driver(kind).probe(kernel, initramfs).await?;
        // A VM that asks for it gets the driver that has it.
        info.capabilities.user_network |= self.choice == DriverChoice::Auto;
        Ok(info)
    }

    async fn launch(
        &self,
        plan: &LaunchPlan,
        journal: &(dyn for<'a> Fn(&'a ProcessIdentity) -> io::Result<()> + Send + Sync),
    ) -> Result<Arc<dyn Machine>, VmmError> {
        let kind = self
            .pick(&plan.kernel, &plan.initramfs, plan.network)
            .await?;
        kind.mark(&plan.dir).map_err(|source| VmmError::Spawn {
            program: kind.as_str().into(),
            source,
        })?;
        self.driver(kind).launch(plan, journal).await
    }

    fn console(&self, dir: &Path) -> Arc<dyn Console> {
        Arc::new(ConsoleLog::of(dir))
    }

    async fn find_strays(&self, vms_dir: &Path) -> Result<Vec<(VmId, ProcessIdentity)>, VmmError> {
        self.firecracker.cgroups();
        self.qemu.find_strays(vms_dir).await
    }

    async fn adopt(
        &self,
        vm: VmId,
        dir: &Path,
        identity: &ProcessIdentity,
    ) -> Result<Option<Arc<dyn Machine>>, VmmError> {
        let unmarked = match Kind::of(dir) {
            Ok(kind) => return self.driver(kind).adopt(vm, dir, identity).await,
            Err(unmarked) => unmarked,
        };
        // After a power failure of the host the mark may be empty, and every process is gone: nobody has to take over
        // anything then, whichever driver launched it.
        let found = Process::find(identity).map_err(|source| VmmError::Signal { source })?;
        found.map_or(Ok(None), |_| Err(unmarked))
    }

    fn diagnose(&self) -> Vec<Diagnosis<'_>> {
        let mut checks = self.qemu.diagnose();
        checks.extend(self.firecracker.diagnose());
        checks
    }
}

#[cfg(test)]
mod tests {
    use banger_core::Explain as _;

    use super::*;

    #[test]
    fn a_vm_remembers_its_driver_and_one_without_a_mark_is_qemus() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Kind::of(dir.path()).unwrap(), Kind::Qemu);
        for kind in [Kind::Firecracker, Kind::Qemu, Kind::Firecracker] {
            kind.mark(dir.path()).unwrap();
            assert_eq!(Kind::of(dir.path()).unwrap(), kind);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_mark_that_cannot_be_read_names_no_driver() {
        let dir = tempfile::tempdir().unwrap();
        let refused = || Kind::of(dir.path()).unwrap_err();
        fs::write(dir.path().join(MARK), "vmware").unwrap();
        assert_eq!(refused().reason(), "VMM_UNKNOWN");
        fs::remove_file(dir.path().join(MARK)).unwrap();
        fs::create_dir(dir.path().join(MARK)).unwrap();
        let text = refused().to_string();
        assert!(text.contains("which driver"), "{text}");
        assert!(refused().remedy().is_some());
    }

    fn driver(choice: DriverChoice, state_dir: &Path) -> AutoDriver {
        AutoDriver::new(
            choice,
            QemuDriver::new(crate::QemuConfig::new(state_dir.to_owned())),
            FirecrackerDriver::new(crate::FirecrackerConfig::new(state_dir.to_owned())),
        )
    }

    #[tokio::test]
    async fn a_mark_that_is_lost_hides_no_process_that_lives_and_keeps_none_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARK), "").unwrap();
        let auto = driver(DriverChoice::Qemu, dir.path());
        let living = crate::process::identify(std::process::id()).unwrap();
        let refused = auto.adopt(VmId::new(), dir.path(), &living).await;
        assert_eq!(refused.err().unwrap().reason(), "VMM_UNKNOWN");
        let gone = ProcessIdentity {
            host_boot_id: "before".into(),
            ..living
        };
        let found = auto.adopt(VmId::new(), dir.path(), &gone).await;
        assert!(found.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_explicit_choice_tries_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let auto = |choice| driver(choice, dir.path());
        let none = Path::new("/nonexistent");
        for (choice, kind) in [
            (DriverChoice::Qemu, Kind::Qemu),
            (DriverChoice::Firecracker, Kind::Firecracker),
        ] {
            let picked = auto(choice).pick(none, none, NetworkPlan::None).await;
            assert_eq!(picked.unwrap(), kind);
        }
    }

    #[tokio::test]
    async fn without_firecracker_auto_is_qemu() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = crate::FirecrackerConfig::new(dir.path().to_owned());
        config.program = "/nonexistent/firecracker".into();
        let auto = AutoDriver::new(
            DriverChoice::Auto,
            QemuDriver::new(crate::QemuConfig::new(dir.path().to_owned())),
            FirecrackerDriver::new(config),
        );
        let none = Path::new("/nonexistent");
        let picked = auto.pick(none, none, NetworkPlan::None).await;
        assert_eq!(picked.unwrap(), Kind::Qemu);
        assert!(auto.has_told.load(Ordering::Relaxed));
    }
}
