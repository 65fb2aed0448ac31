use banger_core::{Explain as _, SessionId, VmId};

use crate::support::{Scratch, vm};

#[tokio::test]
async fn a_session_is_found_by_its_id_alone() {
    let scratch = Scratch::new().await;
    let (vm, id) = (vm("a"), SessionId::new());
    scratch.store.insert_vm(&vm).await.unwrap();
    assert_eq!(scratch.store.find_session(id).await.unwrap(), None);
    for _ in 0..2 {
        scratch.store.insert_session(id, vm.id).await.unwrap();
        assert_eq!(scratch.store.find_session(id).await.unwrap(), Some(vm.id));
    }
    assert!(scratch.store.delete_session(id).await.unwrap());
    assert!(!scratch.store.delete_session(id).await.unwrap());
    assert_eq!(scratch.store.find_session(id).await.unwrap(), None);
}

#[tokio::test]
async fn a_session_never_changes_its_vm() {
    let scratch = Scratch::new().await;
    let (first, second, id) = (vm("a"), vm("b"), SessionId::new());
    scratch.store.insert_vm(&first).await.unwrap();
    scratch.store.insert_vm(&second).await.unwrap();
    scratch.store.insert_session(id, first.id).await.unwrap();
    let error = scratch
        .store
        .insert_session(id, second.id)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "ID_TAKEN");
    assert_eq!(
        scratch.store.find_session(id).await.unwrap(),
        Some(first.id)
    );
}

#[tokio::test]
async fn sessions_go_with_their_vm_and_no_other() {
    let scratch = Scratch::new().await;
    let (first, second) = (vm("a"), vm("b"));
    scratch.store.insert_vm(&first).await.unwrap();
    scratch.store.insert_vm(&second).await.unwrap();
    let ids: Vec<SessionId> = (0..4).map(|_| SessionId::new()).collect();
    for id in &ids[..3] {
        scratch.store.insert_session(*id, first.id).await.unwrap();
    }
    scratch
        .store
        .insert_session(ids[3], second.id)
        .await
        .unwrap();
    assert_eq!(scratch.store.delete_sessions_of(first.id).await.unwrap(), 3);
    assert_eq!(scratch.store.find_session(ids[0]).await.unwrap(), None);
    assert!(scratch.store.find_session(ids[3]).await.unwrap().is_some());
    scratch.store.delete_vm(second.id).await.unwrap();
    assert_eq!(scratch.store.find_session(ids[3]).await.unwrap(), None);
}

#[tokio::test]
async fn a_session_of_no_vm_is_refused() {
    let scratch = Scratch::new().await;
    let error = scratch
        .store
        .insert_session(SessionId::new(), VmId::new())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "VM_NOT_FOUND");
}
