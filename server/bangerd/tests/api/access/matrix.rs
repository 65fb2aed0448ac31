//! Every method in every role, from the table itself.

use std::collections::BTreeMap;

use banger_core::Role;
use bangerd::grpc::access::table::{Effect, RPCS, Rpc};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::callers::{Caller, user};
use crate::rig::{Rig, assert_refused};

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

/// Whether a role that suffices is let in, and one that does not is told which would.
async fn judge(caller: &Caller, role: Role, rpc: &Rpc) {
    // Nothing in it names anything: whoever is let in is told what is missing, or told all.
    let answer = caller.call(rpc.path, Vec::new()).await;
    if role >= rpc.role {
        if let Err(status) = answer {
            let refused = [Code::PermissionDenied, Code::Unimplemented, Code::Unknown];
            assert!(
                !refused.contains(&status.code()),
                "{role} {}: {status:?}",
                rpc.path
            );
        }
        return;
    }
    let status = answer.expect_err(rpc.path);
    assert_refused(&status, Code::PermissionDenied, "ROLE_TOO_LOW", None);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["needed"], rpc.role.as_str(), "{}", rpc.path);
    assert_eq!(info.metadata["role"], role.as_str(), "{}", rpc.path);
    assert!(info.metadata["remedy"].contains("[access]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_is_for_the_roles_of_the_table_and_no_others() {
    let rig = Rig::start().await;
    rig.furnish().await;
    for (uid, role) in (7001..).zip(Role::ALL) {
        let caller = rig.enter(user(uid, role)).await;
        for rpc in RPCS {
            judge(&caller, role, rpc).await;
        }
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_says_the_same_to_everybody() {
    let rig = Rig::start().await;
    let mut told = Vec::new();
    for (uid, role) in (7001..).zip(Role::ALL) {
        let caller = rig.enter(user(uid, role)).await;
        for path in [
            "/banger.v1.VmService/Destroy",
            "/banger.v1.NoService/GetVm",
            "/banger.guest.v1.AgentService/Hello",
            "/x/y",
            "/banger.v1.VmService/getvm",
        ] {
            let status = caller
                .call(path, vec![10, 3, 119, 101, 98])
                .await
                .unwrap_err();
            assert_refused(&status, Code::Unimplemented, "UNKNOWN_METHOD", None);
            let info = status.get_details_error_info().unwrap();
            let metadata: BTreeMap<_, _> = info.metadata.into_iter().collect();
            told.push((status.message().to_owned(), metadata));
        }
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_for_all_roles() {
    let rig = Rig::start().await;
    for (uid, role) in (7001..).zip(Role::ALL) {
        let caller = rig.enter(user(uid, role)).await;
        let health = caller
            .call("/grpc.health.v1.Health/Check", Vec::new())
            .await;
        assert_eq!(health.unwrap(), [8, 1], "{role}");
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            // `list_services` is field 7.
            let listed = caller.call(&path, vec![58, 0]).await.unwrap();
            let listed = String::from_utf8_lossy(&listed).into_owned();
            assert!(listed.contains("banger.v1.VmService"), "{role} {version}");
        }
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_asks_for_more_than_its_method_is_refused_by_role() {
    use banger_proto::v1;
    use prost::Message as _;
    let rig = Rig::start().await;
    let pull = v1::PullImageRequest {
        reference: "web:1".into(),
        replace: true,
        ..Default::default()
    };
    let fix = v1::DoctorRequest {
        fix: true,
        checks: vec!["no-such-check".into()],
    };
    for (path, message) in [
        ("/banger.v1.ImageService/PullImage", pull.encode_to_vec()),
        ("/banger.v1.HostService/Doctor", fix.encode_to_vec()),
    ] {
        let operator = rig.enter(user(7001, Role::Operator)).await;
        let refused = operator.call(path, message.clone()).await.unwrap_err();
        assert_refused(&refused, Code::PermissionDenied, "ROLE_TOO_LOW", None);
        let admin = rig.enter(user(7002, Role::Admin)).await;
        if let Err(status) = admin.call(path, message).await {
            assert_ne!(reason(&status), "ROLE_TOO_LOW", "{path}");
        }
    }
    rig.stopped().await;
}

#[test]
fn each_role_may_more_than_the_one_before() {
    let may = |role: Role| RPCS.iter().filter(|rpc| role >= rpc.role).count();
    assert!(may(Role::Viewer) > 10 && may(Role::User) > may(Role::Viewer));
    assert!(may(Role::Admin) > may(Role::Operator));
    let changes = |role: Role| {
        let changes = RPCS.iter().filter(|rpc| rpc.effect == Effect::Changes);
        changes.filter(|rpc| role >= rpc.role).count()
    };
    assert_eq!(changes(Role::Viewer), 0);
}
