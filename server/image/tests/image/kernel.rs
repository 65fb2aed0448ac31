//! A kernel from the distribution's own package, fetched by apt.
use std::fs;

use banger_core::operation::NoProgress;
use banger_core::{Explain, KernelId};
use banger_image::KernelStore;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn the_distributions_cloud_kernel_is_imported_with_the_modules_a_guest_needs() {
    let state = tempfile::tempdir().unwrap();
    let store = KernelStore::open(state.path()).unwrap();
    let id = KernelId::new();
    let cancel = CancellationToken::new();
    let imported = store
        .import_debian_package(id, "linux-image-cloud-amd64", &NoProgress, &cancel)
        .await;
    let kernel = match imported {
        Ok(kernel) => kernel,
        Err(error)
            if matches!(
                error.reason(),
                "TOOL_MISSING" | "TOOL_FAILED" | "TOOL_DEADLINE"
            ) =>
        {
            eprintln!("skipped: apt cannot fetch a kernel here: {error}");
            return;
        }
        Err(error) => panic!("{}", banger_core::chain(&error)),
    };
    assert!(kernel.release.ends_with("cloud-amd64"), "{kernel:?}");
    assert!(kernel.origin.starts_with("linux-image-"), "{kernel:?}");
    assert_eq!(
        fs::metadata(store.vmlinux_path(id)).unwrap().len(),
        kernel.size_bytes
    );
    let place = |name: &str| kernel.modules.iter().position(|module| module == name);
    assert!(
        place("virtio_blk").is_some() && place("overlay").is_some(),
        "{kernel:?}"
    );
    assert!(place("virtio_net") > place("net_failover"), "{kernel:?}");
    fs::write(state.path().join("agent"), "agent").unwrap();
    let initramfs = store
        .initramfs(id, &state.path().join("agent"))
        .await
        .unwrap();
    eprintln!(
        "{kernel:?}\ninitramfs: {} bytes",
        fs::metadata(initramfs).unwrap().len()
    );
    assert_eq!(
        fs::read_dir(state.path().join("tmp/kernels"))
            .unwrap()
            .count(),
        0
    );
}
