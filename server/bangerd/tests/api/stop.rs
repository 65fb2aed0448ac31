//! Ways down: the rungs of the ladder, VMMs that do not end, boots that are overtaken, a disk that is slow.

use std::time::Duration;

use banger_proto::v1;
use banger_proto::v1::stop_outcome::Rung;
use banger_proto::v1::vm::State;
use banger_vmm::FakeHost;
use banger_vmm::fake::Faults;
use bangerd::config::Config;
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::agent::agent;
use crate::disk::{Calls, Trouble};
use crate::rig::{PATIENCE, Rig, assert_refused, config, creation, mask};

/// A daemon whose patience is short.
pub(crate) async fn impatient() -> Rig {
    let rig = Rig::start_with(|config| {
        let limit = || "200ms".parse().unwrap();
        config.boot_timeout = limit();
        config.stop_agent_timeout = limit();
        config.stop_power_button_timeout = limit();
        config.stop_terminate_timeout = limit();
        config.stop_kill_timeout = limit();
        config.remove_timeout = "3s".parse().unwrap();
    })
    .await;
    rig.furnish().await;
    rig
}

/// What is asked of the VM `web`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Start,
    Stop,
    Kill,
    Delete,
}

pub(crate) async fn ask(rig: &Rig, ask: Ask) -> Result<Option<v1::Vm>, Status> {
    let (mut vms, vm, request_id) = (rig.vms(), "web".to_owned(), String::new());
    let asked = async {
        Ok(match ask {
            Ask::Start => {
                let request = v1::StartVmRequest { vm, request_id };
                vms.start_vm(request).await?.into_inner().vm
            }
            Ask::Stop => {
                let request = v1::StopVmRequest {
                    vm,
                    request_id,
                    keep_logs: false,
                };
                vms.stop_vm(request).await?.into_inner().vm
            }
            Ask::Kill => {
                let request = v1::KillVmRequest { vm, request_id };
                vms.kill_vm(request).await?.into_inner().vm
            }
            Ask::Delete => {
                let request = v1::DeleteVmRequest { vm, request_id };
                vms.delete_vm(request).await?;
                None
            }
        })
    };
    let answered = tokio::time::timeout(PATIENCE, asked).await;
    answered.expect("an answer in bounded time")
}

