//! Workspaces, for somebody who uses the guest: trees with git repositories that the host carries in and out.
//!
//! ```text
//! call ─► a place among the calls ─► a thread with the user's rights ─► banger-workspace ─► the guest's git, as the user
//! ```
//! The agent brings no git. What is done to the tree, and in which order, is [`banger_workspace::guest`]'s.

mod launcher;
pub(crate) mod service;

use std::error::Error;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use banger_workspace::command::Cancel;
use banger_workspace::guest::{Place, WorkError};
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::sync::Semaphore;

use self::launcher::UserLauncher;
use crate::agent::Agent;
use crate::file::Here;
use crate::refusal::Refusal;
use crate::tree::{by_descriptor, failed, split};

/// Calls about workspaces that go on at once, each with a thread and a git or two.
pub(crate) const CALLS_MAX: usize = 8;

/// The places among the calls about workspaces.
#[derive(Debug)]
pub struct WorkspaceCalls(Arc<Semaphore>);

impl Default for WorkspaceCalls {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CALLS_MAX)))
    }
}

/// Whether what is missing on the way to a workspace is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parents {
    /// It is made.
    Made,
    /// It is not.
    Left,
}

/// Where the workspace at `path` is, and how git is run there.
fn place(
    agent: &Arc<Agent>,
    here: &Here,
    path: &[u8],
    parents: Parents,
    cancel: &Cancel,
) -> Result<Place, Refusal> {
    let inside = here.inside(path)?;
    let (parent, name) = split(&inside);
    if name.is_empty() {
        return Err(failed("making a workspace of", path, Errno::BUSY));
    }
    // A link to a directory is followed: the workspace is where it leads.
    let found = match here.root.at(&inside, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(found) => real(&found, path)?,
        Err(_) => {
            if parents == Parents::Made {
                here.make_parents(parent, path)?;
            }
            let parent = here.root.at(parent, OFlags::PATH | OFlags::DIRECTORY);
            let parent = parent.map_err(|error| failed("entering", path, error))?;
            real(&parent, path)?.join(OsStr::from_bytes(name))
        }
    };
    Ok(Place {
        launcher: Arc::new(UserLauncher::new(agent, here.identity.clone())),
        cancel: cancel.clone(),
        path: found,
    })
}

/// The path of an open directory, without links.
fn real(directory: &rustix::fd::OwnedFd, path: &[u8]) -> Result<PathBuf, Refusal> {
    std::fs::read_link(by_descriptor(directory)).map_err(|error| failed("looking for", path, error))
}

/// Why a call about a workspace failed, as the host is told.
fn refusal(error: &WorkError, path: &[u8]) -> Refusal {
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        detail = format!("{detail}: {error}");
        cause = error.source();
    }
    Refusal::Workspace {
        reason: error.reason(),
        path: String::from_utf8_lossy(path).into_owned(),
        detail,
    }
}
