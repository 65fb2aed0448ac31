//! The host.

use banger_app::host::HostInfo;
use banger_core::vmm::DriverInfo;
use banger_proto::v1;

use super::field::{int, small};

pub(crate) fn info(host: HostInfo) -> v1::HostInfo {
    let of_driver =
        |get: fn(&DriverInfo) -> String| host.driver.as_ref().map(get).unwrap_or_default();
    v1::HostInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        driver: host
            .driver
            .as_ref()
            .map_or_else(|| "qemu".into(), |driver| driver.driver.clone()),
        vmm_version: of_driver(|driver| driver.version.clone()),
        accelerator: of_driver(|driver| driver.accelerator.as_str().into()),
        accelerator_warning: of_driver(|driver| {
            driver.accelerator_warning.clone().unwrap_or_default()
        }),
        cpu_count: small(host.cpu_count),
        memory_bytes: int(host.memory_bytes),
        memory_available_bytes: int(host.memory_available_bytes),
        state_dir: host.state_dir.display().to_string(),
        state_dir_available_bytes: int(host.state_dir_available_bytes),
        vm_count: small(host.vm_count),
        running_vm_count: small(host.running_vm_count),
        image_count: small(usize::try_from(host.image_count).unwrap_or(usize::MAX)),
        default_kernel: host.default_kernel.unwrap_or_default(),
        pid: i32::try_from(std::process::id()).unwrap_or(0),
    }
}
