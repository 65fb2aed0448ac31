//! What a user's pull may do to names that others use: bring new ones, and no more.

use banger_core::Role;
use banger_proto::v1;
use banger_proto::v1::image_service_client::ImageServiceClient;
use tokio::net::TcpListener;
use tonic::{Code, Status};

use super::callers::{Caller, user};
use crate::registry::{Registry, empty_layer};
use crate::rig::{Rig, assert_refused, drain};

async fn pull(caller: &Caller, reference: &str) -> Result<v1::Image, Status> {
    use v1::pull_image_response::Message;
    let request = v1::PullImageRequest {
        reference: reference.into(),
        ..Default::default()
    };
    let mut images = ImageServiceClient::new(caller.channel.clone());
    let answers = images.pull_image(request).await?.into_inner();
    match drain(answers).await?.pop().and_then(|last| last.message) {
        Some(Message::Image(image)) => Ok(image),
        other => panic!("the last message is {other:?}"),
    }
}

/// The digest of what a name stands for.
async fn meaning(caller: &Caller, reference: &str) -> String {
    let request = v1::GetImageRequest {
        image: reference.into(),
    };
    let mut images = ImageServiceClient::new(caller.channel.clone());
    let found = images.get_image(request).await.unwrap().into_inner();
    found.image.unwrap().digest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_brings_new_names_and_moves_none_that_is_there() {
    let rig = Rig::start().await;
    let registry = Registry::serve().await;
    let alice = rig.enter(user(8001, Role::User)).await;
    let mallory = rig.enter(user(8002, Role::User)).await;
    let latest = registry.reference("latest");
    registry.push("latest", ("says", "one"), &[empty_layer()]);
    let first = pull(&alice, &latest).await.unwrap();
    // The same again is found by everybody.
    let again = pull(&mallory, &latest).await.unwrap();
    assert_eq!(first.id, again.id);
    registry.push("latest", ("says", "two"), &[empty_layer()]);
    for caller in [&mallory, &alice] {
        let refused = pull(caller, &latest).await.unwrap_err();
        assert_refused(&refused, Code::AlreadyExists, "REFERENCE_TAKEN", None);
        assert_eq!(meaning(caller, &latest).await, first.digest);
    }
    // Whoever keeps the host renews it, and the others find it then.
    let admin = rig.enter(user(1, Role::Admin)).await;
    let renewed = pull(&admin, &latest).await.unwrap();
    assert_ne!(renewed.digest, first.digest);
    assert_eq!(meaning(&alice, &latest).await, renewed.digest);
    assert_eq!(pull(&alice, &latest).await.unwrap().id, renewed.id);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_takes_no_name_of_what_was_made_here() {
    let rig = Rig::start().await;
    let registry = Registry::serve().await;
    let reference = registry.reference("own");
    rig.register(&reference).await.unwrap();
    registry.push("own", ("says", "other"), &[empty_layer()]);
    let mallory = rig.enter(user(8002, Role::User)).await;
    let kept = meaning(&mallory, &reference).await;
    let refused = pull(&mallory, &reference).await.unwrap_err();
    assert_refused(&refused, Code::AlreadyExists, "REFERENCE_TAKEN", None);
    assert_eq!(meaning(&mallory, &reference).await, kept);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_has_so_many_operations_under_way() {
    let rig = Rig::start_with(|config| config.operations_per_owner_max = 2).await;
    // Registries that take connections and never answer.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let request = |number: u8| v1::PullImageRequest {
        reference: format!("{address}/app:{number}"),
        request_id: format!("01890a5d-ac96-774b-bcce-b302099a80{number:02}"),
        ..Default::default()
    };
    let alice = rig.enter(user(8001, Role::User)).await;
    let mallory = rig.enter(user(8002, Role::User)).await;
    let begin = async |caller: &Caller, number| {
        let mut images = ImageServiceClient::new(caller.channel.clone());
        let mut answers = images.pull_image(request(number)).await?.into_inner();
        let first = answers.message().await?.unwrap().message.unwrap();
        match first {
            v1::pull_image_response::Message::Operation(operation) => Ok(operation.id),
            other => panic!("a pull begins with {other:?}"),
        }
    };
    let first = begin(&alice, 1).await.unwrap();
    let second = begin(&alice, 2).await.unwrap();
    let refused: Status = begin(&alice, 3).await.unwrap_err();
    assert_refused(
        &refused,
        Code::ResourceExhausted,
        "TOO_MANY_OPERATIONS",
        None,
    );
    assert_eq!(
        refused.message().split(';').next(),
        Some("`uid:8001` has 2 operations under way, which is the most that it may")
    );
    assert_eq!(begin(&alice, 1).await.unwrap(), first, "a repeat joins");
    let others = begin(&mallory, 1).await.unwrap();
    let cancel = async |caller: &Caller, operation: &str| {
        let request = v1::CancelOperationRequest {
            operation: operation.into(),
        };
        caller.operations().cancel_operation(request).await.unwrap();
    };
    cancel(&alice, &first).await;
    let third = begin(&alice, 3).await.unwrap();
    for operation in [&second, &third] {
        cancel(&alice, operation).await;
    }
    cancel(&mallory, &others).await;
    rig.stopped().await;
}
