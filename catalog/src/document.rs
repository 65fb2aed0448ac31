//! What all documents have in common: strict parsing, bounds, one way to be written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use banger_core::image::{ImageConfig, Platform};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{CONFIG_ENTRIES_MAX, CONFIG_TEXT_BYTES_MAX, WORD_BYTES_MAX};

/// Why a document is none.
#[derive(Debug, thiserror::Error)]
pub enum DocumentProblem {
    /// Over its bound.
    #[error("it has more than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// Not the JSON it should be: a missing, unknown or doubled field, or a value that cannot be.
    #[error("it is not the JSON it should be")]
    Json(#[source] serde_json::Error),
    /// A document of another kind, or of a later banger.
    #[error("its format is `{found}`, and this banger reads `{known}`")]
    Format {
        /// What it says, cut.
        found: String,
        /// What is read.
        known: &'static str,
    },
    /// A value outside its bounds.
    #[error("its `{field}` {problem}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl DocumentProblem {
    pub(crate) fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field {
            field,
            problem: problem.into(),
        }
    }
}

/// What every document begins with.
#[derive(Deserialize)]
struct Head {
    format: String,
}

/// The format a document says it has; `None` for one that says nothing.
pub(crate) fn format_of(bytes: &[u8]) -> Option<String> {
    serde_json::from_slice::<Head>(bytes)
        .ok()
        .map(|head| head.format)
}

/// Parses a document of the format `known` with at most `limit` bytes.
pub(crate) fn parse<T: DeserializeOwned>(
    bytes: &[u8],
    known: &'static str,
    limit: u64,
) -> Result<T, DocumentProblem> {
    if bytes.len() as u64 > limit {
        return Err(DocumentProblem::TooLarge { limit });
    }
    let head: Head = serde_json::from_slice(bytes).map_err(DocumentProblem::Json)?;
    if head.format != known {
        return Err(DocumentProblem::Format {
            found: head.format.chars().take(80).collect(),
            known,
        });
    }
    serde_json::from_slice(bytes).map_err(DocumentProblem::Json)
}

/// The one way a document is written: compact, its fields in their order, its maps sorted.
pub(crate) fn write<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).expect("plain data serialises")
}

/// A word for people: short, printable, one line.
pub(crate) fn check_word(field: &'static str, word: &str) -> Result<(), DocumentProblem> {
    if word.len() > WORD_BYTES_MAX {
        return Err(DocumentProblem::field(
            field,
            format!("has more than {WORD_BYTES_MAX} bytes"),
        ));
    }
    if word.chars().any(char::is_control) {
        return Err(DocumentProblem::field(field, "has control characters"));
    }
    Ok(())
}

/// Within `1..=limit`.
pub(crate) fn check_size(
    field: &'static str,
    size: u64,
    limit: u64,
) -> Result<(), DocumentProblem> {
    if (1..=limit).contains(&size) {
        return Ok(());
    }
    Err(DocumentProblem::field(
        field,
        format!("is {size}, and must be from 1 to {limit}"),
    ))
}

/// A platform as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePlatform {
    os: String,
    architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

/// [`Platform`], for `serde(with)`.
pub(crate) mod platform {
    use super::{Platform, WirePlatform};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(platform: &Platform, to: S) -> Result<S::Ok, S::Error> {
        let Platform {
            os,
            architecture,
            variant,
        } = platform.clone();
        let wire = WirePlatform {
            os,
            architecture,
            variant,
        };
        wire.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Platform, D::Error> {
        let wire = WirePlatform::deserialize(from)?;
        let platform = Platform {
            os: wire.os,
            architecture: wire.architecture,
            variant: wire.variant,
        };
        // Words that are two words in the text would be another platform.
        match platform.to_string().parse::<Platform>() {
            Ok(parsed) if parsed == platform => Ok(platform),
            _ => Err(serde::de::Error::custom("is not a platform")),
        }
    }
}

/// An image's configuration as it is written: the words of the OCI specification.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "PascalCase")]
struct WireConfig {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    working_dir: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmd: Vec<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    exposed_ports: BTreeSet<String>,
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "unique"
    )]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stop_signal: String,
}

/// [`ImageConfig`], for `serde(with)`.
pub(crate) mod config {
    use super::{ImageConfig, WireConfig};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(config: &ImageConfig, to: S) -> Result<S::Ok, S::Error> {
        let config = config.clone();
        let env = config.env.into_iter();
        let wire = WireConfig {
            env: env.map(|(key, value)| format!("{key}={value}")).collect(),
            user: config.user,
            working_dir: config.working_dir,
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            exposed_ports: config.exposed_ports,
            labels: config.labels,
            stop_signal: config.stop_signal,
        };
        wire.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ImageConfig, D::Error> {
        let wire = WireConfig::deserialize(from)?;
        let pair = |entry: String| {
            let (key, value) = entry.split_once('=').unwrap_or((&entry, ""));
            (key.to_owned(), value.to_owned())
        };
        Ok(ImageConfig {
            env: wire.env.into_iter().map(pair).collect(),
            user: wire.user,
            working_dir: wire.working_dir,
            entrypoint: wire.entrypoint,
            cmd: wire.cmd,
            exposed_ports: wire.exposed_ports,
            labels: wire.labels,
            stop_signal: wire.stop_signal,
        })
    }
}

/// Bounds an image's configuration; what it means is looked at where it is used.
pub(crate) fn check_config(config: &ImageConfig) -> Result<(), DocumentProblem> {
    let lists = [
        config.env.len(),
        config.entrypoint.len(),
        config.cmd.len(),
        config.exposed_ports.len(),
        config.labels.len(),
    ];
    if lists.into_iter().any(|length| length > CONFIG_ENTRIES_MAX) {
        return Err(DocumentProblem::field(
            "config",
            format!("has a list of more than {CONFIG_ENTRIES_MAX} entries"),
        ));
    }
    let pairs = config.env.iter().map(|(key, value)| (key, value));
    let pairs = pairs
        .chain(&config.labels)
        .flat_map(|(key, value)| [key, value]);
    let words = config
        .entrypoint
        .iter()
        .chain(&config.cmd)
        .chain(&config.exposed_ports);
    let single = [&config.user, &config.working_dir, &config.stop_signal];
    for text in pairs.chain(words).chain(single) {
        if text.len() > CONFIG_TEXT_BYTES_MAX || text.contains('\0') {
            return Err(DocumentProblem::field(
                "config",
                format!("has a text of more than {CONFIG_TEXT_BYTES_MAX} bytes, or with a NUL"),
            ));
        }
    }
    Ok(())
}

/// A map in which no key comes twice.
fn unique<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Unique;

    impl<'de> Visitor<'de> for Unique {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry::<String, String>()? {
                if map.insert(key, value).is_some() {
                    return Err(serde::de::Error::custom("a key comes twice"));
                }
            }
            Ok(map)
        }
    }

    from.deserialize_map(Unique)
}
