use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use banger_catalog::{KernelManifest, KernelParts, ModulePart, VmlinuxPart};
use banger_core::image::Platform;
use banger_core::kernel::FeatureState;
use banger_core::operation::NoProgress;
use banger_core::{Digest, Explain, KernelId};
use tokio_util::sync::CancellationToken;

use super::super::tests::{bzimage, elf, files, module, modules_directory, payloads, vmlinux};
use super::super::{KernelError, KernelFiles, KernelStore};

/// A member as it is written: name, kind, content.
type Member = (String, tar::EntryType, Vec<u8>);

fn member(name: &str, content: &[u8]) -> Member {
    (name.into(), tar::EntryType::Regular, content.to_vec())
}

fn archive(members: &[Member]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in members {
        let mut header = tar::Header::new_ustar();
        // As it is: the crate refuses what an attacker writes.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_entry_type(*kind);
        header.set_cksum();
        builder.append(&header, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn packed(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 1).unwrap()
}

fn modules() -> Vec<(&'static str, Vec<u8>)> {
    vec![("virtio", module("")), ("virtio_blk", module("virtio"))]
}

fn parts() -> KernelParts {
    let kernel = vmlinux();
    KernelParts {
        name: "mine".parse().unwrap(),
        release: "6.1.0-42-test".into(),
        platform: Platform::host(),
        vmlinux: VmlinuxPart {
            size_bytes: kernel.len() as u64,
            digest: Digest::of(&kernel),
        },
        modules: modules()
            .iter()
            .map(|(name, bytes)| ModulePart {
                name: (*name).into(),
                size_bytes: bytes.len() as u64,
                digest: Digest::of(bytes),
            })
            .collect(),
        features: BTreeMap::from([
            ("ext4".into(), FeatureState::BuiltIn),
            ("virtio-blk".into(), FeatureState::Module),
        ]),
        origin: "a test".into(),
        builder: "a test".into(),
    }
}

fn members_of(parts: KernelParts) -> Vec<Member> {
    let manifest = KernelManifest::new(parts).unwrap();
    let mut members = vec![
        member("manifest.json", &manifest.to_bytes()),
        member("vmlinux", &vmlinux()),
    ];
    for (index, (_, bytes)) in modules().iter().enumerate() {
        members.push(member(&manifest.module_member(index).unwrap(), bytes));
    }
    members
}

fn members() -> Vec<Member> {
    members_of(parts())
}

/// A store that imports bundles from bytes.
struct Bench {
    directory: tempfile::TempDir,
    store: KernelStore,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = KernelStore::open(&directory.path().join("state")).unwrap();
        Self { directory, store }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn import(&self, bytes: &[u8]) -> Result<super::super::ImportedKernel, KernelError> {
        let path = self.at("bundle");
        fs::write(&path, bytes).unwrap();
        let cancel = CancellationToken::new();
        let import = self
            .store
            .import_bundle(KernelId::new(), &path, &NoProgress, &cancel);
        import.await
    }

    async fn reason(&self, bytes: &[u8]) -> &'static str {
        let reason = self.import(bytes).await.unwrap_err().reason();
        for place in ["state/kernels", "state/tmp/kernels"] {
            assert_eq!(fs::read_dir(self.at(place)).unwrap().count(), 0, "{reason}");
        }
        reason
    }
}

#[tokio::test]
async fn a_bundle_that_nobody_wants_any_more_is_read_no_further() {
    let bench = Bench::new();
    fs::write(bench.at("bundle"), packed(&archive(&members()))).unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let read = super::read(KernelId::new(), &bench.at("bundle"), &cancel);
    assert_eq!(read.map(drop).unwrap_err().reason(), "CANCELLED");
    let bundle = bench.at("bundle");
    let import = bench
        .store
        .import_bundle(KernelId::new(), &bundle, &NoProgress, &cancel);
    assert_eq!(import.await.unwrap_err().reason(), "CANCELLED");
    for place in ["state/kernels", "state/tmp/kernels"] {
        assert_eq!(fs::read_dir(bench.at(place)).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_bundle_brings_the_same_kernel_and_the_same_kernel_the_same_bundle() {
    let bench = Bench::new();
    modules_directory(&bench.at("modules"));
    fs::write(bench.at("vmlinuz"), bzimage(&payloads(&vmlinux())[0])).unwrap();
    let first = KernelId::new();
    let kernel = files(&bench.at("vmlinuz"), Some(&bench.at("modules")));
    let imported = bench
        .store
        .import_file(first, kernel, &NoProgress, &CancellationToken::new())
        .await;
    let imported = imported.unwrap();

    let export = |id| bench.store.export(id, "mine".parse().unwrap());
    let export_one = export(first).await.unwrap();
    let bundle = export_one.write(Vec::new()).unwrap();
    assert!(bundle == export_one.write(Vec::new()).unwrap());
    assert!(export_one.content_bytes() > vmlinux().len() as u64);
    fs::write(bench.at("bundle"), &bundle).unwrap();

    // By the way that uploads take, which finds out what it is.
    let second = KernelId::new();
    let files = files(&bench.at("bundle"), None);
    let again = bench
        .store
        .import_file(second, files, &NoProgress, &CancellationToken::new())
        .await;
    let again = again.unwrap();
    assert_eq!(again.digest, imported.digest);
    assert_eq!(again.modules, imported.modules);
    assert_eq!(again.origin, "mine");
    assert_eq!(again.inspection.features, imported.inspection.features);
    assert_eq!(again.inspection.evidence, "manifest of its bundle");
    assert!(fs::read(bench.store.vmlinux_path(second)).unwrap() == vmlinux());
    assert!(export(second).await.unwrap().write(Vec::new()).unwrap() == bundle);
}

/// A bundle after `change`.
fn with(change: impl FnOnce(&mut Vec<Member>)) -> Vec<u8> {
    let mut members = members();
    change(&mut members);
    packed(&archive(&members))
}

/// Sees that each is refused for its reason, and leaves nothing.
async fn refused(cases: Vec<(&str, Vec<u8>, &str)>) {
    let bench = Bench::new();
    for (what, bytes, reason) in cases {
        assert_eq!(bench.reason(&bytes).await, reason, "{what}");
    }
    bench.import(&with(|_| {})).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_as_it_was_written_is_refused() {
    const DAMAGED: &str = "KERNEL_BUNDLE_DAMAGED";
    const CUT_SHORT: &str = "KERNEL_BUNDLE_CUT_SHORT";
    const TRAILING: &str = "KERNEL_BUNDLE_TRAILING_DATA";
    let whole = archive(&members());
    let frame = packed(&whole);
    let tail = |tail: &[u8]| packed(&[&whole[..], tail].concat());
    let behind = |tail: &[u8]| [&frame[..], tail].concat();
    refused(vec![
        ("no compression", whole.clone(), DAMAGED),
        ("no archive", packed(&[7; 2000]), DAMAGED),
        ("an empty frame", packed(b""), CUT_SHORT),
        ("a cut frame", frame[..5000].to_vec(), CUT_SHORT),
        ("a cut archive", packed(&whole[..200_000]), CUT_SHORT),
        (
            "members that end early",
            with(|all| all.truncate(3)),
            CUT_SHORT,
        ),
        ("a tail in the archive", tail(b"tail"), TRAILING),
        ("a long tail of zeroes", tail(&[0; 2 << 20]), TRAILING),
        ("a tail behind", behind(b"tail"), TRAILING),
        ("a second frame", behind(&packed(b"more")), TRAILING),
    ])
    .await;
}

#[tokio::test]
async fn a_member_that_does_not_belong_there_is_refused() {
    const UNEXPECTED: &str = "KERNEL_BUNDLE_MEMBER_UNEXPECTED";
    const NO_FILE: &str = "KERNEL_BUNDLE_MEMBER_NO_FILE";
    let named = |at: usize, name: &str| with(|all| all[at].0 = name.into());
    let kind = |at: usize, kind| with(|all| all[at].1 = kind);
    let inserted = |at: usize, member: Member| with(|all| all.insert(at, member));
    let extended = |kind| ("x".to_owned(), kind, b"11 path=y\n".to_vec());
    refused(vec![
        ("no manifest", with(|all| drop(all.drain(..1))), UNEXPECTED),
        ("another order", with(|all| all.swap(2, 3)), UNEXPECTED),
        (
            "a member twice",
            inserted(2, members()[1].clone()),
            UNEXPECTED,
        ),
        (
            "one member more",
            inserted(4, member("more", b"x")),
            UNEXPECTED,
        ),
        ("an absolute name", named(1, "/vmlinux"), UNEXPECTED),
        ("a way up", named(2, "modules/../../x"), UNEXPECTED),
        ("a name with a dot", named(1, "./vmlinux"), UNEXPECTED),
        (
            "a PAX header",
            inserted(1, extended(tar::EntryType::XHeader)),
            UNEXPECTED,
        ),
        (
            "a long name",
            inserted(1, extended(tar::EntryType::GNULongName)),
            UNEXPECTED,
        ),
        ("a link", kind(1, tar::EntryType::Symlink), NO_FILE),
        ("a hard link", kind(2, tar::EntryType::Link), NO_FILE),
        ("a directory", kind(2, tar::EntryType::Directory), NO_FILE),
        ("a device", kind(1, tar::EntryType::Char), NO_FILE),
        ("a sparse file", kind(1, tar::EntryType::GNUSparse), NO_FILE),
    ])
    .await;
}

#[tokio::test]
async fn a_member_that_its_manifest_does_not_know_is_refused() {
    const SIZE: &str = "KERNEL_BUNDLE_SIZE_MISMATCH";
    const DIGEST: &str = "KERNEL_BUNDLE_DIGEST_MISMATCH";
    const MANIFEST: &str = "KERNEL_BUNDLE_MANIFEST_BAD";
    let manifest = |bytes: &[u8]| with(|all| all[0].2 = bytes.to_vec());
    let flipped = |at: usize, byte: usize| with(|all| all[at].2[byte] ^= 1);
    refused(vec![
        ("a longer kernel", with(|all| all[1].2.push(0)), SIZE),
        ("a shorter module", with(|all| all[2].2.truncate(9)), SIZE),
        ("a manifest of 5 MiB", manifest(&vec![b' '; 5 << 20]), SIZE),
        ("another kernel", flipped(1, 200_000), DIGEST),
        ("another module", flipped(2, 80), DIGEST),
        ("no JSON", manifest(b"{"), MANIFEST),
        (
            "an image's",
            manifest(br#"{"format":"banger.image.v1"}"#),
            MANIFEST,
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_manifest_that_does_not_tell_the_truth_is_refused() {
    let bench = Bench::new();
    let reason = async |change: &dyn Fn(&mut KernelParts)| {
        let mut parts = parts();
        change(&mut parts);
        bench.reason(&packed(&archive(&members_of(parts)))).await
    };
    assert_eq!(
        reason(&|parts| parts.platform = "linux/arm64".parse().unwrap()).await,
        "KERNEL_BUNDLE_WRONG_PLATFORM"
    );
    assert_eq!(
        reason(&|parts| parts.release = "6.2".into()).await,
        "KERNEL_BUNDLE_RELEASE_MISMATCH"
    );
    let lacks = |parts: &mut KernelParts| {
        parts
            .features
            .insert("overlayfs".into(), FeatureState::Missing);
    };
    assert_eq!(reason(&lacks).await, "KERNEL_LACKS_FEATURES");
    // A module that does not come is none.
    let promises = |parts: &mut KernelParts| {
        parts
            .features
            .insert("overlayfs".into(), FeatureState::Module);
    };
    assert_eq!(reason(&promises).await, "KERNEL_LACKS_FEATURES");
}

/// The members of a bundle whose kernel is `kernel`, without modules.
fn with_kernel(kernel: &[u8]) -> Vec<u8> {
    let manifest = KernelManifest::new(KernelParts {
        vmlinux: VmlinuxPart {
            size_bytes: kernel.len() as u64,
            digest: Digest::of(kernel),
        },
        modules: Vec::new(),
        features: BTreeMap::new(),
        ..parts()
    });
    packed(&archive(&[
        member("manifest.json", &manifest.unwrap().to_bytes()),
        member("vmlinux", kernel),
    ]))
}

#[tokio::test]
async fn a_bundles_kernel_is_looked_at_like_any_other() {
    let bench = Bench::new();
    for (kernel, reason) in [
        (b"text".to_vec(), "NOT_A_KERNEL"),
        (elf(17, 62, b""), "KERNEL_WITHOUT_PVH"),
        (elf(18, 183, b""), "KERNEL_WRONG_ARCHITECTURE"),
        (
            bzimage(&payloads(&vmlinux())[0]),
            "KERNEL_BUNDLE_RELEASE_MISMATCH",
        ),
    ] {
        assert_eq!(bench.reason(&with_kernel(&kernel)).await, reason);
    }
}

#[tokio::test]
async fn nothing_is_given_beside_a_bundle() {
    let bench = Bench::new();
    fs::write(bench.at("bundle"), packed(&archive(&members()))).unwrap();
    let given = KernelFiles {
        config: Some(bench.at("config")),
        ..files(&bench.at("bundle"), None)
    };
    let error = bench
        .store
        .import_file(
            KernelId::new(),
            given,
            &NoProgress,
            &CancellationToken::new(),
        )
        .await;
    assert_eq!(error.unwrap_err().reason(), "KERNEL_BUNDLE_WITH_PARTS");
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_archive_makes_the_reader_panic(at in 0usize..3000, value: u8, cut in 0usize..6000) {
        let mut bytes = archive(&members()[..2]);
        bytes[at] = value;
        bytes.truncate(cut);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), packed(&bytes)).unwrap();
        let path: &Path = file.path();
        proptest::prop_assert!(super::read(KernelId::new(), path, &CancellationToken::new()).is_err());
    }
}
