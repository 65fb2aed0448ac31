//! The runner: the one task that owns a VM, from its record's first write to its last file's removal.
//!
//! ```text
//!   commands ─▶┐                      ┌─▶ store   (the record, compare and set)
//!   VMM exit ─▶├─ runner ── work ─────┤
//!   link lost ▶┘   (boot, stop, …)    └─▶ view    (watched by everybody)
//! ```
//! Work is never dropped half-way: it is told to hurry, gives up, and undoes itself; the runner then goes where
//! the record's state points. So a wedged step cannot block teardown, and teardown cannot leave half a step
//! behind. Only reaching for an agent (`link`) may be dropped at any time: it holds nothing.

mod growth;
mod outcome;
mod stuck;
mod timers;
mod unknown;
mod verbs;
mod way_down;

use std::future::Future;
use std::sync::Arc;

use banger_core::guest::Guest;
use banger_core::lifecycle::Verb;
use banger_core::vm::{Phase, StopOutcome, Vm, VmChange, VmState};
use banger_core::vmm::Machine;
use banger_core::{Failure, Timestamp, chain};
use banger_store::CasOutcome;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::admission::{Admitted, Lease, Seat};
use super::boot::{self, BootFailure, Booted, Booter, Boots, Resolved};
use super::disks::Turn;
use super::link::{self, Link, LinkError};
use super::queue::Ticket;
use super::view::VmView;
use crate::Context;
use crate::error::AppError;
use crate::look::DiskLook;
use crate::operation::OperationTask;
use crate::pauses::Pauses;
use crate::volume::attach::Attached;
use timers::Timers;
use unknown::Unknown;

/// Commands that wait for a runner. Each caller has one at a time, so a full queue means that the VM is
/// hammered: callers wait their turn.
pub(super) const COMMANDS_MAX: usize = 16;

/// What a runner is asked.
pub(super) struct Command {
    pub(super) verb: Verb,
    /// For [`Verb::Update`]: what.
    pub(super) change: Option<VmChange>,
    /// For [`Verb::Stop`]: whether its logs are kept, even if its spec does not say so.
    pub(super) keeps_logs: bool,
    /// Whether it is accepted; by then the view shows it. For [`Verb::Pause`] and [`Verb::Resume`]: whether it
    /// was done.
    pub(super) answer: Answer,
}

/// Where the answer to a command goes. The caller may have hung up; its wish stands.
pub(super) type Answer = oneshot::Sender<Result<(), AppError>>;

/// How a runner begins.
pub(super) enum Beginning {
    /// The VM is to be made.
    Create {
        booter: Booter,
        kernel: String,
        pull_if_missing: bool,
    },
    /// The VM rests.
    Rest,
    /// The VM runs in this machine, whose agent is to be reached again, and has its volumes.
    Adopted(Arc<dyn Machine>, Attached),
    /// The VM may run, and nobody knows; it has its volumes until somebody does. It is where this says if it runs.
    Unknown(Attached, VmState),
    /// The VM is to go.
    Delete,
}

enum Outcome {
    Resolved(Booter, Result<Box<Resolved>, AppError>),
    Booted(Booter, Result<Booted, BootFailure>),
    /// Whether the vCPUs are held, or go on, as was wanted.
    Held(Result<(), AppError>),
    /// The agent of a VM that an earlier daemon was starting; none where the VM ends or is to end; an error where the
    /// agent does not answer in time.
    Reached(Result<Option<Arc<dyn Guest>>, AppError>),
    /// Whether the disk has this size now, in MiB.
    Grown(u64, Result<(), AppError>),
    Stopped(Result<StopOutcome, AppError>),
    /// The VMM of which nobody knew whether it lives, if it does.
    Found(Result<Option<Arc<dyn Machine>>, AppError>),
    Removed(Result<(), AppError>),
}

/// A task of its own: what the runner waits for holds no work up, and work that waits for the store no runner.
type Work = JoinHandle<Outcome>;

