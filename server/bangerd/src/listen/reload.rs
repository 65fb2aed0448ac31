//! Certificates, authorities, revocations and rules, read anew while the daemon serves: at SIGHUP, when one of the files
//! changes, and when an authority begins or ends to be valid. Connections whose certificates are then let in no longer, or name somebody else, are closed.
//!
//! What cannot be read changes nothing: the daemon goes on with what it has, and says so.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use banger_core::{Identity, chain};
use rustls::pki_types::CertificateDer;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::rule;
use super::tls::Tls;
use super::watch::Watched;
use crate::config::{Config, ConfigError, TcpConfig};

/// After a change, the other files of the same renewal have this long to follow; each starts it anew.
const SETTLE: Duration = Duration::from_millis(200);
/// So many changes may hold up a reload.
const SETTLE_CHANGES_MAX: usize = 25;

/// The host's clock is looked at anew after this long, for when an authority ends: it may be set.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// Seconds until authorities are read again that could not be when they began or ended to be valid.
const TRY_AGAIN: i64 = 60;

/// How the configuration is read anew.
#[derive(Clone)]
pub struct Reread {
    /// The file it is in, if there is one.
    pub file: Option<PathBuf>,
    /// Reads it.
    pub read: Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>,
}

impl std::fmt::Debug for Reread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reread")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// The connections that are open, by their certificates.
#[derive(Debug, Clone, Default)]
pub struct Register(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<Shown>>,
}

#[derive(Debug)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    /// `None` for one that is refused.
    identity: Option<Arc<Identity>>,
    close: CancellationToken,
}

/// A connection in the register; dropped with it.
#[derive(Debug)]
pub struct Entry {
    register: Register,
    number: u64,
    shown: Arc<Shown>,
}

impl Entry {
    /// Closes this connection if `tls` does not let it in as who it is.
    pub fn judge(&self, tls: &Tls) {
        self.shown.judge(tls);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.register
            .with(|open| open.connections.remove(&self.number));
    }
}

impl Register {
    fn with<T>(&self, change: impl FnOnce(&mut Open) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Enters a connection, which `close` ends.
    #[must_use]
    pub fn enter(
        &self,
        chain: Vec<CertificateDer<'static>>,
        identity: Option<Arc<Identity>>,
        close: CancellationToken,
    ) -> Entry {
        let shown = Arc::new(Shown {
            chain,
            identity,
            close,
        });
        let entered = shown.clone();
        let number = self.with(|open| {
            open.next += 1;
            open.connections.insert(open.next, shown);
            open.next
        });
        Entry {
            register: self.clone(),
            number,
            shown: entered,
        }
    }

    /// Closes what `tls` does not let in as who it is, each looked at once. Returns how many that were. Takes a while,
    /// and holds up nobody who comes or goes meanwhile.
    #[must_use]
    pub fn judge(&self, tls: &Tls) -> usize {
        let open: Vec<_> = self.with(|open| open.connections.values().cloned().collect());
        open.iter().filter(|shown| !shown.judge(tls)).count()
    }
}

impl Shown {
    /// Closes it if it does not stay; whether it does.
    fn judge(&self, tls: &Tls) -> bool {
        let stays = self.stays(tls);
        if !stays {
            self.close.cancel();
        }
        stays
    }

