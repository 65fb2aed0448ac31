//! Two users of one host: to each the other's things do not exist, by whatever method, id or name they are asked for.

use std::collections::BTreeSet;

use banger_core::Role;
use banger_core::{SessionId, VmId};
use banger_proto::v1;
use bangerd::grpc::access::table::RPCS;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::callers::{Caller, user};
use crate::rig::{Rig, assert_refused, creation, mask};

const ALICE: u32 = 8001;
const MALLORY: u32 = 8002;

/// What belongs to alice.
struct Belongings {
    vm: String,
    volume: String,
    session: String,
    operation: String,
}

async fn belongings(alice: &Caller) -> Belongings {
    let volume = alice.create_volume(v1::CreateVolumeRequest {
        name: "data".into(),
        size_mib: 64,
        ..Default::default()
    });
    let volume = volume.await.unwrap().id;
    let vm = alice.create(creation("web")).await.unwrap().id;
    let session = alice.start_session("web").await.unwrap().id;
    let mut operations = alice.operations();
    let listed = operations.list_operations(v1::ListOperationsRequest::default());
    let operation = listed.await.unwrap().into_inner().operations[0].id.clone();
    Belongings {
        vm,
        volume,
        session,
        operation,
    }
}

type Call = (&'static str, Vec<u8>);

fn call(method: &'static str, message: &impl prost::Message) -> Call {
    (method, message.encode_to_vec())
}

fn spec() -> Option<v1::SessionSpec> {
    Some(v1::SessionSpec {
        command: vec!["true".into()],
        ..Default::default()
    })
}

/// Every method that takes a VM, of which `vm` is asked for.
#[expect(
    clippy::too_many_lines,
    clippy::needless_update,
    reason = "a list, whose messages have one field or more"
)]
fn of_vm(vm: &str) -> Vec<Call> {
    let vm = || vm.to_owned();
    let path = || "/etc/hostname".to_owned();
    macro_rules! plain {
        ($method:literal, $request:ident { $($field:ident: $value:expr),* $(,)? }) => {
            call($method, &v1::$request { vm: vm(), $($field: $value,)* ..Default::default() })
        };
    }
    let mut calls = vec![
        plain!(
            "FileService/DownloadFiles",
            DownloadFilesRequest { path: path() }
        ),
        plain!("FileService/ListFiles", ListFilesRequest { path: path() }),
        plain!(
            "FileService/MakeDirectory",
            MakeDirectoryRequest { path: path() }
        ),
        plain!(
            "FileService/MakeSymlink",
            MakeSymlinkRequest {
                path: path(),
                target: path()
            }
        ),
        plain!("FileService/ReadFile", ReadFileRequest { path: path() }),
        plain!("FileService/RemoveFile", RemoveFileRequest { path: path() }),
        plain!(
            "FileService/RenameFile",
            RenameFileRequest {
                path: path(),
                new_path: path()
            }
        ),
        plain!(
            "FileService/SetFileAttributes",
            SetFileAttributesRequest {
                path: path(),
                permissions: Some(0o600),
            }
        ),
        plain!("FileService/StatFile", StatFileRequest { path: path() }),
        plain!("FileService/WatchFiles", WatchFilesRequest { path: path() }),
        plain!("HostService/WatchEvents", WatchEventsRequest {}),
        plain!("SessionService/ListSessions", ListSessionsRequest {}),
        plain!(
            "SessionService/StartSession",
            StartSessionRequest { spec: spec() }
        ),
        plain!("VmService/GetSshHostKey", GetSshHostKeyRequest {}),
        plain!("VmService/GetVm", GetVmRequest {}),
        plain!("VmService/GetVmStats", GetVmStatsRequest {}),
        plain!("VmService/KillVm", KillVmRequest {}),
        plain!("VmService/ListPorts", ListPortsRequest {}),
        plain!("VmService/PauseVm", PauseVmRequest {}),
        plain!("VmService/ReadConsole", ReadConsoleRequest {}),
        plain!("VmService/RestartVm", RestartVmRequest {}),
        plain!("VmService/ResumeVm", ResumeVmRequest {}),
        plain!("VmService/StartVm", StartVmRequest {}),
        plain!("VmService/StopVm", StopVmRequest {}),
        plain!(
            "VmService/UpdateVm",
            UpdateVmRequest {
                spec: Some(v1::VmSpec::default()),
                update_mask: Some(mask(&["labels"])),
            }
        ),
        plain!("VmService/WatchVm", WatchVmRequest {}),
        plain!("VmService/WatchVmStats", WatchVmStatsRequest {}),
        plain!(
            "WorkspaceService/ExportWorkspace",
            ExportWorkspaceRequest { path: path() }
        ),
        plain!(
            "WorkspaceService/GetWorkspaceStatus",
            GetWorkspaceStatusRequest { path: path() }
        ),
        plain!("VmService/DeleteVm", DeleteVmRequest {}),
    ];
    let start = v1::UploadFilesStart {
        vm: vm(),
        path: path(),
        ..Default::default()
    };
    let message = Some(v1::upload_files_request::Message::Start(start));
    calls.push(call(
        "FileService/UploadFiles",
        &v1::UploadFilesRequest { message },
    ));
    let start = v1::PrepareWorkspaceStart {
        vm: vm(),
        path: path(),
        ..Default::default()
    };
    let message = Some(v1::prepare_workspace_request::Message::Start(start));
    calls.push(call(
        "WorkspaceService/PrepareWorkspace",
        &v1::PrepareWorkspaceRequest { message },
    ));
    let start = v1::WriteFileStart {
        vm: vm(),
        path: path(),
        ..Default::default()
    };
    let message = Some(v1::write_file_request::Message::Start(start));
    calls.push(call(
        "FileService/WriteFile",
        &v1::WriteFileRequest { message },
    ));
    let start = v1::ExecStart {
        vm: vm(),
        spec: spec(),
    };
    let message = Some(v1::exec_request::Message::Start(start));
    calls.push(call("SessionService/Exec", &v1::ExecRequest { message }));
    for target in [
        v1::forward_start::Target::Tcp(v1::TcpTarget {
            address: String::new(),
            port: 80,
        }),
        v1::forward_start::Target::UnixPath("/run/x".into()),
        v1::forward_start::Target::Ssh(v1::SshTarget {}),
    ] {
        let start = v1::ForwardStart {
            vm: vm(),
            target: Some(target),
            ..Default::default()
        };
        let message = Some(v1::forward_request::Message::Start(start));
        calls.push(call(
            "TunnelService/Forward",
            &v1::ForwardRequest { message },
        ));
    }
    calls
}

