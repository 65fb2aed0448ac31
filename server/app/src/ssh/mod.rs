//! What the ssh server of a VM is given: leave to serve a connection, the VM's host key, and who may log in. The server
//! itself is `banger-ssh`; nothing here speaks ssh.

mod error;
mod host_key;

use std::sync::Arc;
use std::time::Duration;

use banger_core::vm::Vm;

pub use error::SshError;
pub use host_key::HostKey;

use crate::Context;
use crate::error::AppError;
use crate::vm::{Place, Places, Use, Vms};

/// Connections of one VM at once. With what each may hold, see `banger-ssh`'s limits.
pub const CONNECTIONS_MAX: usize = 64;

/// Who may connect to the ssh servers of this host's VMs.
pub struct Ssh {
    context: Arc<Context>,
    vms: Arc<Vms>,
    places: Places,
}

impl std::fmt::Debug for Ssh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ssh").finish_non_exhaustive()
    }
}

/// Leave to serve one connection. The VM counts as used until it is dropped.
#[derive(Debug)]
pub struct Admission {
    /// The VM as it was then.
    pub vm: Arc<Vm>,
    /// What the server proves itself with.
    pub host_key: HostKey,
    /// How long a client has from its first byte until it is logged in; a person may have to type a passphrase meanwhile.
    pub login_within: Duration,
    _used: Use,
    _place: Place,
}

impl Admission {
    /// The keys that may log in, as lines of `authorized_keys`. None means that whoever may make the call may log in.
    #[must_use]
    pub fn authorized_keys(&self) -> &[String] {
        &self.vm.spec.identity.ssh_authorized_keys
    }
}

impl Ssh {
    pub(crate) fn new(context: &Arc<Context>, vms: &Arc<Vms>) -> Self {
        Self {
            context: context.clone(),
            vms: vms.clone(),
            places: Places::default(),
        }
    }

    /// The same servers for who sees `vms`.
    pub(crate) fn seen_by(&self, vms: &Arc<Vms>) -> Self {
        Self {
            context: self.context.clone(),
            vms: vms.clone(),
            places: self.places.clone(),
        }
    }

    /// Leave to serve one connection to a VM.
    ///
    /// # Errors
    /// If the VM does not run or has too many, or its host key can be neither read nor made.
    pub async fn admit(&self, vm: &str) -> Result<Admission, AppError> {
        let (vm, _, used) = self.vms.running(vm).await?;
        let place = self.places.take(vm.id, CONNECTIONS_MAX);
        let place = place.ok_or_else(|| SshError::TooMany {
            vm: vm.spec.name.clone(),
            limit: CONNECTIONS_MAX,
        })?;
        Ok(Admission {
            host_key: self.key_of(&vm).await?,
            login_within: self.context.config.ssh_login_timeout,
            vm,
            _used: used,
            _place: place,
        })
    }

    /// The key by which a VM's ssh server is known, whether the VM runs or not. It is made when it is first asked for,
    /// and goes with the VM.
    ///
    /// # Errors
    /// If there is no such VM, or its key can be neither read nor made.
    pub async fn host_key(&self, vm: &str) -> Result<HostKey, AppError> {
        let vm = self.vms.get(vm)?;
        self.key_of(&vm).await
    }

    async fn key_of(&self, vm: &Vm) -> Result<HostKey, AppError> {
        let path = self.context.paths.ssh_host_key(vm.id);
        let made = tokio::task::spawn_blocking(move || HostKey::open(&path)).await;
        let made = made.map_err(|_| AppError::Interrupted)?;
        Ok(made.map_err(|source| SshError::HostKey {
            vm: vm.spec.name.clone(),
            source,
        })?)
    }
}
