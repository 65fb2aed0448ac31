//! The dynamic words of each error's text, by name.

use banger_core::{Explain as _, Failure};

use super::{AppError, list};
use crate::vm::Resource;

fn numbers(resource: Resource, asked: u64, in_use: u64, limit: u64) -> Vec<(&'static str, String)> {
    vec![
        ("resource", resource.as_str().to_owned()),
        ("asked", asked.to_string()),
        ("in_use", in_use.to_string()),
        ("limit", limit.to_string()),
    ]
}

/// The reason of what is behind an error.
fn cause(failure: Option<&Failure>) -> Option<(&'static str, String)> {
    failure.map(|failure| ("cause", failure.reason.clone()))
}

impl AppError {
    /// Each word of the text that is not always the same.
    #[allow(clippy::too_many_lines)] // a table
    pub(super) fn dynamic_words(&self) -> Vec<(&'static str, String)> {
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
            Self::KernelDiffers { kernel, catalog } => {
                vec![
                    ("kernel", kernel.to_string()),
                    ("catalog", catalog.to_string()),
                ]
            }
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
            Self::ImageOtherPlatform {
                image,
                platform,
                host,
            } => vec![
                ("image", image.clone()),
                ("platform", platform.clone()),
                ("host", host.clone()),
            ],
            Self::WrongState { vm, phase, verb } | Self::Overtaken { vm, phase, verb } => {
                vec![
                    ("vm", vm.to_string()),
                    ("state", phase.to_string()),
                    ("verb", verb.as_str().to_owned()),
                ]
            }
            Self::Changed { vm } => vec![("vm", vm.to_string())],
            Self::DriverCannot { driver, verb } => {
                vec![
                    ("driver", driver.clone()),
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
            | Self::ReadDirectory { path, .. }
            | Self::LookAtDisk { path, .. } => {
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
            Self::HostLimit {
                resource,
                asked,
                in_use,
                limit,
            } => numbers(*resource, *asked, *in_use, *limit),
            Self::QuotaExceeded {
                owner,
                resource,
                asked,
                in_use,
                limit,
            } => [
                vec![("owner", owner.to_string())],
                numbers(*resource, *asked, *in_use, *limit),
            ]
            .concat(),
            Self::TooManyOperations {
                owner,
                running,
                limit,
            } => vec![
                ("owner", owner.to_string()),
                ("running", running.to_string()),
                ("limit", limit.to_string()),
            ],
            Self::BootQueueFull {
                waiting,
                limit,
                retry_after: _,
            } => vec![
                ("waiting", waiting.to_string()),
                ("limit", limit.to_string()),
            ],
            Self::BootTimeout { limit, console } => vec![
                ("limit_ms", limit.as_millis().to_string()),
                ("console", console.clone()),
            ],
            Self::BootEnded { detail, console } => {
                vec![("detail", detail.clone()), ("console", console.clone())]
            }
            Self::VmEnded { detail } => vec![("detail", detail.clone())],
            Self::VmmMemoryLimit { limit_mib } => vec![("limit_mib", limit_mib.to_string())],
            Self::Unkillable { limit } => vec![("limit_ms", limit.as_millis().to_string())],
            Self::NotRemoved { vm, limit, source } => {
                let mut words = vec![
                    ("vm", vm.to_string()),
                    ("limit_ms", limit.as_millis().to_string()),
                ];
                words.extend(cause(source.as_deref()));
                words
            }
            Self::AgentAway { vm, source } => {
                let mut words = vec![("vm", vm.to_string())];
                words.extend(cause(source.as_deref()));
                words
            }
            Self::GivenUp { why } => vec![("why", (*why).to_owned())],
            Self::DiskHangs { during } => vec![("during", (*during).to_owned())],
            Self::NoKernel
            | Self::NotAdopted { .. }
            | Self::OperationCancelled
            | Self::Interrupted
            | Self::ReadConsole { .. }
            | Self::ReadExport { .. } => Vec::new(),
            Self::Configure { source } => source.metadata(),
            Self::WriteFile { path, source } => {
                let mut words = source.metadata();
                words.retain(|(key, _)| *key != "path");
                words.push(("path", path.clone()));
                words
            }
            Self::Credentials(error) => error.metadata(),
            Self::MakeDisk { source } => source.metadata(),
            Self::Image(error) => error.metadata(),
            Self::HostDiskFull { source } => source.metadata(),
            Self::Build(error) => error.metadata(),
            Self::Upload(error) => error.metadata(),
            Self::Export(error) => error.metadata(),
            Self::Volume(error) => error.metadata(),
            Self::File(error) => error.metadata(),
            Self::Workspace(error) => error.metadata(),
            Self::NotGrown { vm, source } => {
                vec![("vm", vm.to_string()), ("cause", source.reason.clone())]
            }
            Self::Kernel(error) => error.metadata(),
            Self::Store(error) => error.metadata(),
            Self::Vmm(error) => error.metadata(),
            Self::Tunnel(error) => error.metadata(),
            Self::Ssh(error) => error.metadata(),
            Self::Guest(error) => error.metadata(),
            Self::Failed(_) => Vec::new(),
        }
    }
}
