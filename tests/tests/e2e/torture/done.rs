//! What all slots did.

use std::cell::{Cell, RefCell};

use super::execs::Mark;

/// What all slots did.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) sessions: Cell<u64>,
    pub(super) bytes: Cell<u64>,
    pub(super) lost: Cell<u64>,
    pub(super) returns: Cell<u64>,
    /// How often a writer was told that another one took its session.
    pub(super) robbed: Cell<u64>,
    /// How often one came back without taking it in turn, and was refused.
    pub(super) refused: Cell<u64>,
    pub(super) execs: Cell<u64>,
    /// Of those, how many went on over another connection.
    pub(super) resumed: Cell<u64>,
    /// Of how many nobody was told the end.
    pub(super) ended_by_error: Cell<u64>,
    /// What each exec was said to have done.
    pub(super) marks: RefCell<Vec<Mark>>,
    pub(super) uploads: Cell<u64>,
    pub(super) uploads_failed: Cell<u64>,
    pub(super) downloads: Cell<u64>,
    pub(super) downloads_failed: Cell<u64>,
}

impl Done {
    /// What is done on however slow a machine was done, or the case shows nothing.
    pub(super) fn check(&self) {
        for (count, what) in [
            (&self.robbed, "a writer was robbed of its session"),
            (&self.refused, "a robbed writer was refused"),
            (&self.execs, "an exec came to its end"),
            (&self.uploads, "a file went in"),
            (&self.downloads, "a file came out"),
        ] {
            assert_ne!(count.get(), 0, "not once {what}");
        }
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = Cell::get;
        let (sessions, returns) = (count(&self.sessions), count(&self.returns));
        let (bytes, lost) = (count(&self.bytes) >> 20, count(&self.lost) >> 20);
        let (robbed, refused) = (count(&self.robbed), count(&self.refused));
        let (execs, resumed) = (count(&self.execs), count(&self.resumed));
        let errors = count(&self.ended_by_error);
        let (uploads, downloads) = (count(&self.uploads), count(&self.downloads));
        let failed = (count(&self.uploads_failed), count(&self.downloads_failed));
        write!(
            f,
            "{sessions} sessions, {bytes} MiB read, {lost} MiB told as lost, {returns} returns, \
             {robbed} robbed and {refused} refused; {execs} execs, {resumed} resumed, {errors} ended by an error; \
             {uploads} uploads and {} failed, {downloads} downloads and {} failed",
            failed.0, failed.1
        )
    }
}

pub(super) fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}
