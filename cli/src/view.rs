//! How resources look in JSON and in tables. These shapes are what scripts read: fields are added, never
//! renamed or removed.

mod audit;
mod catalog;
mod certificate;
pub(crate) mod doctor;
mod event;
mod file;
mod forward;
mod host;
mod image;
mod kernel;
mod session;
mod ssh;
mod stats;
mod usage;
mod vm;
mod volume;
mod workspace;

use std::time::Duration;

use banger_sdk::types;
use indicatif::{HumanBytes, HumanDuration};
use jiff::Timestamp;
use serde::Serialize;

pub(crate) use audit::AuditRecord;
pub(crate) use catalog::{BuiltCatalog, Catalog, CatalogEntry};
pub(crate) use certificate::{Authority, Certificate, Issued};
pub(crate) use event::EventItem;
pub(crate) use file::{Copied, File, FileChange, Omissions, shown};
pub(crate) use forward::ForwardItem;
pub(crate) use host::HostUsage;
pub(crate) use image::Image;
pub(crate) use kernel::Kernel;
pub(crate) use session::{Exit, Session, StreamItem};
pub(crate) use ssh::SshConfigItem;
pub(crate) use stats::{Port, VmStats};
pub(crate) use usage::{ImagesUsage, Pruned};
pub(crate) use vm::{HostInfo, Operation, Stage, Vm};
pub(crate) use volume::Volume;
pub(crate) use workspace::{Applied, AppliedFiles, Exported, PreparedWorkspace, WorkspaceStatus};

use banger_sdk::Error;

/// An error inside a resource.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fault {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) remedy: Option<String>,
}

impl Fault {
    fn of(status: &types::Status) -> Self {
        let error = Error::from_rpc(status);
        Self {
            reason: error.reason().to_owned(),
            message: error.to_string(),
            remedy: error.remedy(),
        }
    }

    fn text(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{} ({remedy})", self.message),
            None => self.message.clone(),
        }
    }
}

/// A time of the API; `None` if absent or impossible.
fn timestamp(time: Option<types::Timestamp>) -> Option<Timestamp> {
    time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
}

/// How long ago, in words; empty if not known.
fn age(time: Option<Timestamp>) -> String {
    let ago = |time: Timestamp| Duration::try_from(Timestamp::now().duration_since(time)).ok();
    match time.map(ago) {
        Some(Some(ago)) => format!("{} ago", HumanDuration(ago)),
        Some(None) => "just now".to_owned(),
        None => String::new(),
    }
}

/// A number of bytes, in words.
fn bytes(count: i64) -> String {
    HumanBytes(u64::try_from(count).unwrap_or(0)).to_string()
}

/// The last word of an enum value of the API, in lower case: `STATE_RUNNING` without `STATE_`.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_ascii_lowercase()
        .replace('_', "-")
}

/// `key=value` of each, in order, separated by commas.
fn pairs(map: &std::collections::BTreeMap<String, String>) -> String {
    map.iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}
