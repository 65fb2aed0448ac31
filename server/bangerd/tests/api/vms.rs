//! VMs: their verbs, their watchers, their console.

use banger_proto::v1;
use banger_proto::v1::watch_vm_response::Message;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::rig::{Rig, assert_refused, drain};

fn named(vm: &str) -> String {
    vm.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_made_stopped_started_killed_and_deleted() {
    use v1::vm::State;
    let rig = Rig::start().await;
    rig.furnish().await;
    let made = rig.create("web").await.unwrap();
    assert_eq!(
        (made.state(), made.failure.is_none()),
        (State::Running, true)
    );
    assert!(!made.boot_timing.is_empty());
    let stopped = rig
        .vms()
        .stop_vm(v1::StopVmRequest {
            vm: named("web"),
            ..Default::default()
        })
        .await
        .unwrap();
    let stopped = stopped.into_inner().vm.unwrap();
    assert_eq!(stopped.state(), State::Stopped);
    assert!(stopped.last_stop.is_some());
    let started = rig
        .vms()
        .start_vm(v1::StartVmRequest {
            vm: made.id.clone(),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(started.into_inner().vm.unwrap().state(), State::Running);
    let killed = rig
        .vms()
        .kill_vm(v1::KillVmRequest {
            vm: named("web"),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(
        killed.into_inner().vm.unwrap().last_stop.unwrap().rung(),
        v1::stop_outcome::Rung::Kill
    );
    rig.vms()
        .delete_vm(v1::DeleteVmRequest {
            vm: named("web"),
            ..Default::default()
        })
        .await
        .unwrap();
    assert!(rig.host.living().is_empty());
    let info = rig
        .hosts()
        .get_info(v1::GetInfoRequest {})
        .await
        .unwrap()
        .into_inner()
        .info
        .unwrap();
    assert_eq!(
        (
            info.driver.as_str(),
            info.vm_count,
            info.default_kernel.as_str()
        ),
        ("fake", 0, "k")
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_name_and_a_used_image_are_told_by_resource() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let taken = rig.create("web").await.unwrap_err();
    assert_refused(&taken, Code::AlreadyExists, "NAME_TAKEN", None);
    let used = rig
        .images()
        .delete_image(v1::DeleteImageRequest {
            image: named("web:1"),
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_refused(&used, Code::FailedPrecondition, "IN_USE", None);
    assert_eq!(
        used.get_error_details()
            .precondition_failure()
            .unwrap()
            .violations[0]
            .subject,
        "image/web:1"
    );
    let kernel = rig
        .kernels()
        .delete_kernel(v1::DeleteKernelRequest {
            kernel: named("k"),
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_refused(&kernel, Code::FailedPrecondition, "IN_USE", None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_a_vm_to_its_end() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let watched = rig
        .vms()
        .watch_vm(v1::WatchVmRequest { vm: named("web") })
        .await
        .unwrap()
        .into_inner();
    rig.vms()
        .delete_vm(v1::DeleteVmRequest {
            vm: named("web"),
            ..Default::default()
        })
        .await
        .unwrap();
    let messages = drain(watched).await.unwrap();
    assert_eq!(
        messages
            .iter()
            .map(|message| message.sequence)
            .collect::<Vec<_>>(),
        (1..).take(messages.len()).collect::<Vec<_>>()
    );
    assert!(matches!(messages[0].message, Some(Message::Vm(_))));
    assert_eq!(
        messages.last().unwrap().message,
        Some(Message::Deleted(v1::VmDeleted {}))
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_console_ends_with_its_vm() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let request = |follow| v1::ReadConsoleRequest {
        vm: named("web"),
        offset: Some(4),
        follow,
        tail_lines: None,
    };
    let kept = drain(
        rig.vms()
            .read_console(request(false))
            .await
            .unwrap()
            .into_inner(),
    )
    .await
    .unwrap();
    assert_eq!(text(&kept), "ed\n");
    let followed = rig
        .vms()
        .read_console(request(true))
        .await
        .unwrap()
        .into_inner();
    rig.vms()
        .kill_vm(v1::KillVmRequest {
            vm: named("web"),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(text(&drain(followed).await.unwrap()), "ed\n");
    rig.stopped().await;
}

fn text(messages: &[v1::ReadConsoleResponse]) -> String {
    let bytes: Vec<u8> = messages
        .iter()
        .filter_map(|message| match &message.message {
            Some(v1::read_console_response::Message::Output(output)) => Some(output.data.to_vec()),
            _ => None,
        })
        .flatten()
        .collect();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn vms_are_found_by_label_and_paged() {
    let rig = Rig::start().await;
    rig.furnish().await;
    for name in ["a", "b", "c"] {
        let mut request = crate::rig::creation(name);
        request
            .spec
            .as_mut()
            .unwrap()
            .labels
            .insert("odd".into(), (name != "b").to_string());
        drain(rig.vms().create_vm(request).await.unwrap().into_inner())
            .await
            .unwrap();
    }
    let labels = [("odd".to_owned(), "true".to_owned())];
    let page = |page_token| v1::ListVmsRequest {
        page_size: 1,
        page_token,
        labels: labels.clone().into(),
    };
    let first = rig
        .vms()
        .list_vms(page(String::new()))
        .await
        .unwrap()
        .into_inner();
    let second = rig
        .vms()
        .list_vms(page(first.next_page_token))
        .await
        .unwrap()
        .into_inner();
    let names: Vec<_> = first
        .vms
        .iter()
        .chain(&second.vms)
        .map(|vm| vm.spec.as_ref().unwrap().name.as_str())
        .collect();
    assert_eq!(names, ["c", "a"]);
    assert_eq!(second.next_page_token, "");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_is_read_by_its_last_lines() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let tail = async |lines| {
        let request = v1::ReadConsoleRequest {
            vm: named("web"),
            tail_lines: Some(lines),
            ..Default::default()
        };
        drain(rig.vms().read_console(request).await.unwrap().into_inner()).await
    };
    let whole = text(&tail(10_000).await.unwrap());
    let last = whole.lines().last().unwrap();
    assert_eq!(text(&tail(1).await.unwrap()), format!("{last}\n"));
    assert!(tail(0).await.unwrap().is_empty());
    let request = v1::ReadConsoleRequest {
        vm: named("web"),
        tail_lines: Some(10_001),
        ..Default::default()
    };
    let refused = rig.vms().read_console(request).await.unwrap_err();
    assert_refused(
        &refused,
        Code::InvalidArgument,
        "INVALID_FIELD",
        Some("tail_lines"),
    );
    rig.stopped().await;
}
