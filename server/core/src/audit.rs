//! The audit log: who changed what, when, and how it ended. Never what was asked for in detail: no arguments, contents
//! or credentials.

use std::time::Duration;

use crate::{Owner, Role, Timestamp};

/// One call that changed something, or was to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its place in the log, from 1; the store gives it. Never given twice.
    pub sequence: u64,
    /// When the call came.
    pub time: Timestamp,
    /// How long it took, to the end of its answer.
    pub duration: Duration,
    /// Who called.
    pub owner: Owner,
    /// In which role.
    pub role: Role,
    /// By what the caller was known.
    pub via: String,
    /// The method, `package.Service/Method`.
    pub method: String,
    /// What it was about, as the caller named it: at most 256 bytes, empty for nothing and for calls that were refused
    /// before they were read.
    pub object: String,
    /// The caller's id for the request; empty without one.
    pub request_id: String,
    /// The code of gRPC that it ended with; 0 is success, 1 that the caller hung up.
    pub code: i32,
    /// The stable reason of its failure; empty where it succeeded. `BEGUN`, with the code 0, in the record of a stream's
    /// beginning.
    pub reason: String,
    /// Records that were lost before this one, because they came faster than they could be written.
    pub lost: u64,
}

/// Which records are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// Of this caller.
    pub owner: Option<Owner>,
    /// Of calls that came at this time or later.
    pub since: Option<Timestamp>,
    /// Of this method.
    pub method: Option<String>,
    /// Only of calls that did not succeed.
    pub failed: bool,
}
