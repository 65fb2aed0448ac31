//! What can go wrong with an image.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use banger_core::{Digest, Explain, FailureKind};

use crate::bundle::BundleError;
use crate::catalog::SourceError;
use crate::document::DocumentError;
use crate::ext4::Ext4Error;
use crate::layer::LayerError;
use crate::registry::RegistryError;
use crate::tar::TarError;
use banger_core::host_io::{io_kind, io_reason, io_remedy};

/// An image that could not be had, kept or removed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The manifest or configuration.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A blob or layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The base disk.
    #[error(transparent)]
    Disk(Ext4Error),
    /// A bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The way to a catalog.
    #[error(transparent)]
    Catalog(#[from] SourceError),
    /// The host's own files.
    #[error("could not {step} `{}`", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What is to be registered is not there or cannot be read.
    #[error("could not read `{}`", path.display())]
    Source {
        /// What was named.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is to be registered is a damaged archive.
    #[error("`{}` is not a usable archive", path.display())]
    Archive {
        /// What was named.
        path: PathBuf,
        /// Why.
        #[source]
        source: TarError,
    },
    /// What is to be registered lacks a part.
    #[error("`{}` has no `{member}`", path.display())]
    MissingMember {
        /// What was named.
        path: PathBuf,
        /// What is missing.
        member: String,
    },
    /// What is to be registered has a part that makes no sense.
    #[error("`{}` has a malformed `{member}`", path.display())]
    BadMember {
        /// What was named.
        path: PathBuf,
        /// Which part.
        member: String,
    },
    /// Several images, and none or none of them chosen.
    #[error("`{}` holds {count} images; name one of: {names}", path.display())]
    Ambiguous {
        /// What was named.
        path: PathBuf,
        /// How many.
        count: usize,
        /// Their names.
        names: String,
    },
    /// An image was chosen by name, where there is one without.
    #[error("`{}` holds one image, without a name", path.display())]
    Unnamed {
        /// What was named.
        path: PathBuf,
    },
    /// No image of this digest in the store.
    #[error("the store has no image {digest}")]
    Missing {
        /// Of the manifest.
        digest: Digest,
    },
    /// The image was made without layers: by a bundle.
    #[error("image {digest} has no layers: it came as a whole")]
    NoLayers {
        /// Of the image.
        digest: Digest,
    },
    /// A file has a name that layers use for something else.
    #[error("`{path}` has a name that means a removal in an image's layers")]
    ReservedName {
        /// The file's path.
        path: String,
    },
    /// The pull took too long.
    #[error("the image did not come within {} s", deadline.as_secs_f32())]
    Deadline {
        /// The limit.
        deadline: Duration,
    },
    /// The caller gave up.
    #[error("the work was cancelled")]
    Cancelled,
    /// A defect of banger.
    #[error("the work ended unexpectedly")]
    Aborted,
    /// What all who waited for the same image are told.
    #[error(transparent)]
    Shared(Arc<StoreError>),
}

impl From<Ext4Error> for StoreError {
    fn from(error: Ext4Error) -> Self {
        match error {
            Ext4Error::Cancelled => Self::Cancelled,
            error => Self::Disk(error),
        }
    }
}

impl StoreError {
    /// An I/O error of the store's own files, for `map_err`.
    pub(crate) fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { step, path, source }
    }

    /// An I/O error of what is to be registered, for `map_err`.
    pub(super) fn source(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Source { path, source }
    }

    /// The same error, about a file that whoever reads it knows by another name.
    #[must_use]
    pub fn naming(mut self, name: &str) -> Self {
        if let Self::Source { path, .. }
        | Self::Archive { path, .. }
        | Self::MissingMember { path, .. }
        | Self::BadMember { path, .. }
        | Self::Ambiguous { path, .. }
        | Self::Unnamed { path } = &mut self
        {
            *path = name.into();
        }
        self
    }

    fn inner(&self) -> Option<&dyn Explain> {
        match self {
            Self::Registry(error) => Some(error),
            Self::Document(error) => Some(error),
            Self::Layer(error) => Some(error),
            Self::Disk(error) => Some(error),
            Self::Bundle(error) => Some(error),
            Self::Catalog(error) => Some(error),
            Self::Shared(error) => Some(&**error),
            _ => None,
        }
    }
}

