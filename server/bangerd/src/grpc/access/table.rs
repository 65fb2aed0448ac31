//! Every method that is served, with the role that it needs, whether it changes anything, and what it is about.
//!
//! A method that is not here is not served, and a test compares this with the descriptors.

use std::collections::HashMap;
use std::sync::LazyLock;

use banger_core::Role::{self, Admin, User, Viewer};

use super::described;

/// Whether a call leaves a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It tells, and leaves everything as it is.
    Reads,
    /// It changes something, or runs something: each call is in the audit log.
    Changes,
    /// It changes something where this field of the request is true: then the call is in the audit log.
    ChangesIf(&'static str),
}

use Effect::{Changes, ChangesIf, Reads};

/// How a method is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sends {
    /// By one message.
    One,
    /// By a stream of them.
    Many,
}

/// What is known of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rpc {
    /// As a request names it: `/package.Service/Method`.
    pub path: &'static str,
    /// The least role that may call it.
    pub role: Role,
    /// What it does.
    pub effect: Effect,
    /// The field of the first message that says what it is about, by names from the outside in; empty for none.
    pub object: &'static str,
}

impl Rpc {
    /// How it is asked.
    #[must_use]
    pub fn sends(&self) -> Sends {
        described::of(self).map_or(Sends::One, |described| described.sends)
    }
}

const fn rpc(path: &'static str, role: Role, effect: Effect, object: &'static str) -> Rpc {
    Rpc {
        path,
        role,
        effect,
        object,
    }
}

