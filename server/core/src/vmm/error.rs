//! What can go wrong between a driver and its VMM, and what is to be done about it.

use std::path::PathBuf;
use std::time::Duration;

use crate::host_io::io_remedy;
use crate::{Explain, FailureKind};

/// What went wrong between driver and VMM.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The VMM's program is not installed.
    #[error("the VMM `{program}` was not found")]
    ProgramMissing {
        /// Looked for.
        program: String,
        /// What to install.
        package: &'static str,
    },
    /// A program that comes from its project's releases is not where the configuration says.
    #[error("the VMM `{program}` was not found")]
    ReleaseMissing {
        /// Looked for.
        program: String,
        /// The key of the daemon's configuration that names it.
        key: &'static str,
    },
    /// This kind of VMM cannot do it at all.
    #[error("{driver} cannot do {what}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// By its name in the configuration.
        driver: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A file the VMM needs is not there.
    #[error("`{}` is missing", path.display())]
    FileMissing {
        /// Which.
        path: PathBuf,
        /// What to install.
        package: &'static str,
    },
    /// The process could not be started.
    #[error("could not start the VMM `{program}`")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The process ended before it was of use.
    #[error("the VMM ended while it started ({detail})")]
    EndedEarly {
        /// Exit status and the end of its log, bounded.
        detail: String,
    },
    /// Its identity could not be recorded, so it was not let run.
    #[error("could not record the VMM's process")]
    Journal {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its control socket failed.
    #[error("the VMM's control socket failed during {during}")]
    Control {
        /// The command.
        during: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The VMM refused a command.
    #[error("the VMM refused {during} ({detail})")]
    Refused {
        /// The command.
        during: &'static str,
        /// Its words, bounded.
        detail: String,
    },
    /// The agent's channel failed.
    #[error("the channel to the VM's agent failed")]
    Channel {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The process is gone.
    #[error("the VM's VMM is gone")]
    Gone,
    /// A step took too long.
    #[error("the VMM did not finish {during} within {limit:?}")]
    Deadline {
        /// The step.
        during: &'static str,
        /// The limit that ran out.
        limit: Duration,
    },
    /// A signal could not be sent.
    #[error("could not signal the VMM")]
    Signal {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Which driver launched a VM cannot be read.
    #[error("could not read from `{}` which driver launched the VM", path.display())]
    Unmarked {
        /// Where that is written.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No accelerator can run the guest kernel.
    #[error("no way was found to run a guest on this host ({detail})")]
    NoAccelerator {
        /// What was tried, and how each try ended; bounded.
        detail: String,
    },
}

impl Explain for VmmError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::ProgramMissing { .. }
            | Self::ReleaseMissing { .. }
            | Self::FileMissing { .. }
            | Self::NoAccelerator { .. } => FailureKind::FailedPrecondition {
                subject: "host/vmm".into(),
            },
            Self::Gone | Self::Channel { .. } => FailureKind::Unavailable {
                retry_after: Duration::from_secs(1),
            },
            Self::Deadline { .. } => FailureKind::DeadlineExceeded,
            Self::Unsupported { .. } => FailureKind::Unimplemented,
            Self::Spawn { .. }
            | Self::EndedEarly { .. }
            | Self::Journal { .. }
            | Self::Control { .. }
            | Self::Refused { .. }
            | Self::Signal { .. }
            | Self::Unmarked { .. } => FailureKind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::ProgramMissing { .. } | Self::ReleaseMissing { .. } => "VMM_MISSING",
            Self::Unsupported { .. } => "VMM_CANNOT",
            Self::FileMissing { .. } => "VMM_FILE_MISSING",
            Self::Spawn { .. } => "VMM_NOT_STARTED",
            Self::EndedEarly { .. } => "VMM_ENDED_EARLY",
            Self::Journal { .. } => "VMM_NOT_RECORDED",
            Self::Control { .. } => "VMM_CONTROL_FAILED",
            Self::Refused { .. } => "VMM_REFUSED",
            Self::Channel { .. } => "AGENT_CHANNEL_FAILED",
            Self::Gone => "VMM_GONE",
            Self::Deadline { .. } => "VMM_SILENT",
            Self::Signal { .. } => "VMM_NOT_SIGNALLED",
            Self::Unmarked { .. } => "VMM_UNKNOWN",
            Self::NoAccelerator { .. } => "NO_ACCELERATOR",
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::ProgramMissing { package, .. } | Self::FileMissing { package, .. } => Some(format!("Install it: apt-get install {package}")),
            Self::ReleaseMissing { key, .. } => Some(format!(
                "Put the project's release on this host and its path into `{key}` of the daemon's configuration, or set driver = \"qemu\"."
            )),
            Self::Unsupported { remedy, .. } => Some((*remedy).to_owned()),
            Self::EndedEarly { .. } | Self::Refused { .. } | Self::NoAccelerator { .. } => {
                Some("Read the VMM's log in the VM's directory and the daemon's log.".into())
            }
            Self::Gone => Some("Start the VM again.".into()),
            Self::Unmarked { path, .. } => Some(format!("Check the state directory's file system. If the file is damaged, write `qemu` or `firecracker` into {}: what the VM's process is called.", path.display())),
            Self::Deadline { .. } => Some("The host may be overloaded: try again with fewer VMs, or raise the limit in the configuration.".into()),
            Self::Spawn { source, .. } | Self::Journal { source } if io_remedy(source).is_some() => io_remedy(source),
            Self::Spawn { program, .. } => Some(format!("Check that `{program}` can be run by the daemon's user, and that the host has processes and descriptors left: banger doctor")),
            Self::Journal { .. } => Some("Nothing of it runs. Check the state directory's file system, its space and its rights, then try again.".into()),
            Self::Control { .. } => Some("Try again: the daemon connects anew. If it lasts, the VMM is stuck or gone: kill the VM, and read its log in the VM's directory.".into()),
            Self::Channel { .. } => Some("Try again in a moment: the daemon connects anew. If it lasts, read the VM's console: banger vm console VM".into()),
            Self::Signal { .. } => Some("The daemon may not signal the process, or has no descriptor left: check its rights and its limit of open files (banger doctor), then try again.".into()),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::ProgramMissing { program, package } => vec![
                ("program", program.clone()),
                ("package", (*package).to_owned()),
            ],
            Self::ReleaseMissing { program, key } => {
                vec![("program", program.clone()), ("key", (*key).to_owned())]
            }
            Self::Unsupported { what, driver, .. } => vec![
                ("what", (*what).to_owned()),
                ("driver", (*driver).to_owned()),
            ],
            Self::Unmarked { path, .. } => vec![("path", path.display().to_string())],
            Self::FileMissing { path, package } => vec![
                ("path", path.display().to_string()),
                ("package", (*package).to_owned()),
            ],
            Self::Spawn { program, .. } => vec![("program", program.clone())],
            Self::EndedEarly { detail } | Self::NoAccelerator { detail } => {
                vec![("detail", detail.clone())]
            }
            Self::Control { during, .. } => vec![("during", (*during).to_owned())],
            Self::Refused { during, detail } => {
                vec![("during", (*during).to_owned()), ("detail", detail.clone())]
            }
            Self::Deadline { during, limit } => vec![
                ("during", (*during).to_owned()),
                ("limit_ms", limit.as_millis().to_string()),
            ],
            Self::Journal { .. } | Self::Channel { .. } | Self::Gone | Self::Signal { .. } => {
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn every_error_says_what_to_do() {
        let io = || io::Error::from(io::ErrorKind::PermissionDenied);
        let (program, detail) = (String::from("qemu"), String::from("why"));
        let errors = [
            VmmError::ProgramMissing {
                program: program.clone(),
                package: "qemu-system-x86",
            },
            VmmError::ReleaseMissing {
                program: program.clone(),
                key: "firecracker",
            },
            VmmError::Unsupported {
                what: "this",
                driver: "qemu",
                remedy: "Do without.",
            },
            VmmError::FileMissing {
                path: "/f".into(),
                package: "qemu-system-data",
            },
            VmmError::Spawn {
                program,
                source: io(),
            },
            VmmError::EndedEarly {
                detail: detail.clone(),
            },
            VmmError::Journal { source: io() },
            VmmError::Control {
                during: "stop",
                source: io(),
            },
            VmmError::Refused {
                during: "stop",
                detail: detail.clone(),
            },
            VmmError::Channel { source: io() },
            VmmError::Gone,
            VmmError::Deadline {
                during: "stop",
                limit: Duration::from_secs(1),
            },
            VmmError::Signal { source: io() },
            VmmError::Unmarked {
                path: "/f".into(),
                source: io(),
            },
            VmmError::NoAccelerator { detail },
        ];
        for error in errors {
            let remedy = error.remedy();
            assert!(remedy.is_some_and(|text| text.len() > 10), "{error}");
        }
    }

    #[test]
    fn a_full_disk_is_told_as_one() {
        let full = VmmError::Journal {
            source: io::ErrorKind::StorageFull.into(),
        };
        assert!(full.remedy().unwrap().starts_with("Free space"));
    }
}
