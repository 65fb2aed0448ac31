//! Operations: long work with stages, watched from anywhere, that its caller's hang-up does not end.
//!
//! A running operation lives in memory and is written to the store when it begins and when it ends; one that
//! the store has as running when a daemon starts was cut off with the daemon before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use banger_core::event::{EventKind, Subject};
use banger_core::operation::{Operation, OperationKind, OperationState, Progress, Stage, StageKey};
use banger_core::{Failure, FailureKind, OperationId, Owner, Scope, Timestamp};
use banger_store::{InsertOperation, Keep, Page, RequestKey};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::error::AppError;
use crate::page::{self, Paged};

/// The most stages an operation keeps: an image has at most 512 layers, with two stages each.
const STAGES_MAX: usize = 2048;
/// The most ended operations of each owner that are kept.
const KEPT_MAX: u32 = 10_000;
/// A call that is repeated within this time of its operation's end finds that, however many others its owner has made since.
const REPEAT_WITHIN: Duration = Duration::from_secs(15 * 60);
/// Of each owner, however many it has made since: what its calls take of the disk has an end.
const REPEATS_MAX: u32 = 50_000;
/// How much older than the retention an operation may get before it is forgotten: this part of the retention.
const OVERTIME_PART: u32 = 8;
/// The shortest and the longest time between two prunings.
const PRUNE_EVERY: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);
/// After so many new operations the old ones are looked at before their time.
const PRUNE_AFTER: u32 = 1000;
/// Before an end that could not be stored is tried again.
const STORE_AGAIN: Duration = Duration::from_secs(1);

type Live = Arc<Mutex<HashMap<OperationId, Running>>>;

/// A running operation as everybody but its task sees it.
#[derive(Clone)]
struct Running {
    view: watch::Receiver<Arc<Operation>>,
    cancel: CancellationToken,
    /// Whether a caller asked for its end.
    given_up: Arc<AtomicBool>,
}

/// The long work of this daemon.
pub struct Operations {
    context: Arc<Context>,
    live: Live,
    count: watch::Sender<usize>,
    crowd: Arc<Crowd>,
    /// Whose are found.
    scope: Scope,
}

/// How many operations were begun since the old ones were looked at.
#[derive(Debug, Default)]
struct Crowd {
    begun: AtomicU32,
    /// That they are too many.
    is_there: Notify,
}

impl Crowd {
    fn grow(&self) {
        let before = self.begun.fetch_add(1, Ordering::Relaxed);
        if before.saturating_add(1) >= PRUNE_AFTER {
            self.begun.store(0, Ordering::Relaxed);
            self.is_there.notify_one();
        }
    }
}

impl std::fmt::Debug for Operations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

/// What became of a request for long work.
pub(crate) enum Begun {
    /// The caller does the work.
    New(OperationTask),
    /// A request with the same id did or does it.
    Joined(OperationId),
}

