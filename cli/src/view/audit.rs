//! The audit log.

use banger_sdk::{Code, types};
use jiff::Timestamp;
use serde::Serialize;

use super::timestamp;
use crate::output::Row;

/// A call that changed something, or was to.
#[derive(Debug, Serialize)]
pub(crate) struct AuditRecord {
    sequence: i64,
    time: Option<Timestamp>,
    duration_ms: i64,
    owner: String,
    role: String,
    via: String,
    method: String,
    object: String,
    request_id: String,
    code: i32,
    reason: String,
    lost_count: i64,
}

impl From<types::AuditRecord> for AuditRecord {
    fn from(record: types::AuditRecord) -> Self {
        let duration = record.duration.unwrap_or_default();
        let seconds = duration.seconds.saturating_mul(1000);
        Self {
            sequence: record.sequence,
            time: timestamp(record.time),
            duration_ms: seconds.saturating_add(i64::from(duration.nanos) / 1_000_000),
            owner: record.owner,
            role: record.role,
            via: record.via,
            method: record.method,
            object: record.object,
            request_id: record.request_id,
            code: record.code,
            reason: record.reason,
            lost_count: record.lost_count,
        }
    }
}

impl AuditRecord {
    /// How it ended: `ok`, its reason, or its code in words; `BEGUN` where it did not.
    fn outcome(&self) -> String {
        match (self.code, self.reason.as_str()) {
            (0, "") => "ok".to_owned(),
            (_, "") => Code::from(self.code).to_string(),
            (_, reason) => reason.to_owned(),
        }
    }

    /// The record as one line, for whoever follows the log.
    pub(crate) fn line(&self) -> String {
        self.cells().join("  ")
    }

    fn time(&self) -> String {
        self.time
            .map(|time| format!("{time:.0}"))
            .unwrap_or_default()
    }

    fn call(&self) -> &str {
        self.method.trim_start_matches("banger.v1.")
    }
}

impl Row for AuditRecord {
    const HEADINGS: &'static [&'static str] =
        &["TIME", "OWNER", "ROLE", "CALL", "OBJECT", "OUTCOME", "TOOK"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.time(),
            self.owner.clone(),
            self.role.clone(),
            self.call().to_owned(),
            self.object.clone(),
            self.outcome(),
            format!("{} ms", self.duration_ms),
        ]
    }

    fn name(&self) -> String {
        self.sequence.to_string()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("Time", self.time()),
            ("Owner", self.owner.clone()),
            ("Role", self.role.clone()),
            ("Via", self.via.clone()),
            ("Call", self.call().to_owned()),
            ("Object", self.object.clone()),
            ("Request id", self.request_id.clone()),
            ("Outcome", self.outcome()),
        ]
    }
}
