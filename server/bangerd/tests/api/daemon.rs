//! The daemon itself: one at a time, told apart from death, gone without its VMs.

use std::sync::Arc;
use std::time::Duration;

use banger_proto::v1;
use banger_vmm::FakeHost;
use bangerd::daemon::{self, DaemonError};
use bangerd::lock::LockError;
use futures::stream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::agent::FakeConnector;
use crate::rig::{PATIENCE, Rig, assert_refused, config, drain};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_is_refused_and_the_first_serves_on() {
    let rig = Rig::start().await;
    let host = FakeHost::new(Arc::new(|_| Box::pin(std::future::pending())));
    let second = daemon::run(
        config(&rig.dir),
        Arc::new(host.driver()),
        Arc::new(FakeConnector::default()),
        CancellationToken::new(),
    );
    let refused = second.await.unwrap_err();
    assert!(
        matches!(&refused, DaemonError::Lock(LockError::Held { pid, .. }) if *pid == std::process::id().to_string()),
        "{refused}"
    );
    rig.hosts().get_info(v1::GetInfoRequest {}).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_daemon_leaves_its_vms_and_the_next_takes_them_up() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let made = rig.create("web").await.unwrap();
    let (dir, host) = rig.stopped().await;
    assert_eq!(host.living().len(), 1);
    assert!(!dir.path().join("s").exists());
    let rig = Rig::start_in(dir, host).await;
    let found = rig
        .vms()
        .get_vm(v1::GetVmRequest { vm: "web".into() })
        .await
        .unwrap()
        .into_inner()
        .vm
        .unwrap();
    assert_eq!(
        (found.id, found.state),
        (made.id, v1::vm::State::Running.into())
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_serves_until_the_daemon_stops_and_watchers_are_told() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let mut health = HealthClient::new(rig.channel.clone());
    for service in ["", "banger.v1.VmService"] {
        let answer = health
            .check(HealthCheckRequest {
                service: service.into(),
            })
            .await
            .unwrap();
        assert_eq!(answer.into_inner().status, 1);
    }
    let mut watched = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 1);
    let vm = rig
        .vms()
        .watch_vm(v1::WatchVmRequest { vm: "web".into() })
        .await
        .unwrap()
        .into_inner();
    rig.stop.cancel();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 2);
    let drained = drain(vm).await.unwrap_err();
    assert_refused(&drained, Code::Unavailable, "DRAINING", None);
    drop(watched);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_never_end_do_not_hold_the_daemon() {
    let rig = Rig::start().await;
    let mut health = HealthClient::new(rig.channel.clone());
    let _watched = health.watch(HealthCheckRequest::default()).await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(10), rig.stopped());
    stopped.await.expect("the daemon stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_shows_what_is_served_and_nothing_else() {
    let rig = Rig::start().await;
    let mut reflection = ServerReflectionClient::new(rig.channel.clone());
    let ask = |message| {
        stream::iter([ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message),
        }])
    };
    let answer = async |message| {
        let answers = reflection
            .server_reflection_info(ask(message))
            .await
            .unwrap()
            .into_inner();
        let answers: Vec<ServerReflectionResponse> = tokio::time::timeout(PATIENCE, drain(answers))
            .await
            .unwrap()
            .unwrap();
        answers
            .into_iter()
            .next()
            .unwrap()
            .message_response
            .unwrap()
    };
    let mut answer = answer;
    let MessageResponse::ListServicesResponse(listed) =
        answer(MessageRequest::ListServices(String::new())).await
    else {
        panic!("a list")
    };
    let mut names: Vec<&str> = listed
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    names.sort_unstable();
    let expected = [
        "banger.v1.CatalogService",
        "banger.v1.FileService",
        "banger.v1.HostService",
        "banger.v1.ImageService",
        "banger.v1.KernelService",
        "banger.v1.OperationService",
        "banger.v1.SessionService",
        "banger.v1.TunnelService",
        "banger.v1.VmService",
        "banger.v1.VolumeService",
        "banger.v1.WorkspaceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    assert_eq!(names, expected);
    // What errors carry can be read, too.
    let details = ["google.rpc.ErrorInfo", "google.rpc.Status"];
    for name in expected.into_iter().chain(details) {
        let found = answer(MessageRequest::FileContainingSymbol(name.into())).await;
        assert!(
            matches!(found, MessageResponse::FileDescriptorResponse(_)),
            "{name}"
        );
    }
    rig.stopped().await;
}
