//! Requests that do not end: they are ended, with their reason, and hold nobody else up.

use std::time::Duration;

use banger_core::Role;
use banger_proto::v1;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use prost::Message as _;
use tonic::Code;

use super::callers::{framed, user};
use crate::rig::{Rig, assert_refused};

/// A byte now and then of a message that is said to be long.
fn trickle() -> BoxStream<'static, Bytes> {
    let head = stream::iter([Bytes::from_static(&[0, 0, 1, 0, 0])]);
    let bytes = stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Bytes::from_static(b"\x0a"), ()))
    });
    head.chain(bytes).boxed()
}

fn get_vm() -> Vec<u8> {
    v1::GetVmRequest { vm: "web".into() }.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_end_is_ended_and_says_why() {
    let rig = Rig::start_with(|config| {
        config.limits.request_timeout = "500ms".parse().unwrap();
    })
    .await;
    let caller = rig.enter(user(8001, Role::User)).await;
    let get = framed(&get_vm());
    let unended = || stream::iter([get.clone()]).chain(stream::pending()).boxed();
    let endless = || {
        let more = stream::unfold((), async |()| {
            tokio::task::yield_now().await;
            Some((framed(&get_vm()), ()))
        });
        more.boxed()
    };
    let one = "/banger.v1.VmService/GetVm";
    let silent = || stream::pending().boxed();
    for (attack, sent, code, reason) in [
        ("silent", silent(), Code::DeadlineExceeded, "REQUEST_LATE"),
        ("trickle", trickle(), Code::DeadlineExceeded, "REQUEST_LATE"),
        ("unended", unended(), Code::DeadlineExceeded, "REQUEST_LATE"),
        (
            "endless",
            endless(),
            Code::InvalidArgument,
            "SECOND_MESSAGE",
        ),
    ] {
        let ended = caller.end_of(one, sent).await;
        let field = (code == Code::InvalidArgument).then_some("message");
        assert_refused(&ended, code, reason, field);
        assert!(ended.message().len() > 10, "{attack}: {ended:?}");
    }
    for method in [
        "SessionService/Exec",
        "SessionService/AttachSession",
        "FileService/UploadFiles",
        "TunnelService/Forward",
        "WorkspaceService/PrepareWorkspace",
    ] {
        for sent in [silent(), trickle()] {
            let ended = caller.end_of(&format!("/banger.v1.{method}"), sent).await;
            assert_refused(&ended, Code::DeadlineExceeded, "FIRST_MESSAGE_LATE", None);
        }
    }
    // The connection lives, and what is whole is answered.
    caller
        .hosts()
        .get_usage(v1::GetUsageRequest {})
        .await
        .unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_silent_for_as_long_as_it_likes_once_it_has_begun() {
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
    let rig = Rig::start_with(|config| {
        config.limits.request_timeout = "300ms".parse().unwrap();
    })
    .await;
    let caller = rig.enter(user(8001, Role::User)).await;
    let ask = || ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let later = stream::once(async {
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    let asked = stream::iter([ask()]).chain(later.map(move |()| ask()));
    let mut client = tonic::client::Grpc::new(caller.channel.clone());
    client.ready().await.unwrap();
    let codec =
        tonic_prost::ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let answers = client
        .streaming(tonic::Request::new(asked), path.parse().unwrap(), codec)
        .await
        .unwrap();
    assert_eq!(
        crate::rig::drain(answers.into_inner()).await.unwrap().len(),
        2
    );
    rig.stopped().await;
}
