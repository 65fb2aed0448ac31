//! How much VMs use, and who listens in them.

use std::time::Duration;

use banger_app::vm::{HostStats, VmStats};
use banger_core::port::{HttpAnswer, Listener, ListeningProcess, PortProtocol};
use banger_core::stats::{CpuTimes, GuestStats, NetworkUse};
use banger_core::vmm::DriveMetrics;
use banger_proto::v1;

use super::field::{int, positive_span, span, time};
use super::vm::phase;
use crate::grpc::request::RequestError;
use crate::grpc::status;

/// From one measurement to the next, where the caller does not say.
const INTERVAL: Duration = Duration::from_secs(1);
/// The shortest: a measurement is a question to every guest.
const INTERVAL_MIN: Duration = Duration::from_millis(500);
/// The longest: a stream has its uses.
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Bytes in a MiB.
const MIB: u64 = 1 << 20;

/// From one measurement to the next, as a caller wants it.
pub(crate) fn interval(wanted: Option<&prost_types::Duration>) -> Result<Duration, RequestError> {
    const FIELD: &str = "interval";
    let Some(wanted) = wanted else {
        return Ok(INTERVAL);
    };
    let interval = positive_span(FIELD, wanted)?;
    if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        Ok(interval)
    } else {
        Err(RequestError::invalid(FIELD, "is not from 0.5 s to 60 s"))
    }
}

pub(crate) fn stats(stats: &VmStats) -> v1::VmStats {
    let vm = &stats.vm;
    v1::VmStats {
        vm: vm.id.to_string(),
        name: vm.spec.name.to_string(),
        state: phase(vm.state.phase()).into(),
        time: Some(time(stats.time)),
        host: stats.host.as_ref().map(host),
        guest: stats.guest.as_ref().map(guest),
        guest_error: stats.guest_error.as_deref().map(status::message),
        disk_size_bytes: int(vm.spec.disk_mib.saturating_mul(MIB)),
        disk_allocated_bytes: int(stats.disk_allocated_bytes.unwrap_or(0)),
        disk_error: stats.disk_error.as_deref().map(status::message),
    }
}

fn host(host: &HostStats) -> v1::HostStats {
    let (total, rates) = (&host.total, host.rates);
    let drives = rates.and_then(|rates| rates.drives);
    v1::HostStats {
        cpu_time: Some(span(total.cpu_time)),
        cpu_percent: rates.map(|rates| rates.cpu_percent),
        rss_bytes: int(total.rss_bytes),
        pss_bytes: total.pss_bytes.map(int),
        thread_count: i32::try_from(total.thread_count).unwrap_or(i32::MAX),
        drives: total.drives.iter().map(drive).collect(),
        read_bytes_per_second: drives.map(|drives| drives.read_bytes_per_second),
        written_bytes_per_second: drives.map(|drives| drives.written_bytes_per_second),
    }
}

fn drive(drive: &DriveMetrics) -> v1::DriveStats {
    v1::DriveStats {
        name: drive.serial.clone(),
        read_bytes: int(drive.read_bytes),
        written_bytes: int(drive.written_bytes),
        read_count: int(drive.read_operations),
        write_count: int(drive.write_operations),
    }
}

fn guest(guest: &GuestStats) -> v1::GuestStats {
    let [load_1m, load_5m, load_15m] = guest.load;
    v1::GuestStats {
        memory_total_bytes: int(guest.memory_total_bytes),
        memory_available_bytes: int(guest.memory_available_bytes),
        memory_cached_bytes: int(guest.memory_cached_bytes),
        load_1m,
        load_5m,
        load_15m,
        uptime: Some(span(guest.uptime)),
        cpu: Some(cpu(&guest.cpu)),
        disk_total_bytes: int(guest.disk_total_bytes),
        disk_used_bytes: int(guest.disk_used_bytes),
        process_count: i32::try_from(guest.process_count).unwrap_or(i32::MAX),
        interfaces: guest.interfaces.iter().map(interface).collect(),
    }
}

fn cpu(cpu: &CpuTimes) -> v1::GuestCpuTimes {
    v1::GuestCpuTimes {
        user: Some(span(cpu.user)),
        system: Some(span(cpu.system)),
        idle: Some(span(cpu.idle)),
        io_wait: Some(span(cpu.io_wait)),
        steal: Some(span(cpu.steal)),
    }
}

fn interface(interface: &NetworkUse) -> v1::NetworkStats {
    v1::NetworkStats {
        name: interface.name.clone(),
        received_bytes: int(interface.received_bytes),
        sent_bytes: int(interface.sent_bytes),
    }
}

pub(crate) fn port(listener: &Listener) -> v1::Port {
    use v1::port::Protocol;
    let protocol = match listener.protocol {
        PortProtocol::Tcp => Protocol::Tcp,
        PortProtocol::Udp => Protocol::Udp,
    };
    let process = |process: &ListeningProcess| v1::PortProcess {
        pid: i32::try_from(process.pid).unwrap_or(i32::MAX),
        name: process.name.clone(),
        uid: process.uid,
    };
    let http = |http: &HttpAnswer| v1::PortAnswer {
        status: http.status.into(),
        title: http.title.clone(),
    };
    v1::Port {
        protocol: protocol.into(),
        address: listener.address.to_string(),
        port: listener.port.into(),
        uid: listener.uid,
        process: listener.process.as_ref().map(process),
        http: listener.http.as_ref().map(http),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_from_half_a_second_to_a_minute() {
        let of = |seconds, nanos| interval(Some(&prost_types::Duration { seconds, nanos }));
        assert_eq!(interval(None), Ok(INTERVAL));
        assert_eq!(of(0, 500_000_000), Ok(INTERVAL_MIN));
        assert_eq!(of(60, 0), Ok(INTERVAL_MAX));
        for (seconds, nanos) in [
            (0, 499_999_999),
            (60, 1),
            (-1, 0),
            (0, 0),
            (i64::MAX, 0),
            (1, 1_000_000_000),
        ] {
            assert!(of(seconds, nanos).is_err(), "{seconds} {nanos}");
        }
    }
}
