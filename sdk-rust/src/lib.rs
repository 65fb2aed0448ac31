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
//! Resources are the API's own messages, in [`types`].
//!
//! # Repeats
//!
//! A connection that breaks is made again for as long as [`ClientOptions::reconnect_window`] says. Reads are repeated, and
//! so are changes: each carries a request id, by which the daemon does it once, however often it is asked. Attached
//! processes, logs and watches go on at the byte or the event where the connection left them. What cannot be repeated
//! without doing it twice (a signal, a file that is being written) is not, and fails with [`Error::Disconnected`]. A daemon
//! that has gone silent is noticed within 10 s ([`Error::ConnectionSilent`]).
//!
//! # Errors
//!
//! [`Error`] says what kind it is ([`Error::kind`], by the same names as the Python package's classes), a stable word for
//! programs ([`Error::reason`]), what to do ([`Error::remedy`]), whether the same call may be made again
//! ([`Error::is_retryable`]), and whether the caller's code ran ([`Error::code_ran`]).
//!
//! # Cancellation
//!
//! Futures and streams do nothing unless they are polled, and stop when they are dropped; nothing is left running in the
//! background, but for a [`Source`] that is being read, until that read returns, and a workspace that is just being landed.
//! What that means for the daemon:
//!
//! | dropped | then |
//! |---|---|
//! | a list, a read, a watch, a log | nothing more is sent |
//! | a change, before its answer | it may be done or not; the same [`Request::request_id`] finds out |
//! | [`Vms::create`], a pull, an import, a build, a volume's creation | the work goes on in the daemon, as an operation: [`Operations::watch`], [`Operations::cancel`]; of an import, a registration or a build that is still being sent there is nothing |
//! | a [`Process`] of [`Sessions::exec`] | it is killed, with its children |
//! | a [`Process`] of [`Sessions::attach`] | it goes on; attach again |
//! | an upload, a file that is being written | nothing of the file is there, or all of it where only the answer was missing; of a tree, what was whole before; by [`WriteFile::append`], [`WriteFile::at`] and [`WriteFile::in_place`] what had come |
//! | [`Workspace::prepare`], [`Workspace::export`] | nothing of it is there, or all of it |
//! | a [`Tunnel`] | both ends are reset |
//!
//! # Bytes
//!
//! What comes in pieces has `next`, and is a stream by `into_stream` or a [`Reader`] by `into_reader`; standard input is a
//! [`Writer`] by [`Input::into_writer`], and a [`Tunnel`] is both. So everything of tokio works on them:
//!
//! ```no_run
//! # async fn example(client: banger_sdk::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let log = client.files("web").read("/var/log/messages").open().await?;
//! tokio::io::copy(&mut log.into_reader(), &mut tokio::io::stdout()).await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod audit;
mod bases;
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
mod pieces;
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
pub use error::{Code, CodeRan, Error, ErrorKind, LostProcess, Refusal, Result, chain};
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
pub use pieces::{Reader, Writer};
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

    pub use crate::workspace::{state_directory, write_tar};
    pub use banger_workspace::client::plain::{AppliedFiles, Both, apply_files, go_back};
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
        NetworkStats, Omission, Omissions, Operation, Output, OwnerUsage, Port, Promise, Promises,
        PruneImagesResponse, Screen, Session, SessionSpec, SessionUsage, Stage, StopOutcome,
        Stream, TerminalSize, Vm, VmIdentity, VmSpec, VmStats, VmSummary, Volume, VolumeMount,
        VolumeUser, build_log, catalog_entry, doctor_check, event, exit, file_event, file_info,
        kernel_feature, omission, operation, port, session, stop_outcome, vm, vm_spec,
    };
    pub use prost_types::{Duration, Timestamp};
    pub use tonic_types::Status;
}
