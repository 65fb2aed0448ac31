//! The rules of a VM's life: what each verb means in each state, as one pure function.
//!
//! ```text
//!                            PAUSING ──▶ PAUSED ──resume──▶ RESUMING
//!                               ▲           │                  │
//!                             pause     stop/kill/restart      │
//!                               │           ▼                  │
//!   create ──▶ CREATING ──▶ RUNNING ──stop/kill──▶ STOPPING ──▶ STOPPED
//!                 │           ▲ │ ▲                 │  ▲          │ ▲
//!                 │           │ │ └── after restart ┘  │          │ │
//!                 │           │ └─ guest ends by itself ──────────┼─┘
//!                 ▼           └──────────── STARTING ◀──start─────┤
//!              (undone)                        │                  │
//!                                              ▼                  │
//!                                           FAILED ───start───────┘
//!
//!   delete: from every state ──▶ DELETING ──▶ gone
//! ```
//! A creation that fails is undone and leaves no VM. FAILED is a VM that had been made and that could not
//! be started, or whose VMM ended by a fault. A pause or resume that fails leaves the VM where it was.

use crate::vm::Phase;

/// What a caller can ask of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Boot it.
    Start,
    /// Shut it down by the ladder.
    Stop,
    /// Shut it down by the ladder and boot it again; boot it where it is off.
    Restart,
    /// End it at once.
    Kill,
    /// Hold its vCPUs.
    Pause,
    /// Let its vCPUs go on.
    Resume,
    /// Throw it away.
    Delete,
    /// Change what it is made of.
    Update,
    /// Use it: start or attach to a session.
    Use,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 9] = [
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Kill,
        Self::Pause,
        Self::Resume,
        Self::Delete,
        Self::Update,
        Self::Use,
    ];

    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Delete => "delete",
            Self::Update => "update",
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
    match verb {
        Verb::Start => start(phase),
        Verb::Stop => stop(phase),
        Verb::Kill => kill(phase),
        Verb::Restart => restart(phase),
        Verb::Pause => pause(phase),
        Verb::Resume => resume(phase),
        Verb::Delete => delete(phase),
        Verb::Update => update(phase),
        Verb::Use => match phase {
            Phase::Running => Next::Allow,
            Phase::Creating
            | Phase::Starting
            | Phase::Pausing
            | Phase::Paused
            | Phase::Resuming
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Failed
            | Phase::Deleting => Next::Refuse,
        },
    }
}

const fn start(phase: Phase) -> Next {
    match phase {
        Phase::Running => Next::Already,
        Phase::Creating | Phase::Starting => Next::Join,
        Phase::Stopped | Phase::Failed => Next::Move(Phase::Starting),
        // A paused VM is resumed, which is another verb: a start that resumed would hide what was lost.
        Phase::Pausing | Phase::Paused | Phase::Resuming | Phase::Stopping | Phase::Deleting => {
            Next::Refuse
        }
    }
}

const fn stop(phase: Phase) -> Next {
    match phase {
        Phase::Stopped | Phase::Failed => Next::Already,
        Phase::Stopping => Next::Join,
        Phase::Running | Phase::Paused => Next::Move(Phase::Stopping),
        Phase::Starting | Phase::Pausing | Phase::Resuming => Next::Preempt(Phase::Stopping),
        // A VM that is being made has nothing worth stopping: deleting it is the way to give it up.
        Phase::Creating | Phase::Deleting => Next::Refuse,
    }
}

const fn kill(phase: Phase) -> Next {
    match phase {
        Phase::Stopping => Next::Preempt(Phase::Stopping),
        other => stop(other),
    }
}

const fn restart(phase: Phase) -> Next {
    match phase {
        Phase::Running | Phase::Paused => Next::Move(Phase::Stopping),
        Phase::Stopped | Phase::Failed => Next::Move(Phase::Starting),
        // It is booting afresh.
        Phase::Starting => Next::Join,
        Phase::Creating | Phase::Pausing | Phase::Resuming | Phase::Stopping | Phase::Deleting => {
            Next::Refuse
        }
    }
}

