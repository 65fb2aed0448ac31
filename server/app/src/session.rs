//! Sessions: the way from a caller to a process in a running VM.
//!
//! The agent owns sessions; nothing of their output is kept here. A session that was started by itself is
//! recorded, so that it can be found by its id alone; one of an exec lives and dies with its call. Where the call is lost
//! and not ended, the agent keeps it for a while: it is found then by asking the guests.

pub(crate) mod kept;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use banger_core::guest::{AttachTarget, Guest, GuestError, SessionInputs};
use banger_core::session::{
    AttachOptions, Backpressure, Exit, Session, SessionEvent, SessionSpec, SignalTarget,
};
use banger_core::vm::{Phase, Vm};
use banger_core::{Owner, SessionId, VmId, size};
use banger_store::{Answer, RequestKey};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tokio::sync::watch;

use self::kept::Kept;
use crate::Context;
use crate::error::AppError;
use crate::image::Images;
use crate::vm::{Use, VmView, Vms, check_env_keys};

/// After a link to an agent broke, how long its VM's end may take to be known: it decides between "the VM is
/// gone" and "the agent is away".
const END_KNOWN_WITHIN: Duration = Duration::from_millis(500);

/// Guests that are asked at once for a session that is not recorded.
const ASKED_AT_ONCE: usize = 16;

/// What an attached reader receives, ended by [`SessionEvent::Exited`] or an error.
pub type Events = BoxStream<'static, Result<SessionEvent, AppError>>;

/// The sessions of this host's VMs.
pub struct Sessions {
    context: Arc<Context>,
    vms: Arc<Vms>,
    images: Arc<Images>,
    /// Whose request ids are meant.
    caller: Owner,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

/// A command that runs as long as its call: dropping the events before the exit kills it.
pub struct Exec {
    /// The session's id.
    pub id: SessionId,
    /// What it says.
    pub events: Events,
    guest: Arc<dyn Guest>,
}

impl std::fmt::Debug for Exec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exec")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Exec {
    /// A way to signal the command's process group while its events are read.
    pub fn signaller(
        &self,
    ) -> impl Fn(i32) -> BoxFuture<'static, Result<(), AppError>> + Send + Sync + 'static {
        let (guest, id) = (self.guest.clone(), self.id);
        move |signal| {
            let guest = guest.clone();
            Box::pin(async move {
                Ok(guest
                    .signal_session(id, signal, SignalTarget::Group)
                    .await?)
            })
        }
    }
}

impl Sessions {
    pub(crate) fn new(context: &Arc<Context>, vms: &Arc<Vms>, images: &Arc<Images>) -> Self {
        Self {
            context: context.clone(),
            vms: vms.clone(),
            images: images.clone(),
            caller: Owner::daemon(),
        }
    }

    /// The same sessions for `caller`, who sees `vms`.
    pub(crate) fn seen_by(&self, caller: &Owner, vms: &Arc<Vms>) -> Self {
        Self {
            context: self.context.clone(),
            vms: vms.clone(),
            images: self.images.clone(),
            caller: caller.clone(),
        }
    }

    /// Starts a session and leaves it running. Its id is kept for `key` before anything runs, so that a repeat
    /// after a crash of the daemon finds it. **Calls with one key must not overlap.**
    ///
    /// # Errors
    /// If the VM does not run or the process cannot be started; then nothing ran.
    pub async fn start(
        &self,
        vm: &str,
        spec: SessionSpec,
        key: Option<&RequestKey>,
    ) -> Result<Session, AppError> {
        let key = key.map(|key| key.of(&self.caller));
        let key = key.as_ref();
        if let Some(session) = self.started_before(key).await? {
            return self.start_again(session, spec).await;
        }
        let (view, guest, _used) = self.vms.running(vm).await?;
        let spec = self.complete(&view, spec).await?;
        let id = SessionId::new();
        self.context.store.insert_session(id, view.id).await?;
        if let Some(key) = key {
            self.context
                .store
                .put_answer(key, id.to_string().as_bytes())
                .await?;
        }
        match guest.start_session(id, &spec).await {
            Ok(session) => Ok(session),
            Err(error) => {
                if error.nothing_ran() {
                    self.forget(id, key).await?;
                }
                Err(error.into())
            }
        }
    }

