//! Operations: long work that outlives the call that began it, with stages and progress.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Failure, OperationId, Owner, Timestamp};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// An image from a registry.
    PullImage,
    /// An image from an archive.
    RegisterImage,
    /// A kernel from a file or package.
    ImportKernel,
    /// A VM from nothing to running.
    CreateVm,
    /// A stopped VM to running.
    StartVm,
    /// A kernel from a catalog.
    PullKernel,
    /// An image by a recipe.
    BuildImage,
    /// A volume, empty or with another's content.
    CreateVolume,
}

impl OperationKind {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 8] = [
        Self::PullImage,
        Self::RegisterImage,
        Self::ImportKernel,
        Self::CreateVm,
        Self::StartVm,
        Self::PullKernel,
        Self::BuildImage,
        Self::CreateVolume,
    ];

    /// The stored word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PullImage => "pull_image",
            Self::RegisterImage => "register_image",
            Self::ImportKernel => "import_kernel",
            Self::CreateVm => "create_vm",
            Self::StartVm => "start_vm",
            Self::PullKernel => "pull_kernel",
            Self::BuildImage => "build_image",
            Self::CreateVolume => "create_volume",
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OperationKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| text.to_owned())
    }
}

/// Where an operation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum OperationState {
    /// Work is going on.
    Running,
    /// Done; the resource exists.
    Succeeded,
    /// Undone; nothing of it is left.
    Failed {
        /// Why, and what to do.
        failure: Failure,
    },
}

impl OperationState {
    /// Whether it will never change again.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Running)
    }
}

/// One step of an operation, with its times and what it moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Which step.
    pub key: StageKey,
    /// When it began.
    pub start_time: Timestamp,
    /// When it ended; absent while it runs.
    pub end_time: Option<Timestamp>,
    /// Bytes moved so far; 0 for steps that move none.
    pub done_bytes: u64,
    /// Bytes to move in all, where known.
    pub total_bytes: Option<u64>,
}

/// A step's name, and the item it works on where one step has many (a layer).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StageKey {
    /// A lower-case word: `resolve`, `fetch`, `disks`, `boot`, …
    pub name: String,
    /// e.g. a layer's short digest; empty where the step has one item only.
    pub item: String,
}

impl StageKey {
    /// A step with one item only.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            item: String::new(),
        }
    }

    /// One of a step's items.
    #[must_use]
    pub fn item(name: &str, item: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            item: item.into(),
        }
    }
}

/// An operation as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Made when the work was accepted.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// Who asked for it.
    pub owner: Owner,
    /// The resource it makes or changes: an id, or a reference while there is no id yet.
    pub target: String,
    /// Where it is.
    pub state: OperationState,
    /// In order of beginning.
    pub stages: Vec<Stage>,
    /// When it was accepted.
    pub create_time: Timestamp,
    /// When it ended.
    pub end_time: Option<Timestamp>,
}

/// Where long work tells how far it is. Cheap to call; never blocks; may be called from any thread.
pub trait Progress: Send + Sync {
    /// A step begins. A second call for a key that runs changes its total only.
    fn start(&self, key: &StageKey, total_bytes: Option<u64>);

    /// A step moved `delta_bytes` more.
    fn advance(&self, key: &StageKey, delta_bytes: u64);

    /// A step ended well. A step that failed is ended by the operation's failure.
    fn finish(&self, key: &StageKey);
}

/// Progress that nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn start(&self, _: &StageKey, _: Option<u64>) {}
    fn advance(&self, _: &StageKey, _: u64) {}
    fn finish(&self, _: &StageKey) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_survives_text() {
        for kind in OperationKind::ALL {
            assert_eq!(kind.as_str().parse::<OperationKind>().unwrap(), kind);
        }
    }
}
