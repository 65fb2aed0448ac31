//! The error of the services. Each variant either names a step of theirs that failed or carries a lower
//! layer's error as it is. What is told about each is beside: its kind and reason, its remedy, its words.

mod kind;
mod metadata;
mod remedy;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use banger_catalog::CatalogError;
use banger_core::guest::GuestError;
use banger_core::lifecycle::Verb;
use banger_core::vm::Phase;
use banger_core::vmm::VmmError;
use banger_core::{Failure, Name, Owner};
use banger_image::{BundleError, Ext4Error, KernelError, SourceError, StoreError as ImageError};
use banger_store::StoreError;

use crate::build::BuildError;
use crate::credentials::CredentialError;
use crate::export::ExportError;
use crate::file::FileError;
use crate::ssh::SshError;
use crate::tunnel::TunnelError;
use crate::upload::UploadError;
use crate::vm::Resource;
use crate::volume::VolumeError;
use crate::workspace::WorkspaceError;

/// Why a service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A field of the request is wrong.
    #[error("{field} {problem}")]
    Invalid {
        /// The field's path in the request.
        field: &'static str,
        /// What is wrong, as the end of a sentence that begins with the field.
        problem: String,
    },
    /// The named resource does not exist.
    #[error("{resource} `{name}` does not exist")]
    NotFound {
        /// `vm`, `image`, `kernel`, `volume`, `session`, `catalog` or `operation`.
        resource: &'static str,
        /// What was asked for.
        name: String,
    },
    /// A name is taken.
    #[error("a {resource} named `{name}` exists already")]
    NameTaken {
        /// `vm`, `kernel` or `volume`.
        resource: &'static str,
        /// The name.
        name: Name,
    },
    /// The VM's state forbids the verb.
    #[error("VM `{vm}` is {phase}, which does not allow {}", verb.as_str())]
    WrongState {
        /// The VM's name.
        vm: Name,
        /// Its phase.
        phase: Phase,
        /// What was asked.
        verb: Verb,
    },
    /// Another verb took over before this one was done.
    #[error("VM `{vm}` was {phase} by another request before it could {}", verb.as_str())]
    Overtaken {
        /// The VM's name.
        vm: Name,
        /// Where it went instead.
        phase: Phase,
        /// What was asked.
        verb: Verb,
    },
    /// The VM was changed since its caller looked at it.
    #[error("VM `{vm}` was changed by another request in the meantime")]
    Changed {
        /// The VM's name.
        vm: Name,
    },
    /// The driver cannot do it at all.
    #[error("the driver {driver} cannot {} a VM", verb.as_str())]
    DriverCannot {
        /// The driver's name.
        driver: String,
        /// What was asked.
        verb: Verb,
    },
    /// Something is in use.
    #[error("{resource} `{name}` is used by {}", list(users))]
    InUse {
        /// `image`, `kernel` or `volume`.
        resource: &'static str,
        /// What was to go.
        name: String,
        /// The VMs that use it.
        users: Vec<Name>,
    },
    /// Neither caller nor host names a kernel.
    #[error("there is no kernel to boot the VM with")]
    NoKernel,
    /// The image is not here and was not to be pulled.
    #[error("image `{reference}` is not on this host")]
    ImageMissing {
        /// As the caller named it.
        reference: String,
    },
    /// A request id was used for another request.
    #[error("request id {id} was used before, for another request")]
    RequestIdReused {
        /// The id.
        id: String,
    },
    /// The host has too little of something.
    #[error(
        "not enough {what}: {needed_mib} MiB are needed, {available_mib} MiB are free above the reserve"
    )]
    Exhausted {
        /// `memory` or `disk`.
        what: &'static str,
        /// MiB.
        needed_mib: u64,
        /// MiB.
        available_mib: u64,
    },
    /// The host would be promised more than it may be.
    #[error("the host has no room for {asked} {} more: {in_use} of {limit} are in use", resource.unit())]
    HostLimit {
        /// Of what.
        resource: Resource,
        /// How much more was asked for.
        asked: u64,
        /// How much is promised already.
        in_use: u64,
        /// How much may be.
        limit: u64,
    },
    /// The owner would have more than its quota.
    #[error("`{owner}` may not have {asked} {} more: {in_use} of {limit} are in use", resource.unit())]
    QuotaExceeded {
        /// Whose quota.
        owner: Owner,
        /// Of what.
        resource: Resource,
        /// How much more was asked for.
        asked: u64,
        /// How much the owner has already.
        in_use: u64,
        /// How much the owner may have.
        limit: u64,
    },
    /// The owner has as much long work under way as it may.
    #[error("`{owner}` has {running} operations under way, which is the most that it may")]
    TooManyOperations {
        /// Whose.
        owner: Owner,
        /// How many there are.
        running: usize,
        /// How many may be.
        limit: usize,
    },
    /// As many boots wait as may.
    #[error("{waiting} boots are waiting already, which is the most that may")]
    BootQueueFull {
        /// How many wait.
        waiting: usize,
        /// How many may.
        limit: usize,
        /// When it is worth another try.
        retry_after: Duration,
    },
    /// The agent binary is not there.
    #[error("the guest agent `{}` is missing", path.display())]
    AgentMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The guest did not come up.
    #[error("the VM's agent did not report within {limit:?} of the VM's start")]
    BootTimeout {
        /// The limit that ran out.
        limit: Duration,
        /// The last lines of its console, bounded.
        console: String,
    },
    /// The VM ended before its agent reported.
    #[error("the VM ended while it booted ({detail})")]
    BootEnded {
        /// How.
        detail: String,
        /// The last lines of its console, bounded.
        console: String,
    },
    /// The agent answered, but could not set the guest up.
    #[error("the VM could not be set up")]
    Configure {
        /// Why.
        #[source]
        source: GuestError,
    },
    /// A file that the VM was to be given could not be written.
    #[error("could not write `{path}` in the VM")]
    WriteFile {
        /// As the caller named it.
        path: String,
        /// Why.
        #[source]
        source: GuestError,
    },
    /// Credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The VM ended by a fault.
    #[error("the VM ended unexpectedly ({detail})")]
    VmEnded {
        /// How, with the last lines of its console, bounded.
        detail: String,
    },
    /// The host's kernel ended the VMM at its memory ceiling.
    #[error(
        "the VM's VMM wanted more than the {limit_mib} MiB of memory that it may have, and the host's kernel ended it"
    )]
    VmmMemoryLimit {
        /// The ceiling.
        limit_mib: u64,
    },
    /// The VMM did not end even by SIGKILL.
    #[error("the VM's process did not end within {limit:?} of SIGKILL")]
    Unkillable {
        /// The limit that ran out.
        limit: Duration,
    },
    /// A VM that is to go is still there.
    #[error("VM `{vm}` is not gone {limit:?} after it was to go; the daemon goes on removing it")]
    NotRemoved {
        /// The VM's name.
        vm: Name,
        /// The limit that ran out.
        limit: Duration,
        /// What keeps it, as far as is known; absent where something hangs.
        #[source]
        source: Option<Box<Failure>>,
    },
    /// The host's disk did not answer in time.
    #[error("the host's disk did not answer in time to {during}")]
    DiskHangs {
        /// What was being done.
        during: &'static str,
    },
    /// A VMM that nobody holds, of an earlier daemon or a launch that failed, could not be taken over.
    #[error("the VM's process may live, and could not be taken over")]
    NotAdopted {
        /// Why.
        #[source]
        source: Box<AppError>,
    },
    /// The agent is not connected now.
    #[error("the agent of VM `{vm}` is not connected")]
    AgentAway {
        /// The VM's name.
        vm: Name,
        /// Why it could not be reached the last time; absent where nobody knows.
        #[source]
        source: Option<Box<Failure>>,
    },
    /// The work was given up for a later request.
    #[error("the work was given up: {why}")]
    GivenUp {
        /// Why.
        why: &'static str,
    },
    /// An image's own kernel is not here.
    #[error("image `{image}` wants kernel `{kernel}`, which is not here")]
    ImageKernelMissing {
        /// The image.
        image: String,
        /// The kernel it names.
        kernel: String,
    },
    /// An image is for other machines.
    #[error("image `{image}` is for {platform}, and this host runs {host}")]
    ImageOtherPlatform {
        /// The image, as it was named.
        image: String,
        /// What it is made for.
        platform: String,
        /// What runs here.
        host: String,
    },
    /// No catalog has it.
    #[error("no catalog has the {resource} `{name}` for this host")]
    NotInCatalog {
        /// `image` or `kernel`.
        resource: &'static str,
        /// As the caller named it.
        name: String,
    },
    /// A kernel that is named is neither here nor in a catalog.
    #[error("there is no kernel `{kernel}`, neither on this host nor in a catalog")]
    KernelMissing {
        /// Its name.
        kernel: String,
    },
    /// An image's kernel is not the one of that name here.
    #[error("kernel `{kernel}` of catalog `{catalog}` is not the kernel `{kernel}` of this host")]
    KernelDiffers {
        /// Its name.
        kernel: Name,
        /// The catalog's.
        catalog: Name,
    },
    /// The most catalogs exist.
    #[error("there are already {limit} catalogs")]
    TooManyCatalogs {
        /// The limit.
        limit: usize,
    },
    /// A catalog's index is not believed.
    #[error("the catalog `{catalog}` is refused")]
    CatalogRefused {
        /// Its name, or its address while it has none.
        catalog: String,
        /// Why.
        #[source]
        source: CatalogError,
    },
    /// A catalog's index did not come.
    #[error("the catalog `{catalog}` could not be read")]
    CatalogAway {
        /// Its name, or its address while it has none.
        catalog: String,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// The way to a catalog.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A reference names another image.
    #[error("`{reference}` names another image")]
    ReferenceTaken {
        /// Which.
        reference: String,
    },
    /// A caller gave the operation up.
    #[error("the operation was cancelled")]
    OperationCancelled,
    /// The daemon stopped in the middle of it.
    #[error("the daemon stopped before the work was done")]
    Interrupted,
    /// A file step failed.
    #[error("could not make the VM's disk")]
    MakeDisk {
        /// Why.
        #[source]
        source: Ext4Error,
    },
    /// A directory could not be made.
    #[error("could not make directory `{}`", path.display())]
    MakeDirectory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory could not be removed.
    #[error("could not remove `{}`", path.display())]
    RemoveDirectory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory could not be read.
    #[error("could not read `{}`", path.display())]
    ReadDirectory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A VM's disk could not be looked at.
    #[error("could not look at the VM's disk `{}`", path.display())]
    LookAtDisk {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Uploads.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The console could not be read.
    #[error("could not read the VM's console")]
    ReadConsole {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Images.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Exports.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A file of an export could not be read.
    #[error("the export could not be read")]
    ReadExport {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something failed in a VM while the host had no space left for what the VM wrote.
    #[error("the state directory's disk is full, so that a VM could not write to its own")]
    HostDiskFull {
        /// What failed.
        #[source]
        source: Box<AppError>,
    },
    /// Builds.
    #[error(transparent)]
    Build(#[from] Box<BuildError>),
    /// Volumes.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The disk of a VM did not grow while it ran; its record says that it is to.
    #[error("the disk of VM `{vm}` could not be grown while it runs, and grows at its next start")]
    NotGrown {
        /// The VM's name.
        vm: Name,
        /// Why.
        #[source]
        source: Box<Failure>,
    },
    /// Kernels.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The VMM.
    #[error(transparent)]
    Vmm(#[from] VmmError),
    /// Files of VMs.
    #[error(transparent)]
    File(Box<FileError>),
    /// Workspaces of VMs.
    #[error(transparent)]
    Workspace(Box<WorkspaceError>),
    /// Tunnels.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// Connections by ssh.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The guest.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// An operation that was joined had failed.
    #[error(transparent)]
    Failed(Box<Failure>),
}

fn list(names: &[Name]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("VM `{name}`"))
        .collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl AppError {
    /// The error in the form that is answered and kept. A failure that was joined stays as it was.
    #[must_use]
    pub fn to_failure(&self) -> Failure {
        match self {
            Self::Failed(failure) => Failure::clone(failure),
            other => Failure::of(other),
        }
    }
}

impl From<BundleError> for AppError {
    fn from(error: BundleError) -> Self {
        Self::Image(error.into())
    }
}

impl From<BuildError> for AppError {
    fn from(error: BuildError) -> Self {
        Self::Build(Box::new(error))
    }
}
