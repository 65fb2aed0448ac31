//! The rules of a VM's life: what each verb means in each state, as one pure function.
//!
//! ```text
//!   create ──▶ CREATING ──▶ RUNNING ──stop/kill──▶ STOPPING ──▶ STOPPED
//!                 │           ▲ │                                 │ ▲
//!                 │           │ └─ guest ends by itself ──────────┼─┘
//!                 ▼           └──────────── STARTING ◀──start─────┤
//!              (undone)                        │                  │
//!                                              ▼                  │
//!                                           FAILED ───start───────┘
//!
//!   delete: from every state ──▶ DELETING ──▶ gone
//! ```
//! A creation that fails is undone and leaves no VM. FAILED is a VM that had been made and that could not
//! be started, or whose VMM ended by a fault.

use crate::vm::Phase;

/// What a caller can ask of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Boot it.
    Start,
    /// Shut it down by the ladder.
    Stop,
    /// End it at once.
    Kill,
    /// Throw it away.
    Delete,
    /// Use it: start or attach to a session.
    Use,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 5] = [Self::Start, Self::Stop, Self::Kill, Self::Delete, Self::Use];

    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Delete => "delete",
            Self::Use => "exec",
        }
    }
}

/// What becomes of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The VM moves to this phase and the runner does the work.
    Move(Phase),
    /// It is already so: answer with the VM as it is.
    Already,
    /// The work is under way: wait for its end.
    Join,
    /// The work under way is given up for this one, which moves the VM to this phase.
    Preempt(Phase),
    /// Allowed; no state changes.
    Allow,
    /// The state forbids it.
    Refuse,
}

/// What `verb` means in `phase`.
#[must_use]
pub const fn decide(phase: Phase, verb: Verb) -> Next {
    match (phase, verb) {
        (Phase::Running, Verb::Start)
        | (Phase::Stopped | Phase::Failed, Verb::Stop | Verb::Kill) => Next::Already,
        (Phase::Creating | Phase::Starting, Verb::Start)
        | (Phase::Stopping, Verb::Stop)
        | (Phase::Deleting, Verb::Delete) => Next::Join,
        (Phase::Stopped | Phase::Failed, Verb::Start) => Next::Move(Phase::Starting),
        (Phase::Running, Verb::Stop | Verb::Kill) => Next::Move(Phase::Stopping),
        (Phase::Starting, Verb::Stop | Verb::Kill) | (Phase::Stopping, Verb::Kill) => {
            Next::Preempt(Phase::Stopping)
        }
        (Phase::Running | Phase::Stopped | Phase::Failed, Verb::Delete) => {
            Next::Move(Phase::Deleting)
        }
        (Phase::Creating | Phase::Starting | Phase::Stopping, Verb::Delete) => {
            Next::Preempt(Phase::Deleting)
        }
        (Phase::Running, Verb::Use) => Next::Allow,
        // A VM that is being made has nothing worth stopping: deleting it is the way to give it up.
        (Phase::Creating, Verb::Stop | Verb::Kill | Verb::Use)
        | (
            Phase::Starting | Phase::Stopping | Phase::Stopped | Phase::Failed | Phase::Deleting,
            Verb::Use,
        )
        | (Phase::Stopping, Verb::Start)
        | (Phase::Deleting, Verb::Start | Verb::Stop | Verb::Kill) => Next::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delete_is_legal_in_every_state() {
        for phase in Phase::ALL {
            assert_ne!(decide(phase, Verb::Delete), Next::Refuse, "{phase}");
        }
    }

    #[test]
    fn only_a_running_vm_can_be_used() {
        for phase in Phase::ALL {
            assert_eq!(
                decide(phase, Verb::Use) == Next::Allow,
                phase == Phase::Running,
                "{phase}"
            );
        }
    }

    #[test]
    fn nothing_leaves_deleting() {
        for verb in Verb::ALL {
            assert!(
                matches!(decide(Phase::Deleting, verb), Next::Join | Next::Refuse),
                "{verb:?}"
            );
        }
    }

    /// Where a phase ends when its work is left alone.
    fn settle(phase: Phase) -> Phase {
        match phase {
            Phase::Creating | Phase::Starting => Phase::Running,
            Phase::Stopping => Phase::Stopped,
            other => other,
        }
    }

    fn goal(verb: Verb) -> Phase {
        match verb {
            Verb::Start | Verb::Use => Phase::Running,
            Verb::Stop | Verb::Kill => Phase::Stopped,
            Verb::Delete => Phase::Deleting,
        }
    }

    fn phases() -> impl Strategy<Value = Phase> {
        prop::sample::select(Phase::ALL.to_vec())
    }

    fn verbs() -> impl Strategy<Value = Vec<Verb>> {
        prop::collection::vec(prop::sample::select(Verb::ALL.to_vec()), 1..40)
    }

    proptest! {
        /// A verb that is not refused ends in its goal, or in FAILED where it started there and nothing was asked.
        #[test]
        fn a_verb_that_is_accepted_reaches_its_goal(start in phases(), verbs in verbs(), lazy in any::<u64>()) {
            let mut phase = start;
            for (index, verb) in verbs.into_iter().enumerate() {
                let accepted = match decide(phase, verb) {
                    Next::Move(next) | Next::Preempt(next) => { phase = next; true }
                    Next::Already | Next::Join | Next::Allow => true,
                    Next::Refuse => false,
                };
                if accepted {
                    let settled = settle(phase);
                    prop_assert!(settled == goal(verb) || (settled == Phase::Failed && goal(verb) == Phase::Stopped), "{verb:?} ended in {settled}");
                }
                if lazy >> (index % 64) & 1 == 0 {
                    phase = settle(phase);
                }
            }
        }
    }
}
