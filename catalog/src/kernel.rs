//! The manifest of a kernel bundle.

use std::collections::{BTreeMap, BTreeSet};

use banger_core::image::Platform;
use banger_core::kernel::FeatureState;
use banger_core::{Digest, Name};
use serde::{Deserialize, Serialize};

use crate::MODULES_PREFIX;
use crate::document::{self, DocumentProblem, check_size, check_word};
use crate::limits::{
    FEATURES_MAX, MANIFEST_BYTES_MAX, MODULE_BYTES_MAX, MODULES_BYTES_MAX, MODULES_MAX,
    VMLINUX_BYTES_MAX, WORD_BYTES_MAX,
};

const FORMAT: &str = "banger.kernel.v1";

/// What a kernel bundle holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelManifest {
    format: String,
    /// What the kernel is called.
    pub name: Name,
    /// The release it reports, e.g. `6.1.0-42-cloud-amd64`.
    pub release: String,
    /// What it runs on.
    #[serde(with = "document::platform")]
    pub platform: Platform,
    /// The kernel itself.
    pub vmlinux: VmlinuxPart,
    /// In load order.
    pub modules: Vec<ModulePart>,
    /// What its maker knew of what is built in, by feature: what is not inside the kernel to be read again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, FeatureState>,
    /// Where its maker had it from, for people: a package's name and version, a source.
    pub origin: String,
    /// The program that wrote the bundle, for people.
    pub builder: String,
}

/// A kernel bundle's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmlinuxPart {
    /// Its length.
    pub size_bytes: u64,
    /// Of its bytes.
    pub digest: Digest,
}

/// One module of a kernel bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModulePart {
    /// What it is called, without `.ko`.
    pub name: String,
    /// Its length, uncompressed.
    pub size_bytes: u64,
    /// Of its bytes, uncompressed.
    pub digest: Digest,
}

/// What only the caller knows of a kernel's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelParts {
    /// See [`KernelManifest::name`].
    pub name: Name,
    /// See [`KernelManifest::release`].
    pub release: String,
    /// See [`KernelManifest::platform`].
    pub platform: Platform,
    /// See [`KernelManifest::vmlinux`].
    pub vmlinux: VmlinuxPart,
    /// See [`KernelManifest::modules`].
    pub modules: Vec<ModulePart>,
    /// See [`KernelManifest::features`].
    pub features: BTreeMap<String, FeatureState>,
    /// See [`KernelManifest::origin`].
    pub origin: String,
    /// See [`KernelManifest::builder`].
    pub builder: String,
}

