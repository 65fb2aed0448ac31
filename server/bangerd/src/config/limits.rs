//! The `[limits]` table: what callers may ask in a time and at once, whichever way they come.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{DURATION_MAX, Mistake};

/// The key of the table.
const KEY: &str = "limits";
/// HTTP/2 has no more streams on a connection.
const STREAMS_END: u32 = 1 << 31;

/// What holds for each connection, each caller, and all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Requests of all callers together in a second; zero means any number.
    pub requests_per_second: u32,
    /// How many may come at once before that rate holds.
    pub requests_burst: u32,
    /// Requests of one caller in a second; zero means any number.
    pub caller_requests_per_second: u32,
    /// How many may come at once before that rate holds.
    pub caller_requests_burst: u32,
    /// Calls of one caller that go on at once, over all its connections.
    pub caller_calls_max: usize,
    /// Calls that go on at once on one connection.
    pub streams_max: u32,
    /// How long a request, or the first message of a stream, may take to be whole.
    pub request_timeout: SignedDuration,
    /// Connections at the unix socket.
    pub socket_connections_max: usize,
    /// Of these, the most of one user.
    pub socket_connections_per_user_max: usize,
    /// From a connection at the unix socket to its first request.
    pub socket_first_request_timeout: SignedDuration,
    /// A connection that is silent for this long is asked for a sign of life.
    pub keepalive_interval: SignedDuration,
    /// How long the sign may take before the connection is closed.
    pub keepalive_timeout: SignedDuration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            requests_per_second: 20_000,
            requests_burst: 40_000,
            caller_requests_per_second: 5_000,
            caller_requests_burst: 10_000,
            // A thousand sandboxes, each with a few streams.
            caller_calls_max: 4096,
            // As many: they may all come by one connection.
            streams_max: 4096,
            // The largest message by 2 Mbit/s.
            request_timeout: SignedDuration::from_secs(30),
            socket_connections_max: 4096,
            // Each command of a crowd of scripts has its own.
            socket_connections_per_user_max: 1024,
            socket_first_request_timeout: SignedDuration::from_secs(30),
            keepalive_interval: SignedDuration::from_secs(20),
            keepalive_timeout: SignedDuration::from_secs(20),
        }
    }
}

/// Takes what is wrong by itself out of the table.
pub(super) fn sift(table: &mut toml::Table) -> Vec<Mistake> {
    super::table::sift_one::<LimitsConfig>(table, KEY)
}

/// What types cannot say.
pub(super) fn mistakes(limits: &LimitsConfig) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut refuse = |key: &str, wrong: bool, problem: &str| {
        if wrong {
            mistakes.push(Mistake::new(&format!("{KEY}.{key}"), problem));
        }
    };
    for (key, value) in [
        ("requests_burst", limits.requests_burst),
        ("caller_requests_burst", limits.caller_requests_burst),
        ("streams_max", limits.streams_max),
    ] {
        refuse(key, value == 0, "must be at least 1");
    }
    refuse(
        "streams_max",
        limits.streams_max >= STREAMS_END,
        "is more than HTTP/2 has",
    );
    for (key, value) in [
        ("caller_calls_max", limits.caller_calls_max),
        ("socket_connections_max", limits.socket_connections_max),
        (
            "socket_connections_per_user_max",
            limits.socket_connections_per_user_max,
        ),
    ] {
        refuse(key, value == 0, "must be at least 1");
    }
    for (key, value) in [
        ("request_timeout", limits.request_timeout),
        (
            "socket_first_request_timeout",
            limits.socket_first_request_timeout,
        ),
        ("keepalive_interval", limits.keepalive_interval),
        ("keepalive_timeout", limits.keepalive_timeout),
    ] {
        let fits = value > SignedDuration::ZERO && value <= DURATION_MAX;
        refuse(key, !fits, "must be longer than nothing and at most a year");
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn each_mistake_is_told_by_its_key() {
        let of_values = Config::parse(
            "[limits]\nrequests_burst = 0\nstreams_max = 3000000000\nkeepalive_timeout = \"0s\"\nrequest_timeout = \"0s\"\nsocket_connections_max = 0\ncaller_calls_max = 0\n",
        );
        let said = of_values.unwrap().check().unwrap_err().to_string();
        for key in [
            "requests_burst",
            "streams_max",
            "keepalive_timeout",
            "request_timeout",
            "socket_connections_max",
            "caller_calls_max",
        ] {
            assert!(
                said.contains(&format!("`limits.{key}`: ")),
                "{key} in {said}"
            );
        }
        let of_types = Config::parse("[limits]\nrequests_per_second = -1\nrequests = 1\n");
        assert_eq!(of_types.unwrap_err().len(), 2);
    }
}
