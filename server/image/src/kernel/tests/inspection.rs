//! What is read of kernels, and which are refused.

use std::collections::BTreeMap;
use std::io::Write as _;

use banger_core::Explain;
use banger_core::kernel::{FeatureState, KernelInspection};

use super::super::KernelError;
use super::super::bzimage::extract;
use super::super::config::KernelConfig;
use super::super::feature::{FEATURES, Need};
use super::super::inspect::{Beside, inspect};
use super::super::modules::ModuleTree;
use super::{BANNER, elf, module, modules_directory};

/// A configuration with everything, but for what `change` says.
pub(super) fn config(change: &[(&str, &str)]) -> String {
    let options = FEATURES.iter().flat_map(|feature| feature.parts);
    let mut settings: BTreeMap<&str, &str> = options.map(|part| (part.option, "y")).collect();
    settings.insert("CONFIG_X86_64", "y");
    settings.extend(change.iter().copied());
    let mut text = String::from("#\n# Automatically generated file\n#\n");
    for (option, value) in settings {
        match value {
            "n" => text.push_str(&format!("# {option} is not set\n")),
            value => text.push_str(&format!("{option}={value}\n")),
        }
    }
    text
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A vmlinux with this behind its banner.
fn kernel(tail: &[u8]) -> super::super::bzimage::Vmlinux {
    extract(elf(18, 62, &[BANNER, tail].concat()), "x").unwrap()
}

fn with_embedded(packed: &[u8]) -> super::super::bzimage::Vmlinux {
    kernel(&[b"IKCFG_ST", packed, b"IKCFG_ED"].concat())
}

fn state(inspection: &KernelInspection, name: &str) -> FeatureState {
    let found = inspection
        .features
        .iter()
        .find(|feature| feature.name == name);
    found.unwrap().state
}

fn beside(text: &str) -> Beside {
    Beside {
        config: Some((KernelConfig::file(text.as_bytes(), "x").unwrap(), "given")),
        ..Beside::default()
    }
}

fn no_modules() -> std::iter::Empty<&'static str> {
    std::iter::empty()
}

#[test]
fn the_configuration_inside_the_kernel_wins() {
    let kernel = with_embedded(&gzip(config(&[("CONFIG_VSOCKETS", "n")]).as_bytes()));
    // What is given beside says otherwise.
    let beside = beside(&config(&[("CONFIG_EXT4_FS", "n")]));
    let inspection = inspect(&kernel, beside, no_modules()).unwrap();
    assert_eq!(inspection.evidence, "configuration inside the kernel");
    assert_eq!(inspection.format, "vmlinux");
    assert_eq!(inspection.architecture, "amd64");
    assert_eq!(state(&inspection, "vsock"), FeatureState::Missing);
    assert_eq!(state(&inspection, "ext4"), FeatureState::BuiltIn);
}

#[test]
fn every_required_feature_is_missed_by_its_options() {
    for feature in FEATURES {
        if feature.need == Need::Optional || feature.name == "pvh-entry" {
            continue;
        }
        for part in feature.parts {
            let config = config(&[(part.option, "n")]);
            let error = inspect(&kernel(b""), beside(&config), no_modules()).unwrap_err();
            assert_eq!(error.reason(), "KERNEL_LACKS_FEATURES", "{}", part.option);
            let metadata: BTreeMap<_, _> = error.metadata().into_iter().collect();
            assert_eq!(metadata["features"], feature.name);
            assert_eq!(metadata["options"], part.option);
            assert_eq!(metadata["evidence"], "given");
        }
    }
}

#[test]
fn what_is_only_useful_is_no_reason_to_refuse() {
    let optional = FEATURES
        .iter()
        .filter(|feature| feature.need == Need::Optional)
        .flat_map(|feature| feature.parts);
    // Two of what is useful are made of what is needed.
    let off: Vec<_> = optional
        .filter(|part| part.option != "CONFIG_NET")
        .map(|part| (part.option, "n"))
        .collect();
    let inspection = inspect(&kernel(b""), beside(&config(&off)), no_modules()).unwrap();
    for feature in &inspection.features {
        let missing = feature.state == FeatureState::Missing;
        assert_eq!(missing, !feature.required, "{feature:?}");
    }
}

#[test]
fn a_module_counts_only_if_it_came_along() {
    let config = config(&[("CONFIG_VIRTIO_BLK", "m"), ("CONFIG_VSOCKETS", "m")]);
    let inspection = inspect(&kernel(b""), beside(&config), ["virtio_blk"].into_iter()).unwrap();
    assert_eq!(state(&inspection, "virtio-blk"), FeatureState::Module);
    assert_eq!(state(&inspection, "vsock"), FeatureState::Missing);
    let error = inspect(&kernel(b""), beside(&config), no_modules()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no guest comes up with this kernel, it has no virtio-blk (CONFIG_VIRTIO_BLK, module virtio_blk not \
         given) (read from: given)"
    );
    assert!(error.remedy().unwrap().contains("--modules"));
}

