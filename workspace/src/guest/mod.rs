//! The half that works in the VM, as one of its users and with the VM's own git.
//!
//! ```text
//! restore   snapshot ─► a tree beside the workspace ─► in its place by one rename
//! export    look ─► is it still so? ─► snapshot (commits by id, files as they are read) ─► is it still so?
//! status    look
//! ```
//! Whatever is done to the tree meanwhile, what is told is true of one instant, or a note says of what it is not.

mod content;
mod error;
mod export;
mod included;
mod index_file;
mod look;
mod notes;
mod restore;
mod send;
mod stage;
mod state;
mod status;
mod tally;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;

pub use error::WorkError;
pub use export::{Export, export};
pub use restore::{Answer, Restore, Restored, restore};
pub use stage::Former;
pub use status::{StatusRequest, status};

use crate::command::{Cancel, Git, Launcher};

/// Where a workspace is, and how git is run there.
#[derive(Debug, Clone)]
pub struct Place {
    /// Starts git, as the user whose workspace it is.
    pub launcher: Arc<dyn Launcher>,
    /// Ends what runs.
    pub cancel: Cancel,
    /// The absolute path of the tree, without links on the way to it. The directory that it lies in exists.
    pub path: PathBuf,
}

impl Place {
    fn git(&self, directory: &std::path::Path) -> Git {
        Git::at(Arc::clone(&self.launcher), self.cancel.clone(), directory)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests;
