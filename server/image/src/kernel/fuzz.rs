//! What readers of kernels do with any bytes, for fuzzers.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use banger_catalog::{
    KernelManifest, KernelParts, MANIFEST_MEMBER, ModulePart, VMLINUX_MEMBER, VmlinuxPart,
};
use banger_core::image::Platform;
use banger_core::{Digest, KernelId};
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use super::bundle;
use super::bzimage::{Vmlinux, extract};
use super::config::KernelConfig;
use super::elf::Elf;
use super::feature::FEATURES;
use super::import::Import;
use super::inspect::Beside;
use super::modules::{Module, ModuleTree};
use super::samples;

const ORIGIN: &str = "fuzz";
const MEMORY: &str = "memory takes every byte";

/// A kernel's file, and its configuration beside it.
pub(crate) fn kernel(bytes: &[u8]) {
    if let Ok(kernel) = extract(bytes.to_vec(), ORIGIN) {
        assert!(Elf::parse(&kernel.bytes).is_some_and(Elf::has_pvh_entry));
        let again = extract(kernel.bytes.clone(), ORIGIN).expect("what was extracted is a kernel");
        assert_eq!(again.banner, kernel.banner);
        inspect(kernel, Vec::new(), Beside::default());
    }
    if let Ok(config) = KernelConfig::file(bytes, ORIGIN) {
        let beside = Beside {
            config: Some((config, ORIGIN)),
            ..Beside::default()
        };
        inspect(smallest(), Vec::new(), beside);
    }
    let _ = KernelConfig::embedded(bytes);
}

/// A tar of a modules directory.
pub(crate) fn modules(bytes: &[u8]) {
    let file = kept(bytes);
    let cancel = CancellationToken::new();
    let Ok(tree) = ModuleTree::of(file.path(), &std::env::temp_dir(), &cancel) else {
        return;
    };
    if let Ok(chosen) = tree.select(&cancel) {
        let mut names: Vec<&str> = chosen.iter().map(|module| module.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), chosen.len(), "a module twice");
        let builtin = Some(tree.into_builtin());
        let beside = Beside {
            builtin,
            ..Beside::default()
        };
        inspect(smallest(), chosen, beside);
    }
}

/// A kernel bundle.
pub(crate) fn bundle(bytes: &[u8]) {
    let file = kept(bytes);
    let _ = read_bundle(file.path());
}

fn read_bundle(path: &Path) -> Result<Import, super::KernelError> {
    bundle::read(KernelId::new(), path, &CancellationToken::new())
}

fn inspect(kernel: Vmlinux, modules: Vec<Module>, beside: Beside) {
    let _ = Import::inspected(KernelId::new(), kernel, modules, beside, ORIGIN.into());
}

/// The least that is a kernel.
fn smallest() -> Vmlinux {
    extract(samples::elf(18, 62, samples::BANNER), ORIGIN).expect("it has an entry")
}

/// One small input for each thing that readers know: the target, a name, the bytes.
///
/// # Panics
/// If there is no memory.
pub(crate) fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let kernel = samples::elf(18, 62, samples::BANNER);
    let option = |name: &str| format!("{name}=y\n");
    let options = FEATURES.iter().flat_map(|feature| feature.parts);
    let config: String = options.map(|part| option(part.option)).collect();
    let config = config + &option("CONFIG_X86_64");
    let packed = samples::payloads(config.as_bytes()).swap_remove(0);
    let with_config = [b"IKCFG_ST", &packed[..], b"IKCFG_ED"].concat();
    let with_config = samples::elf(18, 62, &[samples::BANNER, &with_config].concat());
    let mut seeds = vec![
        ("kernel", "vmlinux.seed".to_owned(), kernel.clone()),
        ("kernel", "config.seed".into(), config.into_bytes()),
        ("kernel", "embedded-config.seed".into(), with_config),
    ];
    let names = ["gzip", "xz", "zstd", "lz4"];
    for (name, payload) in names.into_iter().zip(samples::payloads(&kernel)) {
        let name = format!("bzimage-{name}.seed");
        seeds.push(("kernel", name, samples::bzimage(&payload)));
    }
    let module = samples::module;
    let plain = [
        ("virtio.ko", module("")),
        ("virtio_blk.ko", module("virtio")),
        ("modules.builtin", b"kernel/fs/ext4/ext4.ko\n".to_vec()),
        ("modules.dep", b"a/virtio_blk.ko: a/virtio.ko\n".to_vec()),
    ];
    let circle = [
        ("virtio_blk.ko", module("virtio-net")),
        ("virtio_net.ko", module("virtio_blk")),
    ];
    let packed = samples::payloads(&module(""));
    let packed = [
        ("virtio.ko.gz", packed[0].clone()),
        (
            "virtio_blk.ko.xz",
            packed[1][..packed[1].len() - 4].to_vec(),
        ),
        (
            "virtio_net.ko.zst",
            packed[2][..packed[2].len() - 4].to_vec(),
        ),
    ];
    let bundle = bundle_members(&kernel, &module(""));
    let members: Vec<_> = bundle
        .iter()
        .map(|(name, bytes)| (name.as_str(), &bytes[..]))
        .collect();
    let bundle = archive(&members);
    let of = |files: &[(&str, Vec<u8>)]| {
        let files: Vec<_> = files
            .iter()
            .map(|(name, bytes)| (*name, &bytes[..]))
            .collect();
        archive(&files)
    };
    seeds.extend([
        ("kernel_modules", "plain.seed".to_owned(), of(&plain)),
        ("kernel_modules", "circle.seed".into(), of(&circle)),
        ("kernel_modules", "packed.seed".into(), of(&packed)),
        ("kernel_bundle", "plain.seed".into(), bundle.clone()),
        (
            "kernel_bundle",
            "compressed.seed".into(),
            zstd::encode_all(&bundle[..], 3).expect(MEMORY),
        ),
        (
            "kernel_bundle",
            "manifest-only.seed".into(),
            archive(&members[..1]),
        ),
    ]);
    seeds
}

fn bundle_members(kernel: &[u8], module: &[u8]) -> Vec<(String, Vec<u8>)> {
    let manifest = KernelManifest::new(KernelParts {
        name: "made".parse().expect("a name"),
        release: "6.1.0-42-test".into(),
        platform: Platform::host(),
        vmlinux: VmlinuxPart {
            size_bytes: kernel.len() as u64,
            digest: Digest::of(kernel),
        },
        modules: vec![ModulePart {
            name: "virtio".into(),
            size_bytes: module.len() as u64,
            digest: Digest::of(module),
        }],
        features: BTreeMap::new(),
        origin: ORIGIN.into(),
        builder: ORIGIN.into(),
    })
    .expect("a manifest");
    let module_member = manifest.module_member(0).expect("it has one");
    vec![
        (MANIFEST_MEMBER.to_owned(), manifest.to_bytes()),
        (VMLINUX_MEMBER.to_owned(), kernel.to_vec()),
        (module_member, module.to_vec()),
    ]
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, name, *bytes)
            .expect(MEMORY);
    }
    builder.into_inner().expect(MEMORY)
}

fn kept(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a place for a file");
    file.write_all(bytes).expect("a place for a file");
    file
}
