//! A kernel's configuration: the text that `make` had, from inside the kernel or from beside it.
//!
//! Inside (`CONFIG_IKCONFIG`) it is a gzip stream behind a marker (Linux `kernel/configs.c`); beside it is
//! `/boot/config-<release>`, `/proc/config.gz`, or the build's `.config`.

use std::collections::HashMap;
use std::io::Read;

use memchr::memmem;

use super::KernelError;
use crate::limits::{KERNEL_CONFIG_BYTES_MAX, KERNEL_OPTIONS_MAX};

/// What stands before the configuration inside a kernel.
const MARKER: &[u8] = b"IKCFG_ST";
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const PREFIX: &str = "CONFIG_";
/// What every configuration of a kernel that banger can boot says.
const ARCHITECTURE: &str = "CONFIG_X86_64";

/// What an option is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// `y`, or a number or text.
    BuiltIn,
    /// `m`.
    Module,
    /// Not set, or not known to this kernel.
    Off,
}

/// The options of one kernel.
#[derive(Debug, Default)]
pub(super) struct KernelConfig {
    settings: HashMap<String, Setting>,
}

impl KernelConfig {
    /// The configuration inside an uncompressed kernel, if there is one.
    pub(super) fn embedded(vmlinux: &[u8]) -> Result<Option<Self>, KernelError> {
        const ORIGIN: &str = "inside the kernel";
        let found = memmem::find_iter(vmlinux, MARKER)
            .map(|at| &vmlinux[at + MARKER.len()..])
            .find(|rest| rest.starts_with(GZIP_MAGIC));
        found
            .map(|packed| Self::parse(&inflate(packed, ORIGIN)?, ORIGIN))
            .transpose()
    }

    /// A configuration file as it is, or compressed with gzip.
    pub(super) fn file(bytes: &[u8], origin: &str) -> Result<Self, KernelError> {
        if bytes.starts_with(GZIP_MAGIC) {
            return Self::parse(&inflate(bytes, origin)?, origin);
        }
        Self::parse(bytes, origin)
    }

    fn parse(text: &[u8], origin: &str) -> Result<Self, KernelError> {
        let bad = |detail: String| KernelError::BadConfig {
            origin: origin.to_owned(),
            detail,
        };
        if text.len() as u64 > KERNEL_CONFIG_BYTES_MAX {
            return Err(bad(format!(
                "it has more than {KERNEL_CONFIG_BYTES_MAX} bytes"
            )));
        }
        let text = std::str::from_utf8(text).map_err(|_| bad("it is no text".into()))?;
        let mut settings = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, setting) =
                option(line).ok_or_else(|| bad(format!("its line {} is no option", number + 1)))?;
            settings.insert(name.to_owned(), setting);
            if settings.len() > KERNEL_OPTIONS_MAX {
                return Err(bad(format!(
                    "it has more than {KERNEL_OPTIONS_MAX} options"
                )));
            }
        }
        let config = Self { settings };
        if config.setting(ARCHITECTURE) != Setting::BuiltIn {
            return Err(bad("it is not that of a kernel for x86-64".into()));
        }
        Ok(config)
    }

    /// What `option` is set to.
    pub(super) fn setting(&self, option: &str) -> Setting {
        self.settings.get(option).copied().unwrap_or(Setting::Off)
    }
}

/// A line `CONFIG_NAME=value`.
fn option(line: &str) -> Option<(&str, Setting)> {
    let (name, value) = line.split_once('=')?;
    let word = name.strip_prefix(PREFIX)?;
    let is_name = !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let setting = match value {
        "" => return None,
        "n" => Setting::Off,
        "m" => Setting::Module,
        _ => Setting::BuiltIn,
    };
    is_name.then_some((name, setting))
}

fn inflate(packed: &[u8], origin: &str) -> Result<Vec<u8>, KernelError> {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(packed)
        .take(KERNEL_CONFIG_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| KernelError::BadConfig {
            origin: origin.to_owned(),
            detail: format!("its compression is damaged: {error}"),
        })?;
    Ok(text)
}
