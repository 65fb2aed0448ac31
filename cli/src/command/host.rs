//! `banger host`: the daemon and its machine.

use std::time::SystemTime;

use banger_sdk::types;
use clap::{Args, Subcommand};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::args::Format;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, Row as _};
use crate::{value, view};

/// Ask about the host
#[derive(Debug, Subcommand)]
pub(crate) enum Host {
    /// Show what the host is and can do
    #[command(after_help = "Examples:\n  banger host info\n  banger host info --output json")]
    Info,
    /// Show what VMs were promised of the host, what they take, and the limits
    #[command(after_help = "Examples:\n  banger host usage\n  banger host usage --output json")]
    Usage,
    Audit(Audit),
}

/// Show who changed what, when, and how it ended, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Every call that changes something, or was to, has one record, written at its end; what was asked for in detail is never \
kept. For admins.

Examples:
  banger host audit
  banger host audit --owner cert:ci --since 1h
  banger host audit --failed --output json | jq -r '.[].reason'
  banger host audit --follow --failed")]
pub(crate) struct Audit {
    /// Only calls of this caller, such as uid:1000 or cert:ci
    #[arg(long)]
    owner: Option<String>,
    /// Only calls since this moment, or this long ago: 2026-01-31T12:00:00Z, 10m
    #[arg(long, value_name = "TIME", value_parser = value::since)]
    since: Option<SystemTime>,
    /// Only calls of this method, such as banger.v1.VmService/StopVm
    #[arg(long)]
    method: Option<String>,
    /// Only calls that did not succeed
    #[arg(long)]
    failed: bool,
    /// At most this many; with --follow, at most this many of those that are there already
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    /// Go on with what comes: oldest first, and in JSON a line for each
    #[arg(short, long)]
    follow: bool,
}

impl Audit {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut audit = context.client().await?.audit();
        if let Some(owner) = self.owner {
            audit = audit.owner(owner);
        }
        if let Some(since) = self.since {
            audit = audit.since(since);
        }
        if let Some(method) = self.method {
            audit = audit.method(method);
        }
        if self.failed {
            audit = audit.failed();
        }
        if self.follow {
            return follow(context, audit, self.limit).await;
        }
        let records = audit.list().take(self.limit);
        let printer = context.printer();
        printer.list(records, view::AuditRecord::from).await
    }
}

/// Prints the newest `limit` records that there are, and each that comes.
async fn follow(context: &Context, audit: banger_sdk::Audit, limit: usize) -> Result<u8, Failure> {
    let newest = audit.clone().list().take(limit);
    let mut kept: Vec<types::AuditRecord> = newest.try_collect().await?;
    // Where none is wanted of what there is, what comes begins now.
    let after = match kept.first() {
        Some(record) => Some(record.sequence),
        None if limit == 0 => None,
        None => Some(0),
    };
    let mut coming = audit.follow(after);
    kept.reverse();
    for record in kept {
        show(context, record)?;
    }
    while let Some(record) = coming.next().await {
        show(context, record?)?;
    }
    Ok(0)
}

fn show(context: &Context, record: types::AuditRecord) -> Result<(), Failure> {
    let record = view::AuditRecord::from(record);
    match (context.format, context.quiet) {
        (_, true) => output::lines([record.name()]),
        (Format::Json, false) => output::json_line(&record),
        (Format::Table, false) => output::lines([record.line()]),
    }
}

impl Host {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Info => {
                let client = context.client().await?;
                let host = client.host();
                let socket = host
                    .path()
                    .map_or_else(|| host.to_string(), |path| path.display().to_string());
                context
                    .printer()
                    .one(&view::HostInfo::new(client.host_info().await?, socket))
            }
            Self::Usage => {
                let client = context.client().await?;
                let usage = view::HostUsage::from(client.host_usage().await?);
                usage.print(context.printer())
            }
            Self::Audit(audit) => audit.run(context).await,
        }
    }
}
