//! The guest kernel of the tests as files: Debian's cloud kernel, fetched once and kept.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::Run;

/// The package whose kernel is used; a name that stays the same from version to version.
pub const PACKAGE: &str = "linux-image-cloud-amd64";
/// What of its modules a guest can need; the rest only takes time to send.
const MODULE_DIRECTORIES: [&str; 7] = [
    "kernel/drivers/virtio",
    "kernel/drivers/char",
    "kernel/drivers/block",
    "kernel/drivers/net",
    "kernel/net/core",
    "kernel/net/vmw_vsock",
    "kernel/fs/overlayfs",
];

/// A kernel as the package has it.
#[derive(Debug, Clone)]
pub struct KernelFiles {
    /// The bzImage.
    pub bzimage: PathBuf,
    /// Its modules, as `/lib/modules/RELEASE`.
    pub modules: PathBuf,
}

impl KernelFiles {
    /// Fetches and unpacks the package into `cache`, unless it is there.
    #[must_use]
    pub fn fetch(cache: &Path) -> Self {
        let directory = cache.join("kernel-package");
        if let Some(files) = Self::find(&directory) {
            return files;
        }
        let work = cache.join(format!("kernel-package.{}", std::process::id()));
        fs::create_dir_all(&work).unwrap();
        let depends = Run::new("apt-cache")
            .args(["depends", "--important", PACKAGE])
            .ok()
            .out();
        let package = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .unwrap_or(PACKAGE)
            .to_owned();
        Run::new("apt-get")
            .args(["-q", "-o", "APT::Sandbox::User=", "download", &package])
            .in_dir(&work)
            .ok();
        let is_package = |path: &PathBuf| path.extension().is_some_and(|end| end == "deb");
        let file = fs::read_dir(&work)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(is_package)
            .unwrap();
        Run::new("dpkg-deb")
            .arg("-x")
            .arg(&file)
            .arg(work.join("files"))
            .ok();
        let _ = fs::remove_dir_all(&directory);
        fs::rename(work.join("files"), &directory).unwrap();
        fs::remove_dir_all(&work).unwrap();
        Self::find(&directory).expect("the package has a kernel")
    }

    fn find(directory: &Path) -> Option<Self> {
        let only = |path: PathBuf, prefix: &str| {
            let mut entries = fs::read_dir(path).ok()?.flatten().map(|entry| entry.path());
            entries.find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
            })
        };
        let bzimage = only(directory.join("boot"), "vmlinuz-")?;
        let modules = only(directory.join("lib/modules"), "")?;
        Some(Self { bzimage, modules })
    }

    /// The configuration it was built with.
    ///
    /// # Panics
    /// If the package has none.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        let boot = self.bzimage.parent().expect("it is in a directory");
        let name = self.bzimage.file_name().expect("it is a file");
        let config = name.to_string_lossy().replace("vmlinuz-", "config-");
        boot.join(config)
    }

    /// A copy of the modules that a guest can need, without those whose names contain a word of `without`.
    #[must_use]
    pub fn few_modules(&self, to: &Path, without: &[&str]) -> PathBuf {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(&self.modules).unwrap().flatten() {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        for directory in MODULE_DIRECTORIES {
            copy_tree(&self.modules.join(directory), &to.join(directory), without);
        }
        to.to_owned()
    }
}

fn copy_tree(from: &Path, to: &Path, without: &[&str]) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to.join(&name), without);
        } else if !without.iter().any(|word| name.contains(word)) {
            fs::copy(entry.path(), to.join(&name)).unwrap();
        }
    }
}
