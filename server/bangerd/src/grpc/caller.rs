//! Who calls.

use banger_core::Owner;
use tonic::Request;
use tonic::transport::server::UdsConnectInfo;

/// The owner of what a call makes: the user of the process at the socket's other end.
pub(crate) fn owner<T>(request: &Request<T>) -> Owner {
    let info = request.extensions().get::<UdsConnectInfo>();
    let peer = info.and_then(|info| info.peer_cred);
    peer.map_or_else(Owner::daemon, |peer| Owner::of_uid(peer.uid()))
}
