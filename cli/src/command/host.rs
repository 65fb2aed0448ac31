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
}

impl Host {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Info => {
                let client = context.client().await?;
                let socket = client.socket().display().to_string();
                context
                    .printer()
                    .one(&view::HostInfo::new(client.host_info().await?, socket))
            }
        }
    }
}
