//! Sets the guest up as the host says: clock, host name, network, name servers, volumes, and what sessions
//! start from. A repeat with the same content changes nothing but the clock.

mod files;
mod lent;
mod netlink;

pub use lent::Lent;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use banger_proto::guest::v1::{ConfigureRequest, Network};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::agent::{Agent, Machine};
use crate::refusal::Refusal;
use crate::session::plan::Defaults;
use crate::volume;

/// The clock is left alone if it is this close to the host's.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(20);
/// Longest host name, as the kernel has it.
const HOSTNAME_MAX_BYTES: usize = 64;
/// Name servers.
const DNS_MAX: usize = 8;

/// What was configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings(ConfigureRequest);

/// The parsed form of [`Network`].
#[derive(Debug, Clone, PartialEq, Eq)]
struct Addresses {
    address: Ipv4Addr,
    prefix: u8,
    gateway: Option<Ipv4Addr>,
    dns: Vec<IpAddr>,
}

/// Carries out `request`.
///
/// # Errors
/// What is malformed, and the first step that failed.
pub async fn configure(agent: &Agent, request: ConfigureRequest) -> Result<(), Refusal> {
    let mut settings = agent.settings.lock().await;
    if let Some(time) = request.time {
        set_clock(agent.machine, time)?;
    }
    let wanted = Settings(ConfigureRequest {
        time: None,
        ..request
    });
    if settings.as_ref() == Some(&wanted) {
        return Ok(());
    }
    if wanted.0.hostname.len() > HOSTNAME_MAX_BYTES {
        return Err(Refusal::invalid("the host name is too long"));
    }
    let network = wanted.0.network.as_ref().map(parse).transpose()?;
    if agent.machine == Machine::Owned {
        set_up(&wanted.0.hostname, network.as_ref())?;
        let names = files::Names {
            hostname: wanted.0.hostname.clone(),
            address: network.as_ref().map(|network| network.address),
            servers: network.map(|network| network.dns),
        };
        if agent.init.is_some() {
            names.write_for_init(wanted.0.network.as_ref());
        }
        if wanted.0.keep_pristine {
            *agent.lent.lock().unwrap_or_else(PoisonError::into_inner) = Some(Lent::new(names));
        } else {
            names.write();
        }
    }
    volume::mount(agent, &wanted.0.volumes, &wanted.0.user).await?;
    agent.sessions.set_defaults(Defaults {
        env: wanted.0.env.clone(),
        user: wanted.0.user.clone(),
        working_dir: wanted.0.working_dir.clone(),
        hostname: wanted.0.hostname.clone(),
    });
    *settings = Some(wanted);
    Ok(())
}

fn set_up(hostname: &str, network: Option<&Addresses>) -> Result<(), Refusal> {
    if !hostname.is_empty() {
        rustix::system::sethostname(hostname.as_bytes())
            .map_err(|error| Refusal::setup("setting the host name", error))?;
    }
    netlink::set_up(network)
}

fn set_clock(machine: Machine, time: prost_types::Timestamp) -> Result<(), Refusal> {
    let wanted = SystemTime::try_from(time)
        .map_err(|_| Refusal::invalid("the time is outside what a clock can show"))?;
    let now = SystemTime::now();
    let distance = wanted
        .duration_since(now)
        .unwrap_or_else(|error| error.duration());
    if machine == Machine::Foreign || distance < CLOCK_TOLERANCE {
        return Ok(());
    }
    let since = wanted
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| Refusal::invalid("the time is before 1970"))?;
    let time = Timespec {
        tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: since.subsec_nanos().into(),
    };
    clock_settime(ClockId::Realtime, time)
        .map_err(|error| Refusal::setup("setting the clock", error))
}

fn parse(network: &Network) -> Result<Addresses, Refusal> {
    let bad = |what: &str, text: &str| Refusal::invalid(format!("`{text}` is no {what}"));
    let parts = network.address.split_once('/');
    let parsed = parts.and_then(|(address, prefix)| {
        let prefix: u8 = prefix.parse().ok().filter(|&prefix| prefix <= 32)?;
        Some((address.parse().ok()?, prefix))
    });
    let (address, prefix) =
        parsed.ok_or_else(|| bad("address with prefix length", &network.address))?;
    let gateway = match network.gateway.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| bad("gateway address", text))?),
    };
    let dns = network
        .dns
        .iter()
        .take(DNS_MAX)
        .map(|text| text.parse().map_err(|_| bad("name server address", text)));
    Ok(Addresses {
        address,
        prefix,
        gateway,
        dns: dns.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, gateway: &str, dns: &str) -> Network {
        Network {
            address: address.into(),
            gateway: gateway.into(),
            dns: vec![dns.into()],
        }
    }

    #[test]
    fn a_network_is_parsed() {
        let parsed = parse(&network("10.0.2.15/24", "10.0.2.2", "10.0.2.3")).unwrap();
        assert_eq!(
            (parsed.address, parsed.prefix),
            (Ipv4Addr::new(10, 0, 2, 15), 24)
        );
        assert_eq!(parsed.gateway, Some(Ipv4Addr::new(10, 0, 2, 2)));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            network("10.0.2.15", "10.0.2.2", "10.0.2.3"),
            network("10.0.2.15/33", "10.0.2.2", "10.0.2.3"),
            network("10.0.2.15/24", "gateway", "10.0.2.3"),
            network("10.0.2.15/24", "", "evil\nline"),
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
