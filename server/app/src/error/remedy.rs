//! What to do about each error.

use banger_core::Explain as _;
use banger_core::host_io::io_remedy;
use banger_core::vm::Phase;

use super::AppError;
use crate::vm::Resource;

/// How to get a kernel.
const WAYS_TO_A_KERNEL: &str = "Get one of a catalog (banger kernel pull NAME), of a distribution (banger kernel import --debian-package linux-image-cloud-amd64), from a file (banger kernel import FILE) or build one (banger kernel build), or name one that is here (--kernel NAME; banger kernel list).";

/// What to do about a limit of the host.
const fn host_limit(resource: Resource) -> &'static str {
    match resource {
        Resource::Vms => "Remove VMs that are not needed, or raise `max_vms` in the configuration.",
        Resource::RunningVms | Resource::Vcpus => {
            "Ask for fewer, stop VMs that are not needed, or raise `vcpu_overcommit` in the configuration; `banger host usage` shows what is promised."
        }
        Resource::Memory => {
            "Ask for less, stop VMs that are not needed, or raise `memory_overcommit` in the configuration; `banger host usage` shows what is promised."
        }
        Resource::Volumes => {
            "Remove volumes that are not needed (banger volume list), or raise `max_volumes` in the configuration."
        }
        Resource::Disk => {
            "Ask for less, remove VMs or volumes that are not needed, or raise `disk_overcommit` in the configuration; `banger host usage` shows what is promised."
        }
    }
}