/// All methods, by service and name. What reads contents (files, consoles, sessions, images) is not for viewers.
pub const RPCS: &[Rpc] = &[
    rpc(
        "/banger.v1.CatalogService/AddCatalog",
        Admin,
        Changes,
        "url",
    ),
    rpc(
        "/banger.v1.CatalogService/GetCatalog",
        Viewer,
        Reads,
        "catalog",
    ),
    rpc(
        "/banger.v1.CatalogService/ListCatalogEntries",
        Viewer,
        Reads,
        "",
    ),
    rpc("/banger.v1.CatalogService/ListCatalogs", Viewer, Reads, ""),
    rpc(
        "/banger.v1.CatalogService/RefreshCatalog",
        Admin,
        Changes,
        "catalog",
    ),
    rpc(
        "/banger.v1.CatalogService/RemoveCatalog",
        Admin,
        Changes,
        "catalog",
    ),
    rpc("/banger.v1.FileService/DownloadFiles", User, Reads, "vm"),
    rpc("/banger.v1.FileService/ListFiles", User, Reads, "vm"),
    rpc("/banger.v1.FileService/MakeDirectory", User, Changes, "vm"),
    rpc("/banger.v1.FileService/MakeSymlink", User, Changes, "vm"),
    rpc("/banger.v1.FileService/ReadFile", User, Reads, "vm"),
    rpc("/banger.v1.FileService/RemoveFile", User, Changes, "vm"),
    rpc("/banger.v1.FileService/RenameFile", User, Changes, "vm"),
    rpc(
        "/banger.v1.FileService/SetFileAttributes",
        User,
        Changes,
        "vm",
    ),
    rpc("/banger.v1.FileService/StatFile", User, Reads, "vm"),
    rpc(
        "/banger.v1.FileService/UploadFiles",
        User,
        Changes,
        "start.vm",
    ),
    rpc("/banger.v1.FileService/WatchFiles", User, Reads, "vm"),
    rpc(
        "/banger.v1.FileService/WriteFile",
        User,
        Changes,
        "start.vm",
    ),
    // Mending asks for an admin, by the handler.
    rpc(
        "/banger.v1.HostService/Doctor",
        Viewer,
        ChangesIf("fix"),
        "",
    ),
    rpc("/banger.v1.HostService/GetInfo", Viewer, Reads, ""),
    rpc("/banger.v1.HostService/GetUsage", Viewer, Reads, ""),
    rpc("/banger.v1.HostService/ListAudit", Admin, Reads, ""),
    rpc("/banger.v1.HostService/WatchAudit", Admin, Reads, ""),
    rpc("/banger.v1.HostService/WatchEvents", Viewer, Reads, "vm"),
    rpc(
        "/banger.v1.ImageService/BuildImage",
        Admin,
        Changes,
        "start.reference",
    ),
    rpc(
        "/banger.v1.ImageService/DeleteImage",
        Admin,
        Changes,
        "image",
    ),
    rpc("/banger.v1.ImageService/ExportBundle", User, Reads, "image"),
    rpc(
        "/banger.v1.ImageService/ExportOciLayout",
        User,
        Reads,
        "image",
    ),
    rpc("/banger.v1.ImageService/GetImage", Viewer, Reads, "image"),
    rpc("/banger.v1.ImageService/ListImageUsage", Viewer, Reads, ""),
    rpc("/banger.v1.ImageService/ListImages", Viewer, Reads, ""),
    rpc("/banger.v1.ImageService/PruneImages", Admin, Changes, ""),
    // What renames or repoints images asks for an admin, by the handler.
    rpc(
        "/banger.v1.ImageService/PullImage",
        User,
        Changes,
        "reference",
    ),
    rpc(
        "/banger.v1.ImageService/RegisterImage",
        Admin,
        Changes,
        "start.reference",
    ),
    rpc("/banger.v1.ImageService/TagImage", Admin, Changes, "image"),
    rpc(
        "/banger.v1.KernelService/DeleteKernel",
        Admin,
        Changes,
        "kernel",
    ),
    rpc(
        "/banger.v1.KernelService/ExportKernel",
        User,
        Reads,
        "kernel",
    ),
    rpc(
        "/banger.v1.KernelService/GetKernel",
        Viewer,
        Reads,
        "kernel",
    ),
    rpc(
        "/banger.v1.KernelService/ImportKernel",
        Admin,
        Changes,
        "start.name",
    ),
    rpc("/banger.v1.KernelService/ListKernels", Viewer, Reads, ""),
    rpc(
        "/banger.v1.KernelService/PullKernel",
        Admin,
        Changes,
        "kernel",
    ),
    rpc(
        "/banger.v1.OperationService/CancelOperation",
        User,
        Changes,
        "operation",
    ),
    rpc(
        "/banger.v1.OperationService/GetOperation",
        Viewer,
        Reads,
        "operation",
    ),
    rpc(
        "/banger.v1.OperationService/ListOperations",
        Viewer,
        Reads,
        "",
    ),
    rpc(
        "/banger.v1.OperationService/WatchOperation",
        Viewer,
        Reads,
        "operation",
    ),
    rpc(
        "/banger.v1.SessionService/AttachSession",
        User,
        Changes,
        "start.session",
    ),
    rpc(
        "/banger.v1.SessionService/DeleteSession",
        User,
        Changes,
        "session",
    ),
    rpc("/banger.v1.SessionService/Exec", User, Changes, "start.vm"),
    rpc(
        "/banger.v1.SessionService/GetSession",
        User,
        Reads,
        "session",
    ),
    rpc("/banger.v1.SessionService/ListSessions", User, Reads, "vm"),
    rpc(
        "/banger.v1.SessionService/ReadSessionLog",
        User,
        Reads,
        "session",
    ),
    rpc(
        "/banger.v1.SessionService/SignalSession",
        User,
        Changes,
        "session",
    ),
    rpc(
        "/banger.v1.SessionService/StartSession",
        User,
        Changes,
        "vm",
    ),
    rpc(
        "/banger.v1.SessionService/WaitSession",
        User,
        Reads,
        "session",
    ),
    rpc(
        "/banger.v1.TunnelService/Forward",
        User,
        Changes,
        "start.vm",
    ),
    rpc("/banger.v1.VmService/CreateVm", User, Changes, "spec.name"),
    rpc("/banger.v1.VmService/DeleteVm", User, Changes, "vm"),
    rpc("/banger.v1.VmService/GetSshHostKey", Viewer, Reads, "vm"),
    rpc("/banger.v1.VmService/GetVm", Viewer, Reads, "vm"),
    rpc("/banger.v1.VmService/GetVmStats", Viewer, Reads, "vm"),
    rpc("/banger.v1.VmService/KillVm", User, Changes, "vm"),
    // It can ask the services that it finds.
    rpc("/banger.v1.VmService/ListPorts", User, Reads, "vm"),
    rpc("/banger.v1.VmService/ListVms", Viewer, Reads, ""),
    rpc("/banger.v1.VmService/PauseVm", User, Changes, "vm"),
    rpc("/banger.v1.VmService/ReadConsole", User, Reads, "vm"),
    rpc("/banger.v1.VmService/RestartVm", User, Changes, "vm"),
    rpc("/banger.v1.VmService/ResumeVm", User, Changes, "vm"),
    rpc("/banger.v1.VmService/StartVm", User, Changes, "vm"),
    rpc("/banger.v1.VmService/StopVm", User, Changes, "vm"),
    rpc("/banger.v1.VmService/UpdateVm", User, Changes, "vm"),
    rpc("/banger.v1.VmService/WatchVm", Viewer, Reads, "vm"),
    rpc("/banger.v1.VmService/WatchVmStats", Viewer, Reads, "vm"),
    rpc(
        "/banger.v1.VolumeService/CreateVolume",
        User,
        Changes,
        "name",
    ),
    rpc(
        "/banger.v1.VolumeService/DeleteVolume",
        User,
        Changes,
        "volume",
    ),
    rpc(
        "/banger.v1.VolumeService/GetVolume",
        Viewer,
        Reads,
        "volume",
    ),
    rpc("/banger.v1.VolumeService/ListVolumes", Viewer, Reads, ""),
    rpc(
        "/banger.v1.VolumeService/UpdateVolume",
        User,
        Changes,
        "volume",
    ),
    rpc(
        "/banger.v1.WorkspaceService/ExportWorkspace",
        User,
        Reads,
        "vm",
    ),
    rpc(
        "/banger.v1.WorkspaceService/GetWorkspaceStatus",
        User,
        Reads,
        "vm",
    ),
    rpc(
        "/banger.v1.WorkspaceService/PrepareWorkspace",
        User,
        Changes,
        "start.vm",
    ),
    rpc("/grpc.health.v1.Health/Check", Viewer, Reads, ""),
    rpc("/grpc.health.v1.Health/Watch", Viewer, Reads, ""),
    rpc(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Viewer,
        Reads,
        "",
    ),
    rpc(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Viewer,
        Reads,
        "",
    ),
];

