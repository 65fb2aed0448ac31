//! A typed client of the banger daemon.
//!
//! ```no_run
//! # async fn example() -> banger_sdk::Result<()> {
//! use banger_sdk::{Client, Command, Host};
//!
//! let client = Client::connect(Host::from_env()?).await?;
//! let vm = client.vms().create("debian:bookworm").pull_if_missing().await?;
//! let process = client.sessions().exec(&vm.id, Command::new(["uname", "-a"])).await?;
//! let output = process.output().await?;
//! print!("{}", String::from_utf8_lossy(&output.stdout));
//! client.vms().delete(&vm.id).await?;
//! # Ok(())
//! # }
//! ```
//!
//! - Changes carry a request id, so that they are repeated without harm when the connection breaks.
//! - Attached processes and logs go on at the byte where a broken connection left them.
//! - A daemon that has gone silent is noticed within 10 s ([`Error::ConnectionSilent`]).
//! - [`Error`] says what to do ([`Error::remedy`]) and whether the caller's code ran
//!   ([`Error::code_ran`]).
//!
//! Resources are the API's own messages, in [`types`]. Nothing here spawns a task: what is dropped stops.
#![forbid(unsafe_code)]

mod build;
mod catalog;
mod client;
mod context;
mod error;
mod export;
mod host;
mod image;
mod kernel;
mod operation;
mod request;
mod session;
mod stream;
mod upload;
mod vm;

pub use banger_registry_auth::{AuthError, AuthFiles, Login};
pub use build::BuildImage;
pub use catalog::{Catalogs, Search};
pub use client::{Client, ClientOptions};
pub use context::BuildContext;
pub use error::{Code, CodeRan, Error, Refusal, Result, chain};
pub use export::Export;
pub use host::{HOST_VARIABLE, Host, HostError};
pub use image::{
    ArchiveFormat, BundleNames, Images, ImagesUsage, Prune, PullImage, PullSource, RegisterImage,
    TakeOver,
};
pub use kernel::{ImportKernel, Kernels, PullKernel};
pub use operation::Operations;
pub use request::Request;
pub use session::{
    Attach, Collected, Command, Event, Input, Log, Process, ReadFrom, Sessions, SignalTarget,
};
pub use stream::Pages;
pub use upload::Source;
pub use vm::{Console, CreateVm, NetworkMode, VmEvent, Vms};

/// The documents of catalogs and bundles, and their signatures: for whoever makes a catalog.
pub use banger_catalog as catalog_file;

/// The messages of the API.
pub mod types {
    pub use banger_proto::v1::{
        BuildLog, Catalog, CatalogEntry, ConsoleOutput, DeleteImageResponse, Exit, Gap, HostInfo,
        Image, ImageConfig, ImageLayer, ImageUsage, Kernel, KernelFeature, KernelInspection,
        Operation, Output, PruneImagesResponse, Session, SessionSpec, Stage, StopOutcome, Stream,
        TerminalSize, Vm, VmSpec, build_log, catalog_entry, exit, kernel_feature, operation,
        session, stop_outcome, vm, vm_spec,
    };
    pub use prost_types::{Duration, Timestamp};
    pub use tonic_types::Status;
}