const fn pause(phase: Phase) -> Next {
    match phase {
        Phase::Running => Next::Move(Phase::Pausing),
        Phase::Pausing => Next::Join,
        Phase::Paused => Next::Already,
        Phase::Creating
        | Phase::Starting
        | Phase::Resuming
        | Phase::Stopping
        | Phase::Stopped
        | Phase::Failed
        | Phase::Deleting => Next::Refuse,
    }
}

const fn resume(phase: Phase) -> Next {
    match phase {
        Phase::Paused => Next::Move(Phase::Resuming),
        Phase::Resuming => Next::Join,
        Phase::Running => Next::Already,
        Phase::Creating
        | Phase::Starting
        | Phase::Pausing
        | Phase::Stopping
        | Phase::Stopped
        | Phase::Failed
        | Phase::Deleting => Next::Refuse,
    }
}

const fn delete(phase: Phase) -> Next {
    match phase {
        Phase::Running | Phase::Paused | Phase::Stopped | Phase::Failed => {
            Next::Move(Phase::Deleting)
        }
        Phase::Creating | Phase::Starting | Phase::Pausing | Phase::Resuming | Phase::Stopping => {
            Next::Preempt(Phase::Deleting)
        }
        Phase::Deleting => Next::Join,
    }
}

const fn update(phase: Phase) -> Next {
    match phase {
        Phase::Starting
        | Phase::Running
        | Phase::Pausing
        | Phase::Paused
        | Phase::Resuming
        | Phase::Stopping
        | Phase::Stopped
        | Phase::Failed => Next::Allow,
        // What is being made is as its maker asked until it is there.
        Phase::Creating | Phase::Deleting => Next::Refuse,
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
            Phase::Creating | Phase::Starting | Phase::Resuming => Phase::Running,
            Phase::Pausing => Phase::Paused,
            Phase::Stopping => Phase::Stopped,
            other => other,
        }
    }

    /// Whether a VM that has settled is where a verb wants it.
    fn is_goal(verb: Verb, settled: Phase) -> bool {
        match verb {
            Verb::Start | Verb::Resume | Verb::Use => settled == Phase::Running,
            Verb::Pause => settled == Phase::Paused,
            Verb::Stop | Verb::Kill => matches!(settled, Phase::Stopped | Phase::Failed),
            // It stops on its way, and the runner begins the start that follows.
            Verb::Restart => matches!(settled, Phase::Running | Phase::Stopped),
            Verb::Delete => settled == Phase::Deleting,
            Verb::Update => settled != Phase::Deleting,
        }
    }

    fn phases() -> impl Strategy<Value = Phase> {
        prop::sample::select(Phase::ALL.to_vec())
    }

    fn verbs() -> impl Strategy<Value = Vec<Verb>> {
        prop::collection::vec(prop::sample::select(Verb::ALL.to_vec()), 1..40)
    }

    proptest! {
        /// A verb that is not refused ends in its goal.
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
                    prop_assert!(is_goal(verb, settle(phase)), "{verb:?} ended in {}", settle(phase));
                }
                if lazy >> (index % 64) & 1 == 0 {
                    phase = settle(phase);
                }
            }
        }
    }

    /// The whole of the rules, one line for each state, as docs/states.md has it.
    #[test]
    fn the_documented_table_is_the_rules() {
        let mut table = String::from("| state |");
        for verb in Verb::ALL {
            table.push_str(&format!(" {} |", verb.as_str()));
        }
        table.push('\n');
        table.push_str(&"|---".repeat(Verb::ALL.len() + 1));
        table.push_str("|\n");
        for phase in Phase::ALL {
            table.push_str(&format!("| {} |", phase.as_str().to_uppercase()));
            for verb in Verb::ALL {
                let cell = match decide(phase, verb) {
                    Next::Move(next) => format!("→ {}", next.as_str().to_uppercase()),
                    Next::Preempt(next) => format!("⇒ {}", next.as_str().to_uppercase()),
                    Next::Already => "already".into(),
                    Next::Join => "joins".into(),
                    Next::Allow => "yes".into(),
                    Next::Refuse => "–".into(),
                };
                table.push_str(&format!(" {cell} |"));
            }
            table.push('\n');
        }
        let documented = include_str!("../../../docs/states.md");
        assert!(
            documented.contains(&table),
            "docs/states.md must have:\n{table}"
        );
    }
}