    /// The session of a start that is repeated. If the daemon died before the agent heard of it, it is started now: an
    /// agent that has run since before the session was recorded, and does not know it, has run nothing of it.
    async fn start_again(&self, id: SessionId, spec: SessionSpec) -> Result<Session, AppError> {
        let (vm, guest, _used) = self.find(id).await?;
        match guest.get_session(id).await {
            Err(GuestError::UnknownSession { .. }) => {}
            known => return Ok(known?),
        }
        let view = self.vms.get(&vm.to_string())?;
        if view.start_time.is_none_or(|start| id.made_at() < start) {
            return Err(GuestError::UnknownSession { id }.into());
        }
        let spec = self.complete(&view, spec).await?;
        Ok(guest.start_session(id, &spec).await?)
    }

    /// Takes back what was recorded before a start that ran nothing: the request may be made again.
    async fn forget(&self, id: SessionId, key: Option<&RequestKey>) -> Result<(), AppError> {
        self.context.store.delete_session(id).await?;
        if let Some(key) = key {
            self.context.store.delete_answer(key).await?;
        }
        Ok(())
    }

    async fn started_before(
        &self,
        key: Option<&RequestKey>,
    ) -> Result<Option<SessionId>, AppError> {
        let Some(key) = key else { return Ok(None) };
        match self.context.store.get_answer(key).await? {
            Answer::None => Ok(None),
            Answer::Stored(id) => Ok(std::str::from_utf8(&id).ok().and_then(|id| id.parse().ok())),
            Answer::Conflict => Err(AppError::RequestIdReused { id: key.id.clone() }),
        }
    }

    /// Starts a command, attached, to be removed at its exit. The process waits for a slow reader.
    ///
    /// # Errors
    /// If the VM does not run or the process cannot be started; then nothing ran.
    pub async fn exec(
        &self,
        vm: &str,
        spec: SessionSpec,
        input: SessionInputs,
    ) -> Result<Exec, AppError> {
        let (view, guest, used) = self.vms.running(vm).await?;
        let spec = Box::new(self.complete(&view, spec).await?);
        let id = SessionId::new();
        let target = AttachTarget::Start {
            id,
            spec,
            remove_after_exit: true,
        };
        let options = AttachOptions {
            backpressure: Backpressure::HoldProcess,
            ..AttachOptions::default()
        };
        let killer = KillOnDrop {
            context: self.context.clone(),
            guest: guest.clone(),
            id,
            armed: true,
        };
        let events = guest.attach(target, options, input).await?;
        let events = self.judged(view.id, used, events.boxed());
        Ok(Exec {
            id,
            events: Guarded { events, killer }.boxed(),
            guest,
        })
    }

    /// A session as it is now, or as its VM's last stop kept it.
    ///
    /// # Errors
    /// If it does not exist, or its VM does not run and kept nothing of it.
    pub async fn get(&self, id: SessionId) -> Result<Session, AppError> {
        let found = async {
            let (_, guest, _used) = self.find(id).await?;
            Ok(guest.get_session(id).await?)
        };
        match found.await {
            Ok(session) => Ok(session),
            Err(error) => Ok(self.kept(id, error).await?.session),
        }
    }

    /// What the VM's last stop kept of a session that no guest knows; `error` where it kept nothing.
    async fn kept(&self, id: SessionId, error: AppError) -> Result<Kept, AppError> {
        let is_out_of_reach = matches!(
            error,
            AppError::WrongState { .. } | AppError::Guest(GuestError::UnknownSession { .. })
        );
        if !is_out_of_reach {
            return Err(error);
        }
        let Some(vm) = self.context.store.find_session(id).await? else {
            return Err(error);
        };
        kept::find(&self.context, vm, id).await?.ok_or(error)
    }