impl Operations {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        Self {
            context: context.clone(),
            live: Live::default(),
            count: watch::Sender::new(0),
            crowd: Arc::default(),
            scope: Scope::Everybody,
        }
    }

    /// The same operations, of which those that `scope` does not see do not exist.
    pub(crate) fn seen_by(&self, scope: &Scope) -> Self {
        Self {
            context: self.context.clone(),
            live: self.live.clone(),
            count: self.count.clone(),
            crowd: self.crowd.clone(),
            scope: scope.clone(),
        }
    }

    /// Records an operation of `owner`'s, or finds the one that the owner's `request` began before.
    pub(crate) async fn begin(
        &self,
        kind: OperationKind,
        owner: &Owner,
        target: String,
        request: Option<&RequestKey>,
    ) -> Result<Begun, AppError> {
        let operation = Operation {
            id: OperationId::new(),
            kind,
            owner: owner.clone(),
            target,
            state: OperationState::Running,
            stages: Vec::new(),
            create_time: Timestamp::now(),
            end_time: None,
        };
        let (sender, view) = watch::channel(Arc::new(operation.clone()));
        let running = Running {
            view,
            cancel: self.context.shutdown.child_token(),
            given_up: Arc::default(),
        };
        let request = request.map(|key| key.of(owner));
        if let Err(full) = self.check_room(owner) {
            // A repeat of a call asks for nothing more.
            let Some(key) = &request else {
                return Err(full);
            };
            return self.begun_by(key).await?.map(Begun::Joined).ok_or(full);
        }
        // Live before it is stored: whoever finds it in the store can watch it.
        self.lock().insert(operation.id, running.clone());
        match self
            .context
            .store
            .insert_operation(&operation, request.as_ref())
            .await
        {
            Ok(InsertOperation::Inserted) => {
                self.count.send_modify(|count| *count += 1);
                self.crowd.grow();
                tell(&self.context, EventKind::OperationBegun, &operation);
                Ok(Begun::New(OperationTask {
                    context: self.context.clone(),
                    live: self.live.clone(),
                    count: self.count.clone(),
                    cancel: running.cancel,
                    given_up: running.given_up,
                    sender,
                }))
            }
            Ok(InsertOperation::Joined(id)) => {
                self.lock().remove(&operation.id);
                Ok(Begun::Joined(id))
            }
            Ok(InsertOperation::Conflict) => {
                self.lock().remove(&operation.id);
                Err(AppError::RequestIdReused {
                    id: request.map(|key| key.id.clone()).unwrap_or_default(),
                })
            }
            Err(error) => {
                self.lock().remove(&operation.id);
                Err(error.into())
            }
        }
    }

    /// The operation that a call with this request id began before, if there is one.
    ///
    /// # Errors
    /// If the id was used for another request.
    pub(crate) async fn begun_by(&self, key: &RequestKey) -> Result<Option<OperationId>, AppError> {
        match self.context.store.begun_by(key).await? {
            Some(InsertOperation::Joined(id)) => Ok(Some(id)),
            Some(InsertOperation::Conflict) => {
                let id = key.id.clone();
                Err(AppError::RequestIdReused { id })
            }
            Some(InsertOperation::Inserted) | None => Ok(None),
        }
    }

    /// Whether `owner` may have one more under way. Calls at the same instant may all pass: the bound is there for the
    /// host's memory, and need not be exact.
    fn check_room(&self, owner: &Owner) -> Result<(), AppError> {
        let limit = self.context.config.operations_per_owner_max;
        let live = self.lock();
        if *owner == Owner::daemon() || live.len() < limit {
            return Ok(());
        }
        let is_own = |running: &&Running| running.view.borrow().owner == *owner;
        let running = live.values().filter(is_own).count();
        if running < limit {
            return Ok(());
        }
        Err(AppError::TooManyOperations {
            owner: owner.clone(),
            running,
            limit,
        })
    }

    /// An operation as it is now.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn get(&self, id: OperationId) -> Result<Arc<Operation>, AppError> {
        Ok(self.watch(id).await?.borrow().clone())
    }

    /// An operation now and as it changes; the last value has a final state.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn watch(
        &self,
        id: OperationId,
    ) -> Result<watch::Receiver<Arc<Operation>>, AppError> {
        let running = self.lock().get(&id).map(|running| running.view.clone());
        if let Some(view) = running
            && self.scope.sees(&view.borrow().owner)
        {
            return Ok(view);
        }
        let stored = self.context.store.get_operation(id).await?;
        let stored = stored.filter(|operation| self.scope.sees(&operation.owner));
        let stored = stored.ok_or_else(|| AppError::NotFound {
            resource: "operation",
            name: id.to_string(),
        })?;
        Ok(watch::channel(Arc::new(stored)).1)
    }

    /// Waits for an operation's end.
    ///
    /// # Errors
    /// With the operation's failure, if it failed.
    pub async fn wait(&self, id: OperationId) -> Result<Arc<Operation>, AppError> {
        let mut receiver = self.watch(id).await?;
        let last = receiver
            .wait_for(|operation| operation.state.is_final())
            .await
            .map(|last| last.clone());
        let last = match last {
            Ok(last) => last,
            // The sender went without a final state: its task was dropped with the daemon.
            Err(_) => return Err(AppError::Interrupted),
        };
        match &last.state {
            OperationState::Failed { failure } => Err(AppError::Failed(Box::new(failure.clone()))),
            OperationState::Running | OperationState::Succeeded => Ok(last),
        }
    }

    /// Gives an operation up, and waits for its end, which may still be a good one. Where it has ended already
    /// nothing changes.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn cancel(&self, id: OperationId) -> Result<Arc<Operation>, AppError> {
        let mut view = self.watch(id).await?;
        if let Some(running) = self.lock().get(&id) {
            running.given_up.store(true, Ordering::Release);
            running.cancel.cancel();
        }
        // The sender goes without a final state only with the daemon.
        let last = view.wait_for(|operation| operation.state.is_final()).await;
        last.map(|last| last.clone())
            .map_err(|_| AppError::Interrupted)
    }

    /// A page of operations, newest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn list(
        &self,
        limit: u32,
        before: Option<String>,
    ) -> Result<Paged<Arc<Operation>>, AppError> {
        let stored = self
            .context
            .store
            .list_operations(
                Page {
                    limit: limit + 1,
                    before,
                },
                self.scope.only(),
            )
            .await?;
        let live = self.lock();
        let fresh = |stored: Operation| match live.get(&stored.id) {
            Some(running) => running.view.borrow().clone(),
            None => Arc::new(stored),
        };
        Ok(page::cut(
            stored.into_iter().map(fresh).collect(),
            limit as usize,
        ))
    }

    /// Resolves when no operation runs.
    pub async fn idle(&self) {
        let mut count = self.count.subscribe();
        // The sender is ours, so it cannot have gone.
        let _ = count.wait_for(|count| *count == 0).await;
    }

    /// Marks what an earlier daemon left running as failed, and forgets the old ones.
    pub(crate) async fn reconcile(&self) -> Result<usize, AppError> {
        let left = self.context.store.running_operations().await?;
        for operation in &left {
            let mut ended = operation.clone();
            ended.end_time = Some(Timestamp::now());
            ended.state = OperationState::Failed {
                failure: AppError::Interrupted.to_failure(),
            };
            self.context.store.update_operation(&ended).await?;
        }
        self.prune().await?;
        Ok(left.len())
    }

    /// Forgets operations as they age, until the daemon stops.
    pub(crate) fn keep_pruned(self: &Arc<Self>) {
        let operations = self.clone();
        let retention = self.context.config.operation_retention;
        let every = (retention / OVERTIME_PART).clamp(*PRUNE_EVERY.start(), *PRUNE_EVERY.end());
        let pruning = async move {
            loop {
                // cancel-safe: whether it is in time or before it, all are looked at
                let _ = timeout(every, operations.crowd.is_there.notified()).await;
                if let Err(error) = operations.prune().await {
                    tracing::warn!(
                        error = banger_core::chain(&error),
                        "could not forget old operations; trying again"
                    );
                }
            }
        };
        let shutdown = self.context.shutdown.clone();
        self.context.tasks.spawn(async move {
            // A pruning that is dropped half-way is done by the next daemon.
            shutdown.run_until_cancelled(pruning).await;
        });
    }

    async fn prune(&self) -> Result<(), AppError> {
        let retention = jiff_duration(self.context.config.operation_retention);
        let before = Timestamp::now()
            .checked_sub(retention)
            .unwrap_or(Timestamp::MIN);
        let repeats = jiff_duration(REPEAT_WITHIN);
        let keep = Keep {
            since: before,
            at_most: KEPT_MAX,
            repeats_at_most: REPEATS_MAX,
            repeats_since: Timestamp::now()
                .checked_sub(repeats)
                .unwrap_or(Timestamp::MIN),
        };
        self.context.store.prune_operations(keep).await?;
        self.context.store.prune_answers(before).await?;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<OperationId, Running>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(context: &Context, kind: EventKind, operation: &Operation) {
    let end = match &operation.state {
        OperationState::Running => None,
        OperationState::Succeeded => Some(Ok(())),
        OperationState::Failed { failure } => Some(Err(failure.reason.clone())),
    };
    let subject = Subject::Operation {
        id: operation.id,
        kind: operation.kind,
        owner: operation.owner.clone(),
        target: operation.target.clone(),
        end,
    };
    context.events.publish(kind, subject);
}

fn jiff_duration(duration: std::time::Duration) -> banger_core::SignedDuration {
    banger_core::SignedDuration::try_from(duration).unwrap_or(banger_core::SignedDuration::MAX)
}

/// A running operation, held by whoever does its work. Dropped without an end, it was overtaken; with the daemon, interrupted.
pub(crate) struct OperationTask {
    context: Arc<Context>,
    live: Live,
    count: watch::Sender<usize>,
    cancel: CancellationToken,
    given_up: Arc<AtomicBool>,
    sender: watch::Sender<Arc<Operation>>,
}

impl OperationTask {
    pub(crate) fn id(&self) -> OperationId {
        self.sender.borrow().id
    }

    /// Cancelled when a caller gives the operation up, and when the daemon stops: whoever does its work watches it.
    pub(crate) const fn cancelled(&self) -> &CancellationToken {
        &self.cancel
    }

    /// The stages so far.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        self.sender.borrow().stages.clone()
    }

    /// Ends it well; `target` is the resource it made.
    pub(crate) async fn succeed(&self, target: String) {
        self.end(Some(target), OperationState::Succeeded).await;
    }

    /// Ends it with a failure, which then names the stage that failed.
    pub(crate) async fn fail(&self, failure: Failure) {
        let mut failure = self.judged(failure);
        let stages = self.stages();
        if let Some(stage) = stages.iter().rfind(|stage| stage.end_time.is_none()) {
            failure
                .metadata
                .insert("stage".to_owned(), stage.key.name.clone());
        }
        tracing::info!(operation = %self.id(), reason = failure.reason, "operation failed: {failure}");
        self.end(None, OperationState::Failed { failure }).await;
    }

    /// The failure as its callers see it: work that stopped because a caller gave it up says so, in one way.
    fn judged(&self, failure: Failure) -> Failure {
        let stopped = matches!(failure.kind, FailureKind::Cancelled | FailureKind::Aborted);
        if stopped && self.given_up.load(Ordering::Acquire) {
            return AppError::OperationCancelled.to_failure();
        }
        failure
    }

    /// Ends it by a result whose value names the target.
    pub(crate) async fn end_with<T>(
        &self,
        result: &Result<T, AppError>,
        target: impl Fn(&T) -> String,
    ) {
        match result {
            Ok(value) => self.succeed(target(value)).await,
            Err(error) => self.fail(error.to_failure()).await,
        }
    }

    async fn end(&self, target: Option<String>, state: OperationState) {
        end(&self.context, &self.live, &self.sender, target, state).await;
    }

    /// Whoever was to do its work has found it done, or other work in its place.
    fn end_overtaken(&self) {
        let runtime = tokio::runtime::Handle::try_current();
        let (false, Ok(runtime)) = (self.context.shutdown.is_cancelled(), runtime) else {
            return forget(&self.live, self.id());
        };
        let given_up = AppError::GivenUp {
            why: "another request took over",
        };
        let failure = self.judged(given_up.to_failure());
        let (context, live, sender) =
            (self.context.clone(), self.live.clone(), self.sender.clone());
        let ending = async move {
            let state = OperationState::Failed { failure };
            end(&context, &live, &sender, None, state).await;
        };
        self.context.tasks.spawn_on(ending, &runtime);
    }

    fn change(&self, change: impl FnOnce(&mut Operation)) {
        self.sender
            .send_modify(|operation| change(Arc::make_mut(operation)));
    }
}