impl KernelManifest {
    /// Of `parts`.
    ///
    /// # Errors
    /// If a part is outside its bounds.
    pub fn new(parts: KernelParts) -> Result<Self, DocumentProblem> {
        let manifest = Self {
            format: FORMAT.to_owned(),
            name: parts.name,
            release: parts.release,
            platform: parts.platform,
            vmlinux: parts.vmlinux,
            modules: parts.modules,
            features: parts.features,
            origin: parts.origin,
            builder: parts.builder,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// Parses a `manifest.json`.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentProblem> {
        let manifest: Self = document::parse(bytes, FORMAT, MANIFEST_BYTES_MAX)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// As it is written; the same manifest gives the same bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        document::write(self)
    }

    /// The member that holds the module at `index`: `modules/000-virtio.ko`. Members come in this order.
    #[must_use]
    pub fn module_member(&self, index: usize) -> Option<String> {
        let module = self.modules.get(index)?;
        Some(format!("{MODULES_PREFIX}{index:03}-{}.ko", module.name))
    }

    fn check(&self) -> Result<(), DocumentProblem> {
        check_size(
            "vmlinux.size_bytes",
            self.vmlinux.size_bytes,
            VMLINUX_BYTES_MAX,
        )?;
        check_word("release", &self.release)?;
        check_word("origin", &self.origin)?;
        check_word("builder", &self.builder)?;
        if self.modules.len() > MODULES_MAX {
            return Err(DocumentProblem::field(
                "modules",
                format!("are more than {MODULES_MAX}"),
            ));
        }
        if self.features.len() > FEATURES_MAX {
            let problem = format!("are more than {FEATURES_MAX}");
            return Err(DocumentProblem::field("features", problem));
        }
        for feature in self.features.keys() {
            check_word("features", feature)?;
        }
        let mut names = BTreeSet::new();
        let mut bytes: u64 = 0;
        for module in &self.modules {
            bytes = bytes.saturating_add(module.size_bytes);
            check_size("modules.size_bytes", module.size_bytes, MODULE_BYTES_MAX)?;
            if !is_module_name(&module.name) {
                return Err(DocumentProblem::field(
                    "modules.name",
                    "is no module's name",
                ));
            }
            if !names.insert(module.name.replace('-', "_")) {
                return Err(DocumentProblem::field("modules.name", "comes twice"));
            }
        }
        if bytes > MODULES_BYTES_MAX {
            return Err(DocumentProblem::field(
                "modules",
                "are larger together than 256 MiB",
            ));
        }
        Ok(())
    }
}

/// What the kernel's own modules are called: words with `_` and `-`.
fn is_module_name(name: &str) -> bool {
    (1..=WORD_BYTES_MAX - 16).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> KernelParts {
        let module = |name: &str| ModulePart {
            name: name.into(),
            size_bytes: 3,
            digest: Digest::of(name.as_bytes()),
        };
        KernelParts {
            name: "cloud".parse().unwrap(),
            release: "6.1.0".into(),
            platform: "linux/amd64".parse().unwrap(),
            vmlinux: VmlinuxPart {
                size_bytes: 9,
                digest: Digest::of(b"vmlinux"),
            },
            modules: vec![module("virtio"), module("virtio_ring")],
            features: [("ext4".into(), FeatureState::BuiltIn)].into(),
            origin: "linux-image-cloud-amd64 6.1".into(),
            builder: "banger".into(),
        }
    }

    #[test]
    fn a_kernel_manifest_survives_its_bytes() {
        let manifest = KernelManifest::new(parts()).unwrap();
        assert_eq!(
            KernelManifest::parse(&manifest.to_bytes()).unwrap(),
            manifest
        );
        assert_eq!(
            manifest.module_member(1).unwrap(),
            "modules/001-virtio_ring.ko"
        );
        assert_eq!(manifest.module_member(2), None);
    }

    #[test]
    fn module_names_are_names_and_come_once() {
        let with = |name: &str| {
            let mut parts = parts();
            parts.modules[1].name = name.into();
            KernelManifest::new(parts)
        };
        for name in ["", "a/b", "..", "a b", "a\0", &"x".repeat(300)] {
            assert!(with(name).is_err(), "{name}");
        }
        assert_eq!(
            with("virtio").unwrap_err().to_string(),
            "its `modules.name` comes twice"
        );
    }

    #[test]
    fn modules_are_bounded_together() {
        let with = |count: usize| {
            let mut parts = parts();
            let module = |number| ModulePart {
                name: format!("m{number}"),
                size_bytes: MODULE_BYTES_MAX,
                digest: Digest::of(b""),
            };
            parts.modules = (0..count).map(module).collect();
            KernelManifest::new(parts)
        };
        let fitting = usize::try_from(MODULES_BYTES_MAX / MODULE_BYTES_MAX).unwrap();
        with(fitting).unwrap();
        let problem = with(fitting + 1).unwrap_err().to_string();
        assert_eq!(problem, "its `modules` are larger together than 256 MiB");
    }

    #[test]
    fn features_are_few_and_in_words() {
        let with = |features: BTreeMap<String, FeatureState>| {
            KernelManifest::new(KernelParts {
                features,
                ..parts()
            })
        };
        let many = (0..=FEATURES_MAX).map(|n| (n.to_string(), FeatureState::Module));
        assert!(with(many.collect()).is_err());
        assert!(with([("a\nb".into(), FeatureState::Missing)].into()).is_err());
        assert!(with(BTreeMap::new()).is_ok());
    }

    #[test]
    fn an_image_is_no_kernel() {
        let error = KernelManifest::parse(br#"{"format":"banger.image.v1"}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "its format is `banger.image.v1`, and this banger reads `banger.kernel.v1`"
        );
    }
}
