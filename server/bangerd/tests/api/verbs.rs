//! Random verbs on one VM: what the runner makes of them is what the pure rules say.

use banger_core::lifecycle::{Next, Verb, decide};
use banger_core::vm::Phase;
use banger_proto::v1;
use banger_proto::v1::vm::State;
use banger_vmm::fake::Faults;
use futures::future::join_all;
use futures::poll;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::gone::stick;
use crate::rig::{PATIENCE, Rig, assert_refused, mask};
use crate::seed::seed;
use crate::stop::until;

/// Verbs one after the other.
const STEPS: usize = 150;
/// Of so many of those, one finds the VM on its way, one a VM whose VMM has ended, and one boots in vain.
const ODD_OF: u32 = 24;
/// Rounds of verbs at once.
const ROUNDS: usize = 60;
/// Where a VM can be held on its way.
const ON_THE_WAY: [(State, Phase); 5] = [
    (State::Creating, Phase::Creating),
    (State::Starting, Phase::Starting),
    (State::Pausing, Phase::Pausing),
    (State::Resuming, Phase::Resuming),
    (State::Stopping, Phase::Stopping),
];

/// Asks for something, whatever becomes of it.
async fn ask(rig: &Rig, verb: Verb) -> Result<(), Status> {
    let (mut vms, vm, request_id) = (rig.vms(), "web".to_owned(), String::new());
    let asked = async {
        match verb {
            Verb::Start => drop(vms.start_vm(v1::StartVmRequest { vm, request_id }).await?),
            Verb::Stop => drop(
                vms.stop_vm(v1::StopVmRequest {
                    vm,
                    request_id,
                    keep_logs: false,
                })
                .await?,
            ),
            Verb::Restart => drop(
                vms.restart_vm(v1::RestartVmRequest { vm, request_id })
                    .await?,
            ),
            Verb::Kill => drop(vms.kill_vm(v1::KillVmRequest { vm, request_id }).await?),
            Verb::Pause => drop(vms.pause_vm(v1::PauseVmRequest { vm, request_id }).await?),
            Verb::Resume => drop(
                vms.resume_vm(v1::ResumeVmRequest { vm, request_id })
                    .await?,
            ),
            Verb::Delete => drop(
                vms.delete_vm(v1::DeleteVmRequest { vm, request_id })
                    .await?,
            ),
            Verb::Update => {
                let request = v1::UpdateVmRequest {
                    vm,
                    spec: Some(v1::VmSpec {
                        vcpu_count: 2,
                        ..Default::default()
                    }),
                    update_mask: Some(mask(&["vcpu_count"])),
                    ..Default::default()
                };
                drop(vms.update_vm(request).await?);
            }
            Verb::Use => {
                let request = v1::ListSessionsRequest {
                    vm,
                    ..Default::default()
                };
                drop(rig.sessions().list_sessions(request).await?);
            }
        }
        Ok(())
    };
    let answered = tokio::time::timeout(PATIENCE, asked).await;
    answered.unwrap_or_else(|_| panic!("{verb:?} hangs"))
}

async fn phase(rig: &Rig) -> Option<Phase> {
    let request = v1::GetVmRequest { vm: "web".into() };
    let answer = rig.vms().get_vm(request).await.ok()?;
    let state = answer.into_inner().vm.unwrap().state();
    Some(match state {
        State::Unspecified => panic!("no state"),
        State::Creating => Phase::Creating,
        State::Starting => Phase::Starting,
        State::Running => Phase::Running,
        State::Pausing => Phase::Pausing,
        State::Paused => Phase::Paused,
        State::Resuming => Phase::Resuming,
        State::Stopping => Phase::Stopping,
        State::Stopped => Phase::Stopped,
        State::Failed => Phase::Failed,
        State::Deleting => Phase::Deleting,
    })
}

/// Where a verb that moves a VM brings it; `None` where that is gone.
fn goal(next: Phase, verb: Verb) -> Option<Phase> {
    match (next, verb) {
        (Phase::Starting | Phase::Resuming, _) | (Phase::Stopping, Verb::Restart) => {
            Some(Phase::Running)
        }
        (Phase::Stopping, _) => Some(Phase::Stopped),
        (Phase::Pausing, _) => Some(Phase::Paused),
        (Phase::Deleting, _) => None,
        (other, _) => panic!("{verb:?} moves to {other}"),
    }
}

fn verb(random: &mut fastrand::Rng) -> Verb {
    // A VM that is gone has little to tell.
    match random.u8(..20) {
        0 => Verb::Delete,
        _ => Verb::ALL[random.usize(..Verb::ALL.len())],
    }
}

/// A daemon under which a VM stays where it is held.
async fn patient() -> Rig {
    let rig = Rig::start_with(|config| {
        let for_ever = || "1h".parse().unwrap();
        config.boot_timeout = for_ever();
        config.pause_timeout = for_ever();
        config.stop_power_button_timeout = for_ever();
        config.stop_agent_timeout = "300ms".parse().unwrap();
    })
    .await;
    rig.furnish().await;
    rig
}

