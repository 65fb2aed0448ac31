//! Kernels.

use banger_core::kernel::{FeatureState, Kernel, KernelFeature, KernelInspection};
use banger_proto::v1;

use super::field::{int, time};

pub(crate) fn kernel(kernel: &Kernel) -> v1::Kernel {
    v1::Kernel {
        id: kernel.id.to_string(),
        name: kernel.name.to_string(),
        release: kernel.release.clone(),
        digest: kernel.digest.to_string(),
        size_bytes: int(kernel.size_bytes),
        modules: kernel.modules.clone(),
        origin: kernel.origin.clone(),
        is_default: kernel.is_default,
        create_time: Some(time(kernel.create_time)),
        inspection: Some(inspection(&kernel.inspection)),
    }
}

fn inspection(inspection: &KernelInspection) -> v1::KernelInspection {
    v1::KernelInspection {
        format: inspection.format.clone(),
        architecture: inspection.architecture.clone(),
        banner: inspection.banner.clone(),
        evidence: inspection.evidence.clone(),
        features: inspection.features.iter().map(feature).collect(),
    }
}

fn feature(feature: &KernelFeature) -> v1::KernelFeature {
    use v1::kernel_feature::State;
    let state = match feature.state {
        FeatureState::BuiltIn => State::BuiltIn,
        FeatureState::Module => State::Module,
        FeatureState::Missing => State::Missing,
        FeatureState::Unknown => State::Unspecified,
    };
    v1::KernelFeature {
        name: feature.name.clone(),
        options: feature.options.clone(),
        state: state.into(),
        is_required: feature.required,
        purpose: feature.purpose.clone(),
    }
}
