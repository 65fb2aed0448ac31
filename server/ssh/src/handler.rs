//! What a client asks for, request by request. Nothing here waits for a channel, a process or a tunnel: each has a task.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_app::App;
use banger_app::ssh::Admission;
use banger_core::session::TerminalSize;
use banger_core::tunnel::TunnelTarget;
use russh::keys::ssh_key::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Disconnect, Pty, Sig};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::inbox::{Backlog, Inbox};
use crate::limits::{
    CHANNELS_EVER_MAX, CHANNELS_MAX, COMMAND_MAX_BYTES, ENV_MAX, ENV_MAX_BYTES, SIGNALS_WAITING,
};
use crate::login::{self, Login, LoginError};
use crate::process::{self, Process, Program};
use crate::{sftp, signal, tunnel};

/// The channels of a connection. A task takes its own out when it has ended.
#[derive(Debug, Clone, Default)]
struct Channels(Arc<Mutex<HashMap<ChannelId, Entry>>>);

/// One channel as the connection sees it.
struct Entry {
    inbox: Inbox,
    /// The channel has no program yet.
    waiting: Option<Box<Waiting>>,
    /// To the process, where there is one.
    sizes: watch::Sender<TerminalSize>,
    signals: Option<mpsc::Sender<i32>>,
    /// Dropped when the client closes: its task then ends what it does.
    _open: DropGuard,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}

/// What is known of a session channel before it is told what to run.
struct Waiting {
    channel: ChannelWriteHalf<Msg>,
    closed: CancellationToken,
    env: BTreeMap<String, String>,
    has_terminal: bool,
}

impl Channels {
    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel that is over.
    fn remove(&self, id: ChannelId) {
        // Dropped outside of the lock: it wakes a task.
        let _entry = self.lock().remove(&id);
    }
}

/// One connection.
pub(crate) struct Handler {
    app: Arc<App>,
    admission: Admission,
    /// The VM's id: its name may go to another.
    vm: String,
    channels: Channels,
    /// Channels that were ever opened.
    opened: usize,
    backlog: Backlog,
    logged_in: CancellationToken,
    login: Option<Result<Arc<Login>, LoginError>>,
    /// Dropped with the connection.
    gone: CancellationToken,
    _alive: DropGuard,
}

impl Handler {
    /// The handler of a connection, and what tells that somebody has logged in.
    pub(crate) fn new(app: Arc<App>, admission: Admission) -> (Self, CancellationToken) {
        let (logged_in, gone) = (CancellationToken::new(), CancellationToken::new());
        let handler = Self {
            app,
            vm: admission.vm.id.to_string(),
            admission,
            channels: Channels::default(),
            opened: 0,
            backlog: Backlog::default(),
            logged_in: logged_in.clone(),
            login: None,
            _alive: gone.clone().drop_guard(),
            gone,
        };
        (handler, logged_in)
    }

    /// Whoever is let in is looked for in the guest; that nobody is found is said where it can be said.
    async fn accept(&mut self, user: &str) -> Auth {
        let name = &self.admission.vm.spec.name;
        let found = Login::find(&self.app, &self.vm, name, user).await;
        self.login = Some(found.map(Arc::new));
        Auth::Accept
    }

    fn is_authorized(&self, key: &PublicKey) -> bool {
        login::is_authorized(self.admission.authorized_keys(), key)
    }

    fn user(&self) -> Option<Arc<Login>> {
        match &self.login {
            Some(Ok(login)) => Some(login.clone()),
            _ => None,
        }
    }

    /// Takes a channel in, unless there are too many; what tells its task that it is closed.
    fn open(&mut self, id: ChannelId) -> Option<(CancellationToken, Inbox)> {
        let mut channels = self.channels.lock();
        if channels.len() >= CHANNELS_MAX || self.opened >= CHANNELS_EVER_MAX {
            return None;
        }
        self.opened += 1;
        let inbox = self.backlog.inbox();
        let closed = self.gone.child_token();
        let entry = Entry {
            inbox: inbox.clone(),
            waiting: None,
            sizes: watch::Sender::new(TerminalSize::default()),
            signals: None,
            _open: closed.clone().drop_guard(),
        };
        channels.insert(id, entry);
        drop(channels);
        Some((closed, inbox))
    }

    /// Connects to a socket in the guest; the client is told when it is connected, or that it is not.
    async fn tunnel(
        &mut self,
        channel: Channel<Msg>,
        target: Option<TunnelTarget>,
        reply: ChannelOpenHandle,
    ) {
        let Some(target) = target else {
            return reply.reject(ChannelOpenFailure::ConnectFailed).await;
        };
        let id = channel.id();
        let Some((closed, inbox)) = self.open(id) else {
            return reply.reject(ChannelOpenFailure::ResourceShortage).await;
        };
        let (app, vm) = (self.app.clone(), self.vm.clone());
        let source = inbox.source();
        let channels = self.channels.clone();
        let channel = writer(channel);
        self.app.tasks().spawn(async move {
            tunnel::run(&app, &vm, &target, source, channel, reply, closed).await;
            channels.remove(id);
        });
    }