/// A verb meets a VM that stays on its way until the verb says otherwise; then the VM is removed and made anew.
async fn meet_on_the_way(rig: &Rig, random: &mut fastrand::Rng, told: &str) {
    let (state, held) = ON_THE_WAY[random.usize(..ON_THE_WAY.len())];
    let verb = verb(random);
    let told = format!("{told}: {verb:?} while {held}");
    rig.delete_vm("web").await;
    // An agent that does not answer keeps no VM from stopping.
    rig.host.set_faults(Faults {
        ignores_power_button: held == Phase::Stopping,
        ..Faults::default()
    });
    let asked = stick(rig, state).await.expect("somebody waits for it");
    let is_held = async || phase(rig).await == Some(held);
    until(&told, is_held).await;
    let go_on = || {
        rig.host.set_faults(Faults::default());
        rig.is_mute.store(false, Ordering::Relaxed);
    };
    if [Phase::Pausing, Phase::Resuming].contains(&held) {
        // The call that hangs goes on to; those of the ladder need not.
        go_on();
    }
    let mut answer = Box::pin(ask(rig, verb));
    match decide(held, verb) {
        Next::Refuse => {
            let refused = answer.await.expect_err(&told);
            assert_refused(&refused, Code::FailedPrecondition, "WRONG_STATE", None);
            assert!(is_held().await, "{told}");
        }
        Next::Already | Next::Allow => {
            answer.await.expect(&told);
            assert!(is_held().await, "{told}");
        }
        Next::Join => {
            assert!(poll!(&mut answer).is_pending(), "{told}");
            let (joined, ()) = tokio::join!(answer, async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                rig.delete_vm("web").await;
            });
            // A stop that is joined has its end by the removal too.
            if let Err(error) = joined {
                let reason = reason(&error, &told);
                assert!(REASONS.contains(&reason.as_str()), "{told}: {reason}");
            }
        }
        Next::Preempt(next) => {
            let moved = async {
                until(&told, async || !is_held().await).await;
                go_on();
            };
            let (answer, ()) = tokio::join!(answer, moved);
            answer.expect(&told);
            assert_eq!(phase(rig).await, goal(next, verb), "{told}");
        }
        Next::Move(_) => panic!("{told}: nothing gives way"),
    }
    go_on();
    if phase(rig).await.is_some() {
        rig.delete_vm("web").await;
    }
    let asked = tokio::time::timeout(PATIENCE, asked).await;
    asked.expect(&told).expect(&told);
    rig.create("web").await.unwrap();
}

/// The VMM of a VM that has one ends by itself.
async fn crash(rig: &Rig, told: &str) {
    if let Some(living) = rig.host.living().first() {
        rig.host.crash(*living);
        until(told, async || phase(rig).await == Some(Phase::Failed)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_verbs_one_after_the_other_do_what_the_rules_say() {
    let seed = seed("verbs");
    let mut random = fastrand::Rng::with_seed(seed);
    let rig = patient().await;
    rig.create("web").await.unwrap();
    for step in 0..STEPS {
        let told = format!("step {step} of seed {seed}");
        let odd = random.u32(..ODD_OF);
        match odd {
            0..4 => meet_on_the_way(&rig, &mut random, &told).await,
            4..7 => crash(&rig, &told).await,
            _ => {}
        }
        let verb = verb(&mut random);
        let before = phase(&rig).await.unwrap();
        let told = format!("{told}: {verb:?} while {before}");
        let launch_fails = (7..11).contains(&odd);
        rig.host.set_faults(Faults {
            launch_fails,
            ..Faults::default()
        });
        let answer = ask(&rig, verb).await;
        rig.host.set_faults(Faults::default());
        let expected = match decide(before, verb) {
            Next::Refuse => {
                let refused = answer.expect_err(&told);
                assert_refused(&refused, Code::FailedPrecondition, "WRONG_STATE", None);
                Some(before)
            }
            Next::Already | Next::Join | Next::Allow => {
                answer.expect(&told);
                Some(before)
            }
            Next::Move(_) if launch_fails && [Verb::Start, Verb::Restart].contains(&verb) => {
                let failed = answer.expect_err(&told);
                assert_refused(&failed, Code::Internal, "VMM_ENDED_EARLY", None);
                Some(Phase::Failed)
            }
            Next::Move(next) | Next::Preempt(next) => {
                answer.expect(&told);
                goal(next, verb)
            }
        };
        assert_eq!(phase(&rig).await, expected, "{told}");
        if expected.is_none() {
            rig.create("web").await.unwrap();
        }
    }
    rig.stopped().await;
}

/// What one of several requests may be told: another was first.
const REASONS: [&str; 6] = [
    "WRONG_STATE",
    "OVERTAKEN",
    "GIVEN_UP",
    "VM_NOT_FOUND",
    "VMM_GONE",
    "AGENT_AWAY",
];

fn reason(error: &Status, told: &str) -> String {
    let info = error.get_error_details().error_info().cloned();
    info.unwrap_or_else(|| panic!("{told}: {error:?}")).reason
}

#[tokio::test(flavor = "multi_thread")]
async fn random_verbs_at_once_are_all_answered_and_leave_a_vm_at_rest() {
    let seed = seed("verbs at once");
    let mut random = fastrand::Rng::with_seed(seed);
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.host.set_faults(Faults {
        launch_takes: Duration::from_millis(2),
        ..Faults::default()
    });
    rig.create("web").await.unwrap();
    for round in 0..ROUNDS {
        let verbs: Vec<Verb> = (0..random.usize(2..6)).map(|_| verb(&mut random)).collect();
        let told = format!("round {round} of seed {seed}: {verbs:?}");
        let answers = join_all(verbs.iter().map(|&verb| ask(&rig, verb))).await;
        for error in answers.into_iter().filter_map(Result::err) {
            let reason = reason(&error, &told);
            assert!(REASONS.contains(&reason.as_str()), "{told}: {error:?}");
        }
        let at_rest = async {
            loop {
                match phase(&rig).await {
                    Some(Phase::Running | Phase::Paused) if rig.host.living().len() == 1 => break,
                    Some(Phase::Stopped) if rig.host.living().is_empty() => break,
                    None if rig.host.living().is_empty() => break,
                    _ => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, at_rest).await.expect(&told);
        if phase(&rig).await.is_none() {
            rig.create("web").await.unwrap();
        }
    }
    rig.delete_vm("web").await;
    rig.stopped().await;
}
