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

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use banger_core::guest::Guest;
use banger_core::lifecycle::{Next, Verb, decide};
use banger_core::vm::{Phase, StopOutcome, Vm, VmState};
use banger_core::vmm::{Machine, VmmExit};
use banger_core::{Timestamp, chain};
use banger_store::CasOutcome;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::boot::{self, Booted, Booter, Resolved};
use super::link;
use super::stop::Ladder;
use super::view::VmView;
use crate::Context;
use crate::error::AppError;

/// Commands that wait for a runner. Each caller has one at a time, so a full queue means that the VM is
/// hammered: callers wait their turn.
pub(super) const COMMANDS_MAX: usize = 16;
/// Before something that should not have failed is tried again: removing files, ending a process.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What a runner is asked.
pub(super) struct Command {
    pub(super) verb: Verb,
    /// For [`Verb::Start`]: how.
    pub(super) booter: Option<Booter>,
    /// Whether it is accepted; by then the view shows it.
    pub(super) answer: oneshot::Sender<Result<(), AppError>>,
}

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
    /// The VM runs in this machine, whose agent is to be reached again.
    Adopted(Arc<dyn Machine>),
    /// The VM is to go.
    Delete,
}

enum Outcome {
    Resolved(Booter, Result<Box<Resolved>, AppError>),
    Booted(Booter, Result<Booted, AppError>),
    Stopped(Result<StopOutcome, AppError>),
    Removed(Result<(), AppError>),
}

type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;
type Link = Pin<Box<dyn Future<Output = Arc<dyn Guest>> + Send>>;

pub(super) struct Runner {
    context: Arc<Context>,
    vm: Vm,
    commands: mpsc::Receiver<Command>,
    view: watch::Sender<VmView>,
    machine: Option<Arc<dyn Machine>>,
    guest: Option<Arc<dyn Guest>>,
    work: Option<Work>,
    link: Option<Link>,
    /// Tells the work under way to give up or to hurry.
    hurry: CancellationToken,
    is_gone: bool,
}

impl Runner {
    pub(super) fn new(
        context: Arc<Context>,
        vm: Vm,
    ) -> (Self, mpsc::Sender<Command>, watch::Receiver<VmView>) {
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (view, receiver) = watch::channel(VmView {
            vm: Arc::new(vm.clone()),
            guest: None,
            deleted: false,
        });
        let hurry = CancellationToken::new();
        let (machine, guest, work, link) = (None, None, None, None);
        (
            Self {
                context,
                vm,
                commands,
                view,
                machine,
                guest,
                work,
                link,
                hurry,
                is_gone: false,
            },
            sender,
            receiver,
        )
    }

    pub(super) async fn run(mut self, beginning: Beginning) {
        self.begin(beginning).await;
        let shutdown = self.context.shutdown.clone();
        while !self.is_gone {
            let (machine, guest) = (self.machine.clone(), self.guest.clone());
            let idle = self.work.is_none();
            tokio::select! {
                biased; // an end must win, or we would act on a dead VM; then what is being done; then new wishes
                // cancel-safe: `wait` loses nothing when dropped. Work watches its machine itself.
                exit = ended(machine.as_deref()), if idle => self.on_exit(exit).await,
                // cancel-safe: the future stays in its field
                outcome = poll(&mut self.work), if !idle => self.on_outcome(outcome).await,
                // cancel-safe: `cancelled` holds no state. Work ends first: what makes something is undone.
                () = shutdown.cancelled(), if idle => break,
                // cancel-safe: `recv` loses nothing when dropped
                Some(command) = self.commands.recv() => self.on_command(command).await,
                // cancel-safe: `closed` holds no state
                () = closed(guest.as_deref()), if idle => self.reach_agent(),
                // cancel-safe: the future stays in its field
                guest = poll(&mut self.link), if idle && self.link.is_some() => self.on_linked(guest),
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
                self.work = Some(Box::pin(async move {
                    let resolved = booter.resolve(&vm, &kernel, pull_if_missing).await;
                    Outcome::Resolved(booter, resolved.map(Box::new))
                }));
            }
            Beginning::Rest => {}
            Beginning::Adopted(machine) => {
                self.machine = Some(machine);
                match self.vm.state.phase() {
                    Phase::Running => self.reach_agent(),
                    // The daemon ended in the middle of it: go on.
                    Phase::Stopping => self.descend(Verb::Stop),
                    Phase::Deleting => self.descend(Verb::Delete),
                    Phase::Creating | Phase::Starting | Phase::Stopped | Phase::Failed => {
                        self.transition(VmState::Running).await;
                        self.reach_agent();
                    }
                }
            }
            Beginning::Delete => self.remove(),
        }
    }

    async fn on_command(&mut self, command: Command) {
        let Command {
            verb,
            booter,
            answer,
        } = command;
        let accepted = match decide(self.vm.state.phase(), verb) {
            Next::Already | Next::Join | Next::Allow => Ok(()),
            Next::Refuse => Err(AppError::WrongState {
                vm: self.vm.spec.name.clone(),
                phase: self.vm.state.phase(),
                verb,
            }),
            Next::Move(Phase::Starting) => match booter {
                Some(booter) => self.start(booter).await,
                None => Err(AppError::GivenUp {
                    why: "a start needs an operation",
                }),
            },
            Next::Move(phase) | Next::Preempt(phase) => {
                self.head_for(phase, verb).await;
                Ok(())
            }
        };
        // The caller may have hung up; its wish stands.
        let _ = answer.send(accepted);
    }

