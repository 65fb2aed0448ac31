//! Loads the kernel's modules that the initramfs brings, in the order of their names.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::system::finit_module;

/// Where they are. Without the directory the kernel has all it needs built in.
const DIRECTORY: &str = "/banger/modules";

/// Loads them all. One that fails is told on the console; what needs it then fails with its own reason.
pub(super) fn load() {
    for path in list(Path::new(DIRECTORY)) {
        if let Err(error) = load_one(&path) {
            eprintln!("banger-agent: module {}: {error}", path.display());
        }
    }
}

fn list(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ko"))
        .collect();
    paths.sort();
    paths
}

fn load_one(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    match finit_module(&file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
