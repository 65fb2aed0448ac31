//! The directory of one run of the suite, and the environment of everything that it starts.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::command::Run;

/// The mark by which a run finds its processes again, in their environment.
pub const MARK: &str = "BANGER_E2E_RUN";

/// The directory of one run. Its path is short, since the paths of sockets are.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    mark: String,
}

impl Scratch {
    /// Makes one under `/tmp`.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bge")
            .rand_bytes(5)
            .tempdir_in("/tmp")
            .unwrap();
        // An ordinary user's daemon must find its part of it.
        std::fs::set_permissions(
            directory.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let mark = directory
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        std::fs::create_dir(directory.path().join("home")).unwrap();
        Self { directory, mark }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The value of [`MARK`] in every process of this run.
    #[must_use]
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// A new directory in it.
    #[must_use]
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// A program in the environment of this run.
    #[must_use]
    pub fn run(&self, program: impl AsRef<std::ffi::OsStr>) -> Run {
        let home = self.path().join("home");
        let mut run = Run::new(program).env(MARK, &self.mark).env("HOME", &home);
        for name in [
            "XDG_RUNTIME_DIR",
            "XDG_STATE_HOME",
            "XDG_CONFIG_HOME",
            "BANGER_HOST",
            "RUST_LOG",
        ] {
            run = run.without_env(name);
        }
        run
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}
