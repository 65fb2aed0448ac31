//! Operations: streamed, joined, watched again, listed.

use banger_proto::v1;
use futures::stream;
use tonic::Code;

use crate::rig::{Rig, assert_refused, creation, drain, kernel_messages, vmlinux};

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_the_operation_and_ends_with_what_it_made() {
    use v1::register_image_response::Message;
    let rig = Rig::start().await;
    let answers = rig.register("web:1").await.unwrap();
    let Some(Message::Operation(first)) = &answers[0].message else {
        panic!("{answers:?}")
    };
    assert_eq!(first.kind(), v1::operation::Kind::RegisterImage);
    let Some(Message::Image(image)) = &answers[answers.len() - 1].message else {
        panic!("{answers:?}")
    };
    let Some(Message::Operation(last)) = &answers[answers.len() - 2].message else {
        panic!("{answers:?}")
    };
    assert_eq!(
        (last.state(), last.target.as_str()),
        (v1::operation::State::Succeeded, image.id.as_str())
    );
    assert_eq!(image.references, ["docker.io/library/web:1"]);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_with_the_same_request_id_joins_and_another_body_is_refused() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let request = || v1::CreateVmRequest {
        request_id: ID.into(),
        ..creation("web")
    };
    let (first, second) = tokio::join!(
        async {
            drain(rig.vms().create_vm(request()).await.unwrap().into_inner())
                .await
                .unwrap()
        },
        async {
            drain(rig.vms().create_vm(request()).await.unwrap().into_inner())
                .await
                .unwrap()
        },
    );
    assert_eq!(first.last(), second.last());
    assert_eq!(rig.host.launches(), 1);
    let third = drain(rig.vms().create_vm(request()).await.unwrap().into_inner())
        .await
        .unwrap();
    assert_eq!(third.last(), first.last());
    let other = v1::CreateVmRequest {
        request_id: ID.into(),
        ..creation("other")
    };
    let refused = rig.vms().create_vm(other).await.unwrap_err();
    assert_refused(
        &refused,
        Code::InvalidArgument,
        "REQUEST_ID_REUSED",
        Some("request_id"),
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_a_request_id_is_answered_once() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let request = || v1::DeleteVmRequest {
        vm: "web".into(),
        request_id: ID.into(),
    };
    rig.vms().delete_vm(request()).await.unwrap();
    rig.vms().delete_vm(request()).await.unwrap();
    let again = rig
        .vms()
        .delete_vm(v1::DeleteVmRequest {
            vm: "web".into(),
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_refused(&again, Code::NotFound, "VM_NOT_FOUND", None);
    let other = rig
        .vms()
        .delete_vm(v1::DeleteVmRequest {
            vm: "x".into(),
            request_id: ID.into(),
        })
        .await
        .unwrap_err();
    assert_refused(
        &other,
        Code::InvalidArgument,
        "REQUEST_ID_REUSED",
        Some("request_id"),
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_operation_is_watched_to_its_end_at_once() {
    let rig = Rig::start().await;
    rig.register("web:1").await.unwrap();
    let listed = rig
        .operations()
        .list_operations(v1::ListOperationsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let id = listed.operations[0].id.clone();
    let watched = rig
        .operations()
        .watch_operation(v1::WatchOperationRequest { operation: id })
        .await
        .unwrap();
    let watched = drain(watched.into_inner()).await.unwrap();
    assert_eq!((watched.len(), watched[0].sequence), (1, 1));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_newest_first() {
    let rig = Rig::start().await;
    for name in ["a", "b", "c"] {
        let answers = rig
            .kernels()
            .import_kernel(stream::iter(kernel_messages(name, &vmlinux())))
            .await
            .unwrap();
        drain(answers.into_inner()).await.unwrap();
    }
    let page = |page_token| v1::ListKernelsRequest {
        page_size: 2,
        page_token,
    };
    let first = rig
        .kernels()
        .list_kernels(page(String::new()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        first
            .kernels
            .iter()
            .map(|kernel| kernel.name.as_str())
            .collect::<Vec<_>>(),
        ["c", "b"]
    );
    let second = rig
        .kernels()
        .list_kernels(page(first.next_page_token))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        second
            .kernels
            .iter()
            .map(|kernel| kernel.name.as_str())
            .collect::<Vec<_>>(),
        ["a"]
    );
    assert!(second.kernels[0].is_default);
    assert_eq!(second.next_page_token, "");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_when_its_caller_hangs_up() {
    let rig = Rig::start().await;
    rig.furnish().await;
    drop(rig.vms().create_vm(creation("web")).await.unwrap());
    let mut watched = rig
        .vms()
        .watch_vm(v1::WatchVmRequest { vm: "web".into() })
        .await
        .unwrap()
        .into_inner();
    loop {
        let message = watched.message().await.unwrap().unwrap().message.unwrap();
        match message {
            v1::watch_vm_response::Message::Vm(vm) if vm.state() == v1::vm::State::Running => break,
            _ => {}
        }
    }
    rig.stopped().await;
}
