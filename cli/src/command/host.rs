//! `banger host`: the daemon and its machine.

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Failure;
use crate::view;

/// Ask about the host
#[derive(Debug, Subcommand)]
pub(crate) enum Host {
    /// Show what the host is and can do
    #[command(after_help = "Examples:\n  banger host info\n  banger host info --output json")]
    Info,
    /// Show what VMs were promised of the host, what they take, and the limits
    #[command(after_help = "Examples:\n  banger host usage\n  banger host usage --output json")]
    Usage,
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
        }
    }
}
