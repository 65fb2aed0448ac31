//! Ways to nothing: a VM can be deleted wherever it is stuck, and what keeps it is told in bounded time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use banger_proto::v1;
use banger_proto::v1::vm::State;
use banger_vmm::fake::Faults;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::disk::{Calls, Trouble};
use crate::rig::{PATIENCE, Rig, assert_refused, config, creation, drain};
use crate::stop::{Ask, ask, state, until};

/// Nothing that a VM does here ends by itself in the time of a test.
const FOR_EVER: &str = "1h";

/// A daemon that waits for ever, but for what ends a VM.
async fn patient() -> Rig {
    let rig = Rig::start_with(|config| {
        config.boot_timeout = FOR_EVER.parse().unwrap();
        config.pause_timeout = FOR_EVER.parse().unwrap();
        config.stop_agent_timeout = FOR_EVER.parse().unwrap();
        config.stop_kill_timeout = "200ms".parse().unwrap();
    })
    .await;
    rig.furnish().await;
    rig
}

/// A request whose answer nobody waits for.
pub(crate) type Asked = JoinHandle<()>;

fn begin(work: impl Future<Output = ()> + Send + 'static) -> Asked {
    TaskTracker::new().spawn(work)
}

fn begin_creation(rig: &Rig) -> Asked {
    let mut vms = rig.vms();
    begin(async move {
        let answers = vms.create_vm(creation("web")).await;
        let _ = drain(answers.unwrap().into_inner()).await;
    })
}

fn begin_start(rig: &Rig) -> Asked {
    let (mut vms, vm) = (rig.vms(), "web".into());
    begin(async move {
        let request = v1::StartVmRequest {
            vm,
            ..Default::default()
        };
        let _ = vms.start_vm(request).await;
    })
}

fn begin_stop(rig: &Rig) -> Asked {
    let (mut vms, vm) = (rig.vms(), "web".into());
    begin(async move {
        let request = v1::StopVmRequest {
            vm,
            ..Default::default()
        };
        let _ = vms.stop_vm(request).await;
    })
}

fn begin_pause(rig: &Rig) -> Asked {
    let (mut vms, vm) = (rig.vms(), "web".into());
    begin(async move {
        let request = v1::PauseVmRequest {
            vm,
            ..Default::default()
        };
        let _ = vms.pause_vm(request).await;
    })
}

fn begin_resume(rig: &Rig) -> Asked {
    let (mut vms, vm) = (rig.vms(), "web".into());
    begin(async move {
        let request = v1::ResumeVmRequest {
            vm,
            ..Default::default()
        };
        let _ = vms.resume_vm(request).await;
    })
}

async fn pause(rig: &Rig) {
    let request = v1::PauseVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    rig.vms().pause_vm(request).await.unwrap();
}