    /// Runs a program in a channel that has none yet; whether it does.
    fn run(&self, id: ChannelId, program: Program, session: &Session) -> bool {
        let Some(login) = self.user() else {
            return false;
        };
        let mut channels = self.channels.lock();
        let Some(entry) = channels.get_mut(&id) else {
            return false;
        };
        let Some(waiting) = entry.waiting.take() else {
            return false;
        };
        let Waiting {
            channel,
            closed,
            env,
            has_terminal,
        } = *waiting;
        let source = entry.inbox.source();
        let (app, vm, over) = (self.app.clone(), self.vm.clone(), self.channels.clone());
        if let Program::Sftp = program {
            self.app.tasks().spawn(async move {
                sftp::run(app, vm, login, source, channel, closed).await;
                over.remove(id);
            });
            return true;
        }
        let (signals, heard) = mpsc::channel(SIGNALS_WAITING);
        entry.signals = Some(signals);
        let process = Process {
            app,
            vm,
            login,
            program,
            env,
            sizes: has_terminal.then(|| entry.sizes.subscribe()),
            signals: heard,
            source,
            session: session.handle(),
            channel,
        };
        self.app.tasks().spawn(async move {
            process::run(process, closed).await;
            over.remove(id);
        });
        true
    }

    /// Answers a request of a channel.
    fn answer(session: &mut Session, id: ChannelId, is_done: bool) -> Result<(), russh::Error> {
        if is_done {
            session.channel_success(id)
        } else {
            session.channel_failure(id)
        }
    }
}

impl Waiting {
    /// Sets a variable that the program gets; whether it may be.
    fn set(&mut self, name: &str, value: &str) -> bool {
        let is_name = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        let bytes: usize = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let fits = self.env.len() < ENV_MAX && bytes + name.len() + value.len() <= ENV_MAX_BYTES;
        if is_name && fits {
            self.env.insert(name.to_owned(), value.to_owned());
        }
        is_name && fits
    }
}

/// The half of a channel that is used. The other would have the connection wait until it is read.
fn writer(channel: Channel<Msg>) -> ChannelWriteHalf<Msg> {
    channel.split().1
}

/// A terminal's size as the guest takes it.
fn size(columns: u32, rows: u32) -> TerminalSize {
    let cells = |count: u32, default: u16| match u16::try_from(count) {
        Ok(0) => default,
        Ok(count) => count,
        Err(_) => u16::MAX,
    };
    let default = TerminalSize::default();
    TerminalSize {
        rows: cells(rows, default.rows),
        columns: cells(columns, default.columns),
    }
}

impl russh::server::Handler for Handler {
    type Error = russh::Error;

    /// Where the VM has no keys, that the call was allowed is all there is.
    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        if self.admission.authorized_keys().is_empty() {
            return Ok(self.accept(user).await);
        }
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        if self.is_authorized(offer.public_key) {
            return Ok(Auth::Accept);
        }
        Ok(Auth::reject())
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        if self.is_authorized(key.public_key) {
            return Ok(self.accept(user).await);
        }
        Ok(Auth::reject())
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        self.logged_in.cancel();
        if let Some(Err(error)) = &self.login {
            let text = error.to_string();
            session.disconnect(Disconnect::IllegalUserName, &text, "en")?;
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let id = channel.id();
        let Some((closed, _)) = self.open(id) else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        if let Some(entry) = self.channels.lock().get_mut(&id) {
            entry.waiting = Some(Box::new(Waiting {
                channel: writer(channel),
                closed,
                env: BTreeMap::new(),
                has_terminal: false,
            }));
        }
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let target = tunnel::tcp(host, port, &self.admission.vm.spec.name);
        self.tunnel(channel, target, reply).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let target = tunnel::unix(path);
        self.tunnel(channel, target, reply).await;
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let inbox = self
            .channels
            .lock()
            .get(&id)
            .map(|entry| entry.inbox.clone());
        match inbox {
            Some(inbox) => Ok(inbox.receive(data).await?),
            None => Ok(()),
        }
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        if let Some(entry) = self.channels.lock().get(&id) {
            entry.inbox.end();
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(id);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let is_done = {
            let mut channels = self.channels.lock();
            let entry = channels.get_mut(&id);
            entry.is_some_and(|entry| {
                entry.sizes.send_replace(size(columns, rows));
                let Some(waiting) = &mut entry.waiting else {
                    return false;
                };
                waiting.has_terminal = true;
                waiting.set("TERM", if term.is_empty() { "dumb" } else { term })
            })
        };
        Self::answer(session, id, is_done)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let is_done = {
            let mut channels = self.channels.lock();
            let waiting = channels
                .get_mut(&id)
                .and_then(|entry| entry.waiting.as_mut());
            waiting.is_some_and(|waiting| waiting.set(name, value))
        };
        Self::answer(session, id, is_done)
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let is_done = self.run(id, Program::Shell, session);
        Self::answer(session, id, is_done)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let is_done = match std::str::from_utf8(command) {
            Ok(text) if text.len() <= COMMAND_MAX_BYTES && !text.contains('\0') => {
                self.run(id, Program::Command(text.to_owned()), session)
            }
            _ => false,
        };
        Self::answer(session, id, is_done)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let is_done = name == "sftp" && self.run(id, Program::Sftp, session);
        Self::answer(session, id, is_done)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(entry) = self.channels.lock().get(&id) {
            entry.sizes.send_replace(size(columns, rows));
        }
        Ok(())
    }

    /// One that comes faster than signals can be sent is dropped, as the kernel merges those that are pending.
    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let (Some(number), Some(entry)) =
            (signal::number(&signal), self.channels.lock().get(&id))
            && let Some(signals) = &entry.signals
        {
            let _ = signals.try_send(number);
        }
        Ok(())
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }
}
