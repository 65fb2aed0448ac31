//! What a new VM's guest is set up with.

use banger_proto::v1;
use bytes::Bytes;

use super::CreateVm;

pub use v1::vm_spec::InitMode;

/// A file that a new VM is given before it is running.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct NewFile(v1::VmFile);

impl NewFile {
    /// At this absolute path, of root's and of mode 0644.
    pub fn new(path: impl Into<String>, content: impl Into<Bytes>) -> Self {
        Self(v1::VmFile {
            path: path.into(),
            content: content.into(),
            ..v1::VmFile::default()
        })
    }

    /// With these permission bits, setuid, setgid and sticky among them; 0 means 0644.
    pub const fn mode(mut self, mode: i32) -> Self {
        self.0.mode = mode;
        self
    }

    /// Of `user`, `uid`, `user:group` or `uid:gid`; empty means root. Directories that are made are its too.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.0.owner = owner.into();
        self
    }
}

impl CreateVm {
    /// Who is process 1: the agent, or the image's own init.
    pub fn init(mut self, mode: InitMode) -> Self {
        self.spec.init_mode = mode.into();
        self
    }

    /// The image's own init, at this path, is process 1.
    pub fn init_at(mut self, path: impl Into<String>) -> Self {
        self.spec.init_path = path.into();
        self.init(InitMode::Image)
    }

    /// With this file, written before the VM is running.
    pub fn file(mut self, file: NewFile) -> Self {
        self.request.files.push(file.0);
        self
    }

    /// With this name on git commits, unless the image sets one.
    pub fn git_name(mut self, name: impl Into<String>) -> Self {
        self.identity().git_name = name.into();
        self
    }

    /// With this mail address on git commits, unless the image sets one.
    pub fn git_email(mut self, email: impl Into<String>) -> Self {
        self.identity().git_email = email.into();
        self
    }

    /// This public key, `TYPE BASE64 [COMMENT]`, may log in as the image's default user.
    pub fn ssh_authorized_key(mut self, key: impl Into<String>) -> Self {
        self.identity().ssh_authorized_keys.push(key.into());
        self
    }

    /// With the files of this profile of the daemon's configuration, copied at each start.
    pub fn credentials(mut self, profile: impl Into<String>) -> Self {
        self.identity().credentials.push(profile.into());
        self
    }

    fn identity(&mut self) -> &mut v1::VmIdentity {
        self.spec.identity.get_or_insert_default()
    }
}
