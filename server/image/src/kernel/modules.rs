//! Which modules a guest needs, and in which order: nothing else gets into its initramfs.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_catalog::MODULES_BYTES_MAX;
use banger_core::Digest;
use banger_core::kernel::FeatureState;
use tokio_util::sync::CancellationToken;

use super::KernelError;
use super::elf::Elf;
use crate::layer::{LayerSource, spool_archive};
use crate::limits::{MODULE_BYTES_MAX, MODULE_FILES_MAX, MODULE_INDEX_BYTES_MAX};
use crate::store::Region;
use crate::tar::{Budget, EntryKind};
use crate::watched::Watched;

/// What a guest uses where the kernel has it, in the order in which it is best loaded: the bus, the agent's
/// channel (a port under QEMU, vsock under Firecracker: the agent loads one of the two), disks, file systems. Whether it is enough, the inspection tells.
const WANTED: [&str; 10] = [
    "virtio_mmio",
    "virtio_console",
    "vmw_vsock_virtio_transport",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "virtio_balloon",
    // What ext4 asks the crypto layer for by name, where nothing in a guest could answer.
    "crc32c_generic",
    "ext4",
    "overlay",
];
/// The most modules a guest may need; bounds the recursion too.
const SELECTED_MAX: usize = 128;
/// Of a release in an error's text.
const RELEASE_CHARS_MAX: usize = 64;
/// How deep a modules directory may be nested.
const DEPTH_MAX: usize = 16;

/// A module as it is put into the initramfs.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The modules that were chosen so far.
struct Selection<'a> {
    selected: Vec<Module>,
    visited: HashSet<String>,
    bytes: u64,
    cancel: &'a CancellationToken,
}

/// The modules of one kernel, by name.
#[derive(Debug, Default)]
pub(super) struct ModuleTree {
    files: HashMap<String, ModuleFile>,
    /// From `modules.builtin`; `None` where that is missing.
    builtin: Option<HashSet<String>>,
    /// From `modules.dep`; where that is missing, the modules themselves are asked.
    dependencies: Option<HashMap<String, Vec<String>>>,
}

#[derive(Debug)]
struct ModuleFile {
    /// The ending after `.ko`.
    compression: String,
    source: ModuleSource,
}

/// Where a module's file is. One in a directory is opened only when it is used: there are thousands.
#[derive(Debug)]
pub(super) enum ModuleSource {
    Path(PathBuf),
    Region(Region),
}

impl ModuleSource {
    fn read_all(&self, limit: u64) -> io::Result<Vec<u8>> {
        match self {
            Self::Region(region) => region.read_all(limit),
            Self::Path(path) => {
                let file = File::open(path)?;
                let len = file.metadata()?.len();
                Region::new(Arc::new(file), 0, len).read_all(limit)
            }
        }
    }
}

impl ModuleTree {
    /// The modules in a directory like `/lib/modules/<release>`, or in a tar archive of one. Blocks.
    pub(super) fn of(
        path: &Path,
        tmp: &Path,
        cancel: &CancellationToken,
    ) -> Result<Self, KernelError> {
        if path.is_dir() {
            return Self::read(path);
        }
        let file = File::open(path).map_err(KernelError::source(path))?;
        let size_bytes = file.metadata().map_err(KernelError::source(path))?.len();
        let source = LayerSource {
            reader: Watched::new(file, cancel.clone()),
            digest: Digest::of(b""),
            size_bytes,
        };
        let archive = spool_archive(source, tmp, &Budget::default()).map_err(|error| {
            if cancel.is_cancelled() {
                KernelError::Cancelled
            } else {
                KernelError::Package(error)
            }
        })?;
        let file = Arc::new(archive.file);
        let mut tree = Self::default();
        for entry in archive.entries.iter() {
            let EntryKind::File(content) = &entry.kind else {
                continue;
            };
            let [extent] = &*content.extents else {
                continue;
            };
            let region = Region::new(Arc::clone(&file), extent.offset, extent.len);
            let Some(path) = entry.path_text() else {
                continue;
            };
            let name = path.rsplit('/').next().unwrap_or(path);
            tree.add(name, ModuleSource::Region(region))?;
        }
        Ok(tree)
    }

