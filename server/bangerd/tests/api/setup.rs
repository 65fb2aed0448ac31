//! What a new VM is set up with, and creations that are watched, given up and made many at once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use banger_core::setup::Secret;
use banger_proto::v1;
use banger_proto::v1::vm_spec::InitMode;
use banger_vmm::FakeHost;
use banger_vmm::fake::Faults;
use bangerd::config::{Config, CredentialFile, CredentialsConfig};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::agent::{Told, agent};
use crate::disk::Trouble;
use crate::rig::{PATIENCE, Rig, assert_refused, config, creation, drain};
use crate::stop::until;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPZ1bX0oZ4q1rC2H5vY7mQ3l8xkK0yWc9n6TtJ2sDgEh ann";
/// How many creations are made at once.
const MANY: usize = 16;

fn file(path: &str, content: &str) -> v1::VmFile {
    v1::VmFile {
        path: path.into(),
        content: content.as_bytes().to_vec().into(),
        ..Default::default()
    }
}

/// A creation with every step there is.
fn whole(name: &str) -> v1::CreateVmRequest {
    let mut request = creation(name);
    request.files = vec![v1::VmFile {
        mode: 0o750,
        owner: "app".into(),
        ..file("/opt/tool/run", "#!/bin/sh\n")
    }];
    let spec = request.spec.as_mut().unwrap();
    spec.init_mode = InitMode::Image.into();
    spec.identity = Some(v1::VmIdentity {
        git_name: "Ann".into(),
        git_email: "ann@example.com".into(),
        ssh_authorized_keys: vec![KEY.into()],
        credentials: Vec::new(),
    });
    request
}

