//! The SDK as a client from another host: what it says of each thing that is wrong.

use std::path::PathBuf;

use banger_sdk::{Client, ClientOptions, Command, Credentials, Error, Host, HostEvent, TlsProblem};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rcgen::ExtendedKeyUsagePurpose;
use time::{Duration, OffsetDateTime};

use super::certificates::{Authority, Wanted, replace};
use super::{Remote, until};

impl Remote {
    fn bundle(&self, name: &str, change: impl FnOnce(&mut Wanted)) -> PathBuf {
        let mut wanted = Wanted::default();
        change(&mut wanted);
        let path = self.file(name);
        self.authority.bundle(&path, &wanted);
        path
    }

    async fn connect(&self, bundle: &std::path::Path) -> Result<Client, Error> {
        let host: Host = format!("https://{}", self.address).parse().unwrap();
        Client::connect(host.with_credentials(Credentials::directory(bundle))).await
    }
}

fn problem(tried: Result<Client, Error>) -> TlsProblem {
    match tried {
        Err(error @ Error::Tls { problem, .. }) => {
            assert_eq!(error.reason(), problem.reason());
            assert!(error.remedy().is_some());
            problem
        }
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it connected"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_clients_certificate_is_told() {
    let remote = Remote::start().await;
    let good = remote.bundle("good", |_| {});
    remote
        .connect(&good)
        .await
        .unwrap()
        .host_info()
        .await
        .unwrap();
    let now = OffsetDateTime::now_utc();
    let expired = remote.bundle("expired", |wanted| wanted.end = now - Duration::hours(1));
    assert_eq!(
        problem(remote.connect(&expired).await),
        TlsProblem::ClientExpired
    );
    let swapped = remote.bundle("swapped", |wanted| {
        wanted.usage = Some(ExtendedKeyUsagePurpose::ServerAuth);
    });
    assert_eq!(
        problem(remote.connect(&swapped).await),
        TlsProblem::ClientRefused
    );
    let other = remote.file("other");
    Authority::new("another").bundle(&other, &Wanted::default());
    assert_eq!(
        problem(remote.connect(&other).await),
        TlsProblem::ServerUntrusted
    );
    replace(&other.join("ca.crt"), remote.authority.pem().as_bytes());
    assert_eq!(
        problem(remote.connect(&other).await),
        TlsProblem::ClientUntrusted
    );
    let unmapped = remote.bundle("unmapped", |wanted| wanted.uri = None);
    let refused = remote.connect(&unmapped).await.unwrap().host_info().await;
    assert_eq!(refused.unwrap_err().reason(), "CERTIFICATE_NOT_MAPPED");
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_the_wrong_certificate_is_not_believed() {
    let remote = Remote::start().await;
    let good = remote.bundle("good", |_| {});
    let (certificate, key) = (remote.file("server.crt"), remote.file("server.key"));
    for (usage, end, expected) in [
        (
            ExtendedKeyUsagePurpose::ClientAuth,
            Duration::days(1),
            TlsProblem::ServerWrong,
        ),
        (
            ExtendedKeyUsagePurpose::ServerAuth,
            -Duration::days(1),
            TlsProblem::ServerExpired,
        ),
    ] {
        remote
            .authority
            .write_server_for(usage, end, &certificate, &key);
        until(
            "that the certificate is shown and refused",
            async || match remote.connect(&good).await {
                Err(Error::Tls { problem, .. }) => (problem == expected).then_some(()),
                Err(error) => panic!("{error:?}"),
                Ok(_) => None,
            },
        )
        .await;
    }
    let elsewhere: Host = format!("https://localhost:{}", remote.address.port())
        .parse()
        .unwrap();
    remote.authority.write_server(&certificate, &key);
    let credentials = Credentials::directory(&good);
    until("the wrong name", async || {
        let tried = Client::connect(elsewhere.clone().with_credentials(credentials.clone())).await;
        (problem(tried) == TlsProblem::ServerName).then_some(())
    })
    .await;
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_revoked_while_it_works_is_told_at_once() {
    let remote = Remote::start().await;
    let path = remote.file("lost");
    let serial = remote.authority.bundle(&path, &Wanted::default());
    let client = remote.connect(&path).await.unwrap();
    client.host_info().await.unwrap();
    let list = remote.authority.revoked(&[serial]);
    replace(&remote.file("ca.crl"), list.as_bytes());
    let error = until("the refusal", async || client.host_info().await.err()).await;
    assert_eq!(error.reason(), "TLS_CLIENT_REVOKED", "{error:?}");
    remote.rig.stopped().await;
}

/// A watch by a client whose certificate ends within so many seconds; `None` if this host was too slow for it.
async fn watch_for(
    remote: &Remote,
    seconds: i64,
) -> Option<(
    OffsetDateTime,
    Client,
    BoxStream<'static, Result<HostEvent, Error>>,
)> {
    let end = OffsetDateTime::now_utc() + Duration::seconds(seconds);
    let path = remote.bundle(&format!("brief-{seconds}"), |wanted| wanted.end = end);
    let client = remote.connect(&path).await.ok()?;
    let mut events = client.events().stream();
    events.next().await?.ok()?;
    Some((end, client, events))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_when_its_certificate_does_and_says_so() {
    let remote = Remote::start().await;
    let lasting = remote.bundle("lasting", |_| {});
    let lasting = remote.connect(&lasting).await.unwrap();
    let mut kept = lasting.events().stream();
    kept.next().await.unwrap().unwrap();
    let mut begun = None;
    for seconds in [3, 10, 40, 160] {
        begun = watch_for(&remote, seconds).await;
        if begun.is_some() {
            break;
        }
    }
    let (end, client, mut events) = begun.expect("a watch that begins before its certificate ends");
    let error = loop {
        let told = tokio::time::timeout(std::time::Duration::from_secs(300), events.next());
        match told.await.expect("it ends").expect("it ends with an error") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    // Certificates count in whole seconds.
    assert!(OffsetDateTime::now_utc() >= end - Duration::seconds(1));
    assert_eq!(error.reason(), "TLS_CLIENT_EXPIRED", "{error:?}");
    let again = client.host_info().await.unwrap_err();
    assert_eq!(again.reason(), "TLS_CLIENT_EXPIRED", "{again:?}");
    lasting.host_info().await.unwrap();
    remote.rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_dropped_is_over_for_the_daemon() {
    const SECOND: std::time::Duration = std::time::Duration::from_secs(1);
    type Held = BoxStream<'static, Result<(), Error>>;
    fn held<T: 'static>(stream: BoxStream<'static, Result<T, Error>>) -> Held {
        stream.map(|told| told.map(drop)).boxed()
    }
    let remote = Remote::start_with(|config| config.limits.caller_calls_max = 1).await;
    remote.rig.furnish().await;
    let bundle = remote.bundle("ci", |_| {});
    let host: Host = format!("https://{}", remote.address).parse().unwrap();
    let host = host.with_credentials(Credentials::directory(&bundle));
    let options = ClientOptions::default().reconnect_window(std::time::Duration::ZERO);
    let client = Client::connect_with(host, options).await.unwrap();
    let create = client.vms().create("web:1").name("web");
    create.memory_mib(96).disk_mib(64).await.unwrap();
    let command = Command::new(["sleep"]);
    let session = client.sessions().start("web", command).await.unwrap();
    let (vms, sessions) = (client.vms(), client.sessions());
    let begin: [(&str, &dyn Fn() -> Held); 5] = [
        ("the host", &|| held(client.events().stream())),
        ("a VM", &|| held(vms.watch("web"))),
        ("statistics", &|| held(vms.watch_all_stats(SECOND))),
        ("a console", &|| held(vms.console("web").follow().stream())),
        ("a log", &|| {
            held(sessions.log(&session.id).follow().stream())
        }),
    ];
    for (what, begin) in begin {
        let refused = loop {
            let mut held = begin();
            tokio::select! {
                refused = until(what, async || client.host_info().await.err()) => break refused,
                // The other call came first.
                () = async { while held.next().await.is_some() {} } => {}
            }
        };
        assert_eq!(refused.reason(), "TOO_MANY_CALLS", "{what}: {refused:?}");
        // Dropped by now.
        until(what, async || client.host_info().await.ok()).await;
    }
    remote.rig.stopped().await;
}
