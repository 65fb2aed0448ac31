//! Events: what happens on a host, told in order.

use crate::operation::OperationKind;
use crate::vm::{Phase, Vm};
use crate::{ImageId, KernelId, Name, OperationId, Owner, Scope, Timestamp, VmId};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts all events since the daemon's start, from 1.
    pub sequence: u64,
    /// When it happened.
    pub time: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// To what.
    pub subject: Subject,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// A VM is being made.
    VmCreated,
    /// A VM is in another state.
    VmStateChanged,
    /// What a VM is made of was changed.
    VmUpdated,
    /// A VM is gone.
    VmDeleted,
    /// Long work began.
    OperationBegun,
    /// Long work ended.
    OperationEnded,
    /// An image is there.
    ImageAdded,
    /// An image is gone.
    ImageRemoved,
    /// A kernel is there.
    KernelAdded,
    /// A kernel is gone.
    KernelRemoved,
}

/// To what it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A VM.
    Vm {
        /// Which.
        id: VmId,
        /// Its name.
        name: Name,
        /// Whose it is.
        owner: Owner,
        /// Where it was; absent for one that is new.
        from: Option<Phase>,
        /// Where it is; absent for one that is gone.
        to: Option<Phase>,
        /// Why; empty where the state says all.
        reason: String,
    },
    /// An operation.
    Operation {
        /// Which.
        id: OperationId,
        /// What it does.
        kind: OperationKind,
        /// Who asked for it.
        owner: Owner,
        /// What it makes or changes.
        target: String,
        /// How it ended, where it has: well, or with the reason of its failure.
        end: Option<Result<(), String>>,
    },
    /// An image.
    Image {
        /// Which.
        id: ImageId,
        /// A reference of it; empty where it has none.
        reference: String,
    },
    /// A kernel.
    Kernel {
        /// Which.
        id: KernelId,
        /// Its name.
        name: Name,
    },
}

impl Subject {
    /// A VM that went from one place to another.
    #[must_use]
    pub fn vm(vm: &Vm, from: Option<Phase>, to: Option<Phase>, reason: impl Into<String>) -> Self {
        Self::Vm {
            id: vm.id,
            name: vm.spec.name.clone(),
            owner: vm.owner.clone(),
            from,
            to,
            reason: reason.into(),
        }
    }

    /// Whether a caller with this scope knows of it. Images and kernels are everybody's.
    #[must_use]
    pub fn is_seen(&self, scope: &Scope) -> bool {
        match self {
            Self::Vm { owner, .. } | Self::Operation { owner, .. } => scope.sees(owner),
            Self::Image { .. } | Self::Kernel { .. } => true,
        }
    }

    /// Whether it is this VM, or work on it.
    #[must_use]
    pub fn concerns(&self, vm: VmId) -> bool {
        match self {
            Self::Vm { id, .. } => *id == vm,
            Self::Operation { target, .. } => target.parse() == Ok(vm),
            Self::Image { .. } | Self::Kernel { .. } => false,
        }
    }
}

/// A VM in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSummary {
    /// Which.
    pub id: VmId,
    /// Its name.
    pub name: Name,
    /// Whose it is.
    pub owner: Owner,
    /// Where it is.
    pub phase: Phase,
}
