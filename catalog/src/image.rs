//! The manifest of a bundle.

use banger_core::image::{ImageConfig, Platform};
use banger_core::{Digest, Name};
use serde::{Deserialize, Serialize};

use crate::document::{self, DocumentProblem, check_config, check_size, check_word};
use crate::limits::{MANIFEST_BYTES_MAX, ROOTFS_BYTES_MAX};
use crate::text::{BundleName, BundleVersion};

const FORMAT: &str = "banger.image.v1";
/// What an ext4 file's length is a multiple of: the smallest block that ext4 has.
const BLOCK_BYTES: u64 = 1024;

/// What a bundle holds. Its bytes are what identifies the image: no times are in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageManifest {
    format: String,
    /// What the bundle is called.
    pub name: BundleName,
    /// Which of that name.
    pub version: BundleVersion,
    /// What it runs on.
    #[serde(with = "document::platform")]
    pub platform: Platform,
    /// What a guest honours.
    #[serde(with = "document::config")]
    pub config: ImageConfig,
    /// The kernel it is meant for, by name; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Name>,
    /// The base disk.
    pub rootfs: RootfsPart,
    /// The program that wrote it, for people.
    pub builder: String,
}

/// A bundle's base disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootfsPart {
    /// Its length, holes included.
    pub size_bytes: u64,
    /// Of all its bytes, holes as zeros.
    pub digest: Digest,
}

/// What only the caller knows of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageParts {
    /// See [`ImageManifest::name`].
    pub name: BundleName,
    /// See [`ImageManifest::version`].
    pub version: BundleVersion,
    /// See [`ImageManifest::platform`].
    pub platform: Platform,
    /// See [`ImageManifest::config`].
    pub config: ImageConfig,
    /// See [`ImageManifest::kernel`].
    pub kernel: Option<Name>,
    /// See [`ImageManifest::rootfs`].
    pub rootfs: RootfsPart,
    /// See [`ImageManifest::builder`].
    pub builder: String,
}

impl ImageManifest {
    /// Of `parts`.
    ///
    /// # Errors
    /// If a part is outside its bounds.
    pub fn new(parts: ImageParts) -> Result<Self, DocumentProblem> {
        let manifest = Self {
            format: FORMAT.to_owned(),
            name: parts.name,
            version: parts.version,
            platform: parts.platform,
            config: parts.config,
            kernel: parts.kernel,
            rootfs: parts.rootfs,
            builder: parts.builder,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// Parses a `manifest.json`.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentProblem> {
        let manifest: Self = document::parse(bytes, FORMAT, MANIFEST_BYTES_MAX)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Whether `bytes` claim to be a bundle's manifest, of whatever quality.
    #[must_use]
    pub fn is_claimed(bytes: &[u8]) -> bool {
        document::format_of(bytes).is_some_and(|format| format.starts_with("banger.image."))
    }

    /// As it is written; the same manifest gives the same bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        document::write(self)
    }

    fn check(&self) -> Result<(), DocumentProblem> {
        check_size(
            "rootfs.size_bytes",
            self.rootfs.size_bytes,
            ROOTFS_BYTES_MAX,
        )?;
        if !self.rootfs.size_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(DocumentProblem::field(
                "rootfs.size_bytes",
                format!("is not a multiple of {BLOCK_BYTES}"),
            ));
        }
        check_word("builder", &self.builder)?;
        check_config(&self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> ImageManifest {
        ImageManifest::new(ImageParts {
            name: "debian".parse().unwrap(),
            version: "12.5".parse().unwrap(),
            platform: "linux/amd64".parse().unwrap(),
            config: ImageConfig {
                env: vec![
                    ("PATH".into(), "/bin=x".into()),
                    ("EMPTY".into(), String::new()),
                ],
                labels: [
                    ("b".to_owned(), "2".to_owned()),
                    ("a".to_owned(), "1".to_owned()),
                ]
                .into(),
                ..ImageConfig::default()
            },
            kernel: Some("cloud".parse().unwrap()),
            rootfs: RootfsPart {
                size_bytes: 4096,
                digest: Digest::of(b"x"),
            },
            builder: "banger 0.1.0".into(),
        })
        .unwrap()
    }

    #[test]
    fn a_manifest_survives_its_bytes_and_has_one_way_to_be_written() {
        let bytes = manifest().to_bytes();
        let parsed = ImageManifest::parse(&bytes).unwrap();
        assert_eq!(parsed, manifest());
        assert_eq!(parsed.to_bytes(), bytes);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            format!(
                r#"{{"format":"banger.image.v1","name":"debian","version":"12.5","platform":{{"os":"linux","architecture":"amd64"}},"config":{{"Env":["PATH=/bin=x","EMPTY="],"Labels":{{"a":"1","b":"2"}}}},"kernel":"cloud","rootfs":{{"size_bytes":4096,"digest":"{}"}},"builder":"banger 0.1.0"}}"#,
                Digest::of(b"x")
            )
        );
    }

    #[test]
    fn what_could_mean_two_things_or_none_is_refused() {
        let text = String::from_utf8(manifest().to_bytes()).unwrap();
        let changed = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            ImageManifest::parse(text.replacen(from, to, 1).as_bytes())
                .unwrap_err()
                .to_string()
        };
        let json = "it is not the JSON it should be";
        for (from, to) in [
            ("\"name\"", "\"more\":1,\"name\""),
            (
                "\"name\":\"debian\"",
                "\"name\":\"debian\",\"name\":\"other\"",
            ),
            ("\"name\":\"debian\",", ""),
            ("\"a\":\"1\"", "\"b\":\"1\""),
            ("debian", "../debian"),
            ("12.5", "12/5"),
            ("\"cloud\"", "\"../x\""),
            ("sha256:", "md5:"),
            ("4096", "-1"),
            ("amd64", "a/b"),
            ("Env", "env"),
        ] {
            assert_eq!(changed(from, to), json, "{to}");
        }
        assert_eq!(
            changed("banger.image.v1", "banger.image.v9"),
            "its format is `banger.image.v9`, and this banger reads `banger.image.v1`"
        );
        assert_eq!(
            changed("4096", "4097"),
            "its `rootfs.size_bytes` is not a multiple of 1024"
        );
        assert!(
            changed("4096", "0").starts_with("its `rootfs.size_bytes` is 0, and must be from 1 to")
        );
        assert_eq!(
            changed("banger 0.1.0", "\\n"),
            "its `builder` has control characters"
        );
        assert!(ImageManifest::parse(format!("{text} x").as_bytes()).is_err());
        assert!(
            ImageManifest::parse(&vec![b' '; 5 << 20])
                .unwrap_err()
                .to_string()
                .contains("more than")
        );
        assert!(changed("EMPTY=", "\\u0000=").contains("with a NUL"));
    }

    #[test]
    fn a_manifest_of_a_later_banger_still_claims_to_be_one() {
        assert!(ImageManifest::is_claimed(
            br#"{"format":"banger.image.v9","x":1}"#
        ));
        assert!(!ImageManifest::is_claimed(br#"{"schemaVersion":2}"#));
        assert!(!ImageManifest::is_claimed(b"x"));
    }
}