fn of_session(session: &str) -> Vec<Call> {
    let session = || session.to_owned();
    let start = v1::AttachSessionStart {
        session: session(),
        ..Default::default()
    };
    let message = Some(v1::attach_session_request::Message::Start(start));
    vec![
        call(
            "SessionService/AttachSession",
            &v1::AttachSessionRequest { message },
        ),
        call(
            "SessionService/GetSession",
            &v1::GetSessionRequest { session: session() },
        ),
        call(
            "SessionService/ReadSessionLog",
            &v1::ReadSessionLogRequest {
                session: session(),
                ..Default::default()
            },
        ),
        call(
            "SessionService/SignalSession",
            &v1::SignalSessionRequest {
                session: session(),
                signal: 9,
                ..Default::default()
            },
        ),
        call(
            "SessionService/WaitSession",
            &v1::WaitSessionRequest { session: session() },
        ),
        call(
            "SessionService/DeleteSession",
            &v1::DeleteSessionRequest {
                session: session(),
                ..Default::default()
            },
        ),
    ]
}

fn of_volume(volume: &str) -> Vec<Call> {
    let volume = || volume.to_owned();
    let mounting = || {
        let mut request = creation("thief");
        if let Some(spec) = &mut request.spec {
            spec.volumes = vec![v1::VolumeMount {
                volume: volume(),
                path: "/data".into(),
                read_only: true,
            }];
        }
        request
    };
    vec![
        call(
            "VolumeService/GetVolume",
            &v1::GetVolumeRequest { volume: volume() },
        ),
        call(
            "VolumeService/UpdateVolume",
            &v1::UpdateVolumeRequest {
                volume: volume(),
                update_mask: Some(mask(&["labels"])),
                ..Default::default()
            },
        ),
        call(
            "VolumeService/DeleteVolume",
            &v1::DeleteVolumeRequest {
                volume: volume(),
                ..Default::default()
            },
        ),
        call(
            "VolumeService/CreateVolume",
            &v1::CreateVolumeRequest {
                name: "copy".into(),
                seed: volume(),
                ..Default::default()
            },
        ),
        call("VmService/CreateVm", &mounting()),
    ]
}

fn of_operation(operation: &str) -> Vec<Call> {
    let operation = || operation.to_owned();
    vec![
        call(
            "OperationService/GetOperation",
            &v1::GetOperationRequest {
                operation: operation(),
            },
        ),
        call(
            "OperationService/WatchOperation",
            &v1::WatchOperationRequest {
                operation: operation(),
            },
        ),
        call(
            "OperationService/CancelOperation",
            &v1::CancelOperationRequest {
                operation: operation(),
            },
        ),
    ]
}

