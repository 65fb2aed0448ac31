//! Reading kernel bundles, which may come from anywhere.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use banger_catalog::{
    KernelManifest, MANIFEST_BYTES_MAX, MANIFEST_MEMBER, ModulePart, VMLINUX_MEMBER,
};
use banger_core::image::Platform;
use banger_core::operation::{Progress, StageKey};
use banger_core::{Digest, KernelId};
use tokio_util::sync::CancellationToken;

use super::{KernelBundleError, MAGIC};
use crate::kernel::KernelError;
use crate::kernel::bzimage::{Format, extract};
use crate::kernel::elf::Elf;
use crate::kernel::import::Import;
use crate::kernel::inspect::Beside;
use crate::kernel::modules::Module;
use crate::kernel::store::{ImportedKernel, Inner, KernelStore};
use crate::limits::BUNDLE_PADDING_BYTES_MAX;
use crate::watched::{GivenUp, Watched};

/// The largest window that is unpacked: what the compression's own tools accept unasked.
const WINDOW_LOG_MAX: u32 = 27;
/// Of a member's name in an error's text.
const MEMBER_CHARS_MAX: usize = 80;

type Packed = Watched<zstd::stream::read::Decoder<'static, BufReader<File>>>;
type Entries<'a> = tar::Entries<'a, Packed>;

