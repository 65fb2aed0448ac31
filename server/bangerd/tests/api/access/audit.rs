//! The audit log: what is in it, what never is, who may read it, and how it gets shorter.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use banger_app::App;
use banger_core::audit::{AuditFilter, AuditRecord};
use banger_core::{Owner, Role};
use banger_proto::v1;
use banger_proto::v1::vm::State;
use banger_vmm::FakeHost;
use bangerd::grpc::access::AccessLayer;
use futures::FutureExt as _;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer as _, Service as _};

use super::callers::{Caller, user};
use crate::agent::{FakeConnector, agent};
use crate::rig::{PATIENCE, Rig, assert_refused, creation, drain};

async fn list(
    caller: &Caller,
    request: v1::ListAuditRequest,
) -> Result<v1::ListAuditResponse, Status> {
    Ok(caller.hosts().list_audit(request).await?.into_inner())
}

pub(super) async fn of(caller: &Caller, uid: u32) -> Vec<v1::AuditRecord> {
    let request = v1::ListAuditRequest {
        owner: format!("uid:{uid}"),
        ..Default::default()
    };
    list(caller, request).await.unwrap().records
}

pub(super) fn short(record: &v1::AuditRecord) -> (&str, &str, i32, &str) {
    let method = record.method.trim_start_matches("banger.v1.");
    (method, &record.object, record.code, &record.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_something_is_recorded_once_with_its_end_and_without_its_arguments() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let admin = rig.enter(user(1, Role::Admin)).await;
    let alice = rig.enter(user(8001, Role::User)).await;
    let viewer = rig.enter(user(9, Role::Viewer)).await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let mut request = v1::CreateVmRequest {
        request_id: id.into(),
        ..creation("web")
    };
    if let Some(spec) = &mut request.spec {
        spec.env.insert("TOKEN".into(), "s3cret".into());
    }
    alice.create(request).await.unwrap();
    let exec = v1::exec_request::Message::Start(v1::ExecStart {
        vm: "web".into(),
        spec: Some(v1::SessionSpec {
            command: vec!["echo".into(), "s3cret".into()],
            ..Default::default()
        }),
    });
    let exec = v1::ExecRequest {
        message: Some(exec),
    };
    let answers = alice
        .sessions()
        .exec(futures::stream::iter([exec]))
        .await
        .unwrap();
    drain(answers.into_inner()).await.unwrap();
    alice
        .vms()
        .get_vm(v1::GetVmRequest { vm: "web".into() })
        .await
        .unwrap();
    let stop = |vm: &str| v1::StopVmRequest {
        vm: vm.into(),
        ..Default::default()
    };
    alice.vms().stop_vm(stop("nobody")).await.unwrap_err();
    alice.vms().stop_vm(stop("web")).await.unwrap();
    viewer.vms().stop_vm(stop("web")).await.unwrap_err();
    let records = of(&admin, 8001).await;
    let told: Vec<_> = records.iter().map(short).collect();
    assert_eq!(
        told,
        [
            ("VmService/StopVm", "web", 0, ""),
            ("VmService/StopVm", "nobody", 5, "VM_NOT_FOUND"),
            ("SessionService/Exec", "web", 0, ""),
            ("SessionService/Exec", "web", 0, "BEGUN"),
            ("VmService/CreateVm", "web", 0, ""),
        ]
    );
    assert!(records.is_sorted_by(|newer, older| newer.sequence > older.sequence));
    let created = &records[4];
    assert_eq!(
        (
            created.role.as_str(),
            created.via.as_str(),
            created.request_id.as_str()
        ),
        ("user", "unix:8001", id)
    );
    assert!(created.duration.is_some() && created.time.is_some());
    let denied = of(&admin, 9).await;
    let denied: Vec<_> = denied.iter().map(short).collect();
    assert_eq!(denied, [("VmService/StopVm", "", 7, "ROLE_TOO_LOW")]);
    let all = list(&admin, v1::ListAuditRequest::default()).await.unwrap();
    assert!(!format!("{all:?}").contains("s3cret"));
    let database = std::fs::read(rig.dir.path().join("state/banger.db-wal")).unwrap();
    let audit = String::from_utf8_lossy(&database);
    assert!(audit.contains("SessionService/Exec") && !audit.contains("echo\u{0}s3cret"));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_has_its_record_too() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let admin = rig.enter(user(1, Role::Admin)).await;
    let alice = rig.enter(user(8001, Role::User)).await;
    alice.create(creation("web")).await.unwrap();
    let session = alice.start_session("web").await.unwrap();
    let (asking, mut attached) = alice.attach(&session).await;
    attached.message().await.unwrap().unwrap();
    drop((asking, attached));
    // The daemon hears of it when the reset has come.
    until("its record", async || {
        let records = of(&admin, 8001).await;
        short(&records[0]) == ("SessionService/AttachSession", session.id.as_str(), 1, "")
    })
    .await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_pages_filters_and_outlives_the_daemon() {
    let rig = Rig::start().await;
    let admin = rig.enter(user(1, Role::Admin)).await;
    let delete = |name: &str| v1::DeleteVolumeRequest {
        volume: name.into(),
        ..Default::default()
    };
    for number in 0..7 {
        let name = format!("v{number}");
        admin
            .volumes()
            .delete_volume(delete(&name))
            .await
            .unwrap_err();
    }
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListAuditRequest {
            page_size: 3,
            page_token,
            method: "banger.v1.VolumeService/DeleteVolume".into(),
            failed: true,
            ..Default::default()
        };
        let page = list(&admin, request).await.unwrap();
        assert!(page.records.len() <= 3);
        seen.extend(page.records.into_iter().map(|record| record.object));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["v6", "v5", "v4", "v3", "v2", "v1", "v0"]);
    let tomorrow = v1::ListAuditRequest {
        since: Some((std::time::SystemTime::now() + std::time::Duration::from_secs(86_400)).into()),
        ..Default::default()
    };
    assert!(list(&admin, tomorrow).await.unwrap().records.is_empty());
    for role in [Role::Viewer, Role::User, Role::Operator] {
        let caller = rig.enter(user(9, role)).await;
        let refused = list(&caller, v1::ListAuditRequest::default())
            .await
            .unwrap_err();
        assert_refused(&refused, Code::PermissionDenied, "ROLE_TOO_LOW", None);
    }
    // The last call before the stop is in the log of the next daemon.
    admin
        .volumes()
        .delete_volume(delete("last"))
        .await
        .unwrap_err();
    drop(admin);
    let (dir, host) = rig.stopped().await;
    let rig = Rig::start_in(dir, host).await;
    let admin = rig.enter(user(1, Role::Admin)).await;
    let found = of(&admin, 1).await;
    assert_eq!((found.len(), found[0].object.as_str()), (8, "last"));
    rig.stopped().await;
}

async fn delete_volume(caller: &Caller, name: String) {
    let request = v1::DeleteVolumeRequest {
        volume: name,
        ..Default::default()
    };
    caller.volumes().delete_volume(request).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_forgets_while_it_runs_what_is_beyond_the_bound_and_keeps_the_newest() {
    const KEPT: usize = 20;
    let rig = Rig::start_with(|config| {
        config.audit_records_max = u32::try_from(KEPT).unwrap();
    })
    .await;
    let admin = rig.enter(user(1, Role::Admin)).await;
    let alice = rig.enter(user(8001, Role::User)).await;
    delete_volume(&alice, "hers".into()).await;
    for number in 0..200 {
        delete_volume(&admin, format!("v{number}")).await;
    }
    crate::stop::until("the old are gone", async || {
        let all = list(&admin, v1::ListAuditRequest::default()).await.unwrap();
        // Until it is shortened again, it may grow by a tenth.
        all.records.len() <= KEPT + KEPT / 10
    })
    .await;
    let left = of(&admin, 1).await;
    let left: Vec<&str> = left.iter().map(|record| record.object.as_str()).collect();
    let newest: Vec<String> = (0..200).rev().map(|number| format!("v{number}")).collect();
    assert!(left.len() >= KEPT - 1 && left == newest[..left.len()]);
    assert_eq!(of(&admin, 8001).await[0].object, "hers");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_nobody_calls_forgets_what_is_too_old() {
    let rig = Rig::start_with(|config| {
        config.audit_retention = "300ms".parse().unwrap();
    })
    .await;
    // Beside the daemon: whoever calls wakes the log.
    let database = rig.dir.path().join("state/banger.db");
    let store = banger_store::Store::open(&database).await.unwrap();
    let record = AuditRecord {
        time: "2020-01-01T00:00:00Z".parse().unwrap(),
        duration: Duration::ZERO,
        owner: Owner::of_uid(1),
        role: Role::Admin,
        via: String::new(),
        method: "banger.v1.VolumeService/DeleteVolume".into(),
        object: "v".into(),
        request_id: String::new(),
        code: 0,
        reason: String::new(),
        sequence: 0,
        lost: 0,
    };
    store.insert_audit(&[record]).await.unwrap();
    let all = AuditFilter::default();
    until("it is gone", async || {
        store.list_audit(1, None, &all).await.unwrap().is_empty()
    })
    .await;
    store.close().await;
    rig.stopped().await;
}

async fn next(
    answers: &mut tonic::Streaming<v1::WatchAuditResponse>,
) -> Result<v1::watch_audit_response::Message, Status> {
    use v1::watch_audit_response::Message;
    loop {
        let told = tokio::time::timeout(crate::rig::PATIENCE, answers.message());
        let told = told.await.expect("it is not silent")?.expect("it goes on");
        match told.message.unwrap() {
            Message::Heartbeat(_) => {}
            message => return Ok(message),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_followed_from_any_record_on_and_ends_with_the_daemon() {
    use v1::watch_audit_response::Message;
    let rig = Rig::start().await;
    let admin = rig.enter(user(1, Role::Admin)).await;
    delete_volume(&admin, "early".into()).await;
    let watch = async |after| {
        let request = v1::WatchAuditRequest {
            after,
            method: "banger.v1.VolumeService/DeleteVolume".into(),
            ..Default::default()
        };
        let answers = admin.hosts().watch_audit(request).await.unwrap();
        let mut answers = answers.into_inner();
        let Message::Started(at) = next(&mut answers).await.unwrap() else {
            panic!("it begins by saying where");
        };
        (at, answers)
    };
    let (at, mut from_now) = watch(None).await;
    let (_, mut from_oldest) = watch(Some(0)).await;
    // More than are taken from the store at once, while they come.
    for number in 0..250 {
        delete_volume(&admin, format!("v{number}")).await;
    }
    let mut expected: Vec<String> = (0..250).map(|number| format!("v{number}")).collect();
    let mut last = at;
    for name in &expected {
        let Message::Record(record) = next(&mut from_now).await.unwrap() else {
            panic!("it began twice");
        };
        assert!(
            record.sequence > last && record.object == *name,
            "{record:?}"
        );
        last = record.sequence;
    }
    expected.insert(0, "early".into());
    for name in &expected {
        let Message::Record(record) = next(&mut from_oldest).await.unwrap() else {
            panic!("it began twice");
        };
        assert_eq!(record.object, *name);
    }
    let viewer = rig.enter(user(9, Role::Viewer)).await;
    let mut hosts = viewer.hosts();
    let asked = hosts.watch_audit(v1::WatchAuditRequest::default());
    assert_refused(
        &asked.await.unwrap_err(),
        Code::PermissionDenied,
        "ROLE_TOO_LOW",
        None,
    );
    let reading = async {
        let ended = loop {
            if let Err(status) = next(&mut from_now).await {
                break status;
            }
        };
        assert_refused(&ended, Code::Unavailable, "DRAINING", None);
    };
    tokio::join!(rig.stopped(), reading);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_before_the_answer_is_recorded_with_what_it_began() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let admin = rig.enter(user(1, Role::Admin)).await;
    let alice = rig.enter(user(8001, Role::User)).await;
    alice.create(creation("web")).await.unwrap();
    // The agent says nothing, so that the stop takes as long as its first rung has.
    rig.is_mute.store(true, Ordering::Relaxed);
    let request = v1::StopVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    let mut vms = alice.vms();
    let mut stopping = Box::pin(vms.stop_vm(request));
    // Held until it is under way, and then reset.
    tokio::select! {
        answer = &mut stopping => panic!("it was not held: {answer:?}"),
        () = until("it stops", async || vm_is(&admin, State::Stopping).await) => {}
    }
    drop(stopping);
    until("its record", async || {
        let records = of(&admin, 8001).await;
        short(&records[0]) == ("VmService/StopVm", "web", 1, "")
    })
    .await;
    until("its end", async || vm_is(&admin, State::Stopped).await).await;
    rig.stopped().await;
}

async fn vm_is(caller: &Caller, state: State) -> bool {
    let get = v1::GetVmRequest { vm: "web".into() };
    let found = caller.vms().get_vm(get).await.unwrap();
    found.into_inner().vm.unwrap().state() == state
}

pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    waited.unwrap_or_else(|_| panic!("{what} in time"));
}

async fn broken(_: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
    tokio::task::yield_now().await;
    panic!("the handler is broken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_leaves_its_record() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("agent"), "an agent").unwrap();
    let config = crate::rig::config(&dir);
    std::fs::create_dir_all(&config.state_dir).unwrap();
    let store = banger_store::Store::open(&config.database()).await.unwrap();
    let host = FakeHost::new(agent());
    let connector = Arc::new(FakeConnector::default());
    let started = App::start(config.app(), store, Arc::new(host.driver()), connector);
    let (app, _) = started.await.unwrap();
    let handler = tower::service_fn(broken);
    let mut service = AccessLayer::new(app.audit().clone()).layer(handler);
    let mut request = http::Request::new(Body::empty());
    *request.uri_mut() = "/banger.v1.VmService/StopVm".parse().unwrap();
    request
        .extensions_mut()
        .insert(Arc::new(user(7, Role::User)));
    let called = AssertUnwindSafe(service.call(request)).catch_unwind();
    assert!(called.await.is_err());
    let filter = AuditFilter::default();
    let records = app.audit().list(10, None, &filter).await.unwrap().items;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].code, Code::Internal as i32);
    assert_eq!(records[0].method, "banger.v1.VmService/StopVm");
    app.shut_down(PATIENCE).await;
}