static BY_PATH: LazyLock<HashMap<&'static str, &'static Rpc>> =
    LazyLock::new(|| RPCS.iter().map(|rpc| (rpc.path, rpc)).collect());

/// The method that a request names.
#[must_use]
pub fn find(path: &str) -> Option<&'static Rpc> {
    BY_PATH.get(path).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// Everything that could be called, as the descriptors of what is served have it.
    fn described() -> BTreeSet<String> {
        let sets = [
            banger_proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let files = sets
            .into_iter()
            .flat_map(|set| FileDescriptorSet::decode(set).unwrap().file);
        let mut paths = BTreeSet::new();
        for file in files {
            // Between host and guest, and never served by the host.
            if file.package() == "banger.guest.v1" {
                continue;
            }
            for service in &file.service {
                for method in &service.method {
                    let (package, service) = (file.package(), service.name());
                    paths.insert(format!("/{package}.{service}/{}", method.name()));
                }
            }
        }
        paths
    }

    #[test]
    fn the_table_has_every_method_and_no_other() {
        let table: BTreeSet<String> = RPCS.iter().map(|rpc| rpc.path.to_owned()).collect();
        assert_eq!(table.len(), RPCS.len(), "a method is there twice");
        let described = described();
        let missing: Vec<_> = described.difference(&table).collect();
        assert!(missing.is_empty(), "without a role: {missing:?}");
        let stale: Vec<_> = table.difference(&described).collect();
        assert!(stale.is_empty(), "not served: {stale:?}");
    }

    #[test]
    fn the_table_is_sorted_so_that_a_method_is_found_by_eye() {
        assert!(RPCS.is_sorted_by_key(|rpc| rpc.path));
    }

    #[test]
    fn nothing_that_changes_is_for_viewers() {
        let wrong = RPCS
            .iter()
            .find(|rpc| rpc.effect == Changes && rpc.role == Viewer);
        assert_eq!(wrong, None);
    }
}