/// What an error says, but for the name that was asked for.
fn said(status: &Status, asked: &str) -> (Code, String, String, Vec<(String, String)>) {
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("{status:?}"));
    let blank = |text: &str| text.replace(asked, "…");
    let mut metadata: Vec<_> = info
        .metadata
        .iter()
        .map(|(key, value)| (key.clone(), blank(value)))
        .collect();
    metadata.sort();
    (
        status.code(),
        info.reason,
        blank(status.message()),
        metadata,
    )
}

/// Calls by `there` and by `missing` must be told apart by nothing.
async fn cannot_tell(caller: &Caller, calls: fn(&str) -> Vec<Call>, there: &str, missing: &str) {
    for ((method, message), (_, other)) in calls(there).into_iter().zip(calls(missing)) {
        let path = format!("/banger.v1.{method}");
        let refused = caller.call(&path, message).await;
        let refused = refused.expect_err(method);
        let expected = caller.call(&path, other).await.expect_err(method);
        assert_eq!(expected.code(), Code::NotFound, "{method}: {expected:?}");
        assert_eq!(said(&refused, there), said(&expected, missing), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anothers_things_are_as_things_that_are_not() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let alice = rig.enter(user(ALICE, Role::User)).await;
    let mallory = rig.enter(user(MALLORY, Role::User)).await;
    let of = belongings(&alice).await;
    let nothing = VmId::new().to_string();
    cannot_tell(&mallory, of_vm, &of.vm, &nothing).await;
    cannot_tell(&mallory, of_vm, "web", "wab").await;
    cannot_tell(
        &mallory,
        of_session,
        &of.session,
        &SessionId::new().to_string(),
    )
    .await;
    cannot_tell(&mallory, of_volume, &of.volume, &nothing).await;
    cannot_tell(&mallory, of_volume, "data", "dota").await;
    cannot_tell(&mallory, of_operation, &of.operation, &nothing).await;
    // All of it is there, as it was.
    let mut vms = alice.vms();
    let vm = vms.get_vm(v1::GetVmRequest { vm: of.vm.clone() });
    assert_eq!(
        vm.await.unwrap().into_inner().vm.unwrap().state,
        v1::vm::State::Running as i32
    );
    let mut sessions = alice.sessions();
    let session = sessions.get_session(v1::GetSessionRequest {
        session: of.session.clone(),
    });
    session.await.unwrap();
    let mut volumes = alice.volumes();
    let volume = volumes.get_volume(v1::GetVolumeRequest {
        volume: of.volume.clone(),
    });
    volume.await.unwrap();
    // An operator finds all of it.
    let operator = rig.enter(user(MALLORY, Role::Operator)).await;
    for (method, message) in [of_vm(&of.vm), of_session(&of.session)].concat() {
        let is_asking = ["Get", "List", "Stat", "ReadSession"];
        if is_asking.iter().any(|verb| method.contains(verb)) {
            let answer = operator
                .call(&format!("/banger.v1.{method}"), message)
                .await;
            let info = answer
                .err()
                .and_then(|status| status.get_details_error_info());
            let reason = info.map(|info| info.reason).unwrap_or_default();
            let unseen = ["VM_NOT_FOUND", "SESSION_NOT_FOUND"];
            assert!(!unseen.contains(&reason.as_str()), "{method}: {reason}");
        }
    }
    rig.stopped().await;
}

#[test]
fn every_method_that_takes_an_id_is_attacked() {
    let calls = [
        of_vm("x"),
        of_session("x"),
        of_volume("x"),
        of_operation("x"),
    ]
    .concat();
    let attacked: BTreeSet<String> = calls
        .iter()
        .map(|(method, _)| format!("/banger.v1.{method}"))
        .collect();
    let ids = [
        "vm",
        "start.vm",
        "session",
        "start.session",
        "volume",
        "operation",
    ];
    let missing: Vec<&str> = RPCS
        .iter()
        .filter(|rpc| ids.contains(&rpc.object) && !attacked.contains(rpc.path))
        .map(|rpc| rpc.path)
        .collect();
    assert!(missing.is_empty(), "not attacked: {missing:?}");
}

/// Every method for others than admins that takes no id, and how it keeps owners apart.
const WITHOUT_ID: [(&str, Kept); 15] = [
    ("banger.v1.CatalogService/ListCatalogEntries", Kept::Nobodys),
    ("banger.v1.CatalogService/ListCatalogs", Kept::Nobodys),
    // Looks at the host; what it names of VMs is counted.
    ("banger.v1.HostService/Doctor", Kept::Nobodys),
    ("banger.v1.HostService/GetInfo", Kept::Apart),
    ("banger.v1.HostService/GetUsage", Kept::Apart),
    ("banger.v1.ImageService/ListImageUsage", Kept::Apart),
    ("banger.v1.ImageService/ListImages", Kept::Nobodys),
    ("banger.v1.KernelService/ListKernels", Kept::Nobodys),
    ("banger.v1.OperationService/ListOperations", Kept::Apart),
    ("banger.v1.VmService/ListVms", Kept::Apart),
    ("banger.v1.VolumeService/ListVolumes", Kept::Apart),
    ("grpc.health.v1.Health/Check", Kept::Nobodys),
    ("grpc.health.v1.Health/Watch", Kept::Nobodys),
    (
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Kept::Nobodys,
    ),
    (
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Kept::Nobodys,
    ),
];

/// What a method without an id tells of others' things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// It has nothing that belongs to anybody: never a word of an owner's.
    Nobodys,
    /// Of one's own things alone.
    Apart,
}

#[test]
fn every_method_that_takes_no_id_is_looked_at() {
    let known: BTreeSet<&str> = WITHOUT_ID.iter().map(|(path, _)| *path).collect();
    let there: BTreeSet<&str> = RPCS
        .iter()
        .filter(|rpc| rpc.object.is_empty() && rpc.role < Role::Admin)
        .map(|rpc| rpc.path.trim_start_matches('/'))
        .collect();
    assert_eq!(known, there);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_method_that_takes_no_id_tells_of_anothers_things() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let alice = rig.enter(user(ALICE, Role::User)).await;
    let mallory = rig.enter(user(MALLORY, Role::User)).await;
    let secret = "alices-own-vm";
    let vm = alice.create(creation(secret)).await.unwrap().id;
    let volume = alice.create_volume(v1::CreateVolumeRequest {
        name: "alices-own-volume".into(),
        size_mib: 64,
        ..Default::default()
    });
    let volume = volume.await.unwrap().id;
    let own = mallory
        .create(creation("mallorys-own-vm"))
        .await
        .unwrap()
        .id;
    for (path, kept) in WITHOUT_ID {
        let is_of_the_api = path.starts_with("banger.v1.");
        if !is_of_the_api {
            continue;
        }
        let told = mallory.call(&format!("/{path}"), Vec::new()).await;
        let told = String::from_utf8_lossy(&told.unwrap()).into_owned();
        for secret in [secret, "alices-own-volume", &vm, &volume, "uid:8001"] {
            assert!(!told.contains(secret), "{path} tells {secret}");
        }
        let lists_vms = ["VmService/ListVms", "ImageService/ListImageUsage"];
        if lists_vms.iter().any(|method| path.ends_with(method)) {
            let is_there = told.contains(&own) || told.contains("mallorys-own-vm");
            assert!(is_there && kept == Kept::Apart, "{path}");
        }
    }
    // An operator is told of all.
    let operator = rig.enter(user(9, Role::Operator)).await;
    let path = "/banger.v1.ImageService/ListImageUsage";
    let told = operator.call(path, Vec::new()).await.unwrap();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.contains(secret) && told.contains("mallorys-own-vm"));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_events_usage_and_statistics_tell_of_ones_own_alone() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let alice = rig.enter(user(ALICE, Role::User)).await;
    let mallory = rig.enter(user(MALLORY, Role::User)).await;
    let of = belongings(&alice).await;
    let own = mallory.create(creation("own")).await.unwrap();
    let listed = mallory.vms().list_vms(v1::ListVmsRequest::default()).await;
    let names: Vec<String> = listed
        .unwrap()
        .into_inner()
        .vms
        .into_iter()
        .map(|vm| vm.id)
        .collect();
    assert_eq!(names, [own.id.as_str()]);
    let mut volumes = mallory.volumes();
    let listed = volumes.list_volumes(v1::ListVolumesRequest::default());
    assert!(listed.await.unwrap().into_inner().volumes.is_empty());
    let mut operations = mallory.operations();
    let listed = operations.list_operations(v1::ListOperationsRequest::default());
    let targets: Vec<String> = listed
        .await
        .unwrap()
        .into_inner()
        .operations
        .into_iter()
        .map(|operation| operation.target)
        .collect();
    assert_eq!(targets, [own.id.as_str()]);
    let (events, snapshot) = mallory.told().await;
    let ids: Vec<&str> = snapshot.vms.iter().map(|vm| vm.id.as_str()).collect();
    assert_eq!(ids, [own.id.as_str()]);
    assert!(!events.is_empty());
    let text = format!("{events:?}");
    for secret in [&of.vm, &of.volume, &of.operation] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let usage = mallory
        .hosts()
        .get_usage(v1::GetUsageRequest {})
        .await
        .unwrap();
    let owners = usage.into_inner().usage.unwrap().owners;
    let owners: Vec<&str> = owners.iter().map(|owner| owner.owner.as_str()).collect();
    assert_eq!(owners, ["uid:8002"]);
    let info = mallory
        .hosts()
        .get_info(v1::GetInfoRequest {})
        .await
        .unwrap();
    assert_eq!(info.into_inner().info.unwrap().vm_count, 1);
    let mut stats = mallory
        .vms()
        .watch_vm_stats(v1::WatchVmStatsRequest::default())
        .await
        .unwrap()
        .into_inner();
    loop {
        use v1::watch_vm_stats_response::Message;
        match stats.message().await.unwrap().unwrap().message.unwrap() {
            Message::Stats(stats) => assert_eq!(stats.vm, own.id),
            Message::Round(round) => {
                assert_eq!(round.vm_count, 1);
                break;
            }
            _ => {}
        }
    }
    let viewer = rig.enter(user(9, Role::Viewer)).await;
    let listed = viewer.vms().list_vms(v1::ListVmsRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().vms.len(), 2);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_another_has_is_taken_and_says_no_more() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let alice = rig.enter(user(ALICE, Role::User)).await;
    let mallory = rig.enter(user(MALLORY, Role::User)).await;
    alice.create(creation("web")).await.unwrap();
    let refused = mallory.create(creation("web")).await.unwrap_err();
    assert_refused(&refused, Code::AlreadyExists, "NAME_TAKEN", None);
    let own = alice.create(creation("web")).await.unwrap_err();
    assert_eq!(said(&refused, "web"), said(&own, "web"));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_ids_of_two_callers_are_two() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let alice = rig.enter(user(ALICE, Role::User)).await;
    let mallory = rig.enter(user(MALLORY, Role::User)).await;
    let request = v1::CreateVmRequest {
        request_id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
        ..creation("")
    };
    let first = alice.create(request.clone()).await.unwrap();
    let again = alice.create(request.clone()).await.unwrap();
    assert_eq!(first.id, again.id);
    let other = mallory.create(request).await.unwrap();
    assert_ne!(first.id, other.id);
    assert_eq!(
        (first.owner.as_str(), other.owner.as_str()),
        ("uid:8001", "uid:8002")
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_bind_each_caller_by_its_name() {
    let limits = banger_app::vm::Limits {
        vms: Some(1),
        ..Default::default()
    };
    let rig = Rig::start_with(|config| config.quota = limits).await;
    rig.furnish().await;
    let owner = banger_core::Owner::of_certificate("ci").unwrap();
    let identity = banger_core::Identity {
        owner,
        role: Role::User,
        via: banger_core::access::Via::Certificate {
            serial: "0a".into(),
        },
    };
    let ci = rig.enter(identity).await;
    let made = ci.create(creation("a")).await.unwrap();
    assert_eq!(made.owner, "cert:ci");
    let refused = ci.create(creation("b")).await.unwrap_err();
    assert_refused(&refused, Code::ResourceExhausted, "QUOTA_EXCEEDED", None);
    let alice = rig.enter(user(ALICE, Role::User)).await;
    alice.create(creation("b")).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_sees_that_there_is_an_environment_and_not_what_is_in_it() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let alice = rig.enter(user(ALICE, Role::User)).await;
    let mut request = creation("web");
    if let Some(spec) = &mut request.spec {
        spec.env.insert("TOKEN".into(), "s3cret".into());
    }
    alice.create(request).await.unwrap();
    let viewer = rig.enter(user(9, Role::Viewer)).await;
    let calls = [
        call("VmService/GetVm", &v1::GetVmRequest { vm: "web".into() }),
        call("VmService/ListVms", &v1::ListVmsRequest::default()),
        call(
            "VmService/WatchVm",
            &v1::WatchVmRequest { vm: "web".into() },
        ),
    ];
    for (method, message) in calls {
        let path = format!("/banger.v1.{method}");
        let shown = viewer.call(&path, message.clone()).await.unwrap();
        let shown = String::from_utf8_lossy(&shown).into_owned();
        assert!(
            shown.contains("TOKEN") && !shown.contains("s3cret"),
            "{method}"
        );
        let shown = alice.call(&path, message).await.unwrap();
        assert!(
            String::from_utf8_lossy(&shown).contains("s3cret"),
            "{method}"
        );
    }
    rig.stopped().await;
}
