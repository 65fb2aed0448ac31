//! What the measurements stand on: a daemon with a kernel, the small image, and a running VM.

use std::future::Future;
use std::path::PathBuf;

use banger_e2e::image::TestImage;
use banger_e2e::kernel::PACKAGE;
use banger_e2e::registry::Registry;
use banger_e2e::{Binaries, Daemon, DaemonOptions, Pki, Scratch};

/// The VM in which commands are run.
pub(crate) const VM: &str = "bench";

pub(crate) struct Stand {
    pub(crate) binaries: Binaries,
    pub(crate) scratch: Scratch,
    pub(crate) daemon: Daemon,
    pub(crate) registry: Registry,
    /// The certificate of a client by TCP.
    pub(crate) client: PathBuf,
    /// The small image.
    pub(crate) reference: String,
    /// Kept from run to run.
    pub(crate) cache: PathBuf,
}

impl Stand {
    pub(crate) fn new() -> Self {
        let binaries = Binaries::find().unwrap_or_else(|why| panic!("{why}"));
        let scratch = Scratch::new();
        let cache = std::env::current_exe()
            .unwrap()
            .ancestors()
            .nth(2)
            .unwrap()
            .join("bench-cache");
        std::fs::create_dir_all(&cache).unwrap();
        let registry = Registry::start(&scratch);
        let reference = registry.reference("box:1");
        TestImage::make(&scratch).copy_to(&scratch, &format!("docker://{reference}"));
        let pki = Pki::make(&scratch, &binaries, "pki");
        let (client, config) = (pki.client("bench", "admin"), pki.config());
        let options = DaemonOptions {
            config,
            ..DaemonOptions::default()
        };
        let daemon = Daemon::start(&scratch, &binaries, "d", options);
        daemon
            .banger(["kernel", "import", "--debian-package", PACKAGE])
            .ok();
        daemon.banger(["image", "pull", &reference]).ok();
        daemon
            .banger([
                "vm",
                "create",
                &reference,
                "--name",
                VM,
                "--memory",
                "1G",
                "--network",
                "none",
            ])
            .ok();
        Self {
            binaries,
            scratch,
            daemon,
            registry,
            client,
            reference,
            cache,
        }
    }

    pub(crate) fn sh(&self, script: &str) -> String {
        self.daemon
            .banger(["vm", "exec", VM, "--", "sh", "-c", script])
            .ok()
            .out()
    }

    pub(crate) fn close(&self) {
        self.daemon.clear();
    }
}

/// Runs a future to its end.
pub(crate) fn block<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
