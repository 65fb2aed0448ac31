//! Bad input: each ends in a clear error that names the field, and leaves nothing.

use banger_proto::v1;
use futures::stream;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::rig::{Rig, assert_refused, creation, drain, kernel_messages};

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_not_found_by_its_kind() {
    let rig = Rig::start().await;
    let image = rig
        .images()
        .get_image(v1::GetImageRequest {
            image: "none".into(),
        })
        .await
        .unwrap_err();
    assert_refused(&image, Code::NotFound, "IMAGE_NOT_FOUND", None);
    assert_eq!(
        image
            .get_error_details()
            .resource_info()
            .unwrap()
            .resource_name,
        "none"
    );
    let kernel = rig
        .kernels()
        .get_kernel(v1::GetKernelRequest {
            kernel: "none".into(),
        })
        .await
        .unwrap_err();
    assert_refused(&kernel, Code::NotFound, "KERNEL_NOT_FOUND", None);
    let vm = rig
        .vms()
        .get_vm(v1::GetVmRequest { vm: "none".into() })
        .await
        .unwrap_err();
    assert_refused(&vm, Code::NotFound, "VM_NOT_FOUND", None);
    let details = vm.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(
        (
            info.metadata["name"].as_str(),
            info.metadata["code_ran"].as_str()
        ),
        ("none", "no")
    );
    assert_eq!(info.metadata["remedy"], "List what exists: banger vm list");
    let session = rig
        .sessions()
        .get_session(v1::GetSessionRequest { session: ID.into() })
        .await
        .unwrap_err();
    assert_refused(&session, Code::NotFound, "SESSION_NOT_FOUND", None);
    let operation = rig
        .operations()
        .get_operation(v1::GetOperationRequest {
            operation: ID.into(),
        })
        .await
        .unwrap_err();
    assert_refused(&operation, Code::NotFound, "OPERATION_NOT_FOUND", None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_field_of_a_creation_is_named() {
    let rig = Rig::start().await;
    let with = |change: fn(&mut v1::VmSpec)| {
        let mut request = creation("web");
        change(request.spec.as_mut().unwrap());
        request
    };
    let cases = [
        (with(|spec| spec.name = "No".into()), "spec.name"),
        (with(|spec| spec.memory_mib = 1), "spec.memory_mib"),
        (with(|spec| spec.memory_mib = -1), "spec.memory_mib"),
        (with(|spec| spec.vcpu_count = 65), "spec.vcpu_count"),
        (with(|spec| spec.disk_mib = 1), "spec.disk_mib"),
        (with(|spec| spec.image = String::new()), "spec.image"),
        (with(|spec| spec.network_mode = 9), "spec.network_mode"),
        (v1::CreateVmRequest::default(), "spec"),
        (
            v1::CreateVmRequest {
                request_id: "x".into(),
                ..creation("web")
            },
            "request_id",
        ),
    ];
    for (request, field) in cases {
        let refused = rig.vms().create_vm(request).await.unwrap_err();
        assert_refused(
            &refused,
            Code::InvalidArgument,
            "INVALID_FIELD",
            Some(field),
        );
    }
    assert!(
        rig.vms()
            .list_vms(v1::ListVmsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .vms
            .is_empty()
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_page_or_signal_is_named() {
    let rig = Rig::start().await;
    let negative = rig
        .vms()
        .list_vms(v1::ListVmsRequest {
            page_size: -1,
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_refused(
        &negative,
        Code::InvalidArgument,
        "INVALID_FIELD",
        Some("page_size"),
    );
    let token = rig
        .images()
        .list_images(v1::ListImagesRequest {
            page_token: "x".into(),
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_refused(
        &token,
        Code::InvalidArgument,
        "INVALID_FIELD",
        Some("page_token"),
    );
    let signal = v1::SignalSessionRequest {
        session: ID.into(),
        signal: 65,
        target: 0,
    };
    let signal = rig.sessions().signal_session(signal).await.unwrap_err();
    assert_refused(
        &signal,
        Code::InvalidArgument,
        "INVALID_FIELD",
        Some("signal"),
    );
    let id = rig
        .sessions()
        .wait_session(v1::WaitSessionRequest {
            session: "x".into(),
        })
        .await
        .unwrap_err();
    assert_refused(&id, Code::InvalidArgument, "INVALID_FIELD", Some("session"));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_an_upload_out_of_order_are_refused_and_leave_nothing() {
    use v1::import_kernel_request::Message;
    let rig = Rig::start().await;
    let start = || {
        Message::Start(v1::ImportKernelStart {
            name: "k".into(),
            ..Default::default()
        })
    };
    let kernel = || Message::KernelChunk(vec![1].into());
    let modules = || Message::ModulesChunk(vec![1].into());
    let cases: [(Vec<Message>, &str); 6] = [
        (vec![kernel()], "start"),
        (vec![start(), start()], "start"),
        (vec![start(), modules()], "modules_chunk"),
        (vec![start(), kernel(), modules(), kernel()], "kernel_chunk"),
        (vec![start()], "kernel_chunk"),
        (
            vec![start(), Message::KernelChunk(vec![0; (1 << 20) + 1].into())],
            "kernel_chunk",
        ),
    ];
    for (messages, field) in cases {
        let messages = messages
            .into_iter()
            .map(|message| v1::ImportKernelRequest {
                message: Some(message),
            })
            .collect::<Vec<_>>();
        let refused = rig
            .kernels()
            .import_kernel(stream::iter(messages))
            .await
            .unwrap_err();
        assert_refused(
            &refused,
            Code::InvalidArgument,
            "INVALID_FIELD",
            Some(field),
        );
    }
    let left = std::fs::read_dir(rig.dir.path().join("state/tmp")).unwrap();
    let left = left.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_file());
    assert_eq!(left.count(), 0);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_kernel_fails_its_operation_and_names_it() {
    let rig = Rig::start().await;
    let messages = stream::iter(kernel_messages("k", b"no kernel"));
    let answers = rig
        .kernels()
        .import_kernel(messages)
        .await
        .unwrap()
        .into_inner();
    let refused = drain(answers).await.unwrap_err();
    let id = refused
        .metadata()
        .get("operation")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let operation = rig
        .operations()
        .get_operation(v1::GetOperationRequest { operation: id })
        .await
        .unwrap()
        .into_inner()
        .operation
        .unwrap();
    assert_eq!(operation.state(), v1::operation::State::Failed);
    assert!(
        operation
            .stages
            .iter()
            .all(|stage| stage.end_time.is_some())
    );
    let info = refused.get_error_details().error_info().unwrap().clone();
    assert_eq!(info.metadata["stage"], "import");
    let error = operation.error.unwrap();
    assert_eq!(
        (error.code, error.message.as_str()),
        (i32::from(refused.code()), refused.message())
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_without_a_kernel_is_told_how_to_get_one() {
    let rig = Rig::start().await;
    rig.register("web:1").await.unwrap();
    let refused = rig.create("web").await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "NO_KERNEL", None);
    assert!(
        refused.get_error_details().error_info().unwrap().metadata["remedy"]
            .contains("banger kernel import")
    );
    rig.stopped().await;
}
