//! The guest's files, for somebody who uses the guest: each call is done with the rights of one of its users.
//!
//! ```text
//! call ─► a place among the calls ─► a thread that may block ─► the user's rights ─► work ─► the agent's rights
//! ```
//! A thread, and not a process of the user's: the kernel keeps credentials for each thread, so that it costs three
//! system calls, and the user can neither signal nor trace it (see [`FileRights`]). Paths are resolved beneath the
//! guest's root as elsewhere; the links of /proc that stand for open files are not followed, because they would lead to
//! the agent's own.

mod change;
mod info;
mod list;
mod read;
mod remove;
pub(crate) mod service;
mod watch;
mod write;

use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Status;

use crate::agent::Agent;
use crate::beat::{Beating, beating};
use crate::refusal::{Problem, Refusal, describe};
use crate::service::Events;
use crate::session::users::{Identity, Users};
use crate::sys::FileRights;
use crate::tree::{Root, failed, names, split};

/// Calls about files that go on at once, each with a thread. Watches last, so they have a bound of their own.
const CALLS_MAX: usize = 128;
/// Watches that go on at once.
const WATCHES_MAX: usize = 64;
/// Messages between a thread and the channel: a megabyte at most.
const MESSAGES_AHEAD: usize = 4;

/// The places among the calls about files.
#[derive(Debug)]
pub struct FileCalls {
    calls: Arc<Semaphore>,
    watches: Arc<Semaphore>,
}

impl Default for FileCalls {
    fn default() -> Self {
        Self {
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
        }
    }
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// It ends by itself.
    Call,
    /// It lasts until its caller has enough.
    Watch,
}

impl FileCalls {
    fn enter(&self, lasting: Lasting) -> Result<OwnedSemaphorePermit, Refusal> {
        let (places, limit) = match lasting {
            Lasting::Call => (&self.calls, CALLS_MAX),
            Lasting::Watch => (&self.watches, WATCHES_MAX),
        };
        Arc::clone(places)
            .try_acquire_owned()
            .map_err(|_| Refusal::TooManyFileCalls { limit })
    }
}

/// As whom a call is done, and beneath what.
#[derive(Debug)]
pub(crate) struct Here {
    pub(crate) root: Root,
    pub(crate) identity: Identity,
    users: Users,
}

/// Does `work` as `user`, where it may block.
pub(crate) async fn as_user<T: Send + 'static>(
    agent: &Arc<Agent>,
    user: String,
    work: impl FnOnce(&Here) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    agent.ready().await?;
    let place = agent.file_calls.enter(Lasting::Call)?;
    let owned = Arc::clone(agent);
    let task = agent.tasks.spawn_blocking(move || {
        let _place = place;
        enter(&owned, &user, work)
    });
    let panicked = |_| Err(Refusal::invalid("the agent's thread panicked"));
    task.await.unwrap_or_else(panicked)
}

/// What `work` delivers as `user`, and at the end its failure; it ends when the host has gone.
pub(crate) async fn stream_as_user<M: Beating>(
    agent: &Arc<Agent>,
    user: String,
    lasting: Lasting,
    work: impl FnOnce(&Here, &mut dyn FnMut(M) -> bool) -> Result<(), Refusal> + Send + 'static,
) -> Result<Events<M>, Refusal> {
    agent.ready().await?;
    let place = agent.file_calls.enter(lasting)?;
    let (sender, receiver) = mpsc::channel::<Result<M, Status>>(MESSAGES_AHEAD);
    let owned = Arc::clone(agent);
    agent.tasks.spawn_blocking(move || {
        let _place = place;
        let mut deliver = |message| sender.blocking_send(Ok(message)).is_ok();
        if let Err(refusal) = enter(&owned, &user, |here| work(here, &mut deliver)) {
            // Nobody waits for it where the host has gone.
            let _ = sender.blocking_send(Err(refusal.into()));
        }
    });
    Ok(beating(receiver))
}

/// Does `work` as `user`, on this thread.
pub(crate) fn enter<T>(
    agent: &Agent,
    user: &str,
    work: impl FnOnce(&Here) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let here = Here {
        root: Root::open(&agent.root)?,
        identity: agent.sessions.identity(user)?,
        users: Users::read(&agent.root),
    };
    let identity = &here.identity;
    let rights = FileRights::of(identity.uid, identity.gid, &identity.groups);
    let _rights =
        rights.map_err(|error| Refusal::setup("taking the user's rights", describe(&error)))?;
    work(&here)
}

impl Here {
    /// The path as it is seen from the root, without a slash at its ends: of what is relative, beneath the user's home.
    pub(crate) fn inside(&self, path: &[u8]) -> Result<Vec<u8>, Refusal> {
        let home = self.identity.home.as_bytes();
        let absolute = match path {
            [b'/', ..] => path.to_vec(),
            b"~" => home.to_vec(),
            [b'~', b'/', rest @ ..] => [home, rest].join(&b'/'),
            relative => [home, relative].join(&b'/'),
        };
        Ok(names(&absolute)?.join(&b'/'))
    }

    /// Makes the directories on the way to something, where they are missing.
    pub(crate) fn make_parents(&self, inside: &[u8], path: &[u8]) -> Result<(), Refusal> {
        let mode = rustix::fs::Mode::from_raw_mode(0o755);
        change::make_directories(self, inside, path, mode).map(drop)
    }

    /// Opens what is at `inside`; `path` is how the caller calls it.
    fn open(&self, inside: &[u8], flags: OFlags, path: &[u8]) -> Result<OwnedFd, Refusal> {
        self.root
            .at(inside, flags)
            .map_err(|error| failed("opening", path, error))
    }

    /// The directory that `path` lies in, and its name there: what it is itself is not looked at.
    fn entry(&self, path: &[u8]) -> Result<(OwnedFd, Vec<u8>), Refusal> {
        let inside = self.inside(path)?;
        let (parent, name) = split(&inside);
        if name.is_empty() {
            return Err(failed("changing the root", path, Errno::BUSY));
        }
        let parent = self.open(parent, OFlags::PATH | OFlags::DIRECTORY, path)?;
        Ok((parent, name.to_vec()))
    }

    /// Who `owner` is to files; none where it is empty.
    fn owner(&self, owner: &str) -> Result<Option<(u32, Option<u32>)>, Refusal> {
        if owner.is_empty() {
            return Ok(None);
        }
        // Without a group the file keeps its own, as chown(1) has it.
        let names_group = owner.contains(':');
        let identity = self.users.resolve(owner)?;
        Ok(Some((identity.uid, names_group.then_some(identity.gid))))
    }
}

/// A path about which something is wrong that the system has no error for.
fn wrong(problem: Problem, path: &[u8], detail: &str) -> Refusal {
    Refusal::Path {
        problem,
        path: String::from_utf8_lossy(path).into_owned(),
        detail: detail.to_owned(),
    }
}