impl AppError {
    /// How the caller can mend it, where something can be done.
    pub(super) fn what_to_do(&self) -> Option<String> {
        let text = match self {
            Self::Invalid { .. } => "Correct the field and send the request again.".into(),
            Self::RequestIdReused { .. } => "Make a new UUID for each new request.".into(),
            Self::NotFound { resource, .. } => format!("List what exists: banger {resource} list"),
            Self::ImageMissing { reference } => format!("Pull it first: banger image pull {reference}"),
            Self::NameTaken { resource, name } => format!("Choose another name, or remove the {resource}: banger {resource} remove {name}"),
            Self::NotInCatalog { .. } => "Look at what there is with `banger catalog search`, or refresh the catalogs with `banger catalog refresh`.".into(),
            Self::KernelMissing { .. } => WAYS_TO_A_KERNEL.into(),
            Self::KernelDiffers { kernel, catalog } => format!("Use the one that is here (--kernel {kernel}), or get the other under another name (banger kernel pull {catalog}/{kernel} --name OTHER) and name it: --kernel OTHER"),
            Self::TooManyCatalogs { .. } => "Remove one: banger catalog remove NAME".into(),
            Self::CatalogRefused { source, .. } => return source.remedy(),
            Self::CatalogAway { source, .. } | Self::Source(source) => return source.remedy(),
            Self::ReferenceTaken { .. } => "Choose another name, or have it taken over: an admin with --replace, and an operator by pulling, where the image that has it came from a registry too.".into(),
            Self::WrongState { vm, phase, .. } => match phase {
                Phase::Stopped | Phase::Failed => format!("Start it first: banger vm start {vm}"),
                Phase::Paused => format!("Let it go on first: banger vm resume {vm}"),
                Phase::Creating | Phase::Starting | Phase::Pausing | Phase::Resuming | Phase::Stopping => {
                    format!("Wait until it is done: banger vm watch {vm}")
                }
                Phase::Running | Phase::Deleting => return None,
            },
            Self::Changed { vm } => format!("Look at it again (banger vm inspect {vm}), and repeat the change if it is still wanted."),
            Self::DriverCannot { .. } => "Stop the VM instead, or use a daemon with another driver.".into(),
            Self::Overtaken { vm, .. } => format!("Look at its state: banger vm inspect {vm}"),
            Self::InUse { users, .. } => match users.first() {
                Some(vm) => format!("Remove what uses it first: banger vm remove {vm}"),
                None => return None,
            },
            Self::ImageKernelMissing { kernel, .. } => format!("Get it (banger kernel pull {kernel}), or name another: --kernel NAME"),
            Self::ImageOtherPlatform { image, host, .. } => format!("Get it for this host (banger image pull --platform {host} {image}), or name another image."),
            Self::NoKernel => WAYS_TO_A_KERNEL.into(),
            Self::AgentMissing { .. } => "Install it, or set `agent` in the daemon's configuration to where it is.".into(),
            Self::Exhausted { .. } => "Ask for less, remove VMs or images that are not needed, or lower the reserve in the configuration.".into(),
            Self::HostLimit { resource, .. } => host_limit(*resource).into(),
            Self::QuotaExceeded { .. } => "Ask for less, or stop or remove VMs or volumes of this owner. Whoever runs the daemon can raise the quota: `[quota]` and `[owners]` in its configuration; `banger host usage` shows them.".into(),
            Self::TooManyOperations { .. } => "Wait for some of them to end, or cancel some (`banger operation list`). Or raise `operations_per_owner_max` in the configuration.".into(),
            Self::BootQueueFull { .. } => "Try again when some of the boots are done; RetryInfo tells when. Or raise `boot_queue_max` in the configuration.".into(),
            Self::BootTimeout { .. } | Self::BootEnded { .. } => {
                "The user's command did not run. Read the console's end in this error, check that the kernel fits the host, or try another kernel.".into()
            }
            Self::VmEnded { .. } => "Read its console, then start it again.".into(),
            Self::VmmMemoryLimit { .. } => "Start it again. If it comes back, raise `vmm_memory_overhead_mib` in the configuration; a VMM that grows without end may have been taken over by its guest.".into(),
            Self::Unkillable { .. } => "The host kernel holds the process, usually in a disk wait: check the host's disks; the daemon goes on trying.".into(),
            Self::NotAdopted { .. } => "The daemon tries again by itself. To have it off at once, kill the VM, start it again, or remove it: each ends that process first. The cause says what was in the way.".into(),
            Self::NotRemoved { vm, source: Some(_), .. } => format!("Mend what the cause says; the daemon tries again by itself, and at once when you do: banger vm remove {vm}"),
            Self::NotRemoved { vm, source: None, .. } => format!("Check whether the host's disk answers; the removal goes on when it does. To wait for it again: banger vm remove {vm}"),
            Self::DiskHangs { .. } => "Look in the kernel's log why the disk of the state directory does not answer. What waits for it goes on when it does.".into(),
            Self::LookAtDisk { .. } => "Check whether the host's disk answers. What does not need it is told all the same.".into(),
            Self::AgentAway { vm, .. } => format!("Try again in a moment. If it lasts, look at its console: banger vm console {vm}"),
            Self::GivenUp { .. } | Self::OperationCancelled | Self::Interrupted => "Nothing of it is left. Send the request again if it is still wanted.".into(),
            Self::Configure { source } => return source.remedy(),
            Self::WriteFile { .. } => "Give a path that is no directory and no part of a file of the image, an owner that the image has, and a disk that is large enough.".into(),
            Self::Credentials(error) => return error.remedy(),
            Self::MakeDisk { source } => return source.remedy(),
            Self::Image(error) => return error.remedy(),
            Self::HostDiskFull { .. } => return io_remedy(&std::io::ErrorKind::StorageFull.into()),
            Self::Build(error) => return error.remedy(),
            Self::Upload(error) => return error.remedy(),
            Self::Export(error) => return error.remedy(),
            Self::Volume(error) => return error.remedy(),
            Self::File(error) => return error.remedy(),
            Self::Workspace(error) => return error.remedy(),
            Self::NotGrown { vm, .. } => format!("Send the same change again, or restart the VM: banger vm restart {vm}"),
            Self::Kernel(error) => return error.remedy(),
            Self::MakeDirectory { source, .. } if io_remedy(source).is_some() => return io_remedy(source),
            Self::MakeDirectory { .. } | Self::RemoveDirectory { .. } | Self::ReadDirectory { .. } => {
                "Check the state directory's file system: its space, its rights, and whether it is read-only.".into()
            }
            Self::ReadConsole { .. } | Self::ReadExport { .. } => return None,
            Self::Store(error) => return error.remedy(),
            Self::Vmm(error) => return error.remedy(),
            Self::Tunnel(error) => return error.remedy(),
            Self::Ssh(error) => return error.remedy(),
            Self::Guest(error) => return error.remedy(),
            Self::Failed(failure) => return failure.remedy.clone(),
        };
        Some(text)
    }
}