/// Brings a VM to where it stays: whatever would take it further hangs.
pub(crate) async fn stick(rig: &Rig, wanted: State) -> Option<Asked> {
    let launch_hangs = || Faults {
        launches_together: usize::MAX,
        ..Faults::default()
    };
    let control_hangs = || Faults {
        control_hangs: true,
        ..Faults::default()
    };
    if wanted == State::Creating {
        rig.host.set_faults(launch_hangs());
        return Some(begin_creation(rig));
    }
    rig.create("web").await.unwrap();
    match wanted {
        State::Starting => {
            ask(rig, Ask::Stop).await.unwrap();
            rig.host.set_faults(Faults {
                never_answers: true,
                ..Faults::default()
            });
            Some(begin_start(rig))
        }
        State::Running => {
            rig.is_mute.store(true, Ordering::Relaxed);
            None
        }
        State::Pausing => {
            rig.host.set_faults(control_hangs());
            Some(begin_pause(rig))
        }
        State::Paused => {
            pause(rig).await;
            None
        }
        State::Resuming => {
            pause(rig).await;
            rig.host.set_faults(control_hangs());
            Some(begin_resume(rig))
        }
        State::Stopping => {
            rig.is_mute.store(true, Ordering::Relaxed);
            Some(begin_stop(rig))
        }
        State::Stopped => {
            ask(rig, Ask::Stop).await.unwrap();
            None
        }
        State::Failed => {
            rig.host.crash(rig.host.living()[0]);
            None
        }
        State::Deleting => {
            rig.host.set_faults(Faults {
                ignores_kill: true,
                ..Faults::default()
            });
            let refused = ask(rig, Ask::Delete).await.unwrap_err();
            assert_refused(&refused, Code::DeadlineExceeded, "VMM_UNKILLABLE", None);
            rig.host.set_faults(Faults::default());
            None
        }
        State::Creating | State::Unspecified => unreachable!("no VM is so now"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_vm_in_any_state_can_be_deleted() {
    let rig = patient().await;
    let states = [
        State::Creating,
        State::Starting,
        State::Running,
        State::Pausing,
        State::Paused,
        State::Resuming,
        State::Stopping,
        State::Stopped,
        State::Failed,
        State::Deleting,
    ];
    for wanted in states {
        let asked = stick(&rig, wanted).await;
        if wanted != State::Deleting {
            until(wanted.as_str_name(), async || {
                state(&rig).await == Some(wanted)
            })
            .await;
        }
        // One that goes already may be gone.
        match ask(&rig, Ask::Delete).await {
            Err(error) if wanted == State::Deleting => assert_eq!(error.code(), Code::NotFound),
            Err(error) => panic!("{wanted:?}: {error}"),
            Ok(_) => {}
        }
        assert_eq!(state(&rig).await, None, "{wanted:?}");
        assert!(rig.host.living().is_empty(), "{wanted:?}");
        assert!(directories(&rig).is_empty(), "{wanted:?}");
        if let Some(asked) = asked {
            let answered = tokio::time::timeout(PATIENCE, asked).await;
            answered.expect("who asked before is answered").unwrap();
        }
        rig.host.set_faults(Faults::default());
        rig.is_mute.store(false, Ordering::Relaxed);
    }
    rig.stopped().await;
}

fn directories(rig: &Rig) -> Vec<String> {
    let entries = std::fs::read_dir(rig.dir.path().join("state/vms")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// A daemon whose patience with a removal is short.
async fn soon_told() -> Rig {
    let rig = Rig::start_with(|config| {
        config.remove_timeout = "300ms".parse().unwrap();
        config.stop_kill_timeout = "200ms".parse().unwrap();
    })
    .await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    rig
}

async fn look(rig: &Rig) -> v1::Vm {
    let request = v1::GetVmRequest { vm: "web".into() };
    let answer = rig.vms().get_vm(request).await;
    answer.unwrap().into_inner().vm.unwrap()
}

fn cause(status: &Status) -> Option<String> {
    let details = status.get_error_details();
    let info = details.error_info()?;
    info.metadata.get("cause").cloned()
}

/// The VM is shown as what it is: on its way, and why it is still there.
async fn assert_shown(rig: &Rig, text: &str) {
    let vm = look(rig).await;
    assert_eq!(vm.state(), State::Deleting);
    let failure = vm.failure.expect("why it is still there");
    assert!(failure.message.contains(text), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_fails_is_told_and_goes_on() {
    let rig = soon_told().await;
    let vms = rig.dir.path().join("state/vms");
    let trouble = Trouble::fails(&vms, Calls::Removals, libc::EIO, 1000, 1);
    for _ in 0..2 {
        let refused = ask(&rig, Ask::Delete).await.unwrap_err();
        assert_refused(&refused, Code::DeadlineExceeded, "VM_NOT_REMOVED", None);
        assert_eq!(cause(&refused).as_deref(), Some("STATE_DIRECTORY_FAILED"));
        assert!(refused.message().contains("could not remove"), "{refused}");
        assert_shown(&rig, "could not remove").await;
    }
    assert!(rig.host.living().is_empty(), "its process is gone");
    drop(trouble);
    // Whoever asks again waits for the next try, which is made at once.
    match ask(&rig, Ask::Delete).await {
        Ok(_) => {}
        Err(error) => assert_refused(&error, Code::NotFound, "VM_NOT_FOUND", None),
    }
    assert_eq!(state(&rig).await, None);
    assert!(directories(&rig).is_empty());
    rig.create("web").await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_fails_works_at_last_without_anybody_asking() {
    let rig = soon_told().await;
    let vms = rig.dir.path().join("state/vms");
    let trouble = Trouble::fails(&vms, Calls::Removals, libc::EIO, 1000, 1);
    ask(&rig, Ask::Delete).await.unwrap_err();
    drop(trouble);
    until("gone", async || state(&rig).await.is_none()).await;
    assert!(directories(&rig).is_empty());
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_hangs_is_told_and_goes_on() {
    let rig = soon_told().await;
    let trouble = Trouble::holds_removals(&rig.dir.path().join("state/vms"));
    for _ in 0..2 {
        let refused = ask(&rig, Ask::Delete).await.unwrap_err();
        assert_refused(&refused, Code::DeadlineExceeded, "VM_NOT_REMOVED", None);
        assert_eq!(cause(&refused), None);
        assert_shown(&rig, "goes on removing it").await;
    }
    let deleting = async { ask(&rig, Ask::Delete).await };
    let released = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(trouble);
    };
    let (deleted, ()) = tokio::join!(deleting, released);
    // It was told before, or after the disk went on.
    if let Err(error) = deleted {
        assert!([Code::DeadlineExceeded, Code::NotFound].contains(&error.code()));
    }
    until("gone", async || state(&rig).await.is_none()).await;
    assert!(directories(&rig).is_empty());
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_cannot_be_undone_is_told_in_bounded_time() {
    let rig = soon_told().await;
    ask(&rig, Ask::Delete).await.unwrap();
    rig.host.set_faults(Faults {
        launch_fails: true,
        ..Faults::default()
    });
    let trouble = Trouble::holds_removals(&rig.dir.path().join("state/vms"));
    let failed = rig.create("web").await.unwrap_err();
    assert_refused(&failed, Code::Internal, "VMM_ENDED_EARLY", None);
    assert_shown(&rig, "goes on removing it").await;
    drop(trouble);
    until("gone", async || state(&rig).await.is_none()).await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_fails_keeps_neither_this_daemon_nor_the_next() {
    let rig = soon_told().await;
    let vms = rig.dir.path().join("state/vms");
    let trouble = Trouble::fails(&vms, Calls::Removals, libc::EIO, 1000, 1);
    ask(&rig, Ask::Delete).await.unwrap_err();
    let kept = config(&rig.dir);
    let (dir, host) = rig.stopped().await;
    // Nobody's, and it cannot be removed either.
    let stray = dir
        .path()
        .join("state/vms/01890a5d-ac96-774b-bcce-b302099a8057");
    std::fs::create_dir_all(stray.join("deep")).unwrap();
    std::fs::write(dir.path().join("state/tmp/stray"), "x").unwrap();
    let more = ["tmp", "volumes", "kernels"].map(|place| {
        let place = dir.path().join("state").join(place);
        Trouble::fails(&place, Calls::Removals, libc::EIO, 1000, 1)
    });
    let rig = Rig::start_configured(dir, host, kept).await;
    assert_eq!(state(&rig).await, Some(State::Deleting));
    rig.create("other").await.unwrap();
    let request = v1::DoctorRequest {
        checks: vec!["LEFTOVER_VM_DIRECTORIES".into()],
        ..Default::default()
    };
    let answers = rig.hosts().doctor(request).await.unwrap().into_inner();
    let answers = format!("{:?}", drain(answers).await.unwrap());
    assert!(answers.contains("1 left over"), "{answers}");
    drop((trouble, more));
    until("gone", async || state(&rig).await.is_none()).await;
    rig.stopped().await;
}