    /// The modules in a directory. Links are not followed.
    pub(super) fn read(directory: &Path) -> Result<Self, KernelError> {
        let mut tree = Self::default();
        let mut todo = vec![(directory.to_owned(), 0)];
        let mut seen = 0;
        while let Some((directory, depth)) = todo.pop() {
            for entry in fs::read_dir(&directory).map_err(KernelError::source(&directory))? {
                let entry = entry.map_err(KernelError::source(&directory))?;
                let (path, kind) = (
                    entry.path(),
                    entry.file_type().map_err(KernelError::source(&directory))?,
                );
                seen += 1;
                if seen > MODULE_FILES_MAX {
                    let limit = MODULE_FILES_MAX as u64;
                    return Err(KernelError::TooLarge {
                        what: directory.display().to_string(),
                        limit,
                    });
                }
                if kind.is_dir() && depth < DEPTH_MAX {
                    todo.push((path, depth + 1));
                } else if kind.is_file() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    tree.add(&name, ModuleSource::Path(path))?;
                }
            }
        }
        Ok(tree)
    }

    /// Takes one file; what is neither module nor index is passed over.
    pub(super) fn add(&mut self, file_name: &str, source: ModuleSource) -> Result<(), KernelError> {
        let text = || -> Result<String, KernelError> {
            let bytes = source
                .read_all(MODULE_INDEX_BYTES_MAX)
                .map_err(KernelError::source(Path::new(file_name)))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        match file_name {
            "modules.builtin" => {
                let names = text()?.lines().filter_map(module_of).collect();
                self.builtin = Some(names);
            }
            "modules.dep" => {
                let line = |line: &str| {
                    let (module, needs) = line.split_once(':')?;
                    Some((
                        module_of(module)?,
                        needs.split_whitespace().filter_map(module_of).collect(),
                    ))
                };
                self.dependencies = Some(text()?.lines().filter_map(line).collect());
            }
            _ => {
                if let Some((name, compression)) = split(file_name) {
                    self.files.insert(
                        name,
                        ModuleFile {
                            compression,
                            source,
                        },
                    );
                }
            }
        }
        Ok(())
    }

    /// What it says about what is built in.
    pub(super) fn into_builtin(self) -> BuiltinModules {
        BuiltinModules(self.builtin)
    }

    /// The modules a guest loads, in order. Blocks, until `cancel` is cancelled.
    pub(super) fn select(&self, cancel: &CancellationToken) -> Result<Vec<Module>, KernelError> {
        let mut selection = Selection {
            selected: Vec::new(),
            visited: HashSet::new(),
            bytes: 0,
            cancel,
        };
        for name in WANTED.iter().filter(|name| self.files.contains_key(**name)) {
            self.visit(name, &mut selection)?;
        }
        Ok(selection.selected)
    }

    /// Puts what `name` needs before it.
    fn visit(&self, name: &str, selection: &mut Selection<'_>) -> Result<(), KernelError> {
        if selection.cancel.is_cancelled() {
            return Err(KernelError::Cancelled);
        }
        let is_builtin = |builtin: &HashSet<String>| builtin.contains(name);
        if self.builtin.as_ref().is_some_and(is_builtin)
            || !selection.visited.insert(name.to_owned())
        {
            return Ok(());
        }
        if selection.visited.len() > SELECTED_MAX {
            return Err(KernelError::TooLarge {
                what: "the list of modules".into(),
                limit: SELECTED_MAX as u64,
            });
        }
        let Some(file) = self.files.get(name) else {
            return Err(KernelError::MissingModules {
                modules: vec![name.to_owned()],
            });
        };
        let bytes = file.read(name)?;
        selection.bytes += bytes.len() as u64;
        if selection.bytes > MODULES_BYTES_MAX {
            return Err(KernelError::TooLarge {
                what: "all that a guest needs of the modules".into(),
                limit: MODULES_BYTES_MAX,
            });
        }
        let needs = match self.dependencies.as_ref().and_then(|all| all.get(name)) {
            Some(needs) => needs.iter().rev().cloned().collect(),
            None => needs_of(&bytes).ok_or_else(|| KernelError::BadModule {
                module: name.to_owned(),
            })?,
        };
        for need in needs {
            self.visit(&need, selection)?;
        }
        selection.selected.push(Module {
            name: name.to_owned(),
            bytes,
        });
        Ok(())
    }
}

