//! The one way a client for another host is made.

use std::sync::{Arc, Once};
use std::time::Duration;

use reqwest::{Client, ClientBuilder};

use super::fence::{Fence, FencedResolver};
use super::is_loopback;
use super::tls::{self, TlsFileError, TlsSettings, Trust};

/// Whom a client speaks to, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<'a> {
    /// The host, which may have a port.
    pub(crate) host: &'a str,
    pub(crate) tls: &'a TlsSettings,
    pub(crate) trust: Trust,
    /// The longest wait for a connection.
    pub(crate) connect_timeout: Duration,
}

impl Peer<'_> {
    /// A client that is led nowhere but where `fence` lets it; connects to nothing yet.
    ///
    /// # Errors
    /// If a file of the settings cannot be used.
    pub(crate) fn client(&self, fence: &Arc<Fence>) -> Result<ClientBuilder, TlsFileError> {
        install_provider();
        let mut builder = Client::builder()
            .user_agent(concat!("banger/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .redirect(fence.policy())
            .dns_resolver(FencedResolver(Arc::clone(fence)));
        if is_loopback(self.host) {
            builder = builder.no_proxy();
        }
        tls::configure(builder, self.tls, self.trust)
    }
}

/// One provider for the whole process; another crate may have installed it before.
fn install_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default(); // an error says one is there
    });
}
