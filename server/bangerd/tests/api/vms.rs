//! VMs: their verbs, their watchers, their console.

use banger_proto::v1;
use banger_proto::v1::watch_vm_response::Message;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::registry::{Registry, empty_layer};
use crate::rig::{Rig, assert_refused, creation, drain, kernel_messages, vmlinux};

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

/// The label by which an image names its kernel.
const KERNEL_LABEL: &str = "dev.banger.kernel";

impl Rig {
    async fn import_kernel(&self, name: &str) {
        let messages = futures::stream::iter(kernel_messages(name, &vmlinux()));
        let answers = self.kernels().import_kernel(messages).await.unwrap();
        drain(answers.into_inner()).await.unwrap();
    }

    /// Imports `web:1` with a label that names a kernel, and maybe with one of its own.
    async fn import_labelled(&self, label: &str, own: &str) {
        let start = v1::RegisterImageStart {
            reference: "web:1".into(),
            format: 3,
            kernel: own.into(),
            config: Some(v1::ImageConfig {
                labels: [(KERNEL_LABEL.to_owned(), label.to_owned())].into(),
                ..Default::default()
            }),
            replace: true,
            ..Default::default()
        };
        self.register_as(start, &[0; 1024]).await.unwrap();
    }

    /// The name of the kernel with which a VM runs.
    async fn kernel_name_of(&self, request: v1::CreateVmRequest) -> Result<String, tonic::Status> {
        let vm = self.create_as(request).await?;
        self.delete_vm(&vm.id).await;
        let request = v1::GetKernelRequest {
            kernel: vm.kernel_id,
        };
        let kernel = self.kernels().get_kernel(request).await.unwrap();
        Ok(kernel.into_inner().kernel.unwrap().name)
    }

    async fn kernel_of(&self, image: &str) -> String {
        let mut request = creation("web");
        if let Some(spec) = &mut request.spec {
            spec.image = image.into();
        }
        self.kernel_name_of(request).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_gets_the_kernel_of_its_caller_its_image_or_its_images_label() {
    let rig = Rig::start().await;
    for name in ["default", "own", "labelled"] {
        rig.import_kernel(name).await;
    }
    rig.import_labelled("labelled", "").await;
    assert_eq!(rig.kernel_of("web:1").await, "labelled");
    let mut named = creation("web");
    if let Some(spec) = &mut named.spec {
        spec.kernel = "default".into();
    }
    assert_eq!(rig.kernel_name_of(named).await.unwrap(), "default");
    // A build keeps its base's label, and may give another.
    let start = crate::builds::dockerfile("FROM web:1\nLABEL a=b\n");
    drain(rig.begin_build(start, &[]).await.unwrap())
        .await
        .unwrap();
    assert_eq!(rig.kernel_of("built:1").await, "labelled");
    let start = crate::builds::dockerfile("FROM web:1\nLABEL dev.banger.kernel=own\n");
    drain(rig.begin_build(start, &[]).await.unwrap())
        .await
        .unwrap();
    assert_eq!(rig.kernel_of("built:1").await, "own");
    let registry = Registry::serve().await;
    registry.push("1", (KERNEL_LABEL, "labelled"), &[empty_layer()]);
    let pulled = registry.reference("1");
    let request = crate::catalogs::pulled(&pulled);
    let answers = rig.images().pull_image(request).await.unwrap();
    drain(answers.into_inner()).await.unwrap();
    assert_eq!(rig.kernel_of(&pulled).await, "labelled");

    rig.remove_image("web:1").await.unwrap();
    rig.import_labelled("labelled", "own").await;
    assert_eq!(rig.kernel_of("web:1").await, "own");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_names_no_kernel_keeps_no_vm_from_its_hosts_default() {
    let rig = Rig::start().await;
    let hostile = [
        "",
        "Default",
        "../../etc/passwd",
        "default\n",
        "\u{1b}[31mred",
        "\u{202e}tluafed",
        "a b",
        &"x".repeat(64),
        &"x".repeat(1 << 20),
    ];
    let refused = async |reason| {
        let error = rig.create("web").await.unwrap_err();
        assert_refused(&error, Code::FailedPrecondition, reason, None);
        error
    };
    for label in hostile {
        rig.import_labelled(label, "").await;
        let error = refused("NO_KERNEL").await;
        assert!(error.message().len() < 200, "{error:?}");
    }
    // What it asks for is a way, where there is no other.
    rig.import_labelled("missing", "").await;
    let error = refused("IMAGE_KERNEL_MISSING").await;
    assert!(error.message().contains("`missing`"), "{error:?}");

    rig.import_kernel("default").await;
    for label in hostile.into_iter().chain(["missing"]) {
        rig.import_labelled(label, "").await;
        assert_eq!(rig.kernel_of("web:1").await, "default", "{label:.64?}");
    }
    // What the image was given is no wish.
    rig.import_labelled("default", "missing").await;
    refused("IMAGE_KERNEL_MISSING").await;
    rig.stopped().await;
}