/// What a modules directory says is built into its kernel.
#[derive(Debug)]
pub(super) struct BuiltinModules(Option<HashSet<String>>);

impl BuiltinModules {
    /// The state of a module that is not kept with the kernel.
    pub(super) fn state(&self, module: &str) -> FeatureState {
        match &self.0 {
            Some(names) if names.contains(module) => FeatureState::BuiltIn,
            Some(_) => FeatureState::Missing,
            None => FeatureState::Unknown,
        }
    }
}

impl Module {
    /// Refuses it if it says that it was built for another release.
    pub(super) fn check_release(&self, release: &str) -> Result<(), KernelError> {
        let vermagic = field_of(&self.bytes, b"vermagic=").unwrap_or_default();
        match vermagic.split(' ').next() {
            None | Some("") => Ok(()),
            Some(_) if release.is_empty() => Ok(()),
            Some(built_for) if built_for == release => Ok(()),
            Some(built_for) => Err(KernelError::ForeignModule {
                module: self.name.clone(),
                built_for: built_for.chars().take(RELEASE_CHARS_MAX).collect(),
                release: release.to_owned(),
            }),
        }
    }
}

impl ModuleFile {
    /// The module, decompressed.
    fn read(&self, name: &str) -> Result<Vec<u8>, KernelError> {
        let bad = || KernelError::BadModule {
            module: name.to_owned(),
        };
        let raw = self.source.read_all(MODULE_BYTES_MAX).map_err(|_| bad())?;
        let mut bytes = Vec::new();
        let mut take =
            |from: &mut dyn Read| from.take(MODULE_BYTES_MAX + 1).read_to_end(&mut bytes);
        match self.compression.as_str() {
            "" => bytes = raw,
            ".gz" => drop(take(&mut flate2::read::GzDecoder::new(&*raw)).map_err(|_| bad())?),
            ".xz" => drop(take(&mut liblzma::read::XzDecoder::new(&*raw)).map_err(|_| bad())?),
            _ => drop(
                zstd::stream::read::Decoder::new(&*raw)
                    .and_then(|mut from| take(&mut from))
                    .map_err(|_| bad())?,
            ),
        }
        if bytes.len() as u64 > MODULE_BYTES_MAX {
            return Err(KernelError::TooLarge {
                what: name.to_owned(),
                limit: MODULE_BYTES_MAX,
            });
        }
        if Elf::parse(&bytes).is_none() {
            Err(bad())
        } else {
            Ok(bytes)
        }
    }
}

/// What a module says it needs: `depends=a,b` in its `.modinfo`.
fn needs_of(module: &[u8]) -> Option<Vec<String>> {
    let needs = field_of(module, b"depends=")?;
    Some(
        needs
            .split(',')
            .filter(|name| !name.is_empty())
            .map(canonical)
            .collect(),
    )
}

/// A field of a module's `.modinfo`.
fn field_of<'a>(module: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let info = Elf::parse(module)?.section(".modinfo")?;
    let field = info
        .split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(name))?;
    std::str::from_utf8(field).ok()
}

/// The name in a path of `modules.dep` or `modules.builtin`.
fn module_of(path: &str) -> Option<String> {
    split(path.trim().rsplit('/').next()?).map(|(name, _)| name)
}

/// A module file's canonical name and compression.
fn split(file_name: &str) -> Option<(String, String)> {
    let (name, compression) = file_name.rsplit_once(".ko")?;
    matches!(compression, "" | ".gz" | ".xz" | ".zst")
        .then(|| (canonical(name), compression.to_owned()))
}

/// The kernel takes `-` and `_` for the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}
