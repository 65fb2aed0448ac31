//! Tunnels: connections to sockets in running VMs. Each is one call and one stream to the agent; nothing of it is kept.

mod error;

use std::sync::Arc;
use std::time::Duration;

use banger_core::Name;
use banger_core::guest::{GuestError, TunnelEvents, TunnelInputs};
use banger_core::tunnel::{TUNNELS_MAX, TunnelEvent, TunnelTarget};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;

pub use error::TunnelError;

use crate::error::AppError;
use crate::session::ended;
use crate::vm::{Place, Places, Use, VmView, Vms};

/// What a connected caller receives.
pub type Events = BoxStream<'static, Result<TunnelEvent, AppError>>;

/// The tunnels to this host's VMs.
pub struct Tunnels {
    vms: Arc<Vms>,
    places: Places,
}

impl std::fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnels").finish_non_exhaustive()
    }
}

impl Tunnels {
    pub(crate) fn new(vms: &Arc<Vms>) -> Self {
        Self {
            vms: vms.clone(),
            places: Places::default(),
        }
    }

    /// The same tunnels for who sees `vms`.
    pub(crate) fn seen_by(&self, vms: &Arc<Vms>) -> Self {
        Self {
            vms: vms.clone(),
            places: self.places.clone(),
        }
    }

    /// Connects to a socket in a VM, within `limit`. The VM counts as used until the events are dropped, which resets
    /// a connection that has not ended.
    ///
    /// # Errors
    /// If the VM does not run or has too many tunnels, or if its guest does not connect.
    pub async fn forward(
        &self,
        vm: &str,
        target: &TunnelTarget,
        limit: Duration,
        input: TunnelInputs,
    ) -> Result<Events, AppError> {
        let (vm, guest, used) = self.vms.running(vm).await?;
        let too_many = || TunnelError::TooMany {
            vm: vm.spec.name.clone(),
            limit: TUNNELS_MAX,
        };
        let place = self.places.take(vm.id, TUNNELS_MAX);
        let place = place.ok_or_else(too_many)?;
        let view = self.vms.watch(&vm.id.to_string()).ok();
        let name = vm.spec.name.clone();
        let events = match guest.open_tunnel(target, limit, input).await {
            Ok(events) => events,
            Err(error) => return Err(judged(error, view, &name).await),
        };
        let tunnel = Tunnel {
            events,
            view,
            name,
            _used: used,
            _place: place,
        };
        Ok(stream::unfold(Some(tunnel), Tunnel::next).boxed())
    }
}

/// A tunnel as its caller reads it.
struct Tunnel {
    events: TunnelEvents,
    view: Option<watch::Receiver<VmView>>,
    name: Name,
    _used: Use,
    _place: Place,
}

impl Tunnel {
    async fn next(tunnel: Option<Self>) -> Option<(Result<TunnelEvent, AppError>, Option<Self>)> {
        let mut tunnel = tunnel?;
        match tunnel.events.next().await? {
            Ok(event) => Some((Ok(event), Some(tunnel))),
            Err(error) => {
                let error = judged(error, tunnel.view.take(), &tunnel.name).await;
                Some((Err(error), None))
            }
        }
    }
}

/// A broken link is told apart from a VM that is gone.
async fn judged(error: GuestError, view: Option<watch::Receiver<VmView>>, name: &Name) -> AppError {
    match error {
        GuestError::Lost { .. } if ended(view).await => {
            TunnelError::VmGone { vm: name.clone() }.into()
        }
        other => other.into(),
    }
}
