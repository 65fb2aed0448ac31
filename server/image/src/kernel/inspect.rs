//! What a kernel has of what banger needs: read from the best evidence there is, and refused where something
//! without which no guest comes up is known to be missing.
//!
//! ```text
//! configuration inside the kernel > in its package > given at import
//!   > the manifest of its bundle > modules and modules.builtin > texts inside the kernel
//! ```
//! What nothing tells is unknown, and no reason to refuse.

use std::collections::{BTreeMap, BTreeSet};

use banger_core::kernel::{FeatureState, KernelFeature, KernelInspection};
use memchr::memmem;

use super::KernelError;
use super::bzimage::Vmlinux;
use super::config::{KernelConfig, Setting};
use super::error::Lacking;
use super::feature::{FEATURES, Feature, Need, PVH_ENTRY, Part};
use super::modules::BuiltinModules;

/// The words of the OCI image index; banger boots no other.
const ARCHITECTURE: &str = "amd64";

/// What tells about a kernel, apart from the kernel itself.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// A configuration that is not inside the kernel, and where it was.
    pub(super) config: Option<(KernelConfig, &'static str)>,
    /// What the manifest of its bundle says.
    pub(super) stated: Option<BTreeMap<String, FeatureState>>,
    /// What its modules directory says is built in.
    pub(super) builtin: Option<BuiltinModules>,
}

/// The best evidence about one kernel.
enum Evidence {
    Config(KernelConfig),
    Stated(BTreeMap<String, FeatureState>),
    Modules(BuiltinModules),
    Texts,
}

/// What is known about one kernel.
struct Known<'a> {
    evidence: Evidence,
    /// The modules that are kept with it.
    kept: BTreeSet<&'a str>,
    vmlinux: &'a [u8],
}

/// Reads what `kernel` has; `kept` are the modules that are kept with it.
///
/// # Errors
/// When the configuration inside it is damaged, or something that every guest needs is missing.
pub(super) fn inspect<'a>(
    kernel: &'a Vmlinux,
    beside: Beside,
    kept: impl Iterator<Item = &'a str>,
) -> Result<KernelInspection, KernelError> {
    let (evidence, source) = best(&kernel.bytes, beside)?;
    let known = Known {
        evidence,
        kept: kept.collect(),
        vmlinux: &kernel.bytes,
    };
    let features: Vec<KernelFeature> = FEATURES.iter().map(|one| known.report(one)).collect();
    let lacking: Vec<Lacking> = FEATURES
        .iter()
        .zip(&features)
        .filter(|(_, report)| report.required && report.state == FeatureState::Missing)
        .map(|(feature, _)| known.lacking(feature))
        .collect();
    if !lacking.is_empty() {
        return Err(KernelError::LacksFeatures {
            lacking,
            evidence: source,
        });
    }
    let told = features
        .iter()
        .any(|report| report.name != PVH_ENTRY && report.state != FeatureState::Unknown);
    Ok(KernelInspection {
        format: kernel.format.to_string(),
        architecture: ARCHITECTURE.to_owned(),
        banner: kernel.banner.clone(),
        evidence: if told { source } else { "" }.to_owned(),
        features,
        bundle: None,
    })
}

fn best(vmlinux: &[u8], beside: Beside) -> Result<(Evidence, &'static str), KernelError> {
    if let Some(config) = KernelConfig::embedded(vmlinux)? {
        return Ok((Evidence::Config(config), "configuration inside the kernel"));
    }
    Ok(match beside {
        Beside {
            config: Some((config, source)),
            ..
        } => (Evidence::Config(config), source),
        Beside {
            stated: Some(stated),
            ..
        } => (Evidence::Stated(stated), "manifest of its bundle"),
        Beside {
            builtin: Some(builtin),
            ..
        } => (
            Evidence::Modules(builtin),
            "modules and modules.builtin, texts inside the kernel",
        ),
        _ => (Evidence::Texts, "texts inside the kernel"),
    })
}

impl Known<'_> {
    fn report(&self, feature: &Feature) -> KernelFeature {
        KernelFeature {
            name: feature.name.to_owned(),
            options: feature
                .parts
                .iter()
                .map(|part| part.option.to_owned())
                .collect(),
            state: self.state(feature),
            required: feature.need == Need::Required,
            purpose: feature.purpose.to_owned(),
        }
    }

    fn state(&self, feature: &Feature) -> FeatureState {
        if feature.name == PVH_ENTRY {
            return FeatureState::BuiltIn; // its note was found when it was unpacked
        }
        let told = match &self.evidence {
            Evidence::Stated(stated) => self.stated(feature, stated),
            _ => feature
                .parts
                .iter()
                .map(|part| self.part(part))
                .max_by_key(|state| weight(*state))
                .unwrap_or(FeatureState::Unknown),
        };
        match told {
            FeatureState::Unknown if self.has_trace(feature) => FeatureState::BuiltIn,
            told => told,
        }
    }

    fn part(&self, part: &Part) -> FeatureState {
        if self.kept.contains(part.module) {
            return FeatureState::Module;
        }
        match &self.evidence {
            Evidence::Config(config) => match config.setting(part.option) {
                Setting::BuiltIn => FeatureState::BuiltIn,
                // A module that is not kept is not there.
                Setting::Module | Setting::Off => FeatureState::Missing,
            },
            Evidence::Modules(builtin) if !part.module.is_empty() => builtin.state(part.module),
            _ => FeatureState::Unknown,
        }
    }

    /// A manifest's word, as far as it can be true.
    fn stated(&self, feature: &Feature, stated: &BTreeMap<String, FeatureState>) -> FeatureState {
        let has_module = feature
            .parts
            .iter()
            .any(|part| self.kept.contains(part.module));
        match stated.get(feature.name) {
            Some(FeatureState::Module) if !has_module => FeatureState::Missing,
            Some(state) => *state,
            None if has_module => FeatureState::Module,
            None => FeatureState::Unknown,
        }
    }

    fn has_trace(&self, feature: &Feature) -> bool {
        !feature.trace.is_empty() && memmem::find(self.vmlinux, feature.trace.as_bytes()).is_some()
    }

    /// What of a missing feature is missing.
    fn lacking(&self, feature: &Feature) -> Lacking {
        let missing = feature
            .parts
            .iter()
            .filter(|part| self.part(part) == FeatureState::Missing);
        let is_modular = |part: &&Part| match &self.evidence {
            Evidence::Config(config) => config.setting(part.option) == Setting::Module,
            Evidence::Stated(stated) => stated.get(feature.name) == Some(&FeatureState::Module),
            Evidence::Modules(_) => {
                !part.module.is_empty() && self.part(part) == FeatureState::Missing
            }
            Evidence::Texts => false,
        };
        let options: Vec<&'static str> = match &self.evidence {
            Evidence::Stated(_) => feature.parts.iter().map(|part| part.option).collect(),
            _ => missing.clone().map(|part| part.option).collect(),
        };
        Lacking {
            feature: feature.name,
            options,
            modules: feature
                .parts
                .iter()
                .filter(is_modular)
                .map(|part| part.module)
                .collect(),
        }
    }
}

/// Which of its parts' states is a feature's: the worst of those that are known.
const fn weight(state: FeatureState) -> u8 {
    match state {
        FeatureState::Unknown => 0,
        FeatureState::BuiltIn => 1,
        FeatureState::Module => 2,
        FeatureState::Missing => 3,
    }
}
