//! The error of the services. Each variant either names a step of theirs that failed or carries a lower
//! layer's error as it is.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use banger_catalog::CatalogError;
use banger_core::guest::GuestError;
use banger_core::lifecycle::Verb;
use banger_core::vm::Phase;
use banger_core::vmm::VmmError;
use banger_core::{Explain, Failure, FailureKind, Name};
use banger_image::{BundleError, Ext4Error, KernelError, SourceError, StoreError as ImageError};
use banger_store::StoreError;

use crate::build::BuildError;

/// How to get a kernel.
const WAYS_TO_A_KERNEL: &str = "Get one of a catalog (banger kernel pull NAME), of a distribution (banger kernel import --debian-package linux-image-cloud-amd64), from a file (banger kernel import FILE) or build one (banger kernel build), or name one that is here (--kernel NAME; banger kernel list).";

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
        /// `vm`, `image`, `kernel`, `session` or `operation`.
        resource: &'static str,
        /// What was asked for.
        name: String,
    },
    /// A name is taken.
    #[error("a {resource} named `{name}` exists already")]
    NameTaken {
        /// `vm` or `kernel`.
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
    /// Something is in use.
    #[error("{resource} `{name}` is used by {}", list(users))]
    InUse {
        /// `image` or `kernel`.
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
    /// The most VMs exist.
    #[error("there are already {limit} VMs")]
    TooManyVms {
        /// The limit.
        limit: usize,
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
    /// The VM ended by a fault.
    #[error("the VM ended unexpectedly ({detail})")]
    VmEnded {
        /// How, with the last lines of its console, bounded.
        detail: String,
    },
    /// The VMM did not end even by SIGKILL.
    #[error("the VM's process did not end within {limit:?} of SIGKILL")]
    Unkillable {
        /// The limit that ran out.
        limit: Duration,
    },
    /// The agent is not connected now.
    #[error("the agent of VM `{vm}` is not connected")]
    AgentAway {
        /// The VM's name.
        vm: Name,
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
    /// An upload could not be written.
    #[error("could not store the upload")]
    StoreUpload {
        /// Why.
        #[source]
        source: io::Error,
    },
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
    /// A file of an export could not be read.
    #[error("the export could not be read")]
    ReadExport {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Builds.
    #[error(transparent)]
    Build(#[from] Box<BuildError>),
    /// Kernels.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The VMM.
    #[error(transparent)]
    Vmm(#[from] VmmError),
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

fn precondition(subject: String) -> FailureKind {
    FailureKind::FailedPrecondition { subject }
}

impl Explain for AppError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Invalid { field, .. } => FailureKind::InvalidArgument {
                field: (*field).to_owned(),
            },
            Self::RequestIdReused { .. } => FailureKind::InvalidArgument {
                field: "request_id".into(),
            },
            Self::NotFound { resource, name } => FailureKind::NotFound {
                resource: (*resource).to_owned(),
                name: name.clone(),
            },
            Self::ImageMissing { reference } => FailureKind::NotFound {
                resource: "image".into(),
                name: reference.clone(),
            },
            Self::NameTaken { resource, name } => FailureKind::AlreadyExists {
                resource: (*resource).to_owned(),
                name: name.to_string(),
            },
            Self::NotInCatalog { resource, name } => FailureKind::NotFound {
                resource: (*resource).to_owned(),
                name: name.clone(),
            },
            Self::KernelMissing { kernel } => FailureKind::NotFound {
                resource: "kernel".to_owned(),
                name: kernel.clone(),
            },
            Self::TooManyCatalogs { .. } => FailureKind::ResourceExhausted {
                subject: "host/catalogs".to_owned(),
            },
            Self::CatalogRefused { source, .. } => source.kind(),
            Self::CatalogAway { source, .. } | Self::Source(source) => source.kind(),
            Self::ReferenceTaken { reference } => FailureKind::AlreadyExists {
                resource: "image".into(),
                name: reference.clone(),
            },
            Self::WrongState { vm, .. } => precondition(format!("vm/{vm}")),
            Self::InUse { resource, name, .. } => precondition(format!("{resource}/{name}")),
            Self::NoKernel | Self::ImageKernelMissing { .. } => precondition("host/kernel".into()),
            Self::AgentMissing { .. } => precondition("host/agent".into()),
            Self::Exhausted { what, .. } => FailureKind::ResourceExhausted {
                subject: format!("host/{what}"),
            },
            Self::TooManyVms { .. } => FailureKind::ResourceExhausted {
                subject: "host/vms".into(),
            },
            Self::BootTimeout { .. } | Self::Unkillable { .. } => FailureKind::DeadlineExceeded,
            Self::BootEnded { .. } | Self::VmEnded { .. } => precondition("guest/boot".into()),
            Self::Configure { source } => source.kind(),
            Self::AgentAway { .. } | Self::Interrupted => FailureKind::Unavailable {
                retry_after: Duration::from_secs(1),
            },
            Self::Overtaken { .. } | Self::GivenUp { .. } => FailureKind::Aborted,
            Self::OperationCancelled => FailureKind::Cancelled,
            Self::MakeDisk { source } => source.kind(),
            Self::Image(error) => error.kind(),
            Self::Build(error) => error.kind(),
            Self::Kernel(error) => error.kind(),
            Self::MakeDirectory { source, .. } | Self::StoreUpload { source }
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                FailureKind::ResourceExhausted {
                    subject: "host/disk".into(),
                }
            }
            Self::MakeDirectory { .. }
            | Self::RemoveDirectory { .. }
            | Self::ReadDirectory { .. }
            | Self::StoreUpload { .. }
            | Self::ReadConsole { .. }
            | Self::ReadExport { .. } => FailureKind::Internal,
            Self::Store(error) => error.kind(),
            Self::Vmm(error) => error.kind(),
            Self::Guest(error) => error.kind(),
            Self::Failed(failure) => failure.kind.clone(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "INVALID_FIELD",
            Self::RequestIdReused { .. } => "REQUEST_ID_REUSED",
            Self::NotFound { resource, .. } => match *resource {
                "vm" => "VM_NOT_FOUND",
                "image" => "IMAGE_NOT_FOUND",
                "kernel" => "KERNEL_NOT_FOUND",
                "session" => "SESSION_NOT_FOUND",
                "catalog" => "CATALOG_NOT_FOUND",
                _ => "OPERATION_NOT_FOUND",
            },
            Self::ImageMissing { .. } => "IMAGE_NOT_FOUND",
            Self::NameTaken { .. } => "NAME_TAKEN",
            Self::NotInCatalog { .. } => "NOT_IN_CATALOG",
            Self::KernelMissing { .. } => "KERNEL_NOT_FOUND",
            Self::TooManyCatalogs { .. } => "TOO_MANY_CATALOGS",
            Self::CatalogRefused { source, .. } => source.reason(),
            Self::CatalogAway { source, .. } | Self::Source(source) => source.reason(),
            Self::ReferenceTaken { .. } => "REFERENCE_TAKEN",
            Self::WrongState { .. } => "WRONG_STATE",
            Self::Overtaken { .. } => "OVERTAKEN",
            Self::InUse { .. } => "IN_USE",
            Self::NoKernel => "NO_KERNEL",
            Self::ImageKernelMissing { .. } => "IMAGE_KERNEL_MISSING",
            Self::AgentMissing { .. } => "AGENT_MISSING",
            Self::Exhausted { .. } => "HOST_EXHAUSTED",
            Self::TooManyVms { .. } => "TOO_MANY_VMS",
            Self::BootTimeout { .. } => "BOOT_TIMEOUT",
            Self::BootEnded { .. } => "BOOT_ENDED",
            Self::VmEnded { .. } => "VM_ENDED",
            Self::Unkillable { .. } => "VMM_UNKILLABLE",
            Self::Configure { source } => source.reason(),
            Self::AgentAway { .. } => "AGENT_AWAY",
            Self::GivenUp { .. } => "GIVEN_UP",
            Self::OperationCancelled => "OPERATION_CANCELLED",
            Self::Interrupted => "INTERRUPTED",
            Self::MakeDisk { source } => source.reason(),
            Self::Image(error) => error.reason(),
            Self::Build(error) => error.reason(),
            Self::Kernel(error) => error.reason(),
            Self::MakeDirectory { .. }
            | Self::RemoveDirectory { .. }
            | Self::ReadDirectory { .. } => "STATE_DIRECTORY_FAILED",
            Self::StoreUpload { .. } => "UPLOAD_FAILED",
            Self::ReadConsole { .. } => "CONSOLE_UNREADABLE",
            Self::ReadExport { .. } => "EXPORT_UNREADABLE",
            Self::Store(error) => error.reason(),
            Self::Vmm(error) => error.reason(),
            Self::Guest(error) => error.reason(),
            Self::Failed(_) => "OPERATION_FAILED",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Invalid { .. } => "Correct the field and send the request again.".into(),
            Self::RequestIdReused { .. } => "Make a new UUID for each new request.".into(),
            Self::NotFound { resource, .. } => format!("List what exists: banger {resource} list"),
            Self::ImageMissing { reference } => format!("Pull it first: banger image pull {reference}"),
            Self::NameTaken { resource, name } => format!("Choose another name, or remove the {resource}: banger {resource} remove {name}"),
            Self::NotInCatalog { .. } => "Look at what there is with `banger catalog search`, or refresh the catalogs with `banger catalog refresh`.".into(),
            Self::KernelMissing { .. } => WAYS_TO_A_KERNEL.into(),
            Self::TooManyCatalogs { .. } => "Remove one: banger catalog remove NAME".into(),
            Self::CatalogRefused { source, .. } => return source.remedy(),
            Self::CatalogAway { source, .. } | Self::Source(source) => return source.remedy(),
            Self::ReferenceTaken { .. } => "Choose another name, or say that it may be taken over (--replace).".into(),
            Self::WrongState { vm, phase, .. } => match phase {
                Phase::Stopped | Phase::Failed => format!("Start it first: banger vm start {vm}"),
                Phase::Creating | Phase::Starting | Phase::Stopping => format!("Wait until it is done: banger vm watch {vm}"),
                Phase::Running | Phase::Deleting => return None,
            },
            Self::Overtaken { vm, .. } => format!("Look at its state: banger vm inspect {vm}"),
            Self::InUse { users, .. } => match users.first() {
                Some(vm) => format!("Remove what uses it first: banger vm remove {vm}"),
                None => return None,
            },
            Self::ImageKernelMissing { kernel, .. } => format!("Get it (banger kernel pull {kernel}), or name another: --kernel NAME"),
            Self::NoKernel => WAYS_TO_A_KERNEL.into(),
            Self::AgentMissing { .. } => "Install it, or set `agent` in the daemon's configuration to where it is.".into(),
            Self::Exhausted { .. } => "Ask for less, remove VMs or images that are not needed, or lower the reserve in the configuration.".into(),
            Self::TooManyVms { .. } => "Remove VMs that are not needed, or raise `max_vms` in the configuration.".into(),
            Self::BootTimeout { .. } | Self::BootEnded { .. } => {
                "The user's command did not run. Read the console's end in this error, check that the kernel fits the host, or try another kernel.".into()
            }
            Self::VmEnded { .. } => "Read its console, then start it again.".into(),
            Self::Unkillable { .. } => "The host kernel holds the process, usually in a disk wait: check the host's disks; the daemon goes on trying.".into(),
            Self::AgentAway { vm } => format!("Try again in a moment. If it lasts, look at its console: banger vm console {vm}"),
            Self::GivenUp { .. } | Self::OperationCancelled | Self::Interrupted => "Nothing of it is left. Send the request again if it is still wanted.".into(),
            Self::Configure { source } => return source.remedy(),
            Self::MakeDisk { source } => return source.remedy(),
            Self::Image(error) => return error.remedy(),
            Self::Build(error) => return error.remedy(),
            Self::Kernel(error) => return error.remedy(),
            Self::MakeDirectory { .. } | Self::RemoveDirectory { .. } | Self::ReadDirectory { .. } | Self::StoreUpload { .. } => {
                "Check the state directory's file system: its space, its rights, and whether it is read-only.".into()
            }
            Self::ReadConsole { .. } | Self::ReadExport { .. } => return None,
            Self::Store(error) => return error.remedy(),
            Self::Vmm(error) => return error.remedy(),
            Self::Guest(error) => return error.remedy(),
            Self::Failed(failure) => return failure.remedy.clone(),
        };
        Some(text)
    }

    #[allow(clippy::too_many_lines)] // a table
    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Invalid { field, problem } => {
                vec![("field", (*field).to_owned()), ("problem", problem.clone())]
            }
            Self::RequestIdReused { id } => vec![("request_id", id.clone())],
            Self::NotFound { resource, name } => {
                vec![("resource", (*resource).to_owned()), ("name", name.clone())]
            }
            Self::ImageMissing { reference } => {
                vec![("resource", "image".into()), ("name", reference.clone())]
            }
            Self::NameTaken { resource, name } => vec![
                ("resource", (*resource).to_owned()),
                ("name", name.to_string()),
            ],
            Self::NotInCatalog { resource, name } => {
                vec![("resource", (*resource).to_owned()), ("name", name.clone())]
            }
            Self::KernelMissing { kernel } => vec![("kernel", kernel.clone())],
            Self::TooManyCatalogs { limit } => vec![("limit", limit.to_string())],
            Self::CatalogRefused { catalog, source } => {
                [vec![("catalog", catalog.clone())], source.metadata()].concat()
            }
            Self::CatalogAway { catalog, source } => {
                [vec![("catalog", catalog.clone())], source.metadata()].concat()
            }
            Self::Source(source) => source.metadata(),
            Self::ReferenceTaken { reference } => vec![("reference", reference.clone())],
            Self::ImageKernelMissing { image, kernel } => {
                vec![("image", image.clone()), ("kernel", kernel.clone())]
            }
            Self::WrongState { vm, phase, verb } | Self::Overtaken { vm, phase, verb } => {
                vec![
                    ("vm", vm.to_string()),
                    ("state", phase.to_string()),
                    ("verb", verb.as_str().to_owned()),
                ]
            }
            Self::InUse {
                resource,
                name,
                users,
            } => {
                vec![
                    ("resource", (*resource).to_owned()),
                    ("name", name.clone()),
                    ("users", list(users)),
                ]
            }
            Self::AgentMissing { path }
            | Self::MakeDirectory { path, .. }
            | Self::RemoveDirectory { path, .. }
            | Self::ReadDirectory { path, .. } => {
                vec![("path", path.display().to_string())]
            }
            Self::Exhausted {
                what,
                needed_mib,
                available_mib,
            } => vec![
                ("what", (*what).to_owned()),
                ("needed_mib", needed_mib.to_string()),
                ("available_mib", available_mib.to_string()),
            ],
            Self::TooManyVms { limit } => vec![("limit", limit.to_string())],
            Self::BootTimeout { limit, console } => vec![
                ("limit_ms", limit.as_millis().to_string()),
                ("console", console.clone()),
            ],
            Self::BootEnded { detail, console } => {
                vec![("detail", detail.clone()), ("console", console.clone())]
            }
            Self::VmEnded { detail } => vec![("detail", detail.clone())],
            Self::Unkillable { limit } => vec![("limit_ms", limit.as_millis().to_string())],
            Self::AgentAway { vm } => vec![("vm", vm.to_string())],
            Self::GivenUp { why } => vec![("why", (*why).to_owned())],
            Self::NoKernel
            | Self::OperationCancelled
            | Self::Interrupted
            | Self::StoreUpload { .. }
            | Self::ReadConsole { .. }
            | Self::ReadExport { .. } => Vec::new(),
            Self::Configure { source } => source.metadata(),
            Self::MakeDisk { source } => source.metadata(),
            Self::Image(error) => error.metadata(),
            Self::Build(error) => error.metadata(),
            Self::Kernel(error) => error.metadata(),
            Self::Store(error) => error.metadata(),
            Self::Vmm(error) => error.metadata(),
            Self::Guest(error) => error.metadata(),
            Self::Failed(_) => Vec::new(),
        }
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
