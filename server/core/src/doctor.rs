//! What a look at the host finds: the words that checks, drivers and clients of a diagnosis share.

use std::time::Duration;

use futures::future::BoxFuture;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and worse than it could, or not for long.
    Warning,
    /// Something does not work, or data is in danger.
    Problem,
    /// There was nothing to look at here, or no way to look.
    Skipped,
}

impl Verdict {
    /// Whether there is something to do about it.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Warning | Self::Problem)
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it came out.
    pub verdict: Verdict,
    /// What is there, in a few words; for a check that was skipped, why it was.
    pub found: String,
    /// Why that is bad, and where it comes from; empty where nothing is.
    pub cause: String,
    /// What to do about it; empty where nothing is to be done.
    pub remedy: String,
    /// The remedy as a command for a shell; empty where there is none.
    pub command: String,
}

impl Finding {
    fn new(verdict: Verdict, found: String, cause: String) -> Self {
        Self {
            verdict,
            found,
            cause,
            remedy: String::new(),
            command: String::new(),
        }
    }

    /// As it should be.
    pub fn ok(found: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, found.into(), String::new())
    }

    /// Not as it should be, and `cause` says why that is worse.
    pub fn warning(found: impl Into<String>, cause: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, found.into(), cause.into())
    }

    /// Something does not work, and `cause` says why.
    pub fn problem(found: impl Into<String>, cause: impl Into<String>) -> Self {
        Self::new(Verdict::Problem, found.into(), cause.into())
    }

    /// Not looked at, and why.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self::new(Verdict::Skipped, why.into(), String::new())
    }

    /// With what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// With the command that does it.
    #[must_use]
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.command = command.into();
        self
    }
}

/// One check of a driver. Nothing happens before `finding` is awaited; it is safe to drop.
pub struct Diagnosis<'a> {
    /// Stable, for programs: words in capitals, e.g. `QEMU_VERSION`.
    pub id: &'static str,
    /// What is asserted, for people.
    pub title: &'static str,
    /// How long it may take; whoever asks enforces it.
    pub deadline: Duration,
    /// What is found.
    pub finding: BoxFuture<'a, Finding>,
}

impl std::fmt::Debug for Diagnosis<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Diagnosis")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
