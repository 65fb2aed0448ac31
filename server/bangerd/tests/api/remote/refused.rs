//! Those who get no answer, and those who get no other than why.

use banger_proto::v1;
use banger_vmm::FakeHost;
use bangerd::config::IdentityRule;
use bangerd::daemon::{self, DaemonError};
use bangerd::listen::activation::Sockets;
use bangerd::listen::{DoorsError, Outside, tcp::TcpError};
use rcgen::ExtendedKeyUsagePurpose;
use std::net::TcpListener;
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::certificates::{Authority, Told, Wanted};
use super::{PREFACE, Remote, from, shake};
use crate::access::http2::{END_HEADERS, HEADERS, call, frame, next};
use crate::agent::FakeConnector;
use crate::rig::{PATIENCE, assert_refused, config};

/// The version before the one that is spoken.
static TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_not_let_in_get_nothing() {
    let remote = Remote::start().await;
    let ours = &remote.authority;
    let now = OffsetDateTime::now_utc();
    let issue = |change: fn(&mut Wanted, OffsetDateTime)| {
        let mut wanted = Wanted::default();
        change(&mut wanted, now);
        ours.issue(wanted)
    };
    let namesake = Authority::new("the authority");
    let attacks = [
        ("no certificate", ours.nobody()),
        ("self-signed", ours.self_signed()),
        (
            "another authority",
            ours.of_other(&Authority::new("another")),
        ),
        ("another of the same name", ours.of_other(&namesake)),
        (
            "expired",
            issue(|wanted, now| wanted.end = now - Duration::hours(1)),
        ),
        (
            "not yet valid",
            issue(|wanted, now| {
                wanted.begin = now + Duration::hours(1);
            }),
        ),
        (
            "a server's",
            issue(|wanted, _| wanted.usage = Some(ExtendedKeyUsagePurpose::ServerAuth)),
        ),
        ("TLS 1.2", issue(|wanted, _| wanted.versions = TLS12)),
    ];
    for (attack, client) in attacks {
        let answered = remote.knock(&client).await;
        assert!(answered.is_err(), "{attack} was answered");
    }
    remote.knock(&issue(|_, _| {})).await.unwrap();
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_certificate_does_not_learn_whose_are_trusted() {
    let remote = Remote::start().await;
    let told = Arc::new(Told::default());
    let refused = remote.knock(&remote.authority.listener(told.clone())).await;
    assert!(refused.is_err());
    let nothing: Vec<Vec<u8>> = Vec::new();
    assert_eq!(*told.0.lock().unwrap(), [nothing]);
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_no_tls_learns_nothing() {
    let remote = Remote::start().await;
    let said: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: bangerd\r\n\r\n",
        PREFACE,
        b"\0",
        b"SSH-2.0-OpenSSH_9.9\r\n",
    ];
    for said in said {
        let mut stream = TcpStream::connect(remote.address).await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        // Closed, or reset for what was not read.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("it ends");
        assert!(answer.is_empty(), "{answer:?}");
    }
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_no_rule_maps_is_told_what_to_configure() {
    let remote = Remote::start().await;
    for (uri, reason) in [
        (None, "CERTIFICATE_NOT_MAPPED"),
        (Some("spiffe://other/x"), "CERTIFICATE_NOT_MAPPED"),
        (Some("banger:root/x"), "CERTIFICATE_NOT_MAPPED"),
        (Some("banger:admin/a%20b"), "CERTIFICATE_NAME_INVALID"),
    ] {
        let client = remote.authority.issue(Wanted {
            uri: uri.map(str::to_owned),
            ..Wanted::default()
        });
        let mut hosts = remote.hosts(&client).await;
        let refused = hosts.get_info(v1::GetInfoRequest {}).await.unwrap_err();
        assert_refused(&refused, Code::PermissionDenied, reason, None);
        let details = refused.get_error_details();
        let told = &details.error_info().unwrap().metadata["remedy"];
        assert!(told.contains("[[tcp.identities]]"), "{told}");
    }
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_any_authority_are_mapped_by_rules() {
    let remote = Remote::start_with(|config| {
        config.tcp.identities = vec![IdentityRule {
            uri: Some("spiffe://corp/ci/*".into()),
            dns: None,
            cn: None,
            organisation: None,
            name: "ci-*".into(),
            role: banger_core::Role::Admin,
        }];
    })
    .await;
    let with = |uri: &str| {
        remote.authority.issue(Wanted {
            uri: Some(uri.to_owned()),
            ..Wanted::default()
        })
    };
    let mut hosts = remote.hosts(&with("spiffe://corp/ci/7")).await;
    hosts.get_info(v1::GetInfoRequest {}).await.unwrap();
    // With rules of one's own the usual ones do not count.
    let mut hosts = remote.hosts(&with("banger:admin/ann")).await;
    let refused = hosts.get_info(v1::GetInfoRequest {}).await.unwrap_err();
    assert_refused(
        &refused,
        Code::PermissionDenied,
        "CERTIFICATE_NOT_MAPPED",
        None,
    );
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_calls_and_oversized_messages_are_refused_and_the_connection_lives() {
    let remote = Remote::start().await;
    let client = remote.authority.client("admin", "test");
    let channel = remote.channel(&client).await.unwrap();
    let mut any = tonic::client::Grpc::new(channel.clone());
    for path in [
        "/banger.v1.VmService/Nope",
        "/banger.v1.NopeService/GetVm",
        "/",
    ] {
        any.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<v1::GetInfoRequest, v1::GetInfoResponse>::default();
        let request = tonic::Request::new(v1::GetInfoRequest {});
        let refused = any
            .unary(request, path.parse().unwrap(), codec)
            .await
            .unwrap_err();
        // A role may not be told either.
        let is_refused = [Code::Unimplemented, Code::PermissionDenied].contains(&refused.code());
        assert!(is_refused, "{path}: {refused:?}");
    }
    let mut vms = v1::vm_service_client::VmServiceClient::new(channel.clone());
    let vm = "x".repeat(5 << 20);
    let refused = vms.get_vm(v1::GetVmRequest { vm }).await.unwrap_err();
    let is_refused = [Code::OutOfRange, Code::ResourceExhausted].contains(&refused.code());
    assert!(is_refused, "{:?}", refused.code());
    let mut hosts = v1::host_service_client::HostServiceClient::new(channel);
    hosts.get_info(v1::GetInfoRequest {}).await.unwrap();
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tcp_socket_without_certificates_starts_no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("agent"), "an agent").unwrap();
    let host = FakeHost::new(Arc::new(|_| Box::pin(std::future::pending())));
    let outside = Outside {
        sockets: Sockets {
            tcp: vec![TcpListener::bind("127.0.0.1:0").unwrap()],
            ..Sockets::default()
        },
        ..Outside::default()
    };
    let run = daemon::run_with(
        config(&dir),
        Arc::new(host.driver()),
        Arc::new(FakeConnector::default()),
        outside,
        CancellationToken::new(),
    );
    let refused = run.await.unwrap_err();
    assert!(
        matches!(
            &refused,
            DaemonError::Doors(DoorsError::Tcp(TcpError::NoTls))
        ),
        "{refused}"
    );
    assert!(refused.to_string().contains("mutual TLS only"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_let_in_nowhere_too_often_is_not_listened_to_and_others_are() {
    let remote = Remote::start_with(|config| config.tcp.misses_per_address_max = 6).await;
    let (known, stranger) = (
        remote.authority.client("admin", "test"),
        remote.authority.self_signed(),
    );
    let unnamed = remote.authority.issue(Wanted {
        uri: None,
        ..Wanted::default()
    });
    // What gets nowhere counts, each in its own way: no TLS, nobody's certificate, nobody in it.
    for _ in 0..3 {
        let mut plain = from("127.0.0.3", remote.address).await.unwrap();
        plain.write_all(PREFACE).await.unwrap();
        let _ = plain.read_to_end(&mut Vec::new()).await;
        for client in [&stranger, &unnamed] {
            let stream = from("127.0.0.3", remote.address).await.unwrap();
            if let Ok(mut stream) = shake(stream, client).await {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        }
    }
    // Now nobody from there is looked at, whoever it is.
    let stream = from("127.0.0.3", remote.address).await.unwrap();
    assert!(shake(stream, &known).await.is_err());
    // From elsewhere everybody is.
    let stream = from("127.0.0.4", remote.address).await.unwrap();
    shake(stream, &known).await.unwrap();
    remote.knock(&known).await.unwrap();
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_told_a_few_times_and_then_closed() {
    let remote = Remote::start().await;
    let unnamed = remote.authority.issue(Wanted {
        uri: None,
        ..Wanted::default()
    });
    let stream = remote.tls(&unnamed).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    write.write_all(PREFACE).await.unwrap();
    let block = call("/banger.v1.VmService/CreateVm");
    let mut answers = 0;
    let asking = async {
        for number in 0..1000 {
            let call = frame(HEADERS, END_HEADERS, 2 * number + 1, &block);
            if write.write_all(&call).await.is_err() {
                return;
            }
            // The next is asked when this one is answered, as long as any is.
            loop {
                match next(&mut read).await {
                    Some((kind, ..)) if kind == HEADERS => break,
                    Some(_) => {}
                    None => return,
                }
            }
            answers += 1;
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .expect("it ends");
    assert!((1..100).contains(&answers), "{answers}");
    remote.rig.stopped().await;
}
