//! What to run and how, in the manner of `std::process::Command`.

use std::time::Duration;

use banger_proto::v1;
use v1::resource_limit::Resource;

/// A command to run in a VM. Without arguments it is the image's own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Command {
    spec: v1::SessionSpec,
}

impl Command {
    /// This program with these arguments; none means the image's entrypoint and cmd.
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        Self {
            spec: v1::SessionSpec {
                command,
                ..v1::SessionSpec::default()
            },
        }
    }

    /// With this variable, above the VM's and the image's.
    #[must_use]
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.env.insert(key.into(), value.into());
        self
    }

    /// In this directory, an absolute path.
    #[must_use]
    pub fn working_dir(mut self, path: impl Into<String>) -> Self {
        self.spec.working_dir = path.into();
        self
    }

    /// As this user: `user`, `uid`, `user:group` or `uid:gid`.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.spec.user = user.into();
        self
    }

    /// On a terminal of this size instead of on pipes.
    #[must_use]
    pub fn terminal(mut self, rows: u16, columns: u16) -> Self {
        let (rows, columns) = (rows.into(), columns.into());
        self.spec.terminal = Some(v1::TerminalSize { rows, columns });
        self
    }

    /// With a standard input that stays open until it is closed. A terminal always has one.
    #[must_use]
    pub const fn stdin(mut self) -> Self {
        self.spec.stdin = true;
        self
    }

    /// Killed after this time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        // A time that the message cannot hold is as good as none.
        self.spec.timeout = prost_types::Duration::try_from(timeout).ok();
        self
    }

    /// Both streams are one pipe, in the order in which they are written; all of it comes as standard output.
    #[must_use]
    pub const fn merge_output(mut self) -> Self {
        self.spec.merge_output = true;
        self
    }

    /// New files do not get these permissions, 0 to octal 777. By itself octal 022.
    #[must_use]
    pub fn umask(mut self, umask: u16) -> Self {
        self.spec.umask = Some(umask.into());
        self
    }

    /// What the kernel lets it have of a resource: what applies, and how far it may raise that; `None` is no limit.
    #[must_use]
    pub fn limit(mut self, resource: Resource, soft: Option<i64>, hard: Option<i64>) -> Self {
        let resource = resource.into();
        self.spec.limits.push(v1::ResourceLimit {
            resource,
            soft,
            hard,
        });
        self
    }

    /// Processes that the first one leaves behind go on after its end, until the session is removed.
    #[must_use]
    pub const fn keep_children(mut self) -> Self {
        self.spec.keep_children = true;
        self
    }

    /// The message that says it.
    #[must_use]
    pub fn into_spec(self) -> v1::SessionSpec {
        self.spec
    }
}

impl From<v1::SessionSpec> for Command {
    fn from(spec: v1::SessionSpec) -> Self {
        Self { spec }
    }
}