/// Stored before it is shown: who has seen the end finds it after a restart too. Where it cannot be stored now it is
/// shown all the same, from memory, and stored as soon as that is possible.
async fn end(
    context: &Arc<Context>,
    live: &Live,
    sender: &watch::Sender<Arc<Operation>>,
    target: Option<String>,
    state: OperationState,
) {
    let mut ended = Operation::clone(&sender.borrow());
    ended.state = state;
    ended.end_time = Some(Timestamp::now());
    for stage in &mut ended.stages {
        stage.end_time = stage.end_time.or(ended.end_time);
    }
    if let Some(target) = target {
        ended.target = target;
    }
    let ended = Arc::new(ended);
    let stored = context.store.update_operation(&ended).await;
    tell(context, EventKind::OperationEnded, &ended);
    sender.send_replace(ended.clone());
    match stored {
        Ok(_) => forget(live, ended.id),
        Err(error) => {
            tracing::error!(operation = %ended.id, error = banger_core::chain(&error), "could not store the end of an operation; trying again");
            context
                .tasks
                .spawn(store_late(context.clone(), live.clone(), ended));
        }
    }
}

/// Stores an end until it is stored; a daemon that starts before calls the operation interrupted.
async fn store_late(context: Arc<Context>, live: Live, ended: Arc<Operation>) {
    let storing = async {
        loop {
            tokio::time::sleep(STORE_AGAIN).await;
            if context.store.update_operation(&ended).await.is_ok() {
                return;
            }
        }
    };
    context.shutdown.run_until_cancelled(storing).await;
    forget(&live, ended.id);
}

