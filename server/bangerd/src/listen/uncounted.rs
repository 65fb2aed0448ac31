//! Who has no bounds: root and the daemon's own user at the unix socket, since who keeps the host must get through when
//! others fill it.

use banger_core::Identity;
use banger_core::access::Via;

/// Knows them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uncounted {
    daemon: u32,
}

impl Uncounted {
    /// For a daemon that runs as this process does.
    #[must_use]
    pub(super) fn here() -> Self {
        let daemon = rustix::process::geteuid().as_raw();
        Self { daemon }
    }

    /// Whether a user of this host is one.
    #[must_use]
    pub(super) const fn has_uid(self, uid: u32) -> bool {
        uid == 0 || uid == self.daemon
    }

    /// Whether a caller is one.
    #[must_use]
    pub(super) const fn has(self, caller: &Identity) -> bool {
        matches!(caller.via, Via::Unix { uid } if self.has_uid(uid))
    }
}
