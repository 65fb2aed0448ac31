//! Tunnels, both ways.

use std::net::IpAddr;
use std::time::Duration;

use banger_core::tunnel::{
    CONNECT_TIMEOUT, CONNECT_TIMEOUT_MAX, TunnelEvent, TunnelInput, TunnelTarget,
    UNIX_PATH_MAX_BYTES, Window, WindowError,
};
use banger_proto::v1;
use banger_proto::v1::forward_request::Message as Sent;
use banger_proto::v1::forward_response::Message as Told;
use banger_proto::v1::forward_start::Target;

use super::field;
use crate::grpc::request::RequestError;

/// Where a tunnel leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Far {
    /// To a socket in the guest.
    Socket(TunnelTarget),
    /// To the VM's ssh server.
    Ssh,
}

/// Where a caller wants to go.
pub(crate) fn target(target: Option<Target>) -> Result<Far, RequestError> {
    match target.ok_or_else(|| RequestError::missing("start.target"))? {
        Target::Tcp(tcp) => Ok(Far::Socket(TunnelTarget::Tcp {
            address: address(&tcp.address)?,
            port: port(tcp.port)?,
        })),
        Target::UnixPath(path) => unix(path).map(Far::Socket),
        Target::Ssh(v1::SshTarget {}) => Ok(Far::Ssh),
    }
}

fn address(text: &str) -> Result<Option<IpAddr>, RequestError> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| RequestError::invalid("start.tcp.address", "is not an IPv4 or IPv6 address");
    text.parse().map(Some).map_err(wrong)
}

fn port(port: i32) -> Result<u16, RequestError> {
    let number = u16::try_from(port).ok().filter(|&number| number > 0);
    number.ok_or_else(|| {
        RequestError::invalid("start.tcp.port", format!("is {port}, and is 1 to 65535"))
    })
}

fn unix(path: String) -> Result<TunnelTarget, RequestError> {
    let invalid = |problem: String| Err(RequestError::invalid("start.unix_path", problem));
    if !path.starts_with('/') || path.contains('\0') {
        return invalid("is not an absolute path".into());
    }
    if path.len() > UNIX_PATH_MAX_BYTES {
        let length = path.len();
        return invalid(format!(
            "has {length} bytes, and may have {UNIX_PATH_MAX_BYTES}"
        ));
    }
    Ok(TunnelTarget::Unix { path })
}

/// How long connecting may take.
pub(crate) fn connect_timeout(
    timeout: Option<prost_types::Duration>,
) -> Result<Duration, RequestError> {
    const FIELD: &str = "start.connect_timeout";
    let Some(timeout) = timeout else {
        return Ok(CONNECT_TIMEOUT);
    };
    let limit = field::positive_span(FIELD, &timeout)?;
    if limit > CONNECT_TIMEOUT_MAX {
        let problem = format!("is {limit:?}, and may be {CONNECT_TIMEOUT_MAX:?}");
        return Err(RequestError::invalid(FIELD, problem));
    }
    Ok(limit)
}

/// A message of `Forward` after the first, within what both windows allow.
pub(crate) fn input(
    message: v1::ForwardRequest,
    inward: &Window,
    outward: &Window,
) -> Result<Option<TunnelInput>, RequestError> {
    let wrong = |field| move |error: WindowError| RequestError::invalid(field, error.to_string());
    match message.message {
        Some(Sent::Data(data)) if data.is_empty() => {
            Err(RequestError::invalid("data", "has no bytes"))
        }
        Some(Sent::Data(data)) => {
            inward.send(data.len() as u64).map_err(wrong("data"))?;
            Ok(Some(TunnelInput::Data(data)))
        }
        Some(Sent::End(_)) => {
            inward.end();
            Ok(Some(TunnelInput::End))
        }
        Some(Sent::Taken(taken)) => {
            let taken = field::natural("taken", taken)?;
            outward.take(taken).map_err(wrong("taken"))?;
            Ok(Some(TunnelInput::Taken(taken)))
        }
        Some(Sent::Start(_)) => Err(RequestError::invalid("start", "comes a second time")),
        None => Err(RequestError::missing("message")),
    }
}

/// The first message to a caller.
pub(crate) fn connected() -> v1::ForwardResponse {
    answer(Told::Connected(v1::TunnelConnected {}))
}

/// What a guest does, as its caller is told.
pub(crate) fn event(event: TunnelEvent) -> v1::ForwardResponse {
    answer(match event {
        TunnelEvent::Data(data) => Told::Data(data),
        TunnelEvent::End => Told::End(v1::TunnelEnd {}),
        TunnelEvent::Taken(taken) => Told::Taken(field::int(taken)),
        TunnelEvent::Heartbeat => Told::Heartbeat(v1::Heartbeat {}),
    })
}

fn answer(message: Told) -> v1::ForwardResponse {
    v1::ForwardResponse {
        message: Some(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str, port: i32) -> Option<Target> {
        let address = address.into();
        Some(Target::Tcp(v1::TcpTarget { address, port }))
    }

    #[test]
    fn targets_are_sockets_that_can_be() {
        let port = 80;
        let loopback = TunnelTarget::Tcp {
            address: None,
            port,
        };
        assert_eq!(target(tcp("", 80)), Ok(Far::Socket(loopback)));
        assert_eq!(target(Some(Target::Ssh(v1::SshTarget {}))), Ok(Far::Ssh));
        assert!(target(tcp("::1", 65_535)).is_ok());
        for wrong in [
            tcp("", 0),
            tcp("", 65_536),
            tcp("", -1),
            tcp("localhost", 80),
            Some(Target::UnixPath("run/x".into())),
            Some(Target::UnixPath("/run/\0x".into())),
            Some(Target::UnixPath(format!("/{}", "x".repeat(107)))),
            None,
        ] {
            assert!(target(wrong.clone()).is_err(), "{wrong:?}");
        }
        let path = format!("/{}", "x".repeat(106));
        assert!(target(Some(Target::UnixPath(path))).is_ok());
    }

    #[test]
    fn a_limit_is_longer_than_nothing_and_bounded() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        assert_eq!(connect_timeout(None), Ok(CONNECT_TIMEOUT));
        assert_eq!(connect_timeout(seconds(120)), Ok(CONNECT_TIMEOUT_MAX));
        assert!(connect_timeout(seconds(121)).is_err());
        assert!(connect_timeout(seconds(0)).is_err());
    }

    #[test]
    fn a_caller_sends_and_takes_no_more_than_it_may() {
        let (inward, outward) = (Window::default(), Window::default());
        let say = |message| {
            let message = Some(message);
            input(v1::ForwardRequest { message }, &inward, &outward)
        };
        let data = |length| Sent::Data(vec![0; length].into());
        assert!(say(data(256 << 10)).is_ok());
        let refused = say(data(1)).unwrap_err().to_string();
        assert!(refused.starts_with("data more than 262144"), "{refused}");
        assert!(say(data(0)).is_err());
        assert!(say(Sent::Taken(1)).is_err());
        assert!(say(Sent::Taken(-1)).is_err());
        assert_eq!(say(Sent::End(v1::TunnelEnd {})), Ok(Some(TunnelInput::End)));
    }
}
