//! What the cases share: one daemon, one registry, one image, one kernel, one VM; each made when first asked for.

use std::future::Future;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use banger_e2e::image::TestImage;
use banger_e2e::kernel::{KernelFiles, PACKAGE};
use banger_e2e::registry::Registry;
use banger_e2e::{Binaries, Daemon, DaemonOptions, Lane, Run, Scratch};
use serde_json::Value;

/// The shared VM's name.
pub(crate) const VM: &str = "shared";
/// How long anything with a VM may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(180);

/// See the module.
pub(crate) struct Suite {
    pub(crate) binaries: Binaries,
    pub(crate) scratch: Scratch,
    /// Kept from run to run.
    pub(crate) cache: PathBuf,
    daemon: OnceLock<Daemon>,
    registry: OnceLock<Registry>,
    image: OnceLock<TestImage>,
    kernel: OnceLock<KernelFiles>,
    few_modules: OnceLock<PathBuf>,
    vm: OnceLock<Value>,
}

impl Suite {
    pub(crate) fn new(binaries: Binaries, cache: PathBuf) -> Self {
        std::fs::create_dir_all(&cache).unwrap();
        Self {
            binaries,
            scratch: Scratch::new(),
            cache,
            daemon: OnceLock::new(),
            registry: OnceLock::new(),
            image: OnceLock::new(),
            kernel: OnceLock::new(),
            few_modules: OnceLock::new(),
            vm: OnceLock::new(),
        }
    }

