//! What one caller, and one that is too slow, may take.

use std::time::Duration;

use banger_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{PREFACE, Remote, until};
use crate::rig::{PATIENCE, assert_refused};

#[tokio::test(flavor = "multi_thread")]
async fn when_all_together_ask_too_fast_each_is_told_and_the_keeper_of_the_host_is_served() {
    let remote = Remote::start_with(|config| {
        config.limits.requests_per_second = 1;
        config.limits.requests_burst = 4;
    })
    .await;
    let mut callers = Vec::new();
    for name in ["one", "two", "three"] {
        let certificate = remote.authority.client("admin", name);
        callers.push(remote.hosts(&certificate).await);
    }
    let mut refused = None;
    for _ in 0..1000 {
        for caller in &mut callers {
            if let Err(status) = caller.get_info(v1::GetInfoRequest {}).await {
                refused = Some(status);
            }
        }
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("a thousand in a row are too many");
    assert_refused(&refused, Code::ResourceExhausted, "TOO_MANY_REQUESTS", None);
    let details = refused.get_error_details();
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    let subject = &details.quota_failure().unwrap().violations[0].subject;
    assert_eq!(subject, "requests/all");
    for _ in 0..50 {
        let mut local = remote.rig.hosts();
        local.get_info(v1::GetInfoRequest {}).await.unwrap();
    }
    until("a turn", async || {
        tokio::time::sleep(wait).await;
        callers[0].get_info(v1::GetInfoRequest {}).await.ok()
    })
    .await;
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_so_many_calls_over_all_its_connections_and_leaves_others_theirs() {
    let remote = Remote::start_with(|config| config.limits.caller_calls_max = 3).await;
    let watch = || v1::WatchEventsRequest::default();
    let certificate = remote.authority.client("admin", "busy");
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut connection = remote.hosts(&certificate).await;
        let mut events = connection.watch_events(watch()).await.unwrap().into_inner();
        // It has begun, and goes on.
        events.message().await.unwrap().unwrap();
        held.push((connection, events));
    }
    let mut busy = remote.hosts(&certificate).await;
    let refused = busy.get_info(v1::GetInfoRequest {}).await.unwrap_err();
    assert_refused(&refused, Code::ResourceExhausted, "TOO_MANY_CALLS", None);
    let details = refused.get_error_details();
    assert!(details.retry_info().is_some());
    let remedy = &details.error_info().unwrap().metadata["remedy"];
    assert!(remedy.contains("limits.caller_calls_max"), "{remedy}");
    let other = remote.authority.client("admin", "other");
    let mut other = remote.hosts(&other).await;
    other.get_info(v1::GetInfoRequest {}).await.unwrap();
    // A call that is hung up on leaves its place, and so does each that is answered.
    held.pop();
    for _ in 0..20 {
        until("a place", async || {
            busy.get_info(v1::GetInfoRequest {}).await.ok()
        })
        .await;
    }
    drop(held);
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_fast_is_told_when_to_come_again_and_others_are_served() {
    let remote = Remote::start_with(|config| {
        config.limits.caller_requests_per_second = 1;
        config.limits.caller_requests_burst = 3;
    })
    .await;
    let mut fast = remote
        .hosts(&remote.authority.client("admin", "fast"))
        .await;
    let mut refused = None;
    for _ in 0..1000 {
        match fast.get_info(v1::GetInfoRequest {}).await {
            Ok(_) => {}
            Err(status) => {
                refused = Some(status);
                break;
            }
        }
    }
    let refused = refused.expect("a thousand in a row are too many");
    assert_refused(&refused, Code::ResourceExhausted, "TOO_MANY_REQUESTS", None);
    let details = refused.get_error_details();
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(
        wait > Duration::ZERO && wait <= Duration::from_secs(3),
        "{wait:?}"
    );
    assert_eq!(
        details.quota_failure().unwrap().violations[0].subject,
        "requests/cert:fast"
    );
    let mut other = remote
        .hosts(&remote.authority.client("admin", "other"))
        .await;
    other.get_info(v1::GetInfoRequest {}).await.unwrap();
    // Another connection of the same caller has no rate of its own; in time each is served again.
    let mut again = remote
        .hosts(&remote.authority.client("admin", "fast"))
        .await;
    until("another turn", async || {
        tokio::time::sleep(wait).await;
        again.get_info(v1::GetInfoRequest {}).await.ok()
    })
    .await;
    for _ in 0..50 {
        let mut local = remote.rig.hosts();
        local.get_info(v1::GetInfoRequest {}).await.unwrap();
    }
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_so_many_connections_and_is_told() {
    let remote = Remote::start_with(|config| config.tcp.connections_per_identity_max = 2).await;
    let client = remote.authority.client("admin", "many");
    let kept = [remote.hosts(&client).await, remote.hosts(&client).await];
    for mut hosts in kept.clone() {
        hosts.get_info(v1::GetInfoRequest {}).await.unwrap();
    }
    let mut third = remote.hosts(&client).await;
    let refused = third.get_info(v1::GetInfoRequest {}).await.unwrap_err();
    assert_refused(
        &refused,
        Code::ResourceExhausted,
        "TOO_MANY_CONNECTIONS",
        None,
    );
    assert!(refused.get_error_details().retry_info().is_some());
    let mut other = remote
        .hosts(&remote.authority.client("admin", "other"))
        .await;
    other.get_info(v1::GetInfoRequest {}).await.unwrap();
    drop(kept);
    until("a place", async || {
        let mut hosts = remote.hosts(&client).await;
        hosts.get_info(v1::GetInfoRequest {}).await.ok()
    })
    .await;
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_finishes_a_request_is_closed() {
    let remote = Remote::start_with(|config| {
        config.tcp.first_request_timeout = "300ms".parse().unwrap();
    })
    .await;
    let client = remote.authority.client("admin", "slow");
    // HEADERS of stream 1 without their end, and a first byte of a preface.
    let half: &[u8] = b"\0\0\x01\x01\0\0\0\0\x01\x82";
    for said in [vec![], b"PRI".to_vec(), [PREFACE, half].concat()] {
        let mut stream = remote.tls(&client).await.unwrap();
        stream.write_all(&said).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        ended.expect("it is closed").ok();
    }
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_asked_once_may_stay() {
    let remote = Remote::start_with(|config| {
        config.tcp.first_request_timeout = "2s".parse().unwrap();
    })
    .await;
    let client = remote.authority.client("admin", "quiet");
    let mut health =
        tonic_health::pb::health_client::HealthClient::new(remote.channel(&client).await.unwrap());
    let request = tonic_health::pb::HealthCheckRequest::default;
    // Where even this comes too late, on a busy host, the channel has made another connection.
    let answers = until("a watch", async || health.watch(request()).await.ok()).await;
    let mut answers = answers.into_inner();
    answers.message().await.unwrap().unwrap();
    let next = tokio::time::timeout(Duration::from_secs(4), answers.message()).await;
    assert!(next.is_err(), "it was closed: {next:?}");
    remote.rig.stopped().await;
}