pub(super) struct Runner {
    context: Arc<Context>,
    boots: Boots,
    vm: Vm,
    commands: mpsc::Receiver<Command>,
    /// What was asked while the runner waited for something else, which it then no longer did.
    heard: Option<Command>,
    view: watch::Sender<VmView>,
    machine: Option<Arc<dyn Machine>>,
    guest: Option<Arc<dyn Guest>>,
    work: Option<Work>,
    link: Option<Link>,
    /// Why the agent could not be reached the last time.
    link_error: LinkError,
    /// Tells the work under way to give up or to hurry.
    hurry: CancellationToken,
    /// Who waits for the pause or resume under way.
    holders: Vec<Answer>,
    /// Who waits for the growth under way.
    growers: Vec<Answer>,
    /// What the way down is made for, once the work under way has given up.
    way_down: Verb,
    /// Whether the stop that was asked for keeps the logs.
    keeps_logs: bool,
    /// The VM's volumes, from its machine's start until that is gone and what it wrote is flushed.
    attached: Option<Attached>,
    /// What a restart begins when the VM is off.
    then_start: Option<Booter>,
    /// The creation that failed, told when nothing is left of it.
    undone: Option<(Arc<OperationTask>, Failure)>,
    /// What the VM has failed of, told when it is off.
    verdict: Option<Box<Failure>>,
    /// What keeps a VM from going that is to go, as far as is known.
    hindrance: Option<Box<Failure>>,
    /// Before it is tried again.
    pauses: Pauses,
    timers: Timers,
    activity: Arc<Activity>,
    /// Whoever makes the VM's disk.
    disk_turn: Turn,
    /// Whoever asks how much it takes.
    disk_look: DiskLook,
    /// The last generation of the record that is known to be stored.
    stored: u64,
    /// Whether the vCPUs are held, or may be.
    is_held: bool,
    /// Whether a VMM may live, and nobody knows.
    unknown: Option<Unknown>,
    is_gone: bool,
    /// What the VM is counted for.
    seat: Seat,
    /// What its machine is counted for: from a boot's acceptance until the machine is gone.
    lease: Option<Lease>,
    /// For a boot that was accepted and has not begun.
    ticket: Option<Ticket>,
}

impl Runner {
    pub(super) fn new(
        boots: Boots,
        vm: Vm,
        admitted: Admitted,
    ) -> (Self, mpsc::Sender<Command>, watch::Receiver<VmView>) {
        let (context, stored) = (boots.context.clone(), vm.generation);
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let activity = Arc::new(Activity::new());
        let (link_error, disk_look) = (LinkError::default(), DiskLook::default());
        let (view, receiver) = watch::channel(VmView {
            vm: Arc::new(vm.clone()),
            guest: None,
            machine: None,
            activity: activity.clone(),
            link_error: link_error.clone(),
            disk_look: disk_look.clone(),
            deleted: false,
        });
        let runner = Self {
            context,
            boots,
            vm,
            commands,
            heard: None,
            view,
            machine: None,
            guest: None,
            work: None,
            link: None,
            hurry: CancellationToken::new(),
            holders: Vec::new(),
            growers: Vec::new(),
            way_down: Verb::Stop,
            keeps_logs: false,
            attached: None,
            then_start: None,
            undone: None,
            verdict: None,
            hindrance: None,
            pauses: Pauses::default(),
            timers: Timers::default(),
            activity,
            disk_turn: Turn::default(),
            link_error,
            disk_look,
            stored,
            is_held: false,
            unknown: None,
            is_gone: false,
            seat: admitted.seat,
            lease: admitted.lease,
            ticket: admitted.ticket,
        };
        (runner, sender, receiver)
    }

    pub(super) async fn run(mut self, beginning: Beginning) {
        self.begin(beginning).await;
        let shutdown = self.context.shutdown.clone();
        while !self.is_gone {
            if let Some(command) = self.heard.take() {
                self.on_command(command).await;
                continue;
            }
            let (machine, guest) = (self.machine.clone(), self.guest.clone());
            let idle = self.work.is_none();
            // The agent of a VM that is held cannot answer: its silence says nothing.
            let answers = idle && self.vm.state.phase() == Phase::Running;
            let due = self.timers.clone().due(&self.vm, self.activity.clone());
            tokio::select! {
                biased; // an end must win, or we would act on a dead VM; then what is being done; then new wishes
                // cancel-safe: `wait` loses nothing when dropped. Work watches its machine itself.
                exit = of(machine.as_deref(), Machine::wait), if idle => self.on_exit(exit).await,
                // cancel-safe: the task stays in its field
                outcome = of(self.work.as_mut(), ended), if !idle => {
                    self.work = None;
                    self.on_outcome(outcome).await;
                }
                // cancel-safe: `cancelled` holds no state. Work ends first: what makes something is undone.
                () = shutdown.cancelled(), if idle => break,
                // cancel-safe: `recv` loses nothing when dropped
                Some(command) = self.commands.recv() => self.on_command(command).await,
                // cancel-safe: `closed` holds no state
                () = of(guest.as_deref(), Guest::closed), if answers => self.reach_agent(),
                // cancel-safe: the future stays in its field
                guest = of(self.link.as_mut(), |link| link), if answers => self.on_linked(guest),
                // cancel-safe: waits for instants that are kept elsewhere
                due = due => self.on_due(due).await,
            }
        }
    }

