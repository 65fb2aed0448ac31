//! What can go wrong with a kernel.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_core::{Explain, FailureKind, KernelId};

use super::bundle::KernelBundleError;
use crate::layer::LayerError;
use banger_core::host_io::{io_kind, io_reason, io_remedy};

/// A kernel that could not be imported, kept or prepared.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// What is to be imported cannot be read.
    #[error("could not read `{}`", path.display())]
    Source {
        /// What was named.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host's own files.
    #[error("could not {step} `{}`", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Neither an ELF file nor a bzImage.
    #[error("`{origin}` is neither a vmlinux nor a bzImage")]
    NotAKernel {
        /// Where it came from.
        origin: String,
    },
    /// A bzImage whose inside cannot be had.
    #[error("the kernel in `{origin}` cannot be unpacked: {detail}")]
    BadPayload {
        /// Where it came from.
        origin: String,
        /// What is wrong.
        detail: String,
    },
    /// A kernel for another processor.
    #[error("`{origin}` is not a kernel for x86-64")]
    WrongArchitecture {
        /// Where it came from.
        origin: String,
    },
    /// A kernel that cannot be entered directly.
    #[error("`{origin}` has no PVH entry point")]
    NoPvhEntry {
        /// Where it came from.
        origin: String,
    },
    /// A kernel or module over its bound.
    #[error("`{what}` has more than {limit} bytes")]
    TooLarge {
        /// Which file.
        what: String,
        /// The bound.
        limit: u64,
    },
    /// Modules that others need, and that are nowhere.
    #[error("the kernel has no {}, neither built in nor as a module", modules.join(", "))]
    MissingModules {
        /// Which.
        modules: Vec<String>,
    },
    /// Modules of another kernel.
    #[error("the module `{module}` was built for {built_for}, and the kernel is {release}")]
    ForeignModule {
        /// Which.
        module: String,
        /// What it says, cut.
        built_for: String,
        /// The kernel's.
        release: String,
    },
    /// A configuration that is none.
    #[error("the configuration {origin} cannot be used: {detail}")]
    BadConfig {
        /// Where it was.
        origin: String,
        /// What is wrong.
        detail: String,
    },
    /// A kernel with which no guest comes up.
    #[error(
        "no guest comes up with this kernel, it has no {} (read from: {evidence})",
        listed(lacking)
    )]
    LacksFeatures {
        /// What it lacks.
        lacking: Vec<Lacking>,
        /// What tells so.
        evidence: &'static str,
    },
    /// A module that cannot be read.
    #[error("the module `{module}` is damaged")]
    BadModule {
        /// Which.
        module: String,
    },
    /// Not a package's name.
    #[error("`{name}` is not the name of a Debian package")]
    BadPackageName {
        /// What was given, cut.
        name: String,
    },
    /// A package without a kernel.
    #[error("the package `{package}` holds no kernel")]
    NoKernelInPackage {
        /// Which.
        package: String,
    },
    /// A tool of the distribution is missing.
    #[error("the program `{program}` is not installed")]
    ToolMissing {
        /// Which.
        program: &'static str,
    },
    /// A tool of the distribution failed.
    #[error("`{program}` failed: {output}")]
    Tool {
        /// Which.
        program: &'static str,
        /// What it said, cut.
        output: String,
    },
    /// A tool of the distribution took too long.
    #[error("`{program}` did not end within {} s", deadline.as_secs())]
    ToolDeadline {
        /// Which.
        program: &'static str,
        /// The limit.
        deadline: Duration,
    },
    /// The package's content is malformed.
    #[error("the package cannot be unpacked")]
    Package(#[source] LayerError),
    /// A file that is no kernel bundle.
    #[error(transparent)]
    Bundle(#[from] KernelBundleError),
    /// A bundle that could not be written.
    #[error("the kernel bundle could not be written")]
    ExportFailed {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A kernel with this id is there already.
    #[error("kernel {id} exists already")]
    Exists {
        /// Which.
        id: KernelId,
    },
    /// No kernel with this id.
    #[error("there is no kernel {id}")]
    Missing {
        /// Which.
        id: KernelId,
    },
    /// The caller gave up.
    #[error("the work was cancelled")]
    Cancelled,
    /// A defect of banger.
    #[error("the work ended unexpectedly")]
    Aborted,
}

/// Something that every guest needs and a kernel does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// e.g. `virtio-blk`.
    pub feature: &'static str,
    /// The options that are not set.
    pub options: Vec<&'static str>,
    /// The modules it would be in, which did not come with the kernel.
    pub modules: Vec<&'static str>,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.feature, self.options.join(", "))?;
        if !self.modules.is_empty() {
            write!(f, ", module {} not given", self.modules.join(", "))?;
        }
        f.write_str(")")
    }
}

