//! What a guest says of itself: each lie breaks the protocol, and words are made harmless.

use banger_core::guest::GuestError;
use banger_core::port::{Listeners, PortProtocol, Probe};
use banger_core::stats::GuestStats;
use banger_proto::guest::v1 as proto;

use super::liar::Script;
use super::lie;

fn span(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn honest_stats() -> proto::GetStatsResponse {
    proto::GetStatsResponse {
        memory_total_bytes: 512 << 20,
        memory_available_bytes: 400 << 20,
        memory_cached_bytes: 50 << 20,
        load_1m: 0.5,
        uptime: span(60),
        cpu: Some(proto::CpuTimes {
            user: span(1),
            system: span(2),
            idle: span(57),
            io_wait: span(0),
            steal: span(0),
        }),
        disk_total_bytes: 8 << 30,
        disk_used_bytes: 1 << 30,
        process_count: 9,
        interfaces: vec![proto::NetworkUse {
            name: "eth0".into(),
            received_bytes: 7,
            sent_bytes: 8,
        }],
        ..proto::GetStatsResponse::default()
    }
}

fn honest_listener() -> proto::Listener {
    proto::Listener {
        protocol: proto::listener::Protocol::Tcp.into(),
        address: vec![0; 4].into(),
        port: 80,
        uid: 0,
        process: Some(proto::ListeningProcess {
            pid: 7,
            name: "httpd".into(),
            uid: 0,
        }),
        http: Some(proto::HttpAnswer {
            status: 200,
            title: "Hello".into(),
        }),
    }
}

async fn stats(stats: proto::GetStatsResponse) -> Result<GuestStats, GuestError> {
    let script = Script {
        stats,
        ..Script::default()
    };
    let (connected, _tasks) = lie(script).await;
    connected.unwrap().0.stats().await
}

async fn ports(listeners: Vec<proto::Listener>) -> Result<Listeners, GuestError> {
    let script = Script {
        ports: proto::ListPortsResponse {
            listeners,
            is_truncated: false,
        },
        ..Script::default()
    };
    let (connected, _tasks) = lie(script).await;
    connected.unwrap().0.list_ports(Probe::Http).await
}

#[tokio::test]
async fn honest_words_are_passed_on() {
    let found = stats(honest_stats()).await.unwrap();
    assert_eq!(found.memory_available_bytes, 400 << 20);
    assert_eq!(found.load, [0.5, 0.0, 0.0]);
    assert_eq!(found.cpu.idle.as_secs(), 57);
    assert_eq!(found.interfaces[0].sent_bytes, 8);
    let udp = proto::Listener {
        protocol: proto::listener::Protocol::Udp.into(),
        address: vec![0; 16].into(),
        port: 53,
        ..proto::Listener::default()
    };
    let found = ports(vec![udp, honest_listener()]).await.unwrap().listeners;
    assert_eq!(
        found[0].protocol,
        PortProtocol::Tcp,
        "the order is the host's"
    );
    assert_eq!(found[1].address.to_string(), "::");
    assert!(found[1].process.is_none() && found[1].http.is_none());
}

#[tokio::test]
async fn each_lie_about_what_is_used_breaks_the_protocol() {
    type Change = fn(&mut proto::GetStatsResponse);
    let lies: [Change; 22] = [
        |stats| stats.memory_total_bytes = -1,
        |stats| stats.memory_total_bytes = i64::MAX,
        |stats| stats.memory_available_bytes = -1,
        |stats| stats.memory_available_bytes = stats.memory_total_bytes + 1,
        |stats| stats.memory_cached_bytes = i64::MIN,
        |stats| stats.memory_cached_bytes = i64::MAX,
        |stats| stats.load_1m = f64::NAN,
        |stats| stats.load_5m = f64::INFINITY,
        |stats| stats.load_15m = -0.1,
        |stats| stats.load_15m = 1e300,
        |stats| stats.uptime = None,
        |stats| stats.uptime = span(-1),
        |stats| stats.uptime = span(i64::MAX),
        |stats| stats.cpu = None,
        |stats| stats.cpu.as_mut().unwrap().user = span(-5),
        |stats| stats.cpu.as_mut().unwrap().steal = span(i64::MAX),
        |stats| stats.disk_total_bytes = -1,
        |stats| stats.disk_used_bytes = stats.disk_total_bytes + 1,
        |stats| stats.process_count = -1,
        |stats| stats.process_count = i32::MAX,
        |stats| stats.interfaces[0].received_bytes = -1,
        |stats| stats.interfaces[0].name = "x".repeat(65),
    ];
    for (number, change) in lies.into_iter().enumerate() {
        let mut lie = honest_stats();
        change(&mut lie);
        let told = stats(lie.clone()).await;
        assert!(
            matches!(told, Err(GuestError::Protocol { .. })),
            "lie {number}: {lie:?} gave {told:?}"
        );
    }
}

#[tokio::test]
async fn each_lie_about_listeners_breaks_the_protocol() {
    type Change = fn(&mut proto::Listener);
    let lies: [Change; 12] = [
        |listener| listener.protocol = 0,
        |listener| listener.protocol = 77,
        |listener| listener.address = vec![1; 5].into(),
        |listener| listener.address = vec![1; 1 << 10].into(),
        |listener| listener.port = 0,
        |listener| listener.port = -80,
        |listener| listener.port = 65_536,
        |listener| listener.process.as_mut().unwrap().pid = -7,
        |listener| listener.process.as_mut().unwrap().pid = 0,
        |listener| listener.process.as_mut().unwrap().name = "x".repeat(65),
        |listener| listener.http.as_mut().unwrap().status = 99_999,
        |listener| listener.http.as_mut().unwrap().title = "x".repeat(257),
    ];
    for (number, change) in lies.into_iter().enumerate() {
        let mut lie = honest_listener();
        change(&mut lie);
        let told = ports(vec![lie.clone()]).await;
        assert!(
            matches!(told, Err(GuestError::Protocol { .. })),
            "lie {number}: {lie:?} gave {told:?}"
        );
    }
}

#[tokio::test]
async fn lists_that_are_too_long_break_the_protocol() {
    let many = ports(vec![honest_listener(); 1025]).await;
    assert!(matches!(many, Err(GuestError::Protocol { .. })), "{many:?}");
    let most = ports(vec![honest_listener(); 1024]).await.unwrap();
    assert_eq!(most.listeners.len(), 1024);
    let mut lie = honest_stats();
    lie.interfaces = vec![proto::NetworkUse::default(); 65];
    let many = stats(lie).await;
    assert!(matches!(many, Err(GuestError::Protocol { .. })), "{many:?}");
    // Not read at all: beyond what one message may be.
    let endless = ports(vec![honest_listener(); 1 << 16]).await;
    assert!(
        matches!(endless, Err(GuestError::Protocol { .. })),
        "{endless:?}"
    );
}

#[tokio::test]
async fn words_are_shown_without_what_moves_a_terminal() {
    let mut listener = honest_listener();
    listener.process.as_mut().unwrap().name = "\x1b[31mred\n".into();
    listener.http.as_mut().unwrap().title = "a\u{202e}b\r".into();
    let mut lie = honest_stats();
    lie.interfaces[0].name = "e\x07th".into();
    let found = ports(vec![listener]).await.unwrap().listeners.remove(0);
    assert_eq!(found.process.unwrap().name, "\u{fffd}[31mred\u{fffd}");
    assert_eq!(found.http.unwrap().title, "a\u{fffd}b\u{fffd}");
    let found = stats(lie).await.unwrap();
    assert_eq!(found.interfaces[0].name, "e\u{fffd}th");
}

#[tokio::test]
async fn a_guest_that_says_nothing_of_itself_ends_in_a_deadline() {
    let script = Script {
        hangs: true,
        ..Script::default()
    };
    let (connected, _tasks) = lie(script).await;
    let guest = connected.unwrap().0;
    let silent = guest.stats().await.unwrap_err();
    assert!(matches!(silent, GuestError::Deadline { .. }), "{silent:?}");
    let silent = guest.list_ports(Probe::No).await.unwrap_err();
    assert!(matches!(silent, GuestError::Deadline { .. }), "{silent:?}");
}
