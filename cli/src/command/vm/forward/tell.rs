//! What is told while connections are forwarded: to programs all of it as lines of JSON on standard output; to people
//! where it listens there, and everything else on standard error.

use std::io::Write;
use std::net::SocketAddr;

use banger_sdk::types::vm::State;
use banger_sdk::{Error, TunnelTarget};

use crate::args::Format;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::view::ForwardItem;

/// Tells.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    format: Format,
    quiet: bool,
    vm: String,
}

impl Teller {
    pub(super) const fn new(context: &Context, vm: String) -> Self {
        Self {
            format: context.format,
            quiet: context.quiet,
            vm,
        }
    }

    /// The VM's name.
    pub(super) fn vm_name(&self) -> &str {
        &self.vm
    }

    /// Connections to `address` go to `target` from now on.
    pub(super) fn listening(
        &self,
        address: SocketAddr,
        target: &TunnelTarget,
    ) -> Result<(), Failure> {
        if self.quiet {
            return output::lines([address.to_string()]);
        }
        let item = ForwardItem::listening(address, target);
        match self.format {
            Format::Json => output::json_line(&item),
            Format::Table => output::lines([item.text()]),
        }
    }

    /// The VM has stopped, or runs again.
    pub(super) fn vm(&self, state: State) -> Result<(), Failure> {
        self.note(&ForwardItem::vm(&self.vm, state))
    }

    /// A connection of `peer` came to nothing.
    pub(super) fn failed(
        &self,
        peer: SocketAddr,
        target: &TunnelTarget,
        error: &Error,
    ) -> Result<(), Failure> {
        self.note(&ForwardItem::failed(peer, target, error))
    }

    fn note(&self, item: &ForwardItem) -> Result<(), Failure> {
        match self.format {
            _ if self.quiet => {}
            Format::Json => return output::json_line(item),
            Format::Table => {
                // A note that cannot be told is no fault.
                let _ = writeln!(std::io::stderr(), "banger: {}", item.text());
            }
        }
        Ok(())
    }
}