pub(crate) async fn state(rig: &Rig) -> Option<State> {
    let request = v1::GetVmRequest { vm: "web".into() };
    let answer = rig.vms().get_vm(request).await.ok()?;
    answer.into_inner().vm.map(|vm| vm.state())
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect(what);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rung_that_worked_is_told() {
    let rig = impatient().await;
    rig.create("web").await.unwrap();
    let deaf = |ignores_power_button, ignores_terminate| Faults {
        ignores_power_button,
        ignores_terminate,
        ..Faults::default()
    };
    let cases = [
        (false, Faults::default(), Rung::Agent),
        (true, deaf(false, false), Rung::PowerButton),
        (true, deaf(true, false), Rung::Terminate),
        (true, deaf(true, true), Rung::Kill),
    ];
    for (is_mute, faults, rung) in cases {
        let mute = |mute| {
            rig.is_mute
                .store(mute, std::sync::atomic::Ordering::Relaxed);
        };
        mute(is_mute);
        rig.host.set_faults(faults);
        let stopped = ask(&rig, Ask::Stop).await.unwrap().unwrap();
        assert_eq!(stopped.state(), State::Stopped, "{rung:?}");
        assert_eq!(stopped.last_stop.unwrap().rung(), rung);
        mute(false);
        rig.host.set_faults(Faults::default());
        ask(&rig, Ask::Start).await.unwrap();
    }
    let killed = ask(&rig, Ask::Kill).await.unwrap().unwrap();
    assert_eq!(killed.last_stop.unwrap().rung(), Rung::Kill);
    rig.stopped().await;
}

/// A daemon that looks often for an agent, and has time for one that it does not reach at once.
async fn patient_with_agents(dir: TempDir, host: FakeHost) -> Rig {
    let config = Config {
        boot_timeout: "2s".parse().unwrap(),
        stop_agent_timeout: "20s".parse().unwrap(),
        ..config(&dir)
    };
    Rig::start_configured(dir, host, config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_link_to_the_agent_as_long_as_it_would_for_the_agent() {
    let silent = || Faults {
        never_answers: true,
        ..Faults::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let rig = patient_with_agents(dir, FakeHost::new(agent())).await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let (dir, host) = rig.stopped().await;
    host.set_faults(silent());
    let rig = patient_with_agents(dir, host).await;
    for begins_with in ["a takeover", "a break"] {
        if begins_with == "a break" {
            ask(&rig, Ask::Start).await.unwrap();
            rig.host.set_faults(silent());
            rig.host.cut(rig.host.living()[0]);
        }
        let answering = async {
            until("stopping", async || {
                state(&rig).await == Some(State::Stopping)
            })
            .await;
            rig.host.set_faults(Faults::default());
        };
        let (stopped, ()) = tokio::join!(ask(&rig, Ask::Stop), answering);
        let rung = stopped.unwrap().unwrap().last_stop.unwrap().rung();
        assert_eq!(rung, Rung::Agent, "{begins_with}");
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_right_after_the_link_broke_asks_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let rig = patient_with_agents(dir, FakeHost::new(agent())).await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    for _ in 0..5 {
        rig.host.cut(rig.host.living()[0]);
        let stopped = ask(&rig, Ask::Stop).await.unwrap().unwrap();
        assert_eq!(stopped.last_stop.unwrap().rung(), Rung::Agent);
        ask(&rig, Ask::Start).await.unwrap();
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_never_reached_costs_its_rung_and_no_more() {
    let rig = impatient().await;
    rig.create("web").await.unwrap();
    rig.host.set_faults(Faults {
        never_answers: true,
        ..Faults::default()
    });
    rig.host.cut(rig.host.living()[0]);
    let stopped = ask(&rig, Ask::Stop).await.unwrap().unwrap();
    assert_eq!(stopped.last_stop.unwrap().rung(), Rung::PowerButton);
    rig.stopped().await;
}

/// Neither agent nor VMM does anything, as where the whole process is held.
fn dead() -> Faults {
    Faults {
        never_answers: true,
        ignores_power_button: true,
        ignores_terminate: true,
        ignores_kill: true,
        ..Faults::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vmm_that_nothing_ends_is_told_and_its_vm_goes_when_it_does() {
    let rig = impatient().await;
    rig.create("web").await.unwrap();
    rig.host.set_faults(dead());
    let refused = ask(&rig, Ask::Kill).await.unwrap_err();
    assert_refused(&refused, Code::DeadlineExceeded, "VMM_UNKILLABLE", None);
    assert_eq!(state(&rig).await, Some(State::Failed));
    // It has the VM's disk still.
    let refused = ask(&rig, Ask::Start).await.unwrap_err();
    assert_refused(&refused, Code::DeadlineExceeded, "VMM_UNKILLABLE", None);
    for _ in 0..2 {
        let refused = ask(&rig, Ask::Delete).await.unwrap_err();
        assert_refused(&refused, Code::DeadlineExceeded, "VMM_UNKILLABLE", None);
    }
    assert_eq!(rig.host.living().len(), 1);
    rig.host.set_faults(Faults::default());
    until("the VM is gone", async || state(&rig).await.is_none()).await;
    assert!(rig.host.living().is_empty());
    rig.create("web").await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vmm_that_ends_at_last_leaves_its_vm_off_and_of_use() {
    let rig = impatient().await;
    rig.create("web").await.unwrap();
    rig.host.set_faults(dead());
    ask(&rig, Ask::Kill).await.unwrap_err();
    assert_eq!(state(&rig).await, Some(State::Failed));
    rig.host.set_faults(Faults::default());
    until("off", async || state(&rig).await == Some(State::Stopped)).await;
    let started = ask(&rig, Ask::Start).await.unwrap().unwrap();
    assert_eq!(started.state(), State::Running);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_whose_vmm_nothing_ends_keeps_it_until_it_does() {
    let rig = impatient().await;
    rig.host.set_faults(dead());
    let failed = rig.create("web").await.unwrap_err();
    assert_refused(&failed, Code::DeadlineExceeded, "BOOT_TIMEOUT", None);
    assert_eq!(state(&rig).await, Some(State::Deleting));
    assert_eq!(rig.host.living().len(), 1);
    rig.host.set_faults(Faults::default());
    until("undone", async || state(&rig).await.is_none()).await;
    assert!(rig.host.living().is_empty());

    rig.create("web").await.unwrap();
    ask(&rig, Ask::Stop).await.unwrap();
    rig.host.set_faults(dead());
    ask(&rig, Ask::Start).await.unwrap_err();
    assert_eq!(state(&rig).await, Some(State::Failed));
    assert_eq!(rig.host.living().len(), 1);
    let refused = ask(&rig, Ask::Start).await.unwrap_err();
    assert_refused(&refused, Code::DeadlineExceeded, "VMM_UNKILLABLE", None);
    rig.host.set_faults(Faults::default());
    ask(&rig, Ask::Delete).await.unwrap();
    assert!(rig.host.living().is_empty());
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_overtaken_while_its_vmm_starts() {
    let rig = impatient().await;
    rig.create("web").await.unwrap();
    for overtaker in [Ask::Stop, Ask::Kill, Ask::Delete] {
        ask(&rig, Ask::Stop).await.unwrap();
        rig.host.set_faults(Faults {
            launches_together: usize::MAX,
            ..Faults::default()
        });
        let starting = ask(&rig, Ask::Start);
        let overtaking = async {
            until("launching", async || rig.host.launching() == 1).await;
            ask(&rig, overtaker).await
        };
        let (started, overtaken) = tokio::join!(starting, overtaking);
        started.unwrap_err();
        overtaken.unwrap();
        assert_eq!(rig.host.launching(), 0, "{overtaker:?}");
        assert!(rig.host.living().is_empty(), "{overtaker:?}");
        rig.host.set_faults(Faults::default());
        if state(&rig).await.is_some() {
            ask(&rig, Ask::Start).await.unwrap();
        }
    }
    assert_eq!(state(&rig).await, None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_does_not_wait_for_the_database() {
    let rig = impatient().await;
    let database = rig.dir.path().join("state/banger.db");
    for (name, verb) in [("kill", Ask::Kill), ("delete", Ask::Delete)] {
        rig.create("web").await.unwrap();
        let mut connection = SqliteConnection::connect(&format!("sqlite://{}", database.display()))
            .await
            .unwrap();
        // Nobody else writes from now on.
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut connection)
            .await
            .unwrap();
        let held = async {
            until(name, async || rig.host.living().is_empty()).await;
            assert_eq!(state(&rig).await, Some(State::Running), "told when stored");
            connection.close().await.unwrap();
        };
        let (answered, ()) = tokio::join!(ask(&rig, verb), held);
        if let Some(vm) = answered.unwrap() {
            assert_eq!(vm.last_stop.unwrap().rung(), Rung::Kill);
            ask(&rig, Ask::Delete).await.unwrap();
        }
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_is_given_up_before_the_database_says_so() {
    let rig = impatient().await;
    let database = rig.dir.path().join("state/banger.db");
    rig.host.set_faults(Faults {
        launches_together: usize::MAX,
        ..Faults::default()
    });
    let mut answers = rig
        .vms()
        .create_vm(creation("web"))
        .await
        .unwrap()
        .into_inner();
    until("launching", async || rig.host.launching() == 1).await;
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", database.display()))
        .await
        .unwrap();
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut connection)
        .await
        .unwrap();
    let held = async {
        until("given up", async || rig.host.launching() == 0).await;
        connection.close().await.unwrap();
    };
    let (deleted, ()) = tokio::join!(ask(&rig, Ask::Delete), held);
    deleted.unwrap();
    let told = async {
        while answers.message().await?.is_some() {}
        Ok::<(), Status>(())
    };
    let told = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_refused(&told.unwrap_err(), Code::Aborted, "GIVEN_UP", None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_and_a_change_that_wait_for_the_database_do_not_wait_for_each_other() {
    let rig = impatient().await;
    let database = rig.dir.path().join("state/banger.db");
    rig.create("web").await.unwrap();
    ask(&rig, Ask::Kill).await.unwrap();
    rig.host.set_faults(Faults {
        launch_takes: Duration::from_millis(500),
        ..Faults::default()
    });
    let changed = async {
        until("launching", async || rig.host.launching() == 1).await;
        let mut connection = SqliteConnection::connect(&format!("sqlite://{}", database.display()))
            .await
            .unwrap();
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut connection)
            .await
            .unwrap();
        // The change has the one writer, and waits for the lock; then the launch waits for the writer.
        let mut vms = rig.vms();
        let change = vms.update_vm(v1::UpdateVmRequest {
            vm: "web".into(),
            spec: Some(v1::VmSpec {
                vcpu_count: 2,
                ..Default::default()
            }),
            update_mask: Some(mask(&["vcpu_count"])),
            ..Default::default()
        });
        let released = async {
            until("launched", async || rig.host.launches() == 2).await;
            connection.close().await.unwrap();
        };
        let change = tokio::time::timeout(PATIENCE, change);
        let (changed, ()) = tokio::join!(change, released);
        changed.expect("an answer in bounded time").unwrap();
    };
    let (started, ()) = tokio::join!(ask(&rig, Ask::Start), changed);
    assert_eq!(started.unwrap().unwrap().state(), State::Running);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_whose_disk_stands_still_is_given_up_all_the_same() {
    let rig = impatient().await;
    let vms = rig.dir.path().join("state/vms");
    for (stage, place) in [("initramfs", "state/kernels"), ("disks", "state/vms")] {
        let trouble = Trouble::holds(&rig.dir.path().join(place));
        let mut answers = rig
            .vms()
            .create_vm(creation("web"))
            .await
            .unwrap()
            .into_inner();
        let operation = answers.message().await.unwrap().unwrap().message;
        let Some(v1::create_vm_response::Message::Operation(operation)) = operation else {
            panic!("{operation:?}");
        };
        until(stage, async || trouble.hit() > 0).await;
        let mut operations = rig.operations();
        let cancel = operations.cancel_operation(v1::CancelOperationRequest {
            operation: operation.id,
        });
        let ended = tokio::time::timeout(PATIENCE, cancel).await.expect(stage);
        let ended = ended.unwrap().into_inner().operation.unwrap();
        assert_eq!(ended.state(), v1::operation::State::Failed, "{stage}");
        assert_eq!(state(&rig).await, None, "{stage}");
        drop(trouble);
        // What the thread that was left behind makes at last is nobody's.
        until(stage, async || {
            std::fs::read_dir(&vms).unwrap().next().is_none()
        })
        .await;
    }
    rig.create("web").await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_disk_stands_still_is_overtaken_by_anything() {
    let rig = impatient().await;
    rig.create("web").await.unwrap();
    for (disk_mib, overtaker) in [(65, Ask::Stop), (66, Ask::Delete)] {
        ask(&rig, Ask::Stop).await.unwrap();
        // To grow it is work for the disk.
        let mut vms = rig.vms();
        let change = v1::UpdateVmRequest {
            vm: "web".into(),
            spec: Some(v1::VmSpec {
                disk_mib,
                ..Default::default()
            }),
            update_mask: Some(mask(&["disk_mib"])),
            ..Default::default()
        };
        vms.update_vm(change).await.unwrap();
        let trouble = Trouble::holds(&rig.dir.path().join("state/vms"));
        let starting = ask(&rig, Ask::Start);
        let overtaking = async {
            until("growing", async || trouble.hit() > 0).await;
            ask(&rig, overtaker).await
        };
        let (started, overtaken) = tokio::join!(starting, overtaking);
        started.unwrap_err();
        overtaken.unwrap();
        drop(trouble);
        if overtaker == Ask::Stop {
            assert_eq!(state(&rig).await, Some(State::Stopped));
            let started = ask(&rig, Ask::Start).await.unwrap().unwrap();
            assert_eq!(started.state(), State::Running);
        }
    }
    assert_eq!(state(&rig).await, None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_whose_end_cannot_be_stored_ends_all_the_same() {
    let rig = impatient().await;
    rig.create("web").await.unwrap();
    let state_dir = rig.dir.path().join("state");
    let trouble = Trouble::fails(&state_dir, Calls::Changes, libc::EIO, 1000, 1);
    // The VM is stopped whatever the disk says; to start it needs one that works.
    let stopped = ask(&rig, Ask::Kill).await.unwrap().unwrap();
    assert_eq!(stopped.state(), State::Stopped);
    let refused = ask(&rig, Ask::Start).await.unwrap_err();
    assert_refused(&refused, Code::Internal, "STORE_DISK_FAILED", None);
    drop(trouble);
    let started = ask(&rig, Ask::Start).await.unwrap().unwrap();
    assert_eq!(started.state(), State::Running);
    until("no operation goes on", async || {
        let request = v1::ListOperationsRequest::default();
        let listed = rig.operations().list_operations(request).await;
        let listed = listed.unwrap().into_inner().operations;
        let running = v1::operation::State::Running;
        !listed.iter().any(|operation| operation.state() == running)
    })
    .await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_a_broken_disk_does_not_let_happen_is_told_and_goes_on_by_itself() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let state = rig.dir.path().join("state");
    let trouble = Trouble::fails(&state, Calls::Changes, libc::EIO, 1000, 1);
    let delete = || v1::DeleteVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    for _ in 0..2 {
        let told = rig.vms().delete_vm(delete()).await.unwrap_err();
        assert_refused(&told, Code::DeadlineExceeded, "VM_NOT_REMOVED", None);
    }
    assert!(rig.host.living().is_empty(), "its machine is gone");
    drop(trouble);
    let gone = async {
        while !list(&rig).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_read_keeps_no_vmm_alive() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let state = rig.dir.path().join("state");
    for (number, verb) in ["stop", "kill", "delete"].into_iter().enumerate() {
        rig.create("web").await.unwrap();
        let trouble = Trouble::fails(&state, Calls::All, libc::EIO, 1000, 1);
        let (vm, request_id) = (
            "web".to_owned(),
            format!("01890a5d-ac96-774b-bcce-b302099a805{number}"),
        );
        let mut vms = rig.vms();
        let asked = match verb {
            "stop" => {
                let request = v1::StopVmRequest {
                    vm,
                    request_id,
                    keep_logs: false,
                };
                vms.stop_vm(request).await.map(drop)
            }
            "kill" => {
                let request = v1::KillVmRequest { vm, request_id };
                vms.kill_vm(request).await.map(drop)
            }
            _ => {
                let request = v1::DeleteVmRequest { vm, request_id };
                vms.delete_vm(request).await.map(drop)
            }
        };
        // Its files stay for as long as the disk fails; the machine does not.
        assert_eq!(asked.is_ok(), verb != "delete", "{verb}: {asked:?}");
        assert!(rig.host.living().is_empty(), "{verb}");
        drop(trouble);
        rig.vms()
            .delete_vm(v1::DeleteVmRequest {
                vm: "web".into(),
                ..Default::default()
            })
            .await
            .ok();
        until("the VM is gone", async || list(&rig).await.is_empty()).await;
    }
    rig.stopped().await;
}

async fn list(rig: &Rig) -> Vec<v1::Vm> {
    let listed = rig.vms().list_vms(v1::ListVmsRequest::default()).await;
    listed.unwrap().into_inner().vms
}

#[tokio::test(flavor = "multi_thread")]
async fn launches_that_hang_hold_up_nobody_and_can_be_given_up() {
    let rig = impatient().await;
    rig.create("web").await.unwrap();
    let hang = || Faults {
        threads_hang: true,
        ..Faults::default()
    };
    for overtaker in [Ask::Stop, Ask::Kill, Ask::Delete] {
        ask(&rig, Ask::Stop).await.unwrap();
        rig.host.set_faults(hang());
        let starting = ask(&rig, Ask::Start);
        let overtaking = async {
            until("launching", async || rig.host.launching() == 1).await;
            ask(&rig, overtaker).await
        };
        let (started, overtaken) = tokio::join!(starting, overtaking);
        started.unwrap_err();
        // Nobody knows yet whether a process comes of it.
        let told = overtaken.unwrap_err();
        assert_eq!(rig.host.launching(), 1, "{overtaker:?}: {told:?}");
        assert_ne!(state(&rig).await, Some(State::Running));
        rig.host.set_faults(Faults::default());
        let rests = [Some(State::Stopped), None][usize::from(overtaker == Ask::Delete)];
        until("it is where it was wanted", async || {
            state(&rig).await == rests
        })
        .await;
        assert_eq!((rig.host.launching(), rig.host.living().len()), (0, 0));
    }
    // More of them than there are threads that serve.
    let threads = std::thread::available_parallelism().unwrap().get();
    let many = threads * 4;
    rig.host.set_faults(hang());
    let mut creations = Vec::new();
    for number in 0..many {
        let mut vms = rig.vms();
        let request = creation(&format!("vm-{number}"));
        creations.push(vms.create_vm(request).await.unwrap().into_inner());
    }
    until("they launch", async || rig.host.launching() > threads).await;
    let listed = rig.vms().list_vms(v1::ListVmsRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().vms.len(), many);
    rig.host.set_faults(Faults::default());
    for mut answers in creations {
        while answers.message().await.unwrap().is_some() {}
    }
    assert_eq!(rig.host.living().len(), many);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stands_still_holds_no_vm_up() {
    let rig = Rig::start_with(|config| config.record_timeout = "100ms".parse().unwrap()).await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let trouble = Trouble::holds(&rig.dir.path().join("state/banger.db"));
    let stood_still = async {
        until("killed", async || rig.host.living().is_empty()).await;
        // Told, though nothing of it is stored.
        until("told", async || state(&rig).await == Some(State::Stopped)).await;
        assert!(trouble.hit() > 0);
        drop(trouble);
    };
    let (killed, ()) = tokio::join!(ask(&rig, Ask::Kill), stood_still);
    assert_eq!(killed.unwrap().unwrap().state(), State::Stopped);
    let started = ask(&rig, Ask::Start).await.unwrap().unwrap();
    assert_eq!(started.state(), State::Running);
    rig.stopped().await;
}