#[test]
fn modules_tell_where_no_configuration_does() {
    let directory = tempfile::tempdir().unwrap();
    modules_directory(directory.path());
    let inspected = |kernel: &[u8]| {
        let tree = ModuleTree::read(directory.path()).unwrap();
        let kept: Vec<String> = tree
            .select(&tokio_util::sync::CancellationToken::new())
            .unwrap()
            .into_iter()
            .map(|module| module.name)
            .collect();
        let beside = Beside {
            builtin: Some(tree.into_builtin()),
            ..Beside::default()
        };
        let kernel = self::kernel(kernel);
        inspect(&kernel, beside, kept.iter().map(String::as_str))
    };
    let inspection = inspected(b"devtmpfs: initialized\0").unwrap();
    assert_eq!(state(&inspection, "virtio-blk"), FeatureState::Module);
    assert_eq!(state(&inspection, "ext4"), FeatureState::BuiltIn);
    assert_eq!(state(&inspection, "devtmpfs"), FeatureState::BuiltIn);
    assert_eq!(state(&inspection, "tmpfs"), FeatureState::Unknown);
    assert_eq!(state(&inspection, "vmgenid"), FeatureState::Missing);
    assert!(inspection.evidence.starts_with("modules"));

    std::fs::remove_file(directory.path().join("kernel/drivers/overlay.ko")).unwrap();
    let error = inspected(b"").unwrap_err();
    let KernelError::LacksFeatures { lacking, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(lacking[0].feature, "overlayfs");
    assert_eq!(lacking[0].options, ["CONFIG_OVERLAY_FS"]);
    // Without the index nothing says that it is not built in.
    std::fs::remove_file(directory.path().join("modules.builtin")).unwrap();
    for gone in ["virtio_mmio", "virtio_net"] {
        // They need virtio_ring, which only the index had.
        let _ = std::fs::remove_file(directory.path().join(format!("kernel/drivers/{gone}.ko")));
    }
    let inspection = inspected(b"").unwrap();
    assert_eq!(state(&inspection, "overlayfs"), FeatureState::Unknown);
}

#[test]
fn where_nothing_tells_texts_do_and_the_rest_is_unknown() {
    let inspection = inspect(&kernel(b""), Beside::default(), no_modules()).unwrap();
    assert_eq!(inspection.evidence, "");
    assert_eq!(state(&inspection, "pvh-entry"), FeatureState::BuiltIn);
    assert_eq!(state(&inspection, "ext4"), FeatureState::Unknown);
    let inspection = inspect(&kernel(b"EXT4-fs (%s)\0"), Beside::default(), no_modules()).unwrap();
    assert_eq!(inspection.evidence, "texts inside the kernel");
    assert_eq!(state(&inspection, "ext4"), FeatureState::BuiltIn);
    assert_eq!(state(&inspection, "overlayfs"), FeatureState::Unknown);
}

#[test]
fn a_configuration_that_is_none_is_refused() {
    let detail = |text: &[u8]| {
        let error = KernelConfig::file(text, "given").unwrap_err();
        assert_eq!(error.reason(), "KERNEL_CONFIG_BAD");
        error.metadata()[1].1.clone()
    };
    assert_eq!(
        detail(b""),
        "it is not that of a kernel for x86-64",
        "an empty one"
    );
    assert_eq!(
        detail(b"CONFIG_ARM64=y\n"),
        "it is not that of a kernel for x86-64"
    );
    assert_eq!(detail(b"root:x:0:0\n"), "its line 1 is no option");
    assert_eq!(detail(b"\nCONFIG_A\0=y\n"), "its line 2 is no option");
    assert_eq!(detail(b"CONFIG_EMPTY=\n"), "its line 1 is no option");
    assert_eq!(detail(&[0xff, 0xfe]), "it is no text");
    assert!(detail(&gzip(b"x")[..12]).starts_with("its compression is damaged"));
    let bomb = gzip(&vec![b'#'; 9 << 20]);
    assert!(bomb.len() < 1 << 20);
    assert_eq!(detail(&bomb), "it has more than 8388608 bytes");
    let many: String = (0..100_001).map(|n| format!("CONFIG_{n}=y\n")).collect();
    assert_eq!(detail(many.as_bytes()), "it has more than 100000 options");
    assert!(KernelConfig::file(&gzip(config(&[]).as_bytes()), "x").is_ok());
}

#[test]
fn a_damaged_configuration_inside_the_kernel_is_refused() {
    let mut packed = gzip(config(&[]).as_bytes());
    let middle = packed.len() / 2;
    packed[middle..].fill(0);
    let error = inspect(&with_embedded(&packed), Beside::default(), no_modules()).unwrap_err();
    assert_eq!(error.reason(), "KERNEL_CONFIG_BAD");
    // The marker alone is a text that any program may have.
    let inspection = inspect(&kernel(b"IKCFG_ST\0"), Beside::default(), no_modules()).unwrap();
    assert_eq!(inspection.evidence, "");
}

#[test]
fn modules_of_another_kernel_are_refused() {
    let with = |vermagic: &str| super::super::modules::Module {
        name: "virtio".into(),
        bytes: module(&format!("\0vermagic={vermagic} SMP mod_unload")),
    };
    with("6.1.0-42-test")
        .check_release("6.1.0-42-test")
        .unwrap();
    with("6.1.0-1").check_release("").unwrap();
    let error = with("6.1.0-1").check_release("6.1.0-42-test").unwrap_err();
    assert_eq!(error.reason(), "KERNEL_MODULES_FOREIGN");
    assert_eq!(
        error.to_string(),
        "the module `virtio` was built for 6.1.0-1, and the kernel is 6.1.0-42-test"
    );
}

proptest::proptest! {
    #[test]
    fn no_configuration_makes_the_reader_panic(bytes: Vec<u8>) {
        let _ = KernelConfig::file(&bytes, "x");
        let _ = KernelConfig::embedded(&[b"IKCFG_ST\x1f\x8b", &bytes[..]].concat());
    }
}
