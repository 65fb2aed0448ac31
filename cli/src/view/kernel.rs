//! Kernels.

use banger_sdk::types;
use banger_sdk::types::kernel_feature::State;
use jiff::Timestamp;
use serde::Serialize;

use super::{age, bytes, timestamp};
use crate::output::Row;

/// A kernel.
#[derive(Debug, Serialize)]
pub(crate) struct Kernel {
    id: String,
    name: String,
    release: String,
    digest: String,
    size_bytes: i64,
    modules: Vec<String>,
    origin: String,
    is_default: bool,
    create_time: Option<Timestamp>,
    format: String,
    architecture: String,
    banner: String,
    evidence: String,
    features: Vec<Feature>,
}

/// Something that guests need or can use.
#[derive(Debug, Serialize)]
struct Feature {
    name: String,
    /// `built-in`, `module`, `missing` or `unknown`.
    state: &'static str,
    is_required: bool,
    options: Vec<String>,
    purpose: String,
}

impl From<types::Kernel> for Kernel {
    fn from(kernel: types::Kernel) -> Self {
        let inspection = kernel.inspection.unwrap_or_default();
        Self {
            id: kernel.id,
            name: kernel.name,
            release: kernel.release,
            digest: kernel.digest,
            size_bytes: kernel.size_bytes,
            modules: kernel.modules,
            origin: kernel.origin,
            is_default: kernel.is_default,
            create_time: timestamp(kernel.create_time),
            format: inspection.format,
            architecture: inspection.architecture,
            banner: inspection.banner,
            evidence: inspection.evidence,
            features: inspection.features.into_iter().map(feature).collect(),
        }
    }
}

fn feature(feature: types::KernelFeature) -> Feature {
    Feature {
        state: match feature.state() {
            State::BuiltIn => "built-in",
            State::Module => "module",
            State::Missing => "missing",
            State::Unspecified => "unknown",
        },
        name: feature.name,
        is_required: feature.is_required,
        options: feature.options,
        purpose: feature.purpose,
    }
}

impl Feature {
    fn line(&self) -> String {
        let need = if self.is_required {
            "required"
        } else {
            "optional"
        };
        let (name, state, purpose) = (&self.name, self.state, &self.purpose);
        format!("{name:20} {state:9} {need:9} {purpose}")
    }
}

impl Kernel {
    /// What every guest needs and nothing tells of.
    fn warning(&self) -> String {
        let unknown: Vec<&str> = self
            .features
            .iter()
            .filter(|feature| feature.is_required && feature.state == "unknown")
            .map(|feature| feature.name.as_str())
            .collect();
        if unknown.is_empty() {
            return String::new();
        }
        format!(
            "nothing tells whether it has {}; import it with its configuration (--config) to know",
            unknown.join(", ")
        )
    }
}

impl Row for Kernel {
    const HEADINGS: &'static [&'static str] = &[
        "NAME", "RELEASE", "DEFAULT", "SIZE", "MODULES", "CREATED", "ID",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.release.clone(),
            if self.is_default { "yes" } else { "" }.to_owned(),
            bytes(self.size_bytes),
            self.modules.len().to_string(),
            age(self.create_time),
            self.id.clone(),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let features: Vec<String> = self.features.iter().map(Feature::line).collect();
        vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Release", self.release.clone()),
            ("Version", self.banner.clone()),
            ("Format", self.format.clone()),
            ("Architecture", self.architecture.clone()),
            ("Default", self.is_default.to_string()),
            ("Digest", self.digest.clone()),
            ("Size", bytes(self.size_bytes)),
            ("Origin", self.origin.clone()),
            ("Created", age(self.create_time)),
            ("Modules", self.modules.join("\n")),
            ("Warning", self.warning()),
            ("Read from", self.evidence.clone()),
            ("Features", features.join("\n")),
        ]
    }
}
