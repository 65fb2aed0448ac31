//! One connection from its first byte to its last.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use banger_app::App;
use banger_app::ssh::{Admission, HostKey};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::{Config, run_stream};
use russh::{MethodKind, MethodSet, SshId};

use crate::handler::Handler;
use crate::limits::{
    AUTH_TRIES, FAREWELL_WITHIN, KEEPALIVE_EVERY, KEEPALIVES_MAX, MESSAGES_WAITING, PACKET_MAX,
    WINDOW,
};
use crate::transport::Transport;

/// Serves a connection until either side ends it. What runs for it is told to end then.
pub(crate) async fn serve(app: Arc<App>, admission: Admission, transport: Transport) {
    let vm = admission.vm.spec.name.clone();
    let config = Arc::new(config(&admission.host_key));
    let limit = admission.login_within;
    let cutter = transport.cutter();
    let (handler, logged_in) = Handler::new(app, admission);
    let begun = run_stream(config, transport, handler);
    let ended = match tokio::time::timeout(limit, begun).await {
        Ok(Ok(mut session)) => tokio::select! {
            // cancel-safe: the session is a task of its own
            ended = &mut session => ended,
            // cancel-safe: dropping it says nothing
            () = late(logged_in, limit) => {
                let handle = session.handle();
                let farewell = handle.disconnect(
                    russh::Disconnect::NoMoreAuthMethodsAvailable,
                    "nobody has logged in for too long".into(),
                    "en".into(),
                );
                let farewell = async {
                    // It is told only between two exchanges of keys, and a client may leave off in the middle of one.
                    let _ = farewell.await;
                    (&mut session).await
                };
                match tokio::time::timeout(FAREWELL_WITHIN, farewell).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        cutter.cut();
                        session.await
                    }
                }
            }
        },
        Ok(Err(error)) => Err(error),
        Err(_) => {
            tracing::debug!(%vm, "an ssh client did not say who it is in time");
            return;
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%vm, error = banger_core::chain(&error), "an ssh connection has ended");
    }
}

/// Resolves when nobody has logged in in time.
async fn late(logged_in: tokio_util::sync::CancellationToken, limit: Duration) {
    if tokio::time::timeout(limit, logged_in.cancelled())
        .await
        .is_ok()
    {
        std::future::pending::<()>().await;
    }
}

fn config(host_key: &HostKey) -> Config {
    let host_key = PrivateKey::from(Ed25519Keypair::from_seed(host_key.seed()));
    let version = concat!("SSH-2.0-banger_", env!("CARGO_PKG_VERSION"));
    Config {
        server_id: SshId::Standard(Cow::Borrowed(version)),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // Nobody guesses a key, and an agent with many would wait for each.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        window_size: WINDOW,
        maximum_packet_size: PACKET_MAX,
        // Nothing is put there: what comes goes to an inbox.
        channel_buffer_size: 1,
        event_buffer_size: MESSAGES_WAITING,
        max_auth_attempts: AUTH_TRIES,
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE_EVERY),
        keepalive_max: KEEPALIVES_MAX,
        ..Config::default()
    }
}
