//! Kernels from a Debian package: found and fetched by apt, read from the package's archive as it is
//! streamed. Nothing is installed, nothing is unpacked; an ordinary user may do it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use banger_core::Digest;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::KernelError;
use super::modules::{ModuleSource, ModuleTree};
use crate::layer::{LayerSource, SpooledArchive, spool_archive};
use crate::limits::{KERNEL_BYTES_MAX, KERNEL_CONFIG_BYTES_MAX, PACKAGE_BYTES_MAX};
use crate::store::Region;
use crate::tar::{Budget, EntryKind};

/// Metapackages on the way to the one with the kernel.
const HOPS_MAX: usize = 4;
/// For asking apt, and for fetching the package.
const QUERY_DEADLINE: Duration = Duration::from_secs(60);
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// What a kernel package's name begins with.
const IMAGE_PREFIX: &str = "linux-image-";
/// How much of a failing tool's output is told.
const OUTPUT_CHARS_MAX: usize = 500;

/// What a package holds of a kernel.
#[derive(Debug)]
pub(super) struct PackagedKernel {
    /// As it is in the package.
    pub(super) kernel: Vec<u8>,
    pub(super) modules: ModuleTree,
    /// What it was built with, if the package says.
    pub(super) config: Option<Vec<u8>>,
    /// What it was called.
    pub(super) origin: String,
}

/// The package file for `name`: itself if it is a path, else fetched into `directory`.
pub(super) async fn fetch(
    name: &str,
    directory: &Path,
    cancel: &CancellationToken,
) -> Result<PathBuf, KernelError> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    let valid = name.len() <= 128
        && name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
    if !valid {
        return Err(KernelError::BadPackageName {
            name: name.chars().take(80).collect(),
        });
    }
    let package = resolve(name.to_owned(), cancel).await?;
    let mut download = tool("apt-get");
    // apt's own sandbox user could not write into a directory of ours.
    download
        .args(["-q", "-o", "APT::Sandbox::User=", "download", &package])
        .current_dir(directory);
    run("apt-get", download, DOWNLOAD_DEADLINE, cancel).await?;
    let is_package = |path: &PathBuf| path.extension() == Some(OsStr::new("deb"));
    let mut files =
        fs::read_dir(directory).map_err(KernelError::io("read the directory", directory))?;
    files
        .find_map(|entry| entry.ok().map(|entry| entry.path()).filter(is_package))
        .ok_or(KernelError::NoKernelInPackage { package })
}

/// Follows metapackages to the package with a kernel in it.
async fn resolve(mut package: String, cancel: &CancellationToken) -> Result<String, KernelError> {
    for _ in 0..HOPS_MAX {
        let mut query = tool("apt-cache");
        query.args(["depends", "--important", &package]);
        let output = run("apt-cache", query, QUERY_DEADLINE, cancel).await?;
        let depends = output
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        match depends
            .map(str::trim)
            .find(|name| name.starts_with(IMAGE_PREFIX))
        {
            Some(next) => next.clone_into(&mut package),
            None => return Ok(package),
        }
    }
    Ok(package)
}

fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a tool to its end; it is killed when it takes too long or the work is cancelled.
async fn run(
    program: &'static str,
    mut command: Command,
    deadline: Duration,
    cancel: &CancellationToken,
) -> Result<String, KernelError> {
    let output = async {
        match tokio::time::timeout(deadline, command.output()).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => Err(spawn_error(program, &error)),
            Err(_) => Err(KernelError::ToolDeadline { program, deadline }),
        }
    };
    // cancel-safe: a dropped tool is killed
    let output = tokio::select! {
        () = cancel.cancelled() => return Err(KernelError::Cancelled),
        output = output => output?,
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(KernelError::Tool {
        program,
        output: told(&output.stderr),
    })
}

fn spawn_error(program: &'static str, error: &io::Error) -> KernelError {
    match error.kind() {
        io::ErrorKind::NotFound => KernelError::ToolMissing { program },
        _ => KernelError::Tool {
            program,
            output: error.to_string(),
        },
    }
}

fn told(output: &[u8]) -> String {
    String::from_utf8_lossy(output)
        .trim()
        .chars()
        .take(OUTPUT_CHARS_MAX)
        .collect()
}

/// Whether a file begins as a package does (deb(5)).
pub(super) fn is_package(path: &Path) -> Result<bool, KernelError> {
    const MAGIC: &[u8] = b"!<arch>\n";
    let mut head = Vec::new();
    let read = fs::File::open(path)
        .and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut head))
        .map_err(KernelError::source(path));
    read.map(|_| head == MAGIC)
}

/// Reads the kernel and its modules out of a package file, which errors call `origin`. Blocks.
pub(super) fn read(
    package: &Path,
    origin: String,
    tmp: &Path,
) -> Result<PackagedKernel, KernelError> {
    const PROGRAM: &str = "dpkg-deb";
    let size = fs::metadata(package)
        .map_err(KernelError::source(package))?
        .len();
    if size > PACKAGE_BYTES_MAX {
        return Err(KernelError::TooLarge {
            what: origin,
            limit: PACKAGE_BYTES_MAX,
        });
    }
    let mut child = std::process::Command::new(PROGRAM)
        .arg("--fsys-tarfile")
        .arg(package)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| spawn_error(PROGRAM, &error))?;
    let stdout = child.stdout.take().expect("piped above");
    let source = LayerSource {
        reader: stdout,
        digest: Digest::of(b""),
        size_bytes: size,
    };
    let archive = spool_archive(source, tmp, &Budget::default());
    if archive.is_err() {
        let _ = child.kill(); // it may have ended already
    }
    let status = child.wait().map_err(|error| spawn_error(PROGRAM, &error))?;
    if !status.success() {
        return Err(KernelError::Tool {
            program: PROGRAM,
            output: format!("it ended with {status}"),
        });
    }
    collect(archive.map_err(KernelError::Package)?, origin)
}

/// Picks the kernel and the modules out of the package's files.
fn collect(archive: SpooledArchive, origin: String) -> Result<PackagedKernel, KernelError> {
    let file = std::sync::Arc::new(archive.file);
    let mut modules = ModuleTree::default();
    let (mut kernel, mut config) = (None, None);
    for entry in archive.entries.iter() {
        let EntryKind::File(content) = &entry.kind else {
            continue;
        };
        let [extent] = &*content.extents else {
            continue;
        };
        let region = Region::new(std::sync::Arc::clone(&file), extent.offset, extent.len);
        let Some(path) = entry.path_text() else {
            continue;
        };
        let path = path.strip_prefix("usr/").unwrap_or(path);
        let name = path.rsplit('/').next().unwrap_or(path);
        if path.starts_with("boot/vmlinuz-")
            || (path.starts_with("lib/modules/") && name == "vmlinuz")
        {
            kernel = Some(region);
        } else if path.starts_with("boot/config-")
            || (path.starts_with("lib/modules/") && name == "config")
        {
            config = Some(region);
        } else if path.starts_with("lib/modules/") {
            modules.add(name, ModuleSource::Region(region))?;
        }
    }
    let region = kernel.ok_or_else(|| KernelError::NoKernelInPackage {
        package: origin.clone(),
    })?;
    let read = |region: Region, limit| {
        region
            .read_all(limit)
            .map_err(KernelError::source(Path::new(&origin)))
    };
    Ok(PackagedKernel {
        kernel: read(region, KERNEL_BYTES_MAX)?,
        config: config
            .map(|region| read(region, KERNEL_CONFIG_BYTES_MAX))
            .transpose()?,
        modules,
        origin,
    })
}