    fn stays(&self, tls: &Tls) -> bool {
        if tls.verify(&self.chain).is_err() {
            return false;
        }
        let read = self.chain.first().and_then(|own| rule::read(own));
        let now = read.and_then(|read| tls.rules.judge(&read.names).ok());
        match (&self.identity, now) {
            (Some(identity), Some((owner, role))) => {
                identity.owner == owner && identity.role == role
            }
            (None, None) => true,
            _ => false,
        }
    }
}

/// Keeps what TLS goes by up to date.
#[derive(Debug)]
pub struct Keeper {
    tcp: TcpConfig,
    reread: Option<Reread>,
    current: watch::Sender<Arc<Tls>>,
    register: Register,
    hangup: Signal,
}

impl Keeper {
    /// Keeps `current`, which was made of `tcp`. From now on SIGHUP means to reload.
    ///
    /// # Errors
    /// If the host gives no signals.
    pub fn new(
        tcp: TcpConfig,
        reread: Option<Reread>,
        current: watch::Sender<Arc<Tls>>,
        register: Register,
    ) -> io::Result<Self> {
        Ok(Self {
            tcp,
            reread,
            current,
            register,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Keeps on until it is dropped.
    pub async fn keep(mut self) {
        // Watched before they are read: what changes in between is then not missed.
        let mut watched = self.watch();
        self.reload("start").await;
        loop {
            let changes_at = self.changes_at();
            let why = tokio::select! {
                // cancel-safe: `recv`
                _ = self.hangup.recv() => "SIGHUP",
                // cancel-safe: as it says
                () = changed(&mut watched) => {
                    settle(&mut watched).await;
                    "a file changed"
                }
                // cancel-safe: holds no state
                () = other_authorities(changes_at) => "other authorities are valid now",
            };
            // The files may be others now, or in directories that were replaced.
            watched = self.watch();
            self.reload(why).await;
        }
    }

    /// When other authorities are valid. What has come already could not be read, and is tried again later.
    fn changes_at(&self) -> Option<i64> {
        let now = jiff::Timestamp::now().as_second();
        let changes_at = self.current.borrow().changes_at;
        changes_at.map(|at| if at > now { at } else { now + TRY_AGAIN })
    }

    fn watch(&self) -> Option<Watched> {
        let config = self.reread.as_ref().and_then(|reread| reread.file.clone());
        let files = self.tcp.files().into_iter().map(PathBuf::from);
        let files: Vec<PathBuf> = files.chain(config).collect();
        let watched = Watched::new(&files);
        if let Err(error) = &watched {
            tracing::warn!(%error, "certificate files are not watched: SIGHUP reads them anew");
        }
        watched.ok()
    }

    async fn reload(&mut self, why: &'static str) {
        let (reread, former) = (self.reread.clone(), self.tcp.clone());
        let read = tokio::task::spawn_blocking(move || read(reread.as_ref(), former)).await;
        let Ok(read) = read else {
            return; // the daemon ends
        };
        let (tcp, tls) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(
                    why,
                    "could not reload certificates and rules; those before stay in force: {error}"
                );
                return;
            }
        };
        if tcp.listen != self.tcp.listen {
            tracing::warn!("other addresses in tcp.listen are served after a restart");
        }
        let tls = Arc::new(tls);
        self.current.send_replace(tls.clone());
        let register = self.register.clone();
        let judging = tokio::task::spawn_blocking(move || register.judge(&tls));
        let Ok(closed) = judging.await else {
            return; // the daemon ends
        };
        self.tcp = tcp;
        tracing::info!(why, closed, "certificates and rules are in force");
    }
}

/// Resolves at a time of the host's clock, in seconds since the Unix epoch. The clock is looked at anew now and then: it
/// may be set.
async fn other_authorities(changes_at: Option<i64>) {
    let Some(at) = changes_at else {
        return std::future::pending().await;
    };
    loop {
        let left = at.saturating_sub(jiff::Timestamp::now().as_second());
        match u64::try_from(left) {
            Ok(left) if left > 0 => sleep(Duration::from_secs(left).min(LOOK_AGAIN)).await,
            _ => return,
        }
    }
}

/// Never, where nothing is watched.
async fn changed(watched: &mut Option<Watched>) {
    match watched {
        Some(watched) => watched.changed().await,
        None => std::future::pending().await,
    }
}

/// Waits until no further change follows.
async fn settle(watched: &mut Option<Watched>) {
    for _ in 0..SETTLE_CHANGES_MAX {
        if timeout(SETTLE, changed(watched)).await.is_err() {
            return;
        }
    }
}

fn read(reread: Option<&Reread>, former: TcpConfig) -> Result<(TcpConfig, Tls), String> {
    let tcp = match reread {
        Some(reread) => (reread.read)().map_err(|error| chain(&error))?.tcp,
        None => former,
    };
    if !tcp.has_tls() {
        return Err("[tcp] names no certificates any more; TCP ends with a restart".to_owned());
    }
    let tls = Tls::load(&tcp).map_err(|error| chain(&error))?;
    Ok((tcp, tls))
}