/// From now on the store tells of it.
fn forget(live: &Live, id: OperationId) {
    let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
    live.remove(&id);
}

impl Drop for OperationTask {
    fn drop(&mut self) {
        let is_running = matches!(self.sender.borrow().state, OperationState::Running);
        if is_running {
            self.end_overtaken();
        }
        self.count
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Progress for OperationTask {
    fn start(&self, key: &StageKey, total_bytes: Option<u64>) {
        self.change(|operation| {
            if let Some(stage) = operation.stages.iter_mut().find(|stage| stage.key == *key) {
                stage.total_bytes = total_bytes;
            } else if operation.stages.len() < STAGES_MAX {
                let (key, start_time) = (key.clone(), Timestamp::now());
                operation.stages.push(Stage {
                    key,
                    start_time,
                    end_time: None,
                    done_bytes: 0,
                    total_bytes,
                });
            }
        });
    }

    fn advance(&self, key: &StageKey, delta_bytes: u64) {
        self.change(|operation| {
            if let Some(stage) = operation.stages.iter_mut().find(|stage| stage.key == *key) {
                stage.done_bytes = stage.done_bytes.saturating_add(delta_bytes);
            }
        });
    }

    fn finish(&self, key: &StageKey) {
        self.change(|operation| {
            if let Some(stage) = operation.stages.iter_mut().find(|stage| stage.key == *key) {
                stage.end_time = Some(Timestamp::now());
            }
        });
    }
}
