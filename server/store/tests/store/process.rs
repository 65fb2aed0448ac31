use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use banger_core::vmm::ProcessIdentity;
use banger_core::{Explain as _, VmId};

use crate::support::{Scratch, vm};

fn identity(pid: u32) -> ProcessIdentity {
    ProcessIdentity {
        pid,
        start_ticks: 987_654_321,
        executable: OsString::from_vec(b"/opt/\xff\xfe/qemu".to_vec()).into(),
        host_boot_id: "5c2ee0f8-0a5f-4a8f-8d2e-1d2f3a4b5c6d".into(),
    }
}

#[tokio::test]
async fn the_last_recorded_process_counts_until_it_is_erased() {
    let scratch = Scratch::new().await;
    let vm = vm("a");
    scratch.store.insert_vm(&vm).await.unwrap();
    assert_eq!(scratch.store.get_process(vm.id).await.unwrap(), None);
    for pid in [10, u32::MAX] {
        scratch
            .store
            .put_process(vm.id, &identity(pid))
            .await
            .unwrap();
        assert_eq!(
            scratch.store.get_process(vm.id).await.unwrap(),
            Some(identity(pid))
        );
    }
    for _ in 0..2 {
        scratch.store.erase_process(vm.id).await.unwrap();
        assert_eq!(scratch.store.get_process(vm.id).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_process_goes_with_its_vm() {
    let scratch = Scratch::new().await;
    let vm = vm("a");
    scratch.store.insert_vm(&vm).await.unwrap();
    scratch
        .store
        .put_process(vm.id, &identity(1))
        .await
        .unwrap();
    scratch.store.delete_vm(vm.id).await.unwrap();
    assert_eq!(scratch.store.get_process(vm.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_process_of_no_vm_is_refused() {
    let scratch = Scratch::new().await;
    let error = scratch
        .store
        .put_process(VmId::new(), &identity(1))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "VM_NOT_FOUND");
}
