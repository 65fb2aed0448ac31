//! The options of the guest's kernel: a part of a `.config`, every line of which must hold in the end.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::BuildError;

/// What a guest's kernel is built with, unless somebody says otherwise.
pub(super) const BUILT_IN: &str = include_str!("../../../../../deploy/kernel/guest.config");

const UNSET: &str = "n";

/// Options, and what they are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    text: String,
    /// By name; `n` for what is not to be set.
    wanted: BTreeMap<String, String>,
}

impl Options {
    /// Those of a file, or the built-in ones.
    pub(super) fn load(path: Option<&Path>) -> Result<Self, BuildError> {
        let Some(path) = path else {
            return Self::parse(BUILT_IN.to_owned());
        };
        let text = std::fs::read_to_string(path).map_err(|source| BuildError::ReadOptions {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(text)
    }

    fn parse(text: String) -> Result<Self, BuildError> {
        let mut wanted = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some((name, value)) = setting(line) {
                wanted.insert(name.to_owned(), value.to_owned());
            } else if !line.is_empty() && !line.starts_with('#') {
                return Err(BuildError::BadOption {
                    line: index + 1,
                    text: line.chars().take(80).collect(),
                });
            }
        }
        Ok(Self { text, wanted })
    }

    /// As `make` reads them.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether any of these is wanted.
    pub(super) fn want_any(&self, names: &[&str]) -> bool {
        let is_on = |name: &&str| self.wanted.get(*name).is_some_and(|value| value != UNSET);
        names.iter().any(is_on)
    }

    /// Sees that the configuration that `make` made of them still has all of them.
    pub(super) fn check(&self, config: &str) -> Result<(), BuildError> {
        let made: BTreeMap<&str, &str> = config
            .lines()
            .filter_map(|line| setting(line.trim()))
            .collect();
        let lost: Vec<String> = self
            .wanted
            .iter()
            .filter(|(name, value)| *made.get(name.as_str()).unwrap_or(&UNSET) != value.as_str())
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if lost.is_empty() {
            Ok(())
        } else {
            Err(BuildError::OptionsLost { lost })
        }
    }
}

/// `CONFIG_A=y`, or `# CONFIG_A is not set`.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (name, value) = match line.strip_prefix("# ") {
        Some(rest) => (rest.strip_suffix(" is not set")?, UNSET),
        None => line.split_once('=')?,
    };
    let word = name.strip_prefix("CONFIG_")?;
    let is_name = !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_name && !value.is_empty()).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        Options::parse(text.to_owned()).unwrap()
    }

    #[test]
    fn the_built_in_options_ask_for_all_that_a_guest_needs() {
        let options = options(BUILT_IN);
        for name in [
            "PVH",
            "BLK_DEV_INITRD",
            "ACPI",
            "PCI",
            "VIRTIO_MMIO",
            "VIRTIO_BLK",
            "VIRTIO_NET",
            "VIRTIO_CONSOLE",
            "VIRTIO_VSOCKETS",
            "VIRTIO_MMIO_CMDLINE_DEVICES",
            "EXT4_FS",
            "OVERLAY_FS",
            "DEVTMPFS",
            "TMPFS",
            "UNIX",
            "CGROUPS",
            "SERIAL_8250_CONSOLE",
            "HW_RANDOM_VIRTIO",
            "IKCONFIG",
        ] {
            let name = format!("CONFIG_{name}");
            assert_eq!(
                options.wanted.get(&name).map(String::as_str),
                Some("y"),
                "{name}"
            );
        }
        assert_eq!(options.wanted["CONFIG_MODULES"], "n");
        // Each once: the second of two would win unseen.
        let lines = BUILT_IN.lines().filter(|line| setting(line).is_some());
        assert_eq!(lines.count(), options.wanted.len());
    }

    #[test]
    fn every_option_must_survive() {
        let wanted = options("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x y\"\n# a comment\n");
        wanted
            .check("CONFIG_A=y\nCONFIG_C=\"x y\"\nCONFIG_D=m\n")
            .unwrap();
        let error = wanted
            .check("# CONFIG_A is not set\nCONFIG_B=m\n")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel's configuration did not keep CONFIG_A=y, CONFIG_B=n, CONFIG_C=\"x y\""
        );
        assert_eq!(error.reason(), "KERNEL_OPTIONS_LOST");
        wanted.check("CONFIG_A=m\nCONFIG_C=\"x y\"").unwrap_err();
    }

    #[test]
    fn a_line_that_is_no_option_is_named() {
        for (text, line) in [
            ("CONFIG_A=y\nhello", 2),
            ("CONFIG_=y", 1),
            ("CONFIG_A=", 1),
            ("A=y", 1),
        ] {
            match Options::parse(text.to_owned()).unwrap_err() {
                BuildError::BadOption { line: found, .. } => assert_eq!(found, line, "{text}"),
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn what_is_off_is_not_wanted() {
        let options = options("CONFIG_A=y\n# CONFIG_B is not set\n");
        assert!(options.want_any(&["CONFIG_B", "CONFIG_A"]));
        assert!(!options.want_any(&["CONFIG_B", "CONFIG_C"]));
    }
}