    async fn begin(&mut self, beginning: Beginning) {
        match beginning {
            Beginning::Create {
                booter,
                kernel,
                pull_if_missing,
            } => {
                self.hurry = booter.cancel.clone();
                let vm = self.vm.clone();
                self.begin_work(async move {
                    let resolved = booter.resolve(&vm, &kernel, pull_if_missing).await;
                    Outcome::Resolved(booter, resolved.map(Box::new))
                });
            }
            Beginning::Rest => {}
            Beginning::Adopted(machine, attached) => {
                self.attached = Some(attached);
                self.adopt(machine).await;
            }
            Beginning::Unknown(attached, before) => self.begin_unknown(attached, before),
            Beginning::Delete => self.begin_removal(),
        }
    }

    fn begin_removal(&mut self) {
        self.way_down = Verb::Delete;
        self.expect_gone();
        self.remove();
    }

    /// Takes over a machine that an earlier daemon started, wherever that daemon was.
    async fn adopt(&mut self, machine: Arc<dyn Machine>) {
        self.machine = Some(machine.clone());
        match self.vm.state.phase() {
            Phase::Running => self.reach_agent(),
            Phase::Paused => {
                self.is_held = true;
                self.publish();
            }
            // The daemon ended in the middle of it: go on.
            Phase::Pausing => self.hold(Phase::Paused),
            Phase::Resuming => self.hold(Phase::Running),
            Phase::Stopping => self.descend(Verb::Stop),
            Phase::Deleting => {
                self.way_down = Verb::Delete;
                self.expect_gone();
                self.descend(Verb::Delete);
            }
            // It was being killed, and did not end.
            Phase::Failed if outcome::is_unkillable(&self.vm.state) => {
                self.transition(VmState::Stopping).await;
                self.descend(Verb::Kill);
            }
            Phase::Creating | Phase::Starting | Phase::Stopped | Phase::Failed => {
                self.vm.shape.get_or_insert(self.vm.spec.shape());
                self.transition(VmState::Starting).await;
                self.await_agent(machine);
            }
        }
    }

    /// Waits for the agent of a VM that an earlier daemon was starting: it runs when its agent answers.
    fn await_agent(&mut self, machine: Arc<dyn Machine>) {
        self.hurry = CancellationToken::new();
        let (context, vm, hurry) = (self.context.clone(), self.vm.clone(), self.hurry.clone());
        let reaching = self.reaching(machine.clone());
        self.begin_work(async move {
            let limit = context.config.boot_timeout;
            tokio::select! {
                biased; // a VM that is gone or to go is not waited for
                // cancel-safe: `wait` loses nothing when dropped
                _exit = machine.wait() => Outcome::Reached(Ok(None)),
                // cancel-safe: `cancelled` holds no state
                () = hurry.cancelled() => Outcome::Reached(Ok(None)),
                // cancel-safe: reaching for an agent holds nothing
                guest = reaching => Outcome::Reached(Ok(Some(guest))),
                () = tokio::time::sleep(limit) => {
                    let console = boot::console_tail(&context, vm.id).await;
                    Outcome::Reached(Err(AppError::BootTimeout { limit, console }))
                }
            }
        });
    }

    fn boot(&mut self, booter: Booter, resolved: Resolved) {
        self.hurry = booter.cancel.clone();
        let (vm, ticket) = (self.vm.clone(), self.ticket.take());
        let turn = self.disk_turn.clone();
        self.begin_work(async move {
            let booted = booter.boot(&vm, &resolved, ticket, turn).await;
            Outcome::Booted(booter, booted)
        });
    }

    fn reach_agent(&mut self) {
        self.guest = None;
        self.link = self.machine.clone().map(|machine| self.reaching(machine));
        self.publish();
    }

    /// The agent of the VM in this machine, once it answers. Safe to drop.
    fn reaching(&self, machine: Arc<dyn Machine>) -> Link {
        self.linking(machine)()
    }

