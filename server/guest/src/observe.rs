//! What a guest says of itself, judged: numbers that cannot be, lists that are too long and words that are not
//! harmless break the protocol, and what is left is shown as the guest's word.

use std::net::IpAddr;
use std::time::Duration;

use banger_core::guest::GuestError;
use banger_core::port::{HttpAnswer, Listener, Listeners, ListeningProcess, PortProtocol};
use banger_core::stats::{CpuTimes, GuestStats, NetworkUse};
use banger_proto::guest::v1 as proto;

use crate::convert::{offset, required};
use crate::judge::{bounded, broken};
use crate::limits::{
    AMOUNT_MAX_BYTES, INTERFACES_MAX, LISTENERS_MAX, LOAD_MAX, NAME_MAX_BYTES, PROCESSES_MAX,
    TIME_MAX, TITLE_MAX_BYTES,
};

type Checked<T> = Result<T, GuestError>;

pub(crate) fn stats(stats: proto::GetStatsResponse) -> Checked<GuestStats> {
    if stats.interfaces.len() > INTERFACES_MAX {
        return Err(broken("it tells of too many interfaces"));
    }
    let memory_total_bytes = amount(stats.memory_total_bytes, "its memory")?;
    let disk_total_bytes = amount(stats.disk_total_bytes, "its disk's size")?;
    let load = [stats.load_1m, stats.load_5m, stats.load_15m];
    if !load.iter().all(|load| (0.0..=LOAD_MAX).contains(load)) {
        return Err(broken("its load is impossible"));
    }
    Ok(GuestStats {
        memory_total_bytes,
        memory_available_bytes: part(
            stats.memory_available_bytes,
            memory_total_bytes,
            "its free memory",
        )?,
        memory_cached_bytes: part(
            stats.memory_cached_bytes,
            memory_total_bytes,
            "its cached memory",
        )?,
        load,
        uptime: time(stats.uptime, "its uptime")?,
        cpu: cpu(required(stats.cpu, "its processor time")?)?,
        disk_total_bytes,
        disk_used_bytes: part(stats.disk_used_bytes, disk_total_bytes, "its disk's use")?,
        process_count: processes(stats.process_count)?,
        interfaces: stats
            .interfaces
            .into_iter()
            .map(interface)
            .collect::<Checked<_>>()?,
    })
}

fn cpu(cpu: proto::CpuTimes) -> Checked<CpuTimes> {
    let what = "its processor time";
    Ok(CpuTimes {
        user: time(cpu.user, what)?,
        system: time(cpu.system, what)?,
        idle: time(cpu.idle, what)?,
        io_wait: time(cpu.io_wait, what)?,
        steal: time(cpu.steal, what)?,
    })
}

fn interface(interface: proto::NetworkUse) -> Checked<NetworkUse> {
    Ok(NetworkUse {
        name: name(&interface.name, NAME_MAX_BYTES, "an interface's name")?,
        received_bytes: offset(interface.received_bytes, "what an interface received")?,
        sent_bytes: offset(interface.sent_bytes, "what an interface sent")?,
    })
}

/// A number of bytes that a machine can have.
fn amount(value: i64, what: &str) -> Checked<u64> {
    match u64::try_from(value) {
        Ok(value) if value <= AMOUNT_MAX_BYTES => Ok(value),
        _ => Err(broken(format!("{what} is impossible"))),
    }
}

/// A number of bytes that is part of another.
fn part(value: i64, whole: u64, what: &str) -> Checked<u64> {
    match u64::try_from(value) {
        Ok(value) if value <= whole => Ok(value),
        _ => Err(broken(format!("{what} is impossible"))),
    }
}

fn processes(count: i32) -> Checked<u32> {
    match u32::try_from(count) {
        Ok(count) if count <= PROCESSES_MAX => Ok(count),
        _ => Err(broken("its number of processes is impossible")),
    }
}

fn time(time: Option<prost_types::Duration>, what: &str) -> Checked<Duration> {
    match Duration::try_from(required(time, what)?) {
        Ok(time) if time <= TIME_MAX => Ok(time),
        _ => Err(broken(format!("{what} is impossible"))),
    }
}

/// A short text, harmless to show.
fn name(text: &str, max_bytes: usize, what: &str) -> Checked<String> {
    if text.len() > max_bytes {
        return Err(broken(format!("{what} is too long")));
    }
    Ok(bounded(text))
}

pub(crate) fn listeners(answer: proto::ListPortsResponse) -> Checked<Listeners> {
    if answer.listeners.len() > LISTENERS_MAX {
        return Err(broken("it tells of too many listeners"));
    }
    let listeners = answer.listeners.into_iter().map(listener);
    let mut listeners: Vec<Listener> = listeners.collect::<Checked<_>>()?;
    // The order is ours: an agent that is frozen in time may have another.
    listeners.sort_by_key(|listener| (listener.protocol, listener.port, listener.address));
    Ok(Listeners {
        listeners,
        is_truncated: answer.is_truncated,
    })
}

fn listener(listener: proto::Listener) -> Checked<Listener> {
    use proto::listener::Protocol;
    let protocol = match Protocol::try_from(listener.protocol) {
        Ok(Protocol::Tcp) => PortProtocol::Tcp,
        Ok(Protocol::Udp) => PortProtocol::Udp,
        Ok(Protocol::Unspecified) | Err(_) => {
            return Err(broken("a listener is of an impossible protocol"));
        }
    };
    let port = u16::try_from(listener.port).ok().filter(|&port| port > 0);
    Ok(Listener {
        protocol,
        address: address(&listener.address)?,
        port: port.ok_or_else(|| broken("a listener has an impossible port"))?,
        uid: listener.uid,
        process: listener.process.map(process).transpose()?,
        http: listener.http.map(http).transpose()?,
    })
}

fn address(octets: &[u8]) -> Checked<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Ok(octets.into());
    }
    let octets = <[u8; 16]>::try_from(octets);
    Ok(octets
        .map_err(|_| broken("a listener has an impossible address"))?
        .into())
}

fn process(process: proto::ListeningProcess) -> Checked<ListeningProcess> {
    let pid = u32::try_from(process.pid).ok().filter(|&pid| pid > 0);
    Ok(ListeningProcess {
        pid: pid.ok_or_else(|| broken("a listener's process has an impossible number"))?,
        name: name(&process.name, NAME_MAX_BYTES, "a process's name")?,
        uid: process.uid,
    })
}

fn http(answer: proto::HttpAnswer) -> Checked<HttpAnswer> {
    let status = u16::try_from(answer.status).ok();
    Ok(HttpAnswer {
        status: status
            .filter(|status| (100..1000).contains(status))
            .ok_or_else(|| broken("a page has an impossible status"))?,
        title: name(&answer.title, TITLE_MAX_BYTES, "a page's title")?,
    })
}
