//! What callers do to the audit log: requests that are put together to deceive it, and calls that it could miss.

use banger_core::Role;
use banger_proto::v1;
use futures::stream::{self, StreamExt as _};
use prost::Message as _;

use super::audit::{of, short, until};
use super::callers::{framed, user};
use crate::rig::{Rig, assert_refused, creation, drain};

/// A field of a length, by its number.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut encoded = vec![number << 3 | 2];
    prost::encoding::encode_varint(value.len() as u64, &mut encoded);
    encoded.extend_from_slice(value);
    encoded
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_what_was_done_however_the_request_is_put_together() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let admin = rig.enter(user(1, Role::Admin)).await;
    let mallory = rig.enter(user(8001, Role::User)).await;
    mallory.create(creation("web")).await.unwrap();
    // Each names a bait that a cursory look would find, and the VM that decoders take.
    let unknown_group = [0xfb, 0x01, 0x08, 0x05, 0xfc, 0x01];
    let stops = [
        [field(1, b"bait"), field(1, b"web")].concat(),
        [
            field(1, b"bait"),
            field(15, &[0; 1 << 17]),
            field(1, b"web"),
        ]
        .concat(),
        [&field(1, b"bait")[..], &unknown_group, &field(1, b"web")].concat(),
    ];
    let path = "/banger.v1.VmService/StopVm";
    for stop in stops {
        let request = v1::StartVmRequest {
            vm: "web".into(),
            ..Default::default()
        };
        mallory.vms().start_vm(request).await.unwrap();
        let sent = stream::iter([framed(&stop)]).boxed();
        let ended = mallory.end_of(path, sent).await;
        assert_eq!(ended.code(), tonic::Code::Ok, "{ended:?}");
        let records = of(&admin, 8001).await;
        assert_eq!(short(&records[0]), ("VmService/StopVm", "web", 0, ""));
    }
    let start = v1::ExecStart {
        vm: "web".into(),
        spec: Some(v1::SessionSpec {
            command: vec!["true".into()],
            ..Default::default()
        }),
    };
    let request = v1::StartVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    mallory.vms().start_vm(request).await.unwrap();
    // One start in two pieces, of which the last says nothing.
    let exec = [field(1, &start.encode_to_vec()), field(1, &[])].concat();
    let sent = stream::iter([framed(&exec)]).boxed();
    let ended = mallory.end_of("/banger.v1.SessionService/Exec", sent).await;
    assert_eq!(ended.code(), tonic::Code::Ok, "{ended:?}");
    let records = of(&admin, 8001).await;
    assert_eq!(short(&records[0]), ("SessionService/Exec", "web", 0, ""));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mending_doctor_is_recorded_and_one_that_looks_is_not() {
    let rig = Rig::start().await;
    let admin = rig.enter(user(1, Role::Admin)).await;
    let viewer = rig.enter(user(9, Role::Viewer)).await;
    let doctor = |fix| v1::DoctorRequest {
        fix,
        checks: vec!["LEFTOVER_VOLUMES".into()],
    };
    for fix in [false, true] {
        let answers = admin.hosts().doctor(doctor(fix)).await.unwrap();
        drain(answers.into_inner()).await.unwrap();
    }
    let looked = viewer.hosts().doctor(doctor(false)).await.unwrap();
    drain(looked.into_inner()).await.unwrap();
    let refused = viewer.hosts().doctor(doctor(true)).await.unwrap_err();
    assert_refused(
        &refused,
        tonic::Code::PermissionDenied,
        "ROLE_TOO_LOW",
        None,
    );
    let records = of(&admin, 1).await;
    let told: Vec<_> = records.iter().map(short).collect();
    assert_eq!(told, [("HostService/Doctor", "", 0, "")]);
    let records = of(&admin, 9).await;
    let told: Vec<_> = records.iter().map(short).collect();
    assert_eq!(told, [("HostService/Doctor", "", 7, "ROLE_TOO_LOW")]);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_in_the_log_as_soon_as_it_has_begun() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let admin = rig.enter(user(1, Role::Admin)).await;
    let alice = rig.enter(user(8001, Role::User)).await;
    alice.create(creation("web")).await.unwrap();
    let session = alice.start_session("web").await.unwrap();
    let (asking, attached) = alice.attach(&session).await;
    let method = "SessionService/AttachSession";
    let records = of(&admin, 8001).await;
    assert_eq!(
        short(&records[0]),
        (method, session.id.as_str(), 0, "BEGUN")
    );
    drop((asking, attached));
    until("its end", async || {
        let records = of(&admin, 8001).await;
        short(&records[0]) == (method, session.id.as_str(), 1, "")
            && records[0].time == records[1].time
    })
    .await;
    rig.stopped().await;
}
