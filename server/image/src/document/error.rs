//! Documents that do not describe an image banger can use.

use banger_core::image::Platform;
use banger_core::{Digest, Explain, FailureKind};

/// A document that does not describe an image banger can use.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not the JSON it should be.
    #[error("the {document} is malformed")]
    Malformed {
        /// `manifest`, `index` or `configuration`.
        document: &'static str,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// Manifest and index at once, or neither.
    #[error(
        "the manifest is neither an image's manifest nor an index of them (it says `{media_type}`)"
    )]
    NotAnImage {
        /// What it says it is, cut.
        media_type: String,
    },
    /// An artifact of another kind.
    #[error("this is not a container image: its {part} has the media type `{media_type}`")]
    UnsupportedMediaType {
        /// `configuration` or `layer`.
        part: &'static str,
        /// What it says, cut.
        media_type: String,
    },
    /// The format before schema 2, which names its layers by digests that nobody can verify.
    #[error("the image has a Docker schema 1 manifest, which is no longer supported")]
    Schema1,
    /// A registry's answer of another kind, such as a log-in page.
    #[error("the registry answered with `{content_type}` instead of a manifest")]
    NotAManifest {
        /// What it says, cut.
        content_type: String,
    },
    /// The registry and the document disagree about what it is.
    #[error("the manifest is `{media_type}` but was served as `{content_type}`")]
    Ambiguous {
        /// What the document says or has the form of, cut.
        media_type: String,
        /// What the registry says, cut.
        content_type: String,
    },
    /// A layer that the registry does not hold.
    #[error(
        "layer {digest} is a foreign layer (`{media_type}`), which must not be distributed by registries"
    )]
    ForeignLayer {
        /// Which.
        digest: Digest,
        /// Its media type, cut.
        media_type: String,
    },
    /// A layer that only its owners can read.
    #[error("layer {digest} is encrypted (`{media_type}`)")]
    EncryptedLayer {
        /// Which.
        digest: Digest,
        /// Its media type, cut.
        media_type: String,
    },
    /// No manifest for the platform.
    #[error("the image has no variant for {wanted}; it has {}", if available.is_empty() { "none" } else { available.as_str() })]
    NoPlatform {
        /// What was wanted.
        wanted: Platform,
        /// What there is, separated by `, `.
        available: String,
    },
    /// Too many layers, too large a blob.
    #[error("the image has {what}, which is more than is allowed")]
    TooLarge {
        /// What.
        what: String,
    },
    /// As many layers in the manifest as in the configuration there must be.
    #[error("the manifest has {layers} layers and the configuration {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
}

impl Explain for DocumentError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::NoPlatform { wanted, .. } => FailureKind::NotFound {
                resource: "image".into(),
                name: format!("platform {wanted}"),
            },
            _ => FailureKind::FailedPrecondition {
                subject: "image".into(),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "IMAGE_MALFORMED",
            Self::LayerCount { .. } => "IMAGE_LAYER_COUNT",
            Self::NotAnImage { .. } | Self::UnsupportedMediaType { .. } => "NOT_AN_IMAGE",
            Self::Schema1 => "IMAGE_SCHEMA1",
            Self::NotAManifest { .. } => "MANIFEST_CONTENT_TYPE",
            Self::Ambiguous { .. } => "MANIFEST_AMBIGUOUS",
            Self::ForeignLayer { .. } => "LAYER_FOREIGN",
            Self::EncryptedLayer { .. } => "LAYER_ENCRYPTED",
            Self::NoPlatform { .. } => "IMAGE_PLATFORM_MISSING",
            Self::TooLarge { .. } => "IMAGE_TOO_LARGE",
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::NoPlatform { .. } => Some(
                "Ask for a platform the image has with `--platform`, or build the image for this one."
                    .into(),
            ),
            Self::Schema1 => Some(
                "Convert it, e.g. with `skopeo copy --format v2s2 docker://OLD docker://NEW`, and pull that.".into(),
            ),
            Self::NotAManifest { .. } => Some(
                "Check the registry's name: something else, such as a proxy or a log-in page, answers there.".into(),
            ),
            Self::ForeignLayer { .. } => Some(
                "Use an image whose layers are all in its registry; foreign ones belong to Windows base images.".into(),
            ),
            Self::EncryptedLayer { .. } => {
                Some("Decrypt the image, e.g. with `skopeo copy --decryption-key …`, and pull that.".into())
            }
            Self::NotAnImage { .. } | Self::UnsupportedMediaType { .. } => {
                Some("Name a container image in OCI or Docker schema 2 format.".into())
            }
            _ => Some("Rebuild the image with a current tool.".into()),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Malformed { document, .. } => vec![("document", (*document).to_owned())],
            Self::NotAnImage { media_type } => vec![("media_type", media_type.clone())],
            Self::UnsupportedMediaType { part, media_type } => {
                vec![
                    ("part", (*part).to_owned()),
                    ("media_type", media_type.clone()),
                ]
            }
            Self::NoPlatform { wanted, available } => {
                vec![
                    ("platform", wanted.to_string()),
                    ("available", available.clone()),
                ]
            }
            Self::Schema1 => Vec::new(),
            Self::NotAManifest { content_type } => vec![("content_type", content_type.clone())],
            Self::Ambiguous {
                media_type,
                content_type,
            } => vec![
                ("media_type", media_type.clone()),
                ("content_type", content_type.clone()),
            ],
            Self::ForeignLayer { digest, media_type }
            | Self::EncryptedLayer { digest, media_type } => vec![
                ("digest", digest.to_string()),
                ("media_type", media_type.clone()),
            ],
            Self::TooLarge { what } => vec![("detail", what.clone())],
            Self::LayerCount { layers, diff_ids } => {
                vec![
                    ("layers", layers.to_string()),
                    ("diff_ids", diff_ids.to_string()),
                ]
            }
        }
    }
}