    /// How the agent of the VM in this machine is reached.
    fn linking(&self, machine: Arc<dyn Machine>) -> impl Fn() -> Link + Send + Sync + 'static {
        let (context, vm, last) = (
            self.context.clone(),
            self.vm.clone(),
            self.link_error.clone(),
        );
        move || link::reach(context.clone(), vm.clone(), machine.clone(), last.clone())
    }

    fn on_linked(&mut self, guest: Arc<dyn Guest>) {
        self.link = None;
        self.guest = Some(guest);
        self.publish();
        // What an earlier daemon, or a broken connection, left to be done.
        self.grow();
    }

    async fn transition(&mut self, state: VmState) {
        tracing::info!(vm = %self.vm.id, name = %self.vm.spec.name, from = %self.vm.state.phase(), to = %state.phase(), "VM state");
        if state == VmState::Running
            && matches!(self.vm.state.phase(), Phase::Creating | Phase::Starting)
        {
            self.vm.start_time = Some(Timestamp::now());
        }
        let from = self.vm.state.phase();
        self.vm.state = state;
        if self.vm.state == VmState::Deleting {
            self.expect_gone();
        }
        if self.vm.state.phase() == Phase::Running {
            self.activity.touch();
        }
        // The VM goes on: what the record lacks, the next start of the daemon finds out from the process.
        self.save_or_log("could not store a VM's state").await;
        // Told when it can be seen.
        self.context.events.vm_moved(&self.vm, from);
    }

    /// Begins work, of which there is none.
    fn begin_work(&mut self, work: impl Future<Output = Outcome> + Send + 'static) {
        debug_assert!(self.work.is_none(), "work is begun when there is none");
        self.work = Some(self.context.tasks.spawn(work));
    }

    async fn save_or_log(&mut self, what: &'static str) {
        if let Err(error) = self.save().await {
            tracing::error!(vm = %self.vm.id, error = chain(&error), what);
        }
    }

    /// Writes the record. Work under way goes on meanwhile: a disk that is slow holds no signal up.
    async fn save(&mut self) -> Result<(), AppError> {
        self.vm.generation += 1;
        let saving = self.context.store.update_vm_since(&self.vm, self.stored);
        let saved = tokio::time::timeout(self.context.config.record_timeout, saving).await;
        self.publish();
        // It may be stored all the same: the next update is of whatever is there.
        let late = |_| AppError::DiskHangs {
            during: "store the VM's state",
        };
        match saved.map_err(late)?? {
            CasOutcome::Updated => {
                self.stored = self.vm.generation;
                Ok(())
            }
            outcome @ (CasOutcome::Stale | CasOutcome::Missing) => {
                debug_assert!(
                    false,
                    "the runner alone writes its VM's record, which was {outcome:?}"
                );
                Err(AppError::GivenUp {
                    why: "the VM's record was changed by somebody else",
                })
            }
        }
    }

    fn publish(&self) {
        self.publish_as(self.vm.clone());
    }

    /// Shows a change that is not stored.
    fn publish_news(&mut self) {
        self.vm.generation += 1;
        self.publish();
    }

    /// Shows the VM in a state that it enters next.
    fn show(&self, state: VmState) {
        self.publish_as(Vm {
            state,
            generation: self.vm.generation + 1,
            ..self.vm.clone()
        });
    }

    fn publish_as(&self, vm: Vm) {
        self.view.send_replace(VmView {
            vm: Arc::new(vm),
            guest: self.guest.clone(),
            machine: self.machine.clone(),
            activity: self.activity.clone(),
            link_error: self.link_error.clone(),
            disk_look: self.disk_look.clone(),
            deleted: self.is_gone,
        });
    }
}

/// What comes of what is there; without anything, nothing ever.
async fn of<T, F: Future>(there: Option<T>, waiting: impl FnOnce(T) -> F) -> F::Output {
    match there {
        Some(there) => waiting(there).await,
        None => std::future::pending().await,
    }
}

/// What comes of waiting, unless a command comes first, which is kept.
async fn hear<T>(
    commands: &mut mpsc::Receiver<Command>,
    heard: &mut Option<Command>,
    waiting: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased; // what is done already is not given up
        // the callers pass only futures that are safe to drop
        done = waiting => Some(done),
        // cancel-safe: holds no state. One that is kept already ends the waiting, and is not lost to a second.
        () = std::future::ready(()), if heard.is_some() => None,
        // cancel-safe: `recv` loses nothing when dropped
        Some(command) = commands.recv() => {
            *heard = Some(command);
            None
        }
    }
}

async fn ended(work: &mut Work) -> Outcome {
    match work.await {
        Ok(outcome) => outcome,
        // Dropped with the runtime, which is about to drop the runner too.
        Err(error) if error.is_cancelled() => std::future::pending().await,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
