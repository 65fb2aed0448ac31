//! `banger host`: the daemon and its machine.

use std::time::SystemTime;

use clap::{Args, Subcommand};
use futures::StreamExt as _;

use crate::context::Context;
use crate::failure::Failure;
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
  banger host audit --failed --output json | jq -r '.[].reason'")]
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
    /// At most this many
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
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
        let records = audit.list().take(self.limit);
        let printer = context.printer();
        printer.list(records, view::AuditRecord::from).await
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