    /// Begins a start with what was resolved when the VM was made.
    async fn start(&mut self, booter: Booter) -> Result<(), AppError> {
        let resolved = booter.resolved(&self.vm).await?;
        self.transition(VmState::Starting).await;
        self.boot(booter, resolved);
        Ok(())
    }

    fn boot(&mut self, booter: Booter, resolved: Resolved) {
        self.hurry = booter.cancel.clone();
        let vm = self.vm.clone();
        self.work = Some(Box::pin(async move {
            let booted = booter.boot(&vm, &resolved).await;
            Outcome::Booted(booter, booted)
        }));
    }

    /// Shows where the VM goes, and makes it go: at once, or when the work under way has given up.
    async fn head_for(&mut self, phase: Phase, verb: Verb) {
        self.transition(if phase == Phase::Deleting {
            VmState::Deleting
        } else {
            VmState::Stopping
        })
        .await;
        if self.work.is_some() {
            self.hurry.cancel();
        } else {
            self.descend(verb);
        }
    }

    /// Begins the way down: the ladder where a machine runs, else what follows it.
    fn descend(&mut self, verb: Verb) {
        self.link = None;
        let Some(machine) = self.machine.clone() else {
            return self.remove();
        };
        let ladder = match verb {
            Verb::Stop => Ladder::gentle(&self.context.config, machine, self.guest.clone()),
            Verb::Start | Verb::Kill | Verb::Delete | Verb::Use => {
                Ladder::hard(&self.context.config, machine)
            }
        };
        self.hurry = CancellationToken::new();
        let hurry = self.hurry.clone();
        self.work = Some(Box::pin(async move {
            Outcome::Stopped(ladder.climb(&hurry).await)
        }));
    }

    fn remove(&mut self) {
        let (context, id) = (self.context.clone(), self.vm.id);
        self.work = Some(Box::pin(async move {
            Outcome::Removed(boot::remove_files(&context, id).await)
        }));
    }

    async fn on_outcome(&mut self, outcome: Outcome) {
        self.work = None;
        match outcome {
            Outcome::Resolved(booter, resolved) => self.on_resolved(booter, resolved).await,
            Outcome::Booted(booter, Ok(booted)) => self.on_booted(booter, booted).await,
            Outcome::Booted(booter, Err(error)) => self.on_boot_failed(booter, error).await,
            Outcome::Stopped(Ok(outcome)) => self.on_stopped(outcome).await,
            Outcome::Stopped(Err(error)) => self.on_unkillable(&error).await,
            Outcome::Removed(Ok(())) => self.on_removed().await,
            Outcome::Removed(Err(error)) => {
                tracing::error!(vm = %self.vm.id, error = chain(&error), "could not remove a VM's files; trying again");
                let (context, id) = (self.context.clone(), self.vm.id);
                self.work = Some(Box::pin(async move {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    Outcome::Removed(boot::remove_files(&context, id).await)
                }));
            }
        }
    }

    async fn on_resolved(&mut self, booter: Booter, resolved: Result<Box<Resolved>, AppError>) {
        match resolved {
            Ok(resolved) if self.vm.state.phase() == Phase::Creating => {
                self.vm.image = Some(resolved.image.id);
                self.vm.kernel = Some(resolved.kernel.id);
                self.vm.spec.kernel = resolved.kernel.name.to_string();
                // If the image went meanwhile, the store refuses the record.
                match self.save().await {
                    Ok(()) => self.boot(booter, *resolved),
                    Err(error) => self.on_boot_failed(booter, error).await,
                }
            }
            Ok(_) => {
                self.on_boot_failed(
                    booter,
                    AppError::GivenUp {
                        why: "another request took over",
                    },
                )
                .await;
            }
            Err(error) => self.on_boot_failed(booter, error).await,
        }
    }

    async fn on_booted(&mut self, booter: Booter, booted: Booted) {
        self.machine = Some(booted.machine);
        self.guest = Some(booted.guest);
        match self.vm.state.phase() {
            Phase::Creating | Phase::Starting => {
                self.vm.boot_timing = booted.timing;
                self.transition(VmState::Running).await;
                booter.task.succeed(self.vm.id.to_string()).await;
            }
            Phase::Running | Phase::Stopping | Phase::Stopped | Phase::Failed | Phase::Deleting => {
                booter
                    .task
                    .fail(
                        AppError::GivenUp {
                            why: "another request took over",
                        }
                        .to_failure(),
                    )
                    .await;
                self.descend(Verb::Kill);
            }
        }
    }

