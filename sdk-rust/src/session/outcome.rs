//! What became of a command, in the seven words that every client of banger tells apart.

use banger_proto::v1;
use v1::exit::How;

use crate::error::{CodeRan, Error};

/// What became of a command; [`Outcome::reason`] is its stable word. `docs/sessions.md` has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing of it ran: the same call may be made again.
    NotStarted,
    /// It may have run, wholly or in part: its result is not known.
    MayHaveStarted,
    /// It ended by itself with this code, 0 to 255.
    Finished(i32),
    /// A signal of this number ended it.
    Signalled(i32),
    /// It ran longer than its timeout, and was killed with all its children.
    Deadline,
    /// The guest's kernel killed it for want of memory.
    OutOfMemory,
    /// It ran, and its VM ended before it.
    VmGone,
}

impl Outcome {
    /// What a result of [`Process::wait`](super::Process::wait) or of any call that starts a command comes to.
    #[must_use]
    pub fn of(result: &Result<v1::Exit, Error>) -> Self {
        match result {
            Ok(exit) => Self::from(exit),
            Err(error) if error.code_ran() == CodeRan::No => Self::NotStarted,
            Err(_) => Self::MayHaveStarted,
        }
    }

    /// The stable word, UPPER_SNAKE.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotStarted => "NOT_STARTED",
            Self::MayHaveStarted => "MAY_HAVE_STARTED",
            Self::Finished(0) => "FINISHED",
            Self::Finished(_) => "FINISHED_NON_ZERO",
            Self::Signalled(_) => "KILLED_BY_SIGNAL",
            Self::Deadline => "KILLED_BY_DEADLINE",
            Self::OutOfMemory => "KILLED_BY_OOM",
            Self::VmGone => "VM_GONE",
        }
    }

    /// Whether the same call may be made again and runs the command once.
    #[must_use]
    pub const fn is_safe_to_retry(self) -> bool {
        matches!(self, Self::NotStarted)
    }
}

impl From<&v1::Exit> for Outcome {
    fn from(exit: &v1::Exit) -> Self {
        match exit.how {
            Some(How::Code(code)) => Self::Finished(code),
            Some(How::Signal(signal)) => Self::Signalled(signal),
            Some(How::Deadline(_)) => Self::Deadline,
            Some(How::OutOfMemory(_)) => Self::OutOfMemory,
            Some(How::VmGone(_)) => Self::VmGone,
            None => Self::MayHaveStarted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_its_word() {
        let lost = |code_ran| {
            Err(Error::Disconnected {
                during: "Exec",
                code_ran,
                process: None,
                source: None,
            })
        };
        let exit = |how| Ok(v1::Exit { how: Some(how) });
        for (result, word) in [
            (lost(CodeRan::No), "NOT_STARTED"),
            (lost(CodeRan::Maybe), "MAY_HAVE_STARTED"),
            (lost(CodeRan::Yes), "MAY_HAVE_STARTED"),
            (exit(How::Code(0)), "FINISHED"),
            (exit(How::Code(3)), "FINISHED_NON_ZERO"),
            (exit(How::Signal(9)), "KILLED_BY_SIGNAL"),
            (exit(How::Deadline(true)), "KILLED_BY_DEADLINE"),
            (exit(How::OutOfMemory(true)), "KILLED_BY_OOM"),
            (exit(How::VmGone(true)), "VM_GONE"),
            (Ok(v1::Exit::default()), "MAY_HAVE_STARTED"),
        ] {
            let outcome = Outcome::of(&result);
            assert_eq!(outcome.reason(), word);
            assert_eq!(outcome.is_safe_to_retry(), word == "NOT_STARTED");
        }
    }
}