impl Explain for StoreError {
    fn kind(&self) -> FailureKind {
        if let Some(inner) = self.inner() {
            return inner.kind();
        }
        let path_field = || FailureKind::InvalidArgument {
            field: "source.path".into(),
        };
        match self {
            Self::Io { source, .. } => io_kind(source),
            Self::Source { .. }
            | Self::Archive { .. }
            | Self::MissingMember { .. }
            | Self::BadMember { .. } => path_field(),
            Self::Ambiguous { .. } | Self::Unnamed { .. } => FailureKind::InvalidArgument {
                field: "start.image".into(),
            },
            Self::Missing { digest } => FailureKind::NotFound {
                resource: "image".into(),
                name: digest.to_string(),
            },
            Self::NoLayers { .. } => FailureKind::FailedPrecondition {
                subject: "image/layers".into(),
            },
            Self::ReservedName { .. } => FailureKind::FailedPrecondition {
                subject: "build/step".into(),
            },
            Self::Deadline { .. } => FailureKind::DeadlineExceeded,
            Self::Cancelled => FailureKind::Cancelled,
            _ => FailureKind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        if let Some(inner) = self.inner() {
            return inner.reason();
        }
        match self {
            Self::Io { source, .. } => io_reason(source, "IMAGE_STORE_IO"),
            Self::Source { .. } => "SOURCE_UNREADABLE",
            Self::Archive { source, .. } if source.is_no_archive() => "SOURCE_NOT_AN_ARCHIVE",
            // An archive with an entry that no image may have is refused alike on every way in.
            Self::Archive { source, .. } => source.reason(),
            Self::MissingMember { .. } | Self::BadMember { .. } => "SOURCE_MALFORMED",
            Self::Ambiguous { .. } => "SOURCE_AMBIGUOUS",
            Self::Unnamed { .. } => "SOURCE_UNNAMED",
            Self::Missing { .. } => "IMAGE_NOT_FOUND",
            Self::NoLayers { .. } => "IMAGE_HAS_NO_LAYERS",
            Self::ReservedName { .. } => "BUILD_NAME_RESERVED",
            Self::Deadline { .. } => "PULL_DEADLINE",
            Self::Cancelled => "CANCELLED",
            _ => "IMAGE_STORE_ABORTED",
        }
    }

    fn remedy(&self) -> Option<String> {
        if let Some(inner) = self.inner() {
            return inner.remedy();
        }
        match self {
            Self::Io { source, .. } => io_remedy(source),
            Self::Source { .. } => {
                Some("Check the path, as bangerd sees it, and that bangerd may read it.".into())
            }
            Self::Archive { source, .. } => source.remedy(),
            Self::MissingMember { .. } | Self::BadMember { .. } => Some(
                "Export the image again, e.g. with `skopeo copy … oci:DIR` or `docker save`."
                    .into(),
            ),
            Self::Ambiguous { .. } => {
                Some("Say which: banger image import FILE REFERENCE --image NAME".into())
            }
            Self::Unnamed { .. } => Some("Import it without --image.".into()),
            Self::Missing { .. } => Some("Pull or register the image first.".into()),
            Self::NoLayers { .. } => Some(
                "Export it as a bundle; or build an image `FROM` it with one RUN, which has layers."
                    .into(),
            ),
            Self::ReservedName { .. } => {
                Some("Let the build remove the file or give it another name.".into())
            }
            Self::Deadline { .. } => {
                Some("Try again: layers that came are kept. Or allow more time.".into())
            }
            _ => None,
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        if let Some(inner) = self.inner() {
            return inner.metadata();
        }
        let of_path = |path: &Path| ("path", path.display().to_string());
        match self {
            Self::Io { step, path, .. } => vec![("step", (*step).to_owned()), of_path(path)],
            Self::Source { path, .. } => vec![of_path(path)],
            Self::Archive { path, source } => [vec![of_path(path)], source.metadata()].concat(),
            Self::MissingMember { path, member } | Self::BadMember { path, member } => {
                vec![of_path(path), ("member", member.clone())]
            }
            Self::Ambiguous { path, names, .. } => vec![of_path(path), ("names", names.clone())],
            Self::Unnamed { path } => vec![of_path(path)],
            Self::Missing { digest } | Self::NoLayers { digest } => {
                vec![("digest", digest.to_string())]
            }
            Self::ReservedName { path } => vec![("path", path.clone())],
            Self::Deadline { deadline } => {
                vec![("deadline_seconds", deadline.as_secs_f32().to_string())]
            }
            _ => Vec::new(),
        }
    }
}