fn listed(lacking: &[Lacking]) -> String {
    let all: Vec<String> = lacking.iter().map(Lacking::to_string).collect();
    all.join(", ")
}

impl KernelError {
    pub(super) fn source(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Source { path, source }
    }

    pub(super) fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { step, path, source }
    }
}

impl Explain for KernelError {
    fn kind(&self) -> FailureKind {
        let argument = || FailureKind::InvalidArgument {
            field: "source".into(),
        };
        match self {
            Self::Source { .. }
            | Self::NotAKernel { .. }
            | Self::BadPayload { .. }
            | Self::WrongArchitecture { .. }
            | Self::NoPvhEntry { .. }
            | Self::TooLarge { .. }
            | Self::MissingModules { .. }
            | Self::BadModule { .. }
            | Self::ForeignModule { .. }
            | Self::BadConfig { .. }
            | Self::LacksFeatures { .. }
            | Self::BadPackageName { .. }
            | Self::NoKernelInPackage { .. } => argument(),
            Self::Io { source, .. } => io_kind(source),
            Self::ToolMissing { program } => FailureKind::FailedPrecondition {
                subject: format!("host/{program}"),
            },
            Self::Tool { program, .. } => FailureKind::FailedPrecondition {
                subject: format!("host/{program}"),
            },
            Self::ToolDeadline { .. } => FailureKind::DeadlineExceeded,
            Self::Package(error) => error.kind(),
            Self::Bundle(error) => error.kind(),
            Self::ExportFailed { source } => io_kind(source),
            Self::Exists { id } => FailureKind::AlreadyExists {
                resource: "kernel".into(),
                name: id.to_string(),
            },
            Self::Missing { id } => FailureKind::NotFound {
                resource: "kernel".into(),
                name: id.to_string(),
            },
            Self::Cancelled => FailureKind::Cancelled,
            Self::Aborted => FailureKind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Source { .. } => "SOURCE_UNREADABLE",
            Self::Io { source, .. } => io_reason(source, "KERNEL_STORE_IO"),
            Self::NotAKernel { .. } => "NOT_A_KERNEL",
            Self::BadPayload { .. } => "KERNEL_PAYLOAD_BAD",
            Self::WrongArchitecture { .. } => "KERNEL_WRONG_ARCHITECTURE",
            Self::NoPvhEntry { .. } => "KERNEL_WITHOUT_PVH",
            Self::TooLarge { .. } => "KERNEL_TOO_LARGE",
            Self::MissingModules { .. } => "KERNEL_MODULES_MISSING",
            Self::BadModule { .. } => "KERNEL_MODULE_BAD",
            Self::ForeignModule { .. } => "KERNEL_MODULES_FOREIGN",
            Self::BadConfig { .. } => "KERNEL_CONFIG_BAD",
            Self::LacksFeatures { .. } => "KERNEL_LACKS_FEATURES",
            Self::BadPackageName { .. } => "PACKAGE_NAME_INVALID",
            Self::NoKernelInPackage { .. } => "PACKAGE_WITHOUT_KERNEL",
            Self::ToolMissing { .. } => "TOOL_MISSING",
            Self::Tool { .. } => "TOOL_FAILED",
            Self::ToolDeadline { .. } => "TOOL_DEADLINE",
            Self::Package(_) => "PACKAGE_MALFORMED",
            Self::Bundle(error) => error.reason(),
            Self::ExportFailed { source } => io_reason(source, "KERNEL_EXPORT_FAILED"),
            Self::Exists { .. } => "KERNEL_EXISTS",
            Self::Missing { .. } => "KERNEL_NOT_FOUND",
            Self::Cancelled => "CANCELLED",
            Self::Aborted => "KERNEL_STORE_ABORTED",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Source { .. } => {
                "Check the path, as bangerd sees it, and that bangerd may read it."
            }
            Self::Io { source, .. } => return io_remedy(source),
            Self::NotAKernel { .. } | Self::BadPayload { .. } | Self::TooLarge { .. } => {
                "Name a vmlinux (ELF) or a bzImage, such as /boot/vmlinuz-*."
            }
            Self::WrongArchitecture { .. } => "Name a kernel built for x86-64.",
            Self::NoPvhEntry { .. } => {
                "Build the kernel with CONFIG_PVH=y, or import a distribution's cloud kernel."
            }
            Self::BadConfig { .. } => {
                "Give the configuration this kernel was built with: /boot/config-<release>, /proc/config.gz or \
                 the build's .config."
            }
            Self::LacksFeatures { lacking, .. }
                if lacking.iter().any(|one| !one.modules.is_empty()) =>
            {
                "Give the modules directory that belongs to this kernel (`--modules /lib/modules/<release>`)."
            }
            Self::LacksFeatures { .. } => {
                "Build the kernel with these options (`banger kernel build` does), or import a distribution's \
                 cloud kernel."
            }
            Self::MissingModules { .. } | Self::BadModule { .. } | Self::ForeignModule { .. } => {
                "Give the modules directory that belongs to this kernel (/lib/modules/<release>)."
            }
            Self::BadPackageName { .. } | Self::NoKernelInPackage { .. } => {
                "Name a kernel package, such as linux-image-cloud-amd64."
            }
            Self::ToolMissing { .. } => "Install apt and dpkg, or import the kernel from a file.",
            Self::Tool { .. } | Self::ToolDeadline { .. } => {
                "Run `apt-get update` and check the package sources, or import the kernel from a file."
            }
            Self::Package(error) => return error.remedy(),
            Self::Bundle(error) => return error.remedy(),
            Self::ExportFailed { source } => return io_remedy(source),
            Self::Exists { .. } => "Choose another id.",
            Self::Missing { .. } => "Import a kernel: `banger kernel import`.",
            Self::Cancelled | Self::Aborted => return None,
        };
        Some(text.into())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Source { path, .. } => vec![("path", path.display().to_string())],
            Self::Io { step, path, .. } => {
                vec![
                    ("step", (*step).to_owned()),
                    ("path", path.display().to_string()),
                ]
            }
            Self::NotAKernel { origin }
            | Self::WrongArchitecture { origin }
            | Self::NoPvhEntry { origin } => {
                vec![("origin", origin.clone())]
            }
            Self::BadPayload { origin, detail } => {
                vec![("origin", origin.clone()), ("detail", detail.clone())]
            }
            Self::TooLarge { what, limit } => {
                vec![("what", what.clone()), ("limit", limit.to_string())]
            }
            Self::MissingModules { modules } => vec![("modules", modules.join(","))],
            Self::BadModule { module } => vec![("module", module.clone())],
            Self::ForeignModule {
                module,
                built_for,
                release,
            } => vec![
                ("module", module.clone()),
                ("built_for", built_for.clone()),
                ("release", release.clone()),
            ],
            Self::BadConfig { origin, detail } => {
                vec![("origin", origin.clone()), ("detail", detail.clone())]
            }
            Self::LacksFeatures { lacking, evidence } => {
                let joined = |words: &dyn Fn(&Lacking) -> String| {
                    let all: Vec<String> = lacking.iter().map(words).collect();
                    all.into_iter()
                        .filter(|word| !word.is_empty())
                        .collect::<Vec<_>>()
                        .join(",")
                };
                vec![
                    ("features", joined(&|one| one.feature.to_owned())),
                    ("options", joined(&|one| one.options.join(","))),
                    ("modules", joined(&|one| one.modules.join(","))),
                    ("evidence", (*evidence).to_owned()),
                ]
            }
            Self::BadPackageName { name } => vec![("name", name.clone())],
            Self::NoKernelInPackage { package } => vec![("package", package.clone())],
            Self::ToolMissing { program } => vec![("program", (*program).to_owned())],
            Self::Tool { program, output } => vec![
                ("program", (*program).to_owned()),
                ("output", output.clone()),
            ],
            Self::ToolDeadline { program, deadline } => {
                vec![
                    ("program", (*program).to_owned()),
                    ("deadline_seconds", deadline.as_secs().to_string()),
                ]
            }
            Self::Package(error) => error.metadata(),
            Self::Bundle(error) => error.metadata(),
            Self::Exists { id } | Self::Missing { id } => vec![("kernel", id.to_string())],
            Self::ExportFailed { .. } | Self::Cancelled | Self::Aborted => Vec::new(),
        }
    }
}