    /// The sessions of a VM, by their ids and so the oldest first; of one that does not run, those that its last stop kept.
    ///
    /// # Errors
    /// If the VM does not run and kept none.
    pub async fn list(&self, vm: &str) -> Result<Vec<Session>, AppError> {
        let error = match self.vms.running(vm).await {
            Ok((_, guest, _used)) => return Ok(oldest_first(&*guest).await?),
            Err(error) => error,
        };
        let AppError::WrongState { .. } = error else {
            return Err(error);
        };
        let vm = self.vms.get(vm)?.id;
        let all = kept::list(&self.context, vm).await?;
        match all.is_empty() {
            true => Err(error),
            false => Ok(all.into_iter().map(|kept| kept.session).collect()),
        }
    }

    /// Attaches a reader and writer. Dropping the events detaches.
    ///
    /// # Errors
    /// If the session does not exist, or its VM does not run.
    pub async fn attach(
        &self,
        id: SessionId,
        options: AttachOptions,
        input: SessionInputs,
    ) -> Result<Events, AppError> {
        let (vm, guest, used) = self.find(id).await?;
        let events = guest
            .attach(AttachTarget::Existing(id), options, input)
            .await?;
        Ok(self.judged(vm, used, events))
    }

    /// Reads a session's log, or what its VM's last stop kept of it.
    ///
    /// # Errors
    /// If the session does not exist, or its VM does not run and kept nothing of it.
    pub async fn read_log(
        &self,
        id: SessionId,
        options: AttachOptions,
        follow: bool,
    ) -> Result<Events, AppError> {
        let read = async {
            let (vm, guest, used) = self.find(id).await?;
            let events = guest.read_log(id, options, follow).await?;
            Ok(self.judged(vm, used, events))
        };
        match read.await {
            Ok(events) => Ok(events),
            Err(error) => {
                let kept = self.kept(id, error).await?;
                Ok(kept.events(&self.context.tasks, options))
            }
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the session does not exist, or its VM does not run.
    pub async fn signal(
        &self,
        id: SessionId,
        signal: i32,
        target: SignalTarget,
    ) -> Result<(), AppError> {
        let (_, guest, _used) = self.find(id).await?;
        Ok(guest.signal_session(id, signal, target).await?)
    }

    /// Waits until a session has ended, however long; a VM that ends ends it.
    ///
    /// # Errors
    /// If the session does not exist, or its VM does not run.
    pub async fn wait(&self, id: SessionId) -> Result<Exit, AppError> {
        loop {
            let (vm, guest, _used) = match self.find(id).await {
                Ok(found) => found,
                Err(error) => return Ok(self.kept(id, error).await?.exit),
            };
            match guest.wait_session(id).await {
                Ok(exit) => return Ok(exit),
                Err(GuestError::Lost { .. }) if self.vm_ended(vm).await => return Ok(Exit::VmGone),
                // The link broke and the VM runs: asking again is safe, and waits for the link.
                Err(GuestError::Lost { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Kills what is left of a session and forgets it.
    ///
    /// # Errors
    /// If it does not exist, or its VM is held or on its way between states: its process could not be ended.
    pub async fn delete(&self, id: SessionId) -> Result<(), AppError> {
        self.delete_once(id, None).await
    }

    /// As [`Sessions::delete`]. The answer is kept for `key` before the session is forgotten, so that a repeat after a
    /// crash of the daemon between the two gets it, and not that there is no such session.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn delete_once(
        &self,
        id: SessionId,
        key: Option<&RequestKey>,
    ) -> Result<(), AppError> {
        match self.find(id).await {
            Ok((_, guest, _used)) => guest.delete_session(id).await?,
            // A VM without a machine has no processes: the record alone is left.
            Err(AppError::WrongState { phase, .. }) if !phase.holds_machine() => {}
            Err(error) => return Err(error),
        }
        if let Some(key) = key.map(|key| key.of(&self.caller)) {
            // The answer has no fields, and with that no bytes.
            self.context.store.put_answer(&key, &[]).await?;
        }
        if let Some(vm) = self.context.store.find_session(id).await? {
            kept::remove(&self.context, vm, id).await;
        }
        self.context.store.delete_session(id).await?;
        Ok(())
    }

    async fn find(&self, id: SessionId) -> Result<(VmId, Arc<dyn Guest>, Use), AppError> {
        let vm = match self.context.store.find_session(id).await? {
            None => self.called(id).await,
            recorded => recorded,
        };
        // One in a VM that the caller does not see is as one that is not.
        let vm = vm.filter(|vm| self.vms.get(&vm.to_string()).is_ok());
        let vm = vm.ok_or_else(|| AppError::NotFound {
            resource: "session",
            name: id.to_string(),
        })?;
        let (vm, guest, used) = self.vms.running(&vm.to_string()).await?;
        Ok((vm.id, guest, used))
    }

    /// The VM in which the command of a call runs, of those that the caller sees. It is not recorded: only its guest
    /// knows it, which gives a caller who lost the connection, or the daemon, some time to come back for it. Where no guest
    /// that runs knows it, it may be of one that is held.
    async fn called(&self, id: SessionId) -> Option<VmId> {
        let limit = self.context.config.reconnect_timeout;
        let mut views = self.vms.views();
        views.retain(|view| view.vm.start_time <= Some(id.made_at()));
        let is_held = |view: &&VmView| {
            matches!(
                view.phase(),
                Phase::Pausing | Phase::Paused | Phase::Resuming
            )
        };
        let held = views.iter().find(is_held).map(|view| view.vm.id);
        views.retain(|view| view.phase() == Phase::Running);
        let asked = views.into_iter().map(|view| async move {
            let vm = view.vm.id;
            let mut view = self.vms.watch(&vm.to_string()).ok()?;
            // After a restart of the daemon the guests are reached one after the other.
            let ready =
                view.wait_for(|view| view.phase() != Phase::Running || view.guest.is_some());
            let ready = tokio::time::timeout(limit, ready).await.ok()?.ok()?.clone();
            ready.guest?.get_session(id).await.ok().map(|_| vm)
        });
        let found = futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE);
        let found = std::pin::pin!(found.filter_map(std::future::ready))
            .next()
            .await;
        found.or(held)
    }

    /// Fills in what the caller left to the image, and checks the rest.
    async fn complete(&self, vm: &Vm, mut spec: SessionSpec) -> Result<SessionSpec, AppError> {
        if spec.command.is_empty()
            && let Some(image) = vm.image
        {
            let config = self.images.get(&image.to_string()).await?.config;
            spec.command = config.entrypoint.into_iter().chain(config.cmd).collect();
        }
        let invalid = |problem: String| {
            Err(AppError::Invalid {
                field: "spec.command",
                problem,
            })
        };
        let words = spec.command.iter().map(String::len);
        let variables = spec.env.iter();
        // Between name and value is a `=`.
        let variables = variables.map(|(name, value)| name.len() + 1 + value.len());
        let bytes = size::counted(words.chain(variables));
        match spec.command.first() {
            None => return invalid("is missing, and the image has none".into()),
            Some(program) if program.is_empty() => {
                return invalid("begins with an empty word".into());
            }
            Some(_) if spec.command.iter().any(|word| word.contains('\0')) => {
                return invalid("has a zero byte".into());
            }
            Some(_) if bytes > size::ARGUMENTS_BYTES_MAX => {
                return invalid(format!(
                    "comes to {bytes} bytes with the environment, each word with its zero byte and its pointer, and no kernel takes more than {}",
                    size::ARGUMENTS_BYTES_MAX
                ));
            }
            Some(_) => {}
        }
        check_env_keys("spec.env", &spec.env)?;
        if !(spec.working_dir.is_empty() || spec.working_dir.starts_with('/'))
            || spec.working_dir.contains('\0')
        {
            return Err(AppError::Invalid {
                field: "spec.working_dir",
                problem: "is not an absolute path".into(),
            });
        }
        Ok(spec)
    }

    /// A broken link is told apart from a VM that is gone. The VM counts as used while the events are read.
    fn judged(
        &self,
        vm: VmId,
        used: Use,
        events: BoxStream<'static, Result<SessionEvent, GuestError>>,
    ) -> Events {
        let judged = Judged {
            events,
            view: self.vms.watch(&vm.to_string()).ok(),
            _used: used,
            end_offset: 0,
        };
        futures::stream::unfold(judged, |mut judged| async move {
            let event = judged.next().await?;
            Some((event, judged))
        })
        .boxed()
    }

    async fn vm_ended(&self, vm: VmId) -> bool {
        ended(self.vms.watch(&vm.to_string()).ok()).await
    }
}

/// The sessions of a guest, by their ids: the agent tells them in the order in which their starts ended.
pub(crate) async fn oldest_first(guest: &dyn Guest) -> Result<Vec<Session>, GuestError> {
    let mut all = guest.list_sessions().await?;
    all.sort_unstable_by_key(|session| session.id);
    Ok(all)
}

/// The events of an attached reader. `U` says for how long the VM is used.
struct Judged<U> {
    events: BoxStream<'static, Result<SessionEvent, GuestError>>,
    view: Option<watch::Receiver<VmView>>,
    _used: U,
    end_offset: u64,
}

impl<U> Judged<U> {
    async fn next(&mut self) -> Option<Result<SessionEvent, AppError>> {
        let event = self.events.next().await?;
        if let Ok(event) = &event {
            self.end_offset = event.output_end().unwrap_or(self.end_offset);
        }
        Some(match event {
            Err(GuestError::Lost { .. }) if ended(self.view.clone()).await => {
                Ok(SessionEvent::Exited {
                    exit: Exit::VmGone,
                    end_offset: self.end_offset,
                })
            }
            other => other.map_err(AppError::from),
        })
    }
}

/// Whether a VM has ceased to run, or does so within the time in which a broken link can tell of it.
pub(crate) async fn ended(view: Option<watch::Receiver<VmView>>) -> bool {
    let Some(mut view) = view else { return true };
    // One that is held goes on later.
    let ended = view.wait_for(|view| view.deleted || view.machine.is_none());
    tokio::time::timeout(END_KNOWN_WITHIN, ended).await.is_ok()
}

/// Kills an exec's process if its call ends before it; unless it ends because the daemon does, or the guest is away.
struct KillOnDrop {
    context: Arc<Context>,
    guest: Arc<dyn Guest>,
    id: SessionId,
    armed: bool,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if !self.armed || self.context.leaving.is_cancelled() {
            return;
        }
        let (guest, id) = (self.guest.clone(), self.id);
        let leaving = self.context.leaving.clone();
        self.context.tasks.spawn(async move {
            let deleting = guest.delete_session(id);
            // A guest that is held keeps nobody.
            if let Some(Err(error)) = leaving.run_until_cancelled(deleting).await {
                tracing::debug!(session = %id, error = banger_core::chain(&error), "could not end an abandoned exec");
            }
        });
    }
}

/// Whether a process of which this is told is to end where its call does. One whose guest is silent or away goes on when
/// the guest does, and its caller has the time to come back for it that the agent gives.
fn is_to_be_killed(event: &Result<SessionEvent, AppError>) -> bool {
    !matches!(
        event,
        Ok(SessionEvent::Exited { .. })
            | Err(AppError::Guest(
                GuestError::Deadline { .. } | GuestError::Lost { .. }
            ))
    )
}

struct Guarded {
    events: Events,
    killer: KillOnDrop,
}

impl Stream for Guarded {
    type Item = Result<SessionEvent, AppError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let next = self.events.as_mut().poll_next(task);
        if let Poll::Ready(Some(event)) = &next
            && !is_to_be_killed(event)
        {
            self.killer.armed = false;
        }
        next
    }
}

#[cfg(test)]
mod tests;
