//! What a kernel that comes in is called, and what it is used for.

use banger_sdk::ImportKernel;
use clap::Args;

/// How to keep a kernel.
#[derive(Debug, Args)]
pub(crate) struct Keep {
    /// Call it this instead of by its bundle's name or its release
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// VMs get it that name no kernel
    #[arg(long, visible_alias = "make-default")]
    default: bool,
    /// Take the place of a kernel of the same name
    #[arg(long)]
    replace: bool,
}

impl Keep {
    /// The import, as it was asked for.
    pub(super) fn apply(self, mut import: ImportKernel) -> ImportKernel {
        if let Some(name) = self.name {
            import = import.name(name);
        }
        if self.default {
            import = import.make_default();
        }
        if self.replace {
            import = import.replace();
        }
        import
    }
}
