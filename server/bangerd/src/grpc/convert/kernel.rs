//! Kernels.

use banger_core::kernel::Kernel;
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
    }
}
