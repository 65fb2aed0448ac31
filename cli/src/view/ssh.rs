//! A block of a configuration of ssh.

use std::collections::BTreeMap;

use serde::Serialize;

/// Options for hosts of one pattern.
#[derive(Debug, Serialize)]
pub(crate) struct SshConfigItem {
    host: String,
    options: BTreeMap<&'static str, String>,
    #[serde(skip)]
    in_order: Vec<&'static str>,
}

impl SshConfigItem {
    pub(crate) fn new(host: String, options: Vec<(&'static str, String)>) -> Self {
        Self {
            host,
            in_order: options.iter().map(|(name, _)| *name).collect(),
            options: options.into_iter().collect(),
        }
    }

    /// As ssh_config(5) has it.
    pub(crate) fn lines(&self) -> Vec<String> {
        let head = format!("Host {}", self.host);
        let options = self.in_order.iter();
        let options = options.map(|name| format!("    {name} {}", self.options[name]));
        std::iter::once(head).chain(options).collect()
    }
}
