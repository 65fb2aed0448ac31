//! `banger kernel pull`: a kernel of a catalog.

use clap::Args;

use crate::context::Context;
use crate::failure::Failure;
use crate::long;
use crate::view;

/// Pull a kernel from a catalog
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the kernel's name. `banger catalog search` shows what there is.

Examples:
  banger kernel pull small
  banger kernel pull acme/small --name small-acme --default")]
pub(crate) struct Pull {
    /// The kernel's name in the catalog, or CATALOG/NAME
    kernel: String,
    /// Call it this here
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// VMs get it that name no kernel
    #[arg(long)]
    default: bool,
    /// Take the place of a kernel of the same name
    #[arg(long)]
    replace: bool,
}

impl Pull {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let mut pull = client.kernels().pull(self.kernel);
        if let Some(name) = self.name {
            pull = pull.name(name);
        }
        if self.default {
            pull = pull.make_default();
        }
        if self.replace {
            pull = pull.replace();
        }
        let pulled = long::follow(context, &client, |told| pull.progress(told)).await?;
        context.printer().changed(&view::Kernel::from(pulled))
    }
}
