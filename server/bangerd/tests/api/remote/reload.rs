//! What changes while the daemon serves: certificates, revocations, rules.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use banger_core::Role;
use banger_proto::v1;
use bangerd::config::{Config, IdentityRule};
use bangerd::listen::reload::Reread;
use rustix::process::{Signal, getpid, kill_process};
use tokio::io::AsyncReadExt as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::certificates::{Authority, replace};
use super::{Remote, until};
use crate::rig::PATIENCE;

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_shut_out_at_once_and_others_stay() {
    let remote = Remote::start().await;
    let (lost, kept) = (
        remote.authority.client("admin", "lost"),
        remote.authority.client("admin", "kept"),
    );
    let watch = async |client| {
        let mut health = HealthClient::new(remote.channel(client).await.unwrap());
        let answers = health.watch(HealthCheckRequest::default()).await.unwrap();
        let mut answers = answers.into_inner();
        answers.message().await.unwrap().unwrap();
        (health, answers)
    };
    let (_lost_health, mut of_lost) = watch(&lost).await;
    let (mut kept_health, _of_kept) = watch(&kept).await;
    replace(
        &remote.file("ca.crl"),
        remote.authority.revoked(&[lost.serial]).as_bytes(),
    );
    let ended = tokio::time::timeout(PATIENCE * 3, of_lost.message()).await;
    assert!(ended.expect("it is cut off").is_err());
    // The same client, which may keep a session: none is resumed.
    assert!(remote.knock(&lost).await.is_err());
    kept_health
        .check(HealthCheckRequest::default())
        .await
        .unwrap();
    remote.knock(&kept).await.unwrap();
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_written_in_place_counts_too() {
    let remote = Remote::start().await;
    let lost = remote.authority.client("admin", "lost");
    remote.knock(&lost).await.unwrap();
    let list = remote.authority.revoked(&[lost.serial]);
    std::fs::write(remote.file("ca.crl"), list).unwrap();
    until("the revocation", async || {
        remote.knock(&lost).await.is_err().then_some(())
    })
    .await;
    remote.rig.stopped().await;
}

/// The certificate that the daemon shows.
async fn shown(remote: &Remote) -> Vec<u8> {
    let client = remote.authority.client("admin", "test");
    let stream = remote.tls(&client).await.unwrap();
    let (_, session) = stream.get_ref();
    session.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_and_open_connections_live_on() {
    let remote = Remote::start().await;
    let client = remote.authority.client("admin", "test");
    let mut hosts = remote.hosts(&client).await;
    hosts.get_info(v1::GetInfoRequest {}).await.unwrap();
    let before = shown(&remote).await;
    let renewed = remote
        .authority
        .write_server(&remote.file("server.crt"), &remote.file("server.key"));
    assert_ne!(before, renewed);
    until("the new certificate", async || {
        (shown(&remote).await == renewed).then_some(())
    })
    .await;
    hosts.get_info(v1::GetInfoRequest {}).await.unwrap();
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_changes_nothing() {
    let remote = Remote::start().await;
    let client = remote.authority.client("admin", "test");
    let before = shown(&remote).await;
    replace(&remote.file("server.crt"), b"no certificate");
    replace(&remote.file("ca.crl"), b"no list");
    // A broken list is not an empty one, and the next right one is taken.
    remote.knock(&client).await.unwrap();
    assert_eq!(shown(&remote).await, before);
    let renewed = remote
        .authority
        .write_server(&remote.file("server.crt"), &remote.file("server.key"));
    replace(
        &remote.file("ca.crl"),
        remote.authority.revoked(&[]).as_bytes(),
    );
    until("the new certificate", async || {
        (shown(&remote).await == renewed).then_some(())
    })
    .await;
    remote.rig.stopped().await;
}

fn rule(role: Role) -> IdentityRule {
    IdentityRule {
        uri: Some("banger:admin/test".into()),
        dns: None,
        cn: None,
        organisation: None,
        name: "test".into(),
        role,
    }
}

/// A configuration that is told by the test: the role of its one rule, and how often it was read.
fn told(
    role: &Arc<Mutex<Role>>,
    read: &Arc<AtomicUsize>,
    config: &Arc<Mutex<Option<Config>>>,
) -> Reread {
    let (role, read, config) = (role.clone(), read.clone(), config.clone());
    Reread {
        file: None,
        read: Arc::new(move || {
            let mut config = config.lock().unwrap().clone().unwrap();
            config.tcp.identities = vec![rule(*role.lock().unwrap())];
            read.fetch_add(1, Ordering::SeqCst);
            Ok(config)
        }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_sighup_rules_are_read_anew_and_who_is_somebody_else_comes_again() {
    let (role, read) = (Arc::new(Mutex::new(Role::Admin)), Arc::default());
    let config = Arc::default();
    let reread = told(&role, &read, &config);
    let remote = Remote::start_reread(
        |made| {
            made.tcp.identities = vec![rule(Role::Admin)];
            *config.lock().unwrap() = Some(made.clone());
        },
        Some(reread),
    )
    .await;
    let client = remote.authority.client("admin", "test");
    let mut stream = remote.tls(&client).await.unwrap();
    until("the first reading", async || {
        (read.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    *role.lock().unwrap() = Role::Viewer;
    let closed = Arc::new(AtomicBool::new(false));
    let seen = closed.clone();
    let reading = tokio_util::task::TaskTracker::new().spawn(async move {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        seen.store(true, Ordering::SeqCst);
    });
    // A daemon takes the signal from when it serves; other daemons of this process read their files again, too.
    until("the end of the connection", async || {
        kill_process(getpid(), Signal::HUP).unwrap();
        closed.load(Ordering::SeqCst).then_some(())
    })
    .await;
    reading.await.unwrap();
    remote.knock(&client).await.unwrap();
    remote.rig.stopped().await;
}

/// The chain of a client of an authority, whom the daemon believes beside its own.
fn believe(remote: &Remote, other: &Authority) {
    let own = &remote.authority;
    // The list first: an authority without one is not taken.
    let lists = [own.revoked(&[]), other.revoked(&[])].concat();
    replace(&remote.file("ca.crl"), lists.as_bytes());
    replace(
        &remote.file("ca.crt"),
        [own.pem(), other.pem()].concat().as_bytes(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_ends_is_believed_no_longer_and_its_clients_are_closed() {
    let remote = Remote::start().await;
    let ending = Authority::ending("ending", time::Duration::seconds(8));
    let (client, own) = (
        remote.authority.of_other(&ending),
        remote.authority.client("admin", "test"),
    );
    believe(&remote, &ending);
    let mut stream = until("the other authority", async || {
        let stream = remote.tls(&client).await.ok()?;
        remote.knock(&client).await.ok().map(|()| stream)
    })
    .await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE * 2, stream.read_to_end(&mut rest)).await;
    ended.expect("it is closed").ok();
    until("the end", async || {
        remote.knock(&client).await.is_err().then_some(())
    })
    .await;
    remote.knock(&own).await.unwrap();
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_authority_that_is_valid_the_daemon_serves_this_host_and_nobody_else() {
    let expired = Authority::ending("expired", time::Duration::days(-1));
    let pem = expired.pem();
    let list = expired.revoked(&[]);
    let remote = Remote::start_with(|config| {
        replace(&config.tcp.client_ca_files[0], pem.as_bytes());
        replace(&config.tcp.crl_files[0], list.as_bytes());
    })
    .await;
    // Its certificate is valid for a day more, and who signed it is not.
    let client = remote.authority.of_other(&expired);
    assert!(remote.knock(&client).await.is_err());
    let mut hosts = remote.rig.hosts();
    hosts.get_info(v1::GetInfoRequest {}).await.unwrap();
    // A renewed authority is taken as soon as it is there.
    replace(
        &remote.file("ca.crl"),
        remote.authority.revoked(&[]).as_bytes(),
    );
    replace(&remote.file("ca.crt"), remote.authority.pem().as_bytes());
    let own = remote.authority.client("admin", "test");
    until("the new authority", async || remote.knock(&own).await.ok()).await;
    remote.rig.stopped().await;
}
