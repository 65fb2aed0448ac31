//! What can go wrong with a catalog here.

use std::io;
use std::path::PathBuf;

use banger_sdk::catalog_file::{self, DocumentProblem, KeyError, TextError};

/// Why a catalog was not made or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogError {
    /// What the daemon knew stays.
    #[error("the catalog `{catalog}` was not refreshed; what it had before stays")]
    NotRefreshed {
        /// Which.
        catalog: String,
        /// Why.
        #[source]
        source: Box<banger_sdk::Error>,
    },
    /// A key file cannot be read or made.
    #[error("could not use the key file `{}`", path.display())]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key file that others may read.
    #[error("others may read the key file `{}`", path.display())]
    KeyExposed {
        /// Which.
        path: PathBuf,
    },
    /// A key file that holds no key.
    #[error("`{}` holds no key to sign with", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// A file of the catalog cannot be read or written.
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
    /// The catalog that is there cannot be continued.
    #[error("`{}` cannot be continued with this key", path.display())]
    Existing {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: catalog_file::CatalogError,
    },
    /// The new index is outside its bounds.
    #[error("the catalog cannot be made")]
    Index(#[source] catalog_file::CatalogError),
    /// The daemon described what it exported in a way that makes no sense.
    #[error("the daemon's description of `{item}` makes no sense")]
    Manifest {
        /// An image or kernel.
        item: String,
        /// Why.
        #[source]
        source: DocumentProblem,
    },
    /// A name that cannot be one in a catalog.
    #[error("`{item}` cannot be put into a catalog")]
    Name {
        /// An image or kernel.
        item: String,
        /// Why.
        #[source]
        source: TextError,
    },
    /// Two images would be one entry.
    #[error("`{first}` and `{second}` are different images that would both be `{name}`")]
    NameTwice {
        /// The name in the catalog.
        name: String,
        /// The reference of one.
        first: String,
        /// And of the other.
        second: String,
    },
    /// The first version has no name.
    #[error("a new catalog needs a name")]
    Nameless,
    /// Nothing to put in.
    #[error("there is no image and no kernel to put into the catalog")]
    Empty,
    /// A kernel that an image of the catalog is meant for is not in it.
    #[error("`{image}` is meant for the kernel `{kernel}`, which is not on this host")]
    KernelMissing {
        /// Which image.
        image: String,
        /// Which kernel.
        kernel: String,
    },
}

impl CatalogError {
    /// The stable word for programs.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::NotRefreshed { source, .. } => source.reason(),
            Self::KeyFile { .. } | Self::KeyExposed { .. } | Self::Key { .. } => "CATALOG_KEY_FILE",
            Self::Io { .. } => "CATALOG_FILE_IO",
            Self::Existing { .. } => "CATALOG_NOT_CONTINUED",
            Self::Index(_) | Self::Manifest { .. } | Self::Name { .. } => "CATALOG_NOT_MADE",
            Self::NameTwice { .. } => "CATALOG_NAME_TWICE",
            Self::Nameless => "CATALOG_NAMELESS",
            Self::Empty => "CATALOG_EMPTY",
            Self::KernelMissing { .. } => "CATALOG_KERNEL_MISSING",
        }
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::NotRefreshed { source, .. } => return source.remedy(),
            Self::KeyFile { .. } => "Check the path, and that you may read and write there.",
            Self::KeyExposed { path } => {
                return Some(format!("Keep it to yourself: chmod 600 {}", path.display()));
            }
            Self::Key { .. } => "Name the file that `banger catalog build --key` made.",
            Self::Io { .. } => "Check the directory, its space, and that you may write there.",
            Self::Existing { .. } => {
                "Sign with the key it was signed with before, as well (--key OLD --key NEW), or use another directory."
            }
            Self::Index(_) | Self::Manifest { .. } => return None,
            Self::Name { .. } => "Give it a plainer reference: banger image tag IMAGE NAME:VERSION",
            Self::NameTwice { second, .. } => {
                return Some(format!(
                    "Leave one out (--image names those to put in), or give one another name and name that: banger image tag {second} NAME:VERSION"
                ));
            }
            Self::Nameless => "Name it: --name NAME",
            Self::Empty => {
                "Pull, import or build some first, or name them: --image REFERENCE, --kernel NAME"
            }
            Self::KernelMissing { .. } => {
                "Import the kernel, or leave the image out (--image names the others)."
            }
        };
        Some(text.to_owned())
    }
}
