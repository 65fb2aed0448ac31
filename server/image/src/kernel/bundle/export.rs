//! Writing kernel bundles.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use banger_catalog::{
    KernelManifest, KernelParts, MANIFEST_MEMBER, ModulePart, VMLINUX_MEMBER, VmlinuxPart,
};
use banger_core::image::Platform;
use banger_core::kernel::FeatureState;
use banger_core::{Digest, KernelId, Name};

use super::KernelBundleError;
use crate::kernel::KernelError;
use crate::kernel::store::{ImportedKernel, Inner, KernelStore, MODULES, VMLINUX, read_modules};

/// The fastest level that still gets a kernel below a quarter of its size.
const LEVEL: i32 = 9;
/// The mode of every member.
const MODE: u32 = 0o644;

/// A kernel that is ready to be written as a bundle.
#[derive(Debug)]
pub struct KernelExport {
    manifest: KernelManifest,
    vmlinux: PathBuf,
    /// In load order.
    modules: Vec<PathBuf>,
}

impl KernelStore {
    /// Reads what a bundle of this kernel will hold. The kernel must stay until the bundle is written.
    ///
    /// # Errors
    /// When the kernel is not there, or cannot be read.
    pub async fn export(&self, id: KernelId, name: Name) -> Result<KernelExport, KernelError> {
        let imported = self.load(id)?;
        self.blocking(move |inner| KernelExport::of(inner, &imported, name))
            .await
    }
}

impl KernelExport {
    fn of(inner: &Inner, kernel: &ImportedKernel, name: Name) -> Result<Self, KernelError> {
        let directory = inner.directory(kernel.id);
        let files = read_modules(&directory.join(MODULES))?;
        let part = |(name, (_, bytes)): (&String, &(String, Vec<u8>))| ModulePart {
            name: name.clone(),
            size_bytes: bytes.len() as u64,
            digest: Digest::of(bytes),
        };
        let known = kernel
            .inspection
            .features
            .iter()
            .filter(|feature| feature.state != FeatureState::Unknown);
        let manifest = KernelManifest::new(KernelParts {
            name,
            release: kernel.release.clone(),
            platform: Platform::host(),
            vmlinux: VmlinuxPart {
                size_bytes: kernel.size_bytes,
                digest: kernel.digest,
            },
            modules: kernel.modules.iter().zip(&files).map(part).collect(),
            features: known
                .map(|feature| (feature.name.clone(), feature.state))
                .collect(),
            origin: kernel.origin.clone(),
            builder: format!("banger {}", env!("CARGO_PKG_VERSION")),
        });
        Ok(Self {
            manifest: manifest.map_err(KernelBundleError::Manifest)?,
            vmlinux: directory.join(VMLINUX),
            modules: files
                .iter()
                .map(|(file, _)| directory.join(MODULES).join(file))
                .collect(),
        })
    }

    /// What the bundle will begin with.
    #[must_use]
    pub const fn manifest(&self) -> &KernelManifest {
        &self.manifest
    }

    /// How much will be read: what the bundle holds, uncompressed.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        let modules = self.manifest.modules.iter().map(|module| module.size_bytes);
        self.manifest.vmlinux.size_bytes + modules.sum::<u64>()
    }

    /// Writes the bundle. Blocks.
    ///
    /// # Errors
    /// When the kernel cannot be read, or `out` takes no more.
    pub fn write<W: Write>(&self, out: W) -> Result<W, KernelError> {
        self.write_all(out)
            .map_err(|source| KernelError::ExportFailed { source })
    }

    fn write_all<W: Write>(&self, out: W) -> io::Result<W> {
        let mut encoder = zstd::stream::write::Encoder::new(out, LEVEL)?;
        encoder.include_checksum(true)?;
        let mut tar = tar::Builder::new(encoder);
        let manifest = self.manifest.to_bytes();
        append(
            &mut tar,
            MANIFEST_MEMBER,
            manifest.len() as u64,
            &manifest[..],
        )?;
        let file = File::open(&self.vmlinux)?;
        append(
            &mut tar,
            VMLINUX_MEMBER,
            self.manifest.vmlinux.size_bytes,
            file,
        )?;
        for (index, path) in self.modules.iter().enumerate() {
            let bytes = fs::read(path)?;
            let member = self.manifest.module_member(index).unwrap_or_default();
            append(&mut tar, &member, bytes.len() as u64, &bytes[..])?;
        }
        tar.into_inner()?.finish()
    }
}

/// A member without anything that differs from one time to the next.
fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    member: &str,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(member)?;
    header.set_size(size);
    header.set_mode(MODE);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    let mut content = content.take(size);
    tar.append(&header, &mut content)?;
    if content.limit() > 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
