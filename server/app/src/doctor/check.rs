//! What a check is, and what became of it.

use std::time::Duration;

use banger_core::doctor::{Finding, Verdict};
use futures::future::BoxFuture;

use super::Ward;
use super::host::{Host, MendError};

/// How long a check may take that looks at files.
const FILES_LIMIT: Duration = Duration::from_secs(5);
/// How long a check may take that asks the daemon's services.
const DAEMON_LIMIT: Duration = Duration::from_secs(15);

/// What a check is about, in the order in which subjects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The program that runs VMs.
    Vmm,
    /// Processor and KVM.
    Kvm,
    /// What guests boot from.
    Guest,
    /// The state directory and the database.
    State,
    /// Memory, files, processes, groups of them.
    Limits,
    /// The host's kernel, clock and entropy.
    Host,
    /// What networks are made of.
    Network,
    /// The way to the daemon.
    Api,
    /// What no record owns.
    Leftovers,
}

impl Subject {
    /// The word that people and programs see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vmm => "vmm",
            Self::Kvm => "kvm",
            Self::Guest => "guest",
            Self::State => "state",
            Self::Limits => "limits",
            Self::Host => "host",
            Self::Network => "network",
            Self::Api => "api",
            Self::Leftovers => "leftovers",
        }
    }
}

/// How a check is carried out.
#[derive(Clone, Copy)]
pub(super) enum Probe {
    /// It reads files, and may block.
    Files(fn(&Host) -> Finding),
    /// It asks the daemon's services.
    Daemon(for<'w> fn(&'w Ward) -> BoxFuture<'w, Finding>),
}

/// How what it found is mended. The text says what was changed.
#[derive(Clone, Copy)]
pub(super) enum Mend {
    /// Not by a program.
    Never,
    /// By a change of files or of the kernel; it may block.
    Files(Right, fn(&Host) -> Result<String, MendError>),
    /// By the daemon's services.
    Daemon(for<'w> fn(&'w Ward) -> BoxFuture<'w, Result<String, MendError>>),
}

/// Who may change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// The daemon, whoever runs it.
    Daemon,
    /// Root.
    Root,
}

/// A check of this crate.
#[derive(Clone, Copy)]
pub(super) struct Check {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) deadline: Duration,
    pub(super) probe: Probe,
    pub(super) mend: Mend,
}

impl Check {
    /// A check of files.
    pub(super) const fn files(
        id: &'static str,
        title: &'static str,
        probe: fn(&Host) -> Finding,
    ) -> Self {
        Self {
            id,
            title,
            deadline: FILES_LIMIT,
            probe: Probe::Files(probe),
            mend: Mend::Never,
        }
    }

    /// A check that the daemon's services answer.
    pub(super) const fn daemon(
        id: &'static str,
        title: &'static str,
        probe: for<'w> fn(&'w Ward) -> BoxFuture<'w, Finding>,
    ) -> Self {
        Self {
            id,
            title,
            deadline: DAEMON_LIMIT,
            probe: Probe::Daemon(probe),
            mend: Mend::Never,
        }
    }

    pub(super) const fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub(super) const fn mended_by(
        mut self,
        right: Right,
        mend: fn(&Host) -> Result<String, MendError>,
    ) -> Self {
        self.mend = Mend::Files(right, mend);
        self
    }

    pub(super) const fn mended_by_daemon(
        mut self,
        mend: for<'w> fn(&'w Ward) -> BoxFuture<'w, Result<String, MendError>>,
    ) -> Self {
        self.mend = Mend::Daemon(mend);
        self
    }

    /// Whether this daemon can try to mend it.
    pub(super) fn is_mendable(&self, host: &Host) -> bool {
        match self.mend {
            Mend::Never => false,
            Mend::Files(Right::Root, _) => host.is_root,
            Mend::Files(Right::Daemon, _) | Mend::Daemon(_) => true,
        }
    }
}

/// How a check came out, with what was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, and worse than it could, or not for long.
    Warning,
    /// Something does not work, or data is in danger.
    Problem,
    /// There was nothing to look at, or no way to look.
    Skipped,
    /// It was a warning or a problem, and was mended.
    Fixed,
}

impl From<Verdict> for Status {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Ok => Self::Ok,
            Verdict::Warning => Self::Warning,
            Verdict::Problem => Self::Problem,
            Verdict::Skipped => Self::Skipped,
        }
    }
}

/// A check that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its place among all checks.
    pub position: usize,
    /// Stable, for programs.
    pub id: &'static str,
    /// What it is about.
    pub subject: Subject,
    /// What is asserted.
    pub title: &'static str,
    /// How it came out.
    pub status: Status,
    /// What is there, why that is bad, what to do.
    pub finding: Finding,
    /// Whether a request to mend would try it.
    pub fixable: bool,
    /// What was changed; empty where nothing was.
    pub changed: String,
    /// How long it took.
    pub took: Duration,
}

/// How many checks came out how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// As it should be.
    pub ok: usize,
    /// Worse than it could be.
    pub warning: usize,
    /// Not working.
    pub problem: usize,
    /// Not looked at.
    pub skipped: usize,
    /// Mended.
    pub fixed: usize,
    /// All of it.
    pub took: Duration,
}

impl Summary {
    pub(super) fn count(&mut self, status: Status) {
        let counter = match status {
            Status::Ok => &mut self.ok,
            Status::Warning => &mut self.warning,
            Status::Problem => &mut self.problem,
            Status::Skipped => &mut self.skipped,
            Status::Fixed => &mut self.fixed,
        };
        *counter += 1;
    }
}
