//! Who calls.

use std::sync::Arc;

use banger_core::{Identity, Owner};
use http::Extensions;
use tonic::Request;

/// Who calls, as the connection that carries the call says.
pub(crate) fn identity(extensions: &Extensions) -> Option<&Arc<Identity>> {
    extensions.get()
}

/// The owner of what a call makes.
pub(crate) fn owner<T>(request: &Request<T>) -> Owner {
    let identity: Option<&Arc<Identity>> = request.extensions().get();
    identity.map_or_else(Owner::daemon, |identity| identity.owner.clone())
}