    /// A boot that failed has undone itself; where the VM goes depends on what was wanted of it meanwhile.
    async fn on_boot_failed(&mut self, booter: Booter, error: AppError) {
        let given_up = matches!(error, AppError::GivenUp { .. });
        match self.vm.state.phase() {
            Phase::Starting if !given_up => {
                self.rest(VmState::Failed(Box::new(error.to_failure())))
                    .await;
            }
            Phase::Starting | Phase::Stopping => self.rest(VmState::Stopped).await,
            Phase::Deleting => self.remove(),
            Phase::Creating | Phase::Running | Phase::Stopped | Phase::Failed => {
                self.transition(VmState::Deleting).await;
                self.remove();
            }
        }
        booter.task.fail(error.to_failure()).await;
    }

    async fn on_stopped(&mut self, outcome: StopOutcome) {
        self.vm.last_stop = Some(outcome);
        self.forget_machine().await;
        match self.vm.state.phase() {
            Phase::Deleting => self.remove(),
            Phase::Creating
            | Phase::Starting
            | Phase::Running
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Failed => {
                self.rest(VmState::Stopped).await;
            }
        }
    }

    async fn on_unkillable(&mut self, error: &AppError) {
        tracing::error!(vm = %self.vm.id, error = chain(error), "the VMM does not end");
        if self.vm.state.phase() != Phase::Deleting {
            return self
                .transition(VmState::Failed(Box::new(error.to_failure())))
                .await;
        }
        if let Some(machine) = self.machine.clone() {
            let ladder = Ladder::hard(&self.context.config, machine);
            self.work = Some(Box::pin(async move {
                tokio::time::sleep(RETRY_PAUSE).await;
                Outcome::Stopped(ladder.climb(&CancellationToken::new()).await)
            }));
        }
    }

    async fn on_removed(&mut self) {
        if let Err(error) = self.context.store.delete_vm(self.vm.id).await {
            // The record says DELETING: the next start of the daemon removes it.
            tracing::error!(vm = %self.vm.id, error = chain(&error), "could not remove the record of a VM");
        }
        self.is_gone = true;
        self.publish();
    }

    /// The VM ended by itself.
    async fn on_exit(&mut self, exit: VmmExit) {
        let state = match &exit {
            VmmExit::GuestPowerOff => VmState::Stopped,
            VmmExit::GuestReset | VmmExit::Other { .. } => {
                let console = boot::console_tail(&self.context, self.vm.id).await;
                let detail = format!(
                    "{}; its console ends with: {console}",
                    super::describe_exit(&exit)
                );
                VmState::Failed(Box::new(AppError::VmEnded { detail }.to_failure()))
            }
        };
        tracing::info!(vm = %self.vm.id, ?exit, "a VM ended by itself");
        self.forget_machine().await;
        self.rest(state).await;
    }

    async fn forget_machine(&mut self) {
        self.machine = None;
        self.guest = None;
        self.link = None;
        self.vm.stop_time = Some(Timestamp::now());
        boot::erase_process(&self.context, self.vm.id).await;
    }

    /// The VM is off; an ephemeral one goes, and what another wrote is made to last.
    async fn rest(&mut self, state: VmState) {
        if self.vm.spec.ephemeral {
            self.transition(VmState::Deleting).await;
            return self.remove();
        }
        if let Err(error) = boot::flush_disk(&self.context, self.vm.id).await {
            tracing::error!(vm = %self.vm.id, error = chain(&error), "could not flush a VM's disk; a crash of the host may lose what it wrote");
        }
        self.transition(state).await;
    }

    fn reach_agent(&mut self) {
        self.guest = None;
        if let Some(machine) = self.machine.clone() {
            let (context, vm) = (self.context.clone(), self.vm.clone());
            self.link = Some(Box::pin(async move {
                link::reach(&context, &vm, machine).await
            }));
        }
        self.publish();
    }

    fn on_linked(&mut self, guest: Arc<dyn Guest>) {
        self.link = None;
        self.guest = Some(guest);
        self.publish();
    }

    async fn transition(&mut self, state: VmState) {
        tracing::info!(vm = %self.vm.id, name = %self.vm.spec.name, from = %self.vm.state.phase(), to = %state.phase(), "VM state");
        if state == VmState::Running {
            self.vm.start_time = Some(Timestamp::now());
        }
        self.vm.state = state;
        if let Err(error) = self.save().await {
            // The VM goes on: what the record lacks, the next start of the daemon finds out from the process.
            tracing::error!(vm = %self.vm.id, error = chain(&error), "could not store a VM's state");
        }
    }

    async fn save(&mut self) -> Result<(), AppError> {
        self.vm.generation += 1;
        let saved = self.context.store.update_vm(&self.vm).await;
        self.publish();
        match saved? {
            CasOutcome::Updated => Ok(()),
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
        self.view.send_replace(VmView {
            vm: Arc::new(self.vm.clone()),
            guest: self.guest.clone(),
            deleted: self.is_gone,
        });
    }
}

async fn ended(machine: Option<&dyn Machine>) -> VmmExit {
    match machine {
        Some(machine) => machine.wait().await,
        None => std::future::pending().await,
    }
}

async fn closed(guest: Option<&dyn Guest>) {
    match guest {
        Some(guest) => guest.closed().await,
        None => std::future::pending().await,
    }
}

async fn poll<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
