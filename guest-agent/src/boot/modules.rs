//! Loads the kernel's modules that the initramfs brings, in the order of their names.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::system::finit_module;

use crate::vmm::Transport;

/// Where they are. Without the directory the kernel has all it needs built in.
const DIRECTORY: &str = "/banger/modules";

/// Of no use to a machine whose channel is a port: each costs a boot its time.
const ONLY_FOR_VSOCK: [&str; 4] = [
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
    "virtio_balloon",
];
/// Of no use to a machine whose channel is vsock.
const ONLY_FOR_PORT: [&str; 1] = ["virtio_console"];

/// Loads all that the machine needs. One that fails is told on the console; what needs it then fails with its own
/// reason.
pub(super) fn load(transport: Transport) {
    let useless: &[&str] = match transport {
        Transport::Port => &ONLY_FOR_VSOCK,
        Transport::Vsock => &ONLY_FOR_PORT,
    };
    let is_useful = |path: &PathBuf| !name(path).is_some_and(|name| useless.contains(&name));
    for path in list(Path::new(DIRECTORY)).into_iter().filter(is_useful) {
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

/// A module's name, without the number that puts it in order.
fn name(path: &Path) -> Option<&str> {
    let stem = path.file_stem()?.to_str()?;
    Some(stem.split_once('-').map_or(stem, |(_, name)| name))
}

fn load_one(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    match finit_module(&file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