    /// The shared daemon, with a kernel.
    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.get_or_init(|| {
            let options = DaemonOptions {
                // A stop is not to wait for commands that take longer.
                config: "kvm_probe_timeout = \"5s\"\nshutdown_grace = \"2s\"".into(),
                ..DaemonOptions::default()
            };
            let daemon = Daemon::start(&self.scratch, &self.binaries, "d", options);
            daemon
                .banger(["kernel", "import", "--debian-package", PACKAGE])
                .timeout(LONG * 2)
                .ok();
            daemon
        })
    }

    /// The shared daemon, if there is one.
    pub(crate) fn started(&self) -> Option<&Daemon> {
        self.daemon.get()
    }

    /// The registry with the test image as `box:1`.
    pub(crate) fn registry(&self) -> &Registry {
        self.registry.get_or_init(|| {
            let registry = Registry::start(&self.scratch);
            self.image().copy_to(
                &self.scratch,
                &format!("docker://{}", registry.reference("box:1")),
            );
            registry
        })
    }

    /// The reference of the test image.
    pub(crate) fn reference(&self) -> String {
        self.registry().reference("box:1")
    }

    /// The test image as files.
    pub(crate) fn image(&self) -> &TestImage {
        self.image.get_or_init(|| TestImage::make(&self.scratch))
    }

    /// The guest kernel as files.
    pub(crate) fn kernel(&self) -> &KernelFiles {
        self.kernel.get_or_init(|| KernelFiles::fetch(&self.cache))
    }

    /// The modules of it that guests need.
    pub(crate) fn few_modules(&self) -> &PathBuf {
        self.few_modules.get_or_init(|| {
            self.kernel()
                .few_modules(&self.scratch.path().join("modules"), &[])
        })
    }

    /// The shared VM, as `vm create` printed it.
    pub(crate) fn vm(&self) -> &Value {
        self.vm.get_or_init(|| {
            let words = [
                "vm",
                "create",
                &self.reference(),
                "--name",
                VM,
                "--output",
                "json",
            ];
            self.daemon().banger(words).timeout(LONG).ok().json()
        })
    }

    /// `banger` with the shared daemon.
    pub(crate) fn banger<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Run {
        self.daemon().banger(arguments).timeout(LONG)
    }

    /// A shell script in the shared VM.
    pub(crate) fn sh(&self, script: &str) -> Run {
        self.exec(&[], script)
    }

    /// A shell script in the shared VM, with options of `vm exec`.
    pub(crate) fn exec(&self, options: &[&str], script: &str) -> Run {
        self.vm();
        let words = ["vm", "exec", VM]
            .into_iter()
            .chain(options.iter().copied());
        self.banger(words.chain(["--", "sh", "-c", script]))
    }

    /// What really runs guests here, found by the shared daemon.
    pub(crate) fn accelerator(&self) -> String {
        match self.found("accelerator") {
            // Not known again since the daemon was last started.
            unknown if unknown.is_empty() => "auto".to_owned(),
            known => known,
        }
    }

    fn found(&self, key: &str) -> String {
        self.vm();
        let info = self
            .banger(["host", "info", "--output", "json"])
            .ok()
            .json();
        info[key].as_str().unwrap().to_owned()
    }

    /// The lines by which another daemon need not try again what the shared one has tried.
    pub(crate) fn tried(&self) -> String {
        let accelerator = format!("accelerator = \"{}\"\n", self.accelerator());
        match self.found("driver").as_str() {
            "qemu" => format!("{accelerator}driver = \"qemu\"\n"),
            // VMs that it cannot run are QEMU's.
            _ => accelerator,
        }
    }

    /// A daemon of a case's own, with nothing in it.
    pub(crate) fn bare_daemon(&self, name: &str, options: DaemonOptions) -> Daemon {
        Daemon::start(&self.scratch, &self.binaries, name, options)
    }

    /// A daemon of a case's own, with the test image and the kernel; it does not try KVM again.
    pub(crate) fn own_daemon(&self, name: &str, options: DaemonOptions) -> Daemon {
        let config = format!("{}{}", self.tried(), options.config);
        let daemon = Daemon::start(
            &self.scratch,
            &self.binaries,
            name,
            DaemonOptions { config, ..options },
        );
        self.give_image(&daemon);
        self.give_kernel(&daemon);
        daemon
    }

    pub(crate) fn give_image(&self, daemon: &Daemon) {
        daemon.banger(["image", "pull", &self.reference()]).ok();
    }

    pub(crate) fn give_kernel(&self, daemon: &Daemon) {
        let modules = self.few_modules().to_str().unwrap();
        daemon
            .banger([
                "kernel",
                "import",
                self.kernel().bzimage.to_str().unwrap(),
                "--modules",
                modules,
            ])
            .ok();
    }

    /// What must hold after each case of the lane.
    pub(crate) fn check(&self, lane: Lane) {
        if lane == Lane::Own {
            return self.check_own();
        }
        let Some(daemon) = self.started() else { return };
        // The other lane may just be making the shared VM.
        let mut vms = daemon.vms();
        vms.retain(|vm| vm != VM);
        assert_eq!(vms, Vec::<String>::new(), "VMs that a case left");
        let directories = daemon.entries("vms").len();
        assert!(
            directories <= 1,
            "directories of VMs that a case left: {directories}"
        );
        assert_eq!(
            daemon.temporary(),
            Vec::<PathBuf>::new(),
            "temporary files that a case left"
        );
    }

    /// Removes the VMs that a case left when it failed, for which the next one is not to blame.
    pub(crate) fn recover(&self, lane: Lane) {
        if let (Lane::Shared, Some(daemon)) = (lane, self.started()) {
            for vm in daemon.vms().iter().filter(|vm| *vm != VM) {
                daemon.banger(["vm", "remove", vm]).done();
            }
        }
    }

    /// A case of its own leaves no process.
    fn check_own(&self) {
        let own = self.scratch.path().join("own");
        let own = own.to_str().unwrap();
        let left: Vec<String> = banger_e2e::leftovers::processes(&self.scratch)
            .into_iter()
            .filter(|line| line.contains(own))
            .collect();
        assert!(left.is_empty(), "processes that a case left: {left:#?}");
    }

    /// Ends everything that is shared.
    pub(crate) fn close(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.clear();
            assert_eq!(
                daemon.entries("vms"),
                Vec::<String>::new(),
                "directories of VMs"
            );
            assert_eq!(daemon.temporary(), Vec::<PathBuf>::new(), "temporary files");
            assert!(!daemon.socket().exists(), "the daemon's socket");
        }
        self.registry.take();
    }
}

/// Runs a future to its end, within a time.
pub(crate) fn block<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(LONG, future)
            .await
            .expect("a wait in a case ended in time")
    })
}

/// The command is refused with this exit code and reason, and says what to do.
pub(crate) fn refused(run: Run, code: i32, reason: &str) -> Value {
    let done = run.args(["--output", "json"]).done();
    let error = done.refused(code);
    assert_eq!(error["reason"], reason, "{error}");
    assert!(
        error["remedy"]
            .as_str()
            .is_some_and(|remedy| !remedy.is_empty()),
        "a remedy in {error}"
    );
    assert!(
        !error["message"].as_str().unwrap_or_default().is_empty(),
        "a message in {error}"
    );
    error
}