impl KernelStore {
    /// Imports a kernel bundle. One stage: `import`.
    ///
    /// # Errors
    /// What [`KernelError`] says; nothing is left of a failed import.
    pub async fn import_bundle(
        &self,
        id: KernelId,
        bundle: &Path,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<ImportedKernel, KernelError> {
        let key = StageKey::new("import");
        progress.start(&key, None);
        let bundle: PathBuf = bundle.to_owned();
        let import =
            move |inner: &Inner, cancel: &CancellationToken| inner.keep(read(id, &bundle, cancel)?);
        let imported = self.importing(cancel, import).await?;
        progress.finish(&key);
        Ok(imported)
    }
}

/// Whether the file begins like a kernel bundle.
pub(in crate::kernel) fn is_bundle(path: &Path) -> Result<bool, KernelError> {
    let mut head = [0; MAGIC.len()];
    let file = File::open(path).map_err(KernelError::source(path))?;
    let read = file.take(head.len() as u64).read(&mut head);
    Ok(read.map_err(KernelError::source(path))? == head.len() && head == MAGIC)
}

/// Reads a bundle into memory: a kernel is bounded, and so are its modules together. Blocks, until `cancel` is
/// cancelled.
pub(in crate::kernel) fn read(
    id: KernelId,
    path: &Path,
    cancel: &CancellationToken,
) -> Result<Import, KernelError> {
    let file = File::open(path).map_err(KernelError::source(path))?;
    let members = match read_members(file, cancel) {
        Err(KernelError::Bundle(KernelBundleError::Damaged(error))) if GivenUp::is_in(&error) => {
            return Err(KernelError::Cancelled);
        }
        members => members?,
    };
    let manifest = members.manifest;
    if manifest.platform != Platform::host() {
        return Err(KernelBundleError::Platform {
            platform: manifest.platform.to_string(),
        }
        .into());
    }
    let kernel = extract(members.vmlinux, VMLINUX_MEMBER)?;
    let found = match kernel.format {
        Format::Vmlinux => kernel.release.clone(),
        Format::BzImage(_) => kernel.format.to_string(),
    };
    if found != manifest.release {
        return Err(KernelBundleError::Release {
            stated: manifest.release,
            found,
        }
        .into());
    }
    let beside = Beside {
        stated: Some(manifest.features),
        ..Beside::default()
    };
    let mut import = Import::inspected(id, kernel, members.modules, beside, manifest.origin)?;
    import.name = Some(manifest.name);
    import.inspection.bundle = Some(members.manifest_digest);
    Ok(import)
}

/// What a bundle holds, verified against its manifest.
struct Members {
    manifest: KernelManifest,
    manifest_digest: Digest,
    vmlinux: Vec<u8>,
    modules: Vec<Module>,
}

fn read_members(file: File, cancel: &CancellationToken) -> Result<Members, KernelError> {
    let mut decoder = zstd::stream::read::Decoder::new(file).map_err(KernelBundleError::Damaged)?;
    decoder
        .window_log_max(WINDOW_LOG_MAX)
        .map_err(KernelBundleError::Damaged)?;
    let mut archive = tar::Archive::new(Watched::new(decoder.single_frame(), cancel.clone()));
    // Raw: an extended header is a member like any other here, and none that is expected.
    let mut entries = archive
        .entries()
        .map_err(KernelBundleError::Damaged)?
        .raw(true);
    let manifest = next(
        &mut entries,
        MANIFEST_MEMBER,
        Stated::AtMost(MANIFEST_BYTES_MAX),
    )?;
    let manifest_digest = Digest::of(&manifest);
    let manifest = KernelManifest::parse(&manifest).map_err(KernelBundleError::Manifest)?;
    let (size, digest) = (manifest.vmlinux.size_bytes, manifest.vmlinux.digest);
    let vmlinux = next(&mut entries, VMLINUX_MEMBER, Stated::Exactly(size, digest))?;
    let mut modules = Vec::new();
    for (index, part) in manifest.modules.iter().enumerate() {
        let member = manifest.module_member(index).unwrap_or_default();
        modules.push(module(&mut entries, &member, part)?);
    }
    if let Some(entry) = entries.next() {
        let entry = entry.map_err(|error| broken(error, "its end"))?;
        return Err(KernelBundleError::Unexpected {
            member: name_of(&entry),
            expected: "nothing more".into(),
        }
        .into());
    }
    end(archive.into_inner())?;
    Ok(Members {
        manifest,
        manifest_digest,
        vmlinux,
        modules,
    })
}

fn module(
    entries: &mut Entries<'_>,
    member: &str,
    part: &ModulePart,
) -> Result<Module, KernelError> {
    let bytes = next(
        entries,
        member,
        Stated::Exactly(part.size_bytes, part.digest),
    )?;
    if Elf::parse(&bytes).is_none() {
        return Err(KernelError::BadModule {
            module: part.name.clone(),
        });
    }
    Ok(Module {
        name: part.name.clone(),
        bytes,
    })
}

/// What is known of a member before it is read.
enum Stated {
    AtMost(u64),
    Exactly(u64, Digest),
}

/// The next member, which must be `expected`.
fn next(
    entries: &mut Entries<'_>,
    expected: &str,
    stated: Stated,
) -> Result<Vec<u8>, KernelBundleError> {
    let cut_short = || KernelBundleError::CutShort {
        member: expected.to_owned(),
    };
    let mut entry = entries
        .next()
        .ok_or_else(cut_short)?
        .map_err(|error| broken(error, expected))?;
    let member = name_of(&entry);
    if member != expected {
        let expected = expected.to_owned();
        return Err(KernelBundleError::Unexpected { member, expected });
    }
    if entry.header().entry_type() != tar::EntryType::Regular {
        return Err(KernelBundleError::NotAFile { member });
    }
    let size = entry.size();
    let fits = match &stated {
        Stated::AtMost(limit) => size <= *limit,
        Stated::Exactly(stated, _) => size == *stated,
    };
    if !fits {
        let (Stated::AtMost(stated) | Stated::Exactly(stated, _)) = stated;
        return Err(KernelBundleError::Size {
            member,
            found: size,
            stated,
        });
    }
    let mut bytes = Vec::new();
    let read = entry.read_to_end(&mut bytes);
    read.map_err(|error| broken(error, expected))?;
    if bytes.len() as u64 != size {
        return Err(cut_short());
    }
    match stated {
        Stated::Exactly(_, digest) if Digest::of(&bytes) != digest => {
            Err(KernelBundleError::Digest { member })
        }
        _ => Ok(bytes),
    }
}

/// Sees that only padding comes after the last member, and nothing after the compression.
fn end(mut decoder: Packed) -> Result<(), KernelBundleError> {
    let mut rest = Vec::new();
    let read = decoder
        .by_ref()
        .take(BUNDLE_PADDING_BYTES_MAX + 1)
        .read_to_end(&mut rest);
    read.map_err(|error| broken(error, "its end"))?;
    let is_padding =
        rest.len() as u64 <= BUNDLE_PADDING_BYTES_MAX && rest.iter().all(|byte| *byte == 0);
    let mut file = decoder.into_inner().finish();
    let is_all = file
        .fill_buf()
        .map_err(KernelBundleError::Damaged)?
        .is_empty();
    if is_padding && is_all {
        Ok(())
    } else {
        Err(KernelBundleError::Trailing)
    }
}

fn broken(error: io::Error, member: &str) -> KernelBundleError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => KernelBundleError::CutShort {
            member: member.to_owned(),
        },
        _ => KernelBundleError::Damaged(error),
    }
}

fn name_of<R: Read>(entry: &tar::Entry<'_, R>) -> String {
    String::from_utf8_lossy(&entry.path_bytes())
        .chars()
        .take(MEMBER_CHARS_MAX)
        .collect()
}
