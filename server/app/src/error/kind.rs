//! What kind of failure each error is, and the stable word for it.

use std::io;
use std::time::Duration;

use banger_core::guest::GuestError;
use banger_core::host_io::{io_kind, io_reason};
use banger_core::{Explain, FailureKind};

use super::AppError;
use crate::vm::Resource;

fn precondition(subject: String) -> FailureKind {
    FailureKind::FailedPrecondition { subject }
}

impl Explain for AppError {
    #[allow(clippy::too_many_lines)] // a table
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
            Self::NoKernel | Self::ImageKernelMissing { .. } | Self::KernelDiffers { .. } => {
                precondition("host/kernel".into())
            }
            Self::ImageOtherPlatform { image, .. } => precondition(format!("image/{image}")),
            Self::AgentMissing { .. } => precondition("host/agent".into()),
            Self::Exhausted { what, .. } => FailureKind::ResourceExhausted {
                subject: format!("host/{what}"),
            },
            Self::HostLimit { resource, .. } => FailureKind::ResourceExhausted {
                subject: format!("host/{}", resource.as_str()),
            },
            Self::QuotaExceeded {
                owner, resource, ..
            } => FailureKind::ResourceExhausted {
                subject: format!("owner/{owner}/{}", resource.as_str()),
            },
            Self::TooManyOperations { owner, .. } => FailureKind::ResourceExhausted {
                subject: format!("owner/{owner}/operations"),
            },
            Self::BootQueueFull { retry_after, .. } => FailureKind::Unavailable {
                retry_after: *retry_after,
            },
            Self::BootTimeout { .. } | Self::Unkillable { .. } | Self::DiskHangs { .. } => {
                FailureKind::DeadlineExceeded
            }
            Self::BootEnded { .. } | Self::VmEnded { .. } => precondition("guest/boot".into()),
            Self::NotAdopted { .. } => precondition("vmm/process".into()),
            Self::VmmMemoryLimit { .. } => FailureKind::ResourceExhausted {
                subject: "vmm/memory_mib".into(),
            },
            Self::Configure { source } => source.kind(),
            Self::WriteFile {
                source: GuestError::UnknownUser { .. },
                ..
            } => FailureKind::InvalidArgument {
                field: "files".into(),
            },
            Self::WriteFile { .. } => precondition("guest/files".into()),
            Self::Credentials(error) => error.kind(),
            Self::AgentAway { .. } | Self::Interrupted => FailureKind::Unavailable {
                retry_after: Duration::from_secs(1),
            },
            Self::Overtaken { .. } | Self::Changed { .. } | Self::GivenUp { .. } => {
                FailureKind::Aborted
            }
            Self::DriverCannot { .. } => FailureKind::Unimplemented,
            Self::OperationCancelled => FailureKind::Cancelled,
            Self::MakeDisk { source } => source.kind(),
            Self::Image(error) => error.kind(),
            Self::HostDiskFull { .. } => io_kind(&io::ErrorKind::StorageFull.into()),
            Self::Build(error) => error.kind(),
            Self::Upload(error) => error.kind(),
            Self::Export(error) => error.kind(),
            Self::Volume(error) => error.kind(),
            Self::File(error) => error.kind(),
            Self::Workspace(error) => error.kind(),
            Self::NotGrown { vm, source } => match &source.kind {
                full @ FailureKind::ResourceExhausted { .. } => full.clone(),
                _ => precondition(format!("vm/{vm}")),
            },
            Self::NotRemoved { source, .. } => match source.as_ref().map(|source| &source.kind) {
                Some(full @ FailureKind::ResourceExhausted { .. }) => full.clone(),
                _ => FailureKind::DeadlineExceeded,
            },
            Self::Kernel(error) => error.kind(),
            Self::MakeDirectory { source, .. } => io_kind(source),
            Self::RemoveDirectory { .. }
            | Self::ReadDirectory { .. }
            | Self::LookAtDisk { .. }
            | Self::ReadConsole { .. }
            | Self::ReadExport { .. } => FailureKind::Internal,
            Self::Store(error) => error.kind(),
            Self::Vmm(error) => error.kind(),
            Self::Tunnel(error) => error.kind(),
            Self::Ssh(error) => error.kind(),
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
                "volume" => "VOLUME_NOT_FOUND",
                _ => "OPERATION_NOT_FOUND",
            },
            Self::ImageMissing { .. } => "IMAGE_NOT_FOUND",
            Self::NameTaken { .. } => "NAME_TAKEN",
            Self::NotInCatalog { .. } => "NOT_IN_CATALOG",
            Self::KernelMissing { .. } => "KERNEL_NOT_FOUND",
            Self::KernelDiffers { .. } => "KERNEL_DIFFERS",
            Self::TooManyCatalogs { .. } => "TOO_MANY_CATALOGS",
            Self::CatalogRefused { source, .. } => source.reason(),
            Self::CatalogAway { source, .. } | Self::Source(source) => source.reason(),
            Self::ReferenceTaken { .. } => "REFERENCE_TAKEN",
            Self::WrongState { .. } => "WRONG_STATE",
            Self::Overtaken { .. } => "OVERTAKEN",
            Self::Changed { .. } => "VM_CHANGED",
            Self::DriverCannot { .. } => "DRIVER_CANNOT",
            Self::InUse { .. } => "IN_USE",
            Self::NoKernel => "NO_KERNEL",
            Self::ImageKernelMissing { .. } => "IMAGE_KERNEL_MISSING",
            Self::ImageOtherPlatform { .. } => "IMAGE_OTHER_PLATFORM",
            Self::AgentMissing { .. } => "AGENT_MISSING",
            Self::Exhausted { .. } => "HOST_EXHAUSTED",
            Self::HostLimit { resource, .. } => match resource {
                Resource::Vms => "TOO_MANY_VMS",
                Resource::Volumes => "TOO_MANY_VOLUMES",
                Resource::RunningVms | Resource::Vcpus | Resource::Memory | Resource::Disk => {
                    "HOST_EXHAUSTED"
                }
            },
            Self::QuotaExceeded { .. } => "QUOTA_EXCEEDED",
            Self::TooManyOperations { .. } => "TOO_MANY_OPERATIONS",
            Self::BootQueueFull { .. } => "BOOT_QUEUE_FULL",
            Self::BootTimeout { .. } => "BOOT_TIMEOUT",
            Self::BootEnded { .. } => "BOOT_ENDED",
            Self::VmEnded { .. } => "VM_ENDED",
            Self::VmmMemoryLimit { .. } => "VMM_MEMORY_LIMIT",
            Self::Unkillable { .. } => "VMM_UNKILLABLE",
            Self::NotRemoved { .. } => "VM_NOT_REMOVED",
            Self::DiskHangs { .. } => "HOST_DISK_HANGS",
            Self::NotAdopted { .. } => "VMM_NOT_ADOPTED",
            Self::Configure { source } => source.reason(),
            Self::WriteFile { .. } => "VM_FILE_NOT_WRITTEN",
            Self::Credentials(error) => error.reason(),
            Self::AgentAway { .. } => "AGENT_AWAY",
            Self::GivenUp { .. } => "GIVEN_UP",
            Self::OperationCancelled => "OPERATION_CANCELLED",
            Self::Interrupted => "INTERRUPTED",
            Self::MakeDisk { source } => source.reason(),
            Self::Image(error) => error.reason(),
            Self::Build(error) => error.reason(),
            Self::Upload(error) => error.reason(),
            Self::Export(error) => error.reason(),
            Self::Volume(error) => error.reason(),
            Self::File(error) => error.reason(),
            Self::Workspace(error) => error.reason(),
            Self::NotGrown { .. } => "DISK_NOT_GROWN",
            Self::Kernel(error) => error.reason(),
            Self::HostDiskFull { .. } => "DISK_FULL",
            Self::MakeDirectory { source, .. } => io_reason(source, "STATE_DIRECTORY_FAILED"),
            Self::RemoveDirectory { .. } | Self::ReadDirectory { .. } => "STATE_DIRECTORY_FAILED",
            Self::LookAtDisk { .. } => "VM_DISK_UNREADABLE",
            Self::ReadConsole { .. } => "CONSOLE_UNREADABLE",
            Self::ReadExport { .. } => "EXPORT_UNREADABLE",
            Self::Store(error) => error.reason(),
            Self::Vmm(error) => error.reason(),
            Self::Tunnel(error) => error.reason(),
            Self::Ssh(error) => error.reason(),
            Self::Guest(error) => error.reason(),
            Self::Failed(_) => "OPERATION_FAILED",
        }
    }

    fn remedy(&self) -> Option<String> {
        self.what_to_do()
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        self.dynamic_words()
    }
}