async fn create(rig: &Rig, request: v1::CreateVmRequest) -> Result<v1::Vm, Status> {
    let answers = rig.vms().create_vm(request).await?.into_inner();
    match drain(answers).await?.pop().and_then(|last| last.message) {
        Some(v1::create_vm_response::Message::Vm(vm)) => Ok(vm),
        other => panic!("the last message is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_come_before_files_and_the_images_init_last() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let vm = create(&rig, whole("web")).await.unwrap();
    let told = std::mem::take(&mut *rig.setup.told.lock().unwrap());
    let run = Told::File("/opt/tool/".into(), "run".into(), 0o750, (1000, 1001), 10);
    assert_eq!(told[..2], [Told::Configure, run]);
    let Told::Identity(identity) = &told[2] else {
        panic!("{told:?}")
    };
    assert_eq!(
        (
            identity.git_name.as_str(),
            identity.ssh_authorized_keys.as_slice()
        ),
        ("Ann", &[KEY.to_owned()][..])
    );
    assert_eq!(told[3..], [Told::Init]);
    let stages: Vec<&str> = vm
        .boot_timing
        .iter()
        .map(|stage| stage.name.as_str())
        .collect();
    assert!(
        stages.ends_with(&["boot", "configure", "files", "identity", "init"]),
        "{stages:?}"
    );
    let spec = vm.spec.unwrap();
    assert_eq!(spec.init_mode(), InitMode::Image);
    assert_eq!(spec.identity.unwrap().git_email, "ann@example.com");
    let vm = || "web".to_owned();
    rig.vms()
        .kill_vm(v1::KillVmRequest {
            vm: vm(),
            ..Default::default()
        })
        .await
        .unwrap();
    rig.vms()
        .start_vm(v1::StartVmRequest {
            vm: vm(),
            ..Default::default()
        })
        .await
        .unwrap();
    let told = std::mem::take(&mut *rig.setup.told.lock().unwrap());
    assert!(
        matches!(&told[..], [Told::Configure, Told::Identity(_), Told::Init]),
        "files are written once, the rest at each start: {told:?}"
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_fails_the_creation_by_its_path() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let mut request = creation("web");
    request.files = vec![file("/a", "x"), file("/dir/taken", "x")];
    let refused = create(&rig, request.clone()).await.unwrap_err();
    assert_refused(
        &refused,
        Code::FailedPrecondition,
        "VM_FILE_NOT_WRITTEN",
        None,
    );
    let details = refused.get_error_details();
    let words = &details.error_info().unwrap().metadata;
    assert_eq!(
        (words["path"].as_str(), words["stage"].as_str()),
        ("/dir/taken", "files")
    );
    assert_eq!(words["code_ran"], "no");
    request.files = vec![v1::VmFile {
        owner: "nobody".into(),
        ..file("/b", "x")
    }];
    let refused = create(&rig, request).await.unwrap_err();
    assert_refused(
        &refused,
        Code::InvalidArgument,
        "VM_FILE_NOT_WRITTEN",
        Some("files"),
    );
    assert!(refused.message().contains("/b"), "{refused:?}");
    // What failed has left nothing when it is told, the name included.
    create(&rig, creation("web")).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_set_up_is_refused_by_field_before_anything_is_made() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let files = |files: Vec<v1::VmFile>| v1::CreateVmRequest {
        files,
        ..creation("web")
    };
    let spec = |change: fn(&mut v1::VmSpec)| {
        let mut request = creation("web");
        change(request.spec.as_mut().unwrap());
        request
    };
    let many = (0..65).map(|n| file(&format!("/{n}"), "")).collect();
    let large = file("/a", &"x".repeat((1 << 20) + 1));
    let cases = [
        (files(vec![file("a", "")]), "files"),
        (files(vec![file("/../a", "")]), "files"),
        (files(vec![file("/a\0", "")]), "files"),
        (files(many), "files"),
        (files(vec![large]), "files"),
        (files(vec![file("/a", ""), file("/a", "")]), "files"),
        (spec(|spec| spec.init_mode = 9), "spec.init_mode"),
        (
            spec(|spec| spec.init_path = "/sbin/init".into()),
            "spec.init_path",
        ),
        (
            spec(|spec| {
                spec.init_mode = InitMode::Image.into();
                spec.init_path = "init".into();
            }),
            "spec.init_path",
        ),
        (
            spec(|spec| spec.identity.get_or_insert_default().git_name = "a\nb".into()),
            "spec.identity.git_name",
        ),
        (
            spec(|spec| {
                let identity = spec.identity.get_or_insert_default();
                identity.ssh_authorized_keys = vec!["ssh-ed25519 x".into()];
            }),
            "spec.identity.ssh_authorized_keys",
        ),
        (
            spec(|spec| spec.identity.get_or_insert_default().credentials = vec!["A B".into()]),
            "spec.identity.credentials",
        ),
    ];
    for (request, field) in cases {
        let refused = rig.vms().create_vm(request).await.unwrap_err();
        let details = refused.get_error_details();
        let named = details
            .bad_request()
            .map(|bad| bad.field_violations[0].field.clone());
        assert_eq!(named.as_deref(), Some(field), "{refused:?}");
    }
    assert_eq!(rig.host.launches(), 0);
    rig.stopped().await;
}

fn source(dir: &Path, content: &str) -> CredentialsConfig {
    let source = dir.join("token");
    fs::write(&source, content).unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o600)).unwrap();
    CredentialsConfig {
        files: vec![CredentialFile {
            source,
            path: "~/.token".into(),
            mode: "0600".into(),
        }],
        allowed_uids: None,
        allowed_owners: None,
    }
}

fn with_credentials(profile: &str) -> v1::CreateVmRequest {
    let mut request = creation("web");
    let spec = request.spec.as_mut().unwrap();
    spec.identity.get_or_insert_default().credentials = vec![profile.into()];
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_read_at_each_start_and_only_for_who_may_have_them() {
    let dir = tempfile::tempdir().unwrap();
    let mine = source(dir.path(), "first");
    let theirs = CredentialsConfig {
        allowed_uids: Some(vec![u32::MAX - 1]),
        allowed_owners: None,
        ..mine.clone()
    };
    let token = mine.files[0].source.clone();
    let config = Config {
        credentials: [("mine".into(), mine), ("theirs".into(), theirs)].into(),
        ..config(&dir)
    };
    let rig = Rig::start_configured(dir, FakeHost::new(agent()), config).await;
    rig.furnish().await;
    for unknown in ["none", "theirs"] {
        let refused = rig
            .vms()
            .create_vm(with_credentials(unknown))
            .await
            .unwrap_err();
        assert_refused(&refused, Code::NotFound, "CREDENTIALS_NOT_FOUND", None);
        assert!(
            refused.message().ends_with("there are: mine"),
            "{refused:?}"
        );
    }
    create(&rig, with_credentials("mine")).await.unwrap();
    let given = || {
        let told = std::mem::take(&mut *rig.setup.told.lock().unwrap());
        match &told[1] {
            Told::Identity(identity) => identity.files.clone(),
            other => panic!("{other:?}"),
        }
    };
    let files = given();
    assert_eq!((files[0].path.as_str(), files[0].mode), ("~/.token", 0o600));
    assert_eq!(files[0].content, Secret::new("first".into()));
    let kill = v1::KillVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    rig.vms().kill_vm(kill).await.unwrap();
    let start = || v1::StartVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    fs::write(&token, "second").unwrap();
    rig.vms().start_vm(start()).await.unwrap();
    assert_eq!(given()[0].content, Secret::new("second".into()));
    let stop = v1::StopVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    rig.vms().stop_vm(stop.clone()).await.unwrap();
    // A source on a disk that hangs keeps no VM from being stopped.
    let trouble = Trouble::holds_all(&token);
    let mut vms = rig.vms();
    let starting = vms.start_vm(start());
    let overtaking = async {
        until("it is read", async || trouble.hit() > 0).await;
        rig.vms().stop_vm(stop).await
    };
    let (started, stopped) = tokio::join!(starting, overtaking);
    assert_refused(&started.unwrap_err(), Code::Aborted, "OVERTAKEN", None);
    stopped.unwrap();
    drop(trouble);
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let launches = rig.host.launches();
    let refused = rig.vms().start_vm(start()).await.unwrap_err();
    assert!(refused.message().contains("has mode 0644"), "{refused:?}");
    assert!(
        !refused.message().contains(token.to_str().unwrap()),
        "{refused:?}"
    );
    assert_eq!(rig.host.launches(), launches, "nothing ran");
    rig.stopped().await;
}

/// Where a creation stands still.
fn stand_still(rig: &Rig, stage: &'static str) {
    *rig.setup.stuck_in.lock().unwrap() = stage;
    rig.host.set_faults(Faults {
        probe_hangs: stage == "probe",
        // Another than this one is never under way.
        launches_together: match stage {
            "launch" => usize::MAX,
            _ => 0,
        },
        never_answers: stage == "boot",
        ..Faults::default()
    });
}

/// Watches a creation until it stands in `stage`; returns its operation.
async fn until_in(
    answers: &mut tonic::Streaming<v1::CreateVmResponse>,
    stage: &str,
) -> v1::Operation {
    loop {
        let next = tokio::time::timeout(PATIENCE, answers.message()).await;
        let message = next.expect("in time").unwrap().unwrap().message;
        if let Some(v1::create_vm_response::Message::Operation(operation)) = message {
            let standing = operation
                .stages
                .iter()
                .rfind(|stage| stage.end_time.is_none());
            // A pull's first request is before its first stage.
            if stage == "pull" || standing.is_some_and(|standing| standing.name == stage) {
                return operation;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_client_can_give_up_a_creation_in_each_of_its_stages() {
    let rig = Rig::start().await;
    rig.furnish().await;
    // It takes connections and never answers, so that a pull goes on.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    for stage in [
        "pull",
        "probe",
        "launch",
        "boot",
        "configure",
        "files",
        "identity",
        "init",
    ] {
        stand_still(&rig, stage);
        let mut request = whole("web");
        if stage == "pull" {
            let address = silent.local_addr().unwrap();
            request.pull_if_missing = true;
            request.spec.as_mut().unwrap().image = format!("{address}/silent:1");
        }
        let mut answers = rig.vms().create_vm(request).await.unwrap().into_inner();
        let operation = until_in(&mut answers, stage).await;
        if stage == "launch" {
            let begun = async {
                while rig.host.launching() == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(PATIENCE, begun).await.expect("begun");
        }
        let mut connections = Vec::new();
        if stage == "pull" {
            let accepted = tokio::time::timeout(PATIENCE, silent.accept()).await;
            connections.push(accepted.expect("in time").unwrap());
        }
        let mut other = rig.another_client().await;
        let watched = v1::WatchOperationRequest {
            operation: operation.id.clone(),
        };
        let watched = other.watch_operation(watched).await.unwrap().into_inner();
        let cancel = v1::CancelOperationRequest {
            operation: operation.id.clone(),
        };
        let ended = other.cancel_operation(cancel).await.unwrap().into_inner();
        let ended = ended.operation.unwrap();
        assert_eq!(ended.state(), v1::operation::State::Failed, "{stage}");
        let told = drain(answers).await.unwrap_err();
        assert_refused(&told, Code::Cancelled, "OPERATION_CANCELLED", None);
        let seen = drain(watched).await.unwrap();
        assert!(seen.len() >= 2, "the other client saw it stand and end");
        nothing_is_left(&rig, stage).await;
        assert_eq!(rig.host.launching(), 0, "{stage}");
    }
    stand_still(&rig, "");
    create(&rig, whole("web")).await.unwrap();
    rig.stopped().await;
}

/// No VM, no process, no file, no name.
async fn nothing_is_left(rig: &Rig, stage: &str) {
    let listed = rig.vms().list_vms(v1::ListVmsRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().vms, [], "{stage}");
    assert!(rig.host.living().is_empty(), "{stage}");
    let left = fs::read_dir(rig.dir.path().join("state/vms"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "{stage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn creations_with_files_join_by_their_request_id() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let request = |content: &str| v1::CreateVmRequest {
        request_id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
        files: vec![file("/a", content)],
        ..creation("web")
    };
    let (first, second) = tokio::join!(create(&rig, request("x")), create(&rig, request("x")));
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(rig.host.launches(), 1);
    let other = rig.vms().create_vm(request("y")).await.unwrap_err();
    assert_refused(
        &other,
        Code::InvalidArgument,
        "REQUEST_ID_REUSED",
        Some("request_id"),
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_creations_are_under_way_together() {
    // The queue of boots would let fewer go at once.
    let rig = Rig::start_with(|config| config.max_parallel_boots = MANY).await;
    rig.furnish().await;
    // None goes on before all have come as far: one lock held over a launch, and this would never end.
    rig.host.set_faults(Faults {
        launches_together: MANY,
        ..Faults::default()
    });
    let names: Vec<String> = (0..MANY).map(|number| format!("web-{number}")).collect();
    let made = names.iter().map(|name| create(&rig, whole(name)));
    for made in futures::future::join_all(made).await {
        assert_eq!(made.unwrap().state(), v1::vm::State::Running);
    }
    assert_eq!(rig.host.most_launches_at_once(), MANY);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configured_network_is_that_of_vms_for_which_none_was_asked() {
    use banger_core::vmm::NetworkPlan;
    use banger_proto::v1::vm_spec::NetworkMode;
    for (configured, mode) in [
        (None, NetworkMode::User),
        (Some(NetworkPlan::None), NetworkMode::None),
    ] {
        let rig = Rig::start_with(|config| {
            if let Some(configured) = configured {
                config.default_network = configured;
            }
        })
        .await;
        rig.furnish().await;
        rig.create("web").await.unwrap();
        let mut asked = creation("asked");
        asked.spec.as_mut().unwrap().network_mode = NetworkMode::User.into();
        create(&rig, asked).await.unwrap();
        let listed = rig.vms().list_vms(v1::ListVmsRequest::default()).await;
        let listed = listed.unwrap().into_inner().vms;
        let of = |name: &str| {
            let mut vms = listed.iter().filter_map(|vm| vm.spec.as_ref());
            vms.find(|spec| spec.name == name).unwrap().network_mode()
        };
        assert_eq!((of("web"), of("asked")), (mode, NetworkMode::User));
        rig.stopped().await;
    }
}
