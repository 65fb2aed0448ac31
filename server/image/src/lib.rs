//! Images and kernels: from a registry, an archive or a package to bootable files.
//!
//! [`ImageStore`] owns a state directory's blobs and base disks; [`KernelStore`] its kernels and the
//! initramfs made for them; [`create_upper`] makes a VM's writable disk. Registries, archives and images are hostile:
//! what they hold is bounded, verified, and never unpacked onto the host's file system.
#![forbid(unsafe_code)]

mod bundle;
mod catalog;
mod compose;
mod document;
mod ext4;
mod flatten;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz;
mod kernel;
mod layer;
mod limits;
mod registry;
mod store;
mod tar;
mod transport;
mod unzstd;
mod watched;
mod writeback;

pub use banger_registry_auth::{AuthFiles, Login, Logins, Place};
pub use bundle::BundleError;
pub use catalog::{CatalogAddress, CatalogHosts, CatalogSource, SourceError, SourceOptions};
pub use compose::{
    HistoryLine, ImageDescription, LayerWriter, NewLayer, OciLayout, TarWriter, TreeArchive,
    Unpacked,
};
pub use document::DocumentError;
pub use ext4::{Ext4Error, create_upper};
pub use flatten::FlattenError;
pub use kernel::{
    ImportedKernel, KernelBundleError, KernelError, KernelExport, KernelFiles, KernelStore, Lacking,
};
pub use layer::LayerError;
pub use registry::{ImageReference, PullOptions, Registries, RegistryError, RegistrySettings};
pub use store::{
    BuiltImage, BundleExport, BundleNames, ImageFiles, ImageStore, KeptFile, KeptKind, LossCause,
    LostImage, Pruned, RegisterOptions, RegisterSource, StoreError, Sweep,
};
pub use tar::TarError;
pub use transport::TlsSettings;
