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
//! A daemon on another host is reached by TLS, with the directory that `banger cert issue` made or files of one's own; both
//! are read at each connection:
//!
//! ```no_run
//! # async fn example() -> banger_sdk::Result<()> {
//! # use banger_sdk::{Client, Credentials, Host};
//! let host: Host = "https://sandbox.example.com".parse()?;
//! let client = Client::connect(host.with_credentials(Credentials::directory("ci".as_ref()))).await?;
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

mod audit;
mod build;
mod catalog;
mod client;
mod context;
mod doctor;
mod error;
mod event;
mod export;
mod file;
mod host;
mod image;
mod kernel;
mod operation;
mod request;
mod session;
mod stream;
mod tls;
mod tunnel;
mod upload;
mod vm;
mod volume;
mod workspace;

pub use audit::Audit;
pub use banger_registry_auth::{AuthError, AuthFiles, Login};
pub use build::BuildImage;
pub use catalog::{Catalogs, Search};
pub use client::{Client, ClientOptions};
pub use context::BuildContext;
pub use doctor::{Doctor, DoctorEvent};
pub use error::{Code, CodeRan, Error, Refusal, Result, chain};
pub use event::{EventKind, Events, HostEvent};
pub use export::Export;
pub use file::{
    Download, DownloadStream, Existing, FileContent, Files, MakeDirectory, PackedTree, ReadFile,
    RemoveFile, SetAttributes, Unpack, UnpackLimits, Unpacked, Upload, WatchEvent, WatchFiles,
    Watcher, WriteFile,
};
pub use host::{CERTIFICATE_VARIABLES, Credentials, DEFAULT_PORT, HOST_VARIABLE, Host, HostError};
pub use image::{
    ArchiveFormat, BundleNames, Images, ImagesUsage, Prune, PullImage, PullSource, RegisterImage,
    TakeOver,
};
pub use kernel::{ImportKernel, Kernels, PullKernel};
pub use operation::Operations;
pub use request::Request;
pub use session::{
    Attach, Collected, Command, Event, Input, Log, Outcome, Process, ReadFrom, Resource, Sessions,
    SignalTarget,
};
pub use stream::Pages;
pub use tls::TlsProblem;
pub use tunnel::{OpenTunnel, TargetError, Tunnel, TunnelTarget, Tunnels};
pub use upload::Source;
pub use vm::{
    Console, CreateVm, InitMode, ListPorts, NetworkMode, NewFile, RestartPolicy, Round, UpdateVm,
    VmEvent, Vms,
};
pub use volume::{CreateVolume, UpdateVolume, Volumes};
pub use workspace::{ExportWorkspace, PrepareWorkspace, Prepared, Workspace, WorkspaceStatus};

/// The documents of catalogs and bundles, and their signatures: for whoever makes a catalog.
pub use banger_catalog as catalog_file;

/// What of a workspace is collected here, and what becomes of one that comes back.
pub mod workspaces {
    pub use banger_workspace::client::apply::{Applied, Done, How, Options as ApplyOptions, apply};
    pub use banger_workspace::client::collect::Options as CollectOptions;
    pub use banger_workspace::client::land::{Landed, LandedRepository, Limits, Place};
    pub use banger_workspace::client::render::{Format, Only, Work};

    pub use crate::workspace::write_tar;
    pub use banger_workspace::client::{
        Error as WorkspaceError, Expected, LocalRepository, Store, expected_conflicts, shown,
    };
    pub use banger_workspace::command::Cancel;
    pub use banger_workspace::wire::{
        Base, Note, NoteKind, RepositoryKind, RepositoryStatus, Status, Unfinished, UnfinishedKind,
    };
}

/// The messages of the API.
pub mod types {
    pub use banger_proto::v1::{
        AuditRecord, BuildLog, Catalog, CatalogEntry, ConsoleOutput, DeleteImageResponse,
        DoctorCheck, DoctorSummary, DriveStats, Event, EventsSnapshot, Exit, FileEvent, FileInfo,
        FilesMoved, Gap, GuestStats, HostInfo, HostStats, HostUsage, Image, ImageConfig,
        ImageLayer, ImageUsage, Kernel, KernelFeature, KernelInspection, ListPortsResponse,
        NetworkStats, Operation, Output, OwnerUsage, Port, Promise, Promises, PruneImagesResponse,
        Screen, Session, SessionSpec, SessionUsage, Stage, StopOutcome, Stream, TerminalSize, Vm,
        VmIdentity, VmSpec, VmStats, VmSummary, Volume, VolumeMount, VolumeUser, build_log,
        catalog_entry, doctor_check, event, exit, file_event, file_info, kernel_feature, operation,
        port, session, stop_outcome, vm, vm_spec,
    };
    pub use prost_types::{Duration, Timestamp};
    pub use tonic_types::Status;
}
