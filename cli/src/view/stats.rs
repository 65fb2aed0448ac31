//! What VMs use, and who listens in them.

use banger_sdk::types;
use indicatif::HumanDuration;
use jiff::Timestamp;
use serde::Serialize;

use super::{Fault, bytes, timestamp, word};
use crate::output::Row;

/// What a VM uses.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct VmStats {
    vm: String,
    name: String,
    state: String,
    time: Option<Timestamp>,
    host: Option<HostStats>,
    guest: Option<GuestStats>,
    guest_error: Option<Fault>,
    disk_size_bytes: i64,
    /// Absent where `disk_error` says why.
    disk_allocated_bytes: Option<i64>,
    disk_error: Option<Fault>,
}

#[derive(Debug, Clone, Serialize)]
struct HostStats {
    cpu_time_ms: i64,
    cpu_percent: Option<f64>,
    rss_bytes: i64,
    pss_bytes: Option<i64>,
    thread_count: i32,
    drives: Vec<DriveStats>,
    read_bytes_per_second: Option<f64>,
    written_bytes_per_second: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
struct DriveStats {
    name: String,
    read_bytes: i64,
    written_bytes: i64,
    read_count: i64,
    write_count: i64,
}

#[derive(Debug, Clone, Serialize)]
struct GuestStats {
    memory_total_bytes: i64,
    memory_available_bytes: i64,
    memory_cached_bytes: i64,
    load_1m: f64,
    load_5m: f64,
    load_15m: f64,
    uptime_ms: i64,
    cpu: CpuTimes,
    disk_total_bytes: i64,
    disk_used_bytes: i64,
    process_count: i32,
    interfaces: Vec<NetworkStats>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct CpuTimes {
    user_ms: i64,
    system_ms: i64,
    idle_ms: i64,
    io_wait_ms: i64,
    steal_ms: i64,
}

#[derive(Debug, Clone, Serialize)]
struct NetworkStats {
    name: String,
    received_bytes: i64,
    sent_bytes: i64,
}

fn millis(span: Option<types::Duration>) -> i64 {
    span.map_or(0, |span| {
        span.seconds
            .saturating_mul(1000)
            .saturating_add(i64::from(span.nanos) / 1_000_000)
    })
}

impl From<types::HostStats> for HostStats {
    fn from(host: types::HostStats) -> Self {
        let drive = |drive: types::DriveStats| DriveStats {
            name: drive.name,
            read_bytes: drive.read_bytes,
            written_bytes: drive.written_bytes,
            read_count: drive.read_count,
            write_count: drive.write_count,
        };
        Self {
            cpu_time_ms: millis(host.cpu_time),
            cpu_percent: host.cpu_percent,
            rss_bytes: host.rss_bytes,
            pss_bytes: host.pss_bytes,
            thread_count: host.thread_count,
            drives: host.drives.into_iter().map(drive).collect(),
            read_bytes_per_second: host.read_bytes_per_second,
            written_bytes_per_second: host.written_bytes_per_second,
        }
    }
}

impl From<types::GuestStats> for GuestStats {
    fn from(guest: types::GuestStats) -> Self {
        let interface = |interface: types::NetworkStats| NetworkStats {
            name: interface.name,
            received_bytes: interface.received_bytes,
            sent_bytes: interface.sent_bytes,
        };
        let cpu = guest.cpu.unwrap_or_default();
        Self {
            memory_total_bytes: guest.memory_total_bytes,
            memory_available_bytes: guest.memory_available_bytes,
            memory_cached_bytes: guest.memory_cached_bytes,
            load_1m: guest.load_1m,
            load_5m: guest.load_5m,
            load_15m: guest.load_15m,
            uptime_ms: millis(guest.uptime),
            cpu: CpuTimes {
                user_ms: millis(cpu.user),
                system_ms: millis(cpu.system),
                idle_ms: millis(cpu.idle),
                io_wait_ms: millis(cpu.io_wait),
                steal_ms: millis(cpu.steal),
            },
            disk_total_bytes: guest.disk_total_bytes,
            disk_used_bytes: guest.disk_used_bytes,
            process_count: guest.process_count,
            interfaces: guest.interfaces.into_iter().map(interface).collect(),
        }
    }
}

impl From<types::VmStats> for VmStats {
    fn from(stats: types::VmStats) -> Self {
        Self {
            state: word(stats.state().as_str_name(), "STATE_"),
            vm: stats.vm,
            name: stats.name,
            time: timestamp(stats.time),
            host: stats.host.map(HostStats::from),
            guest: stats.guest.map(GuestStats::from),
            guest_error: stats.guest_error.as_ref().map(Fault::of),
            disk_size_bytes: stats.disk_size_bytes,
            disk_allocated_bytes: match &stats.disk_error {
                None => Some(stats.disk_allocated_bytes),
                Some(_) => None,
            },
            disk_error: stats.disk_error.as_ref().map(Fault::of),
        }
    }
}

impl VmStats {
    /// Of one processor; nothing where it is not known.
    pub(crate) fn cpu_percent(&self) -> f64 {
        let host = self.host.as_ref();
        host.and_then(|host| host.cpu_percent).unwrap_or(0.0)
    }

    /// Memory of the host.
    pub(crate) fn rss_bytes(&self) -> i64 {
        self.host.as_ref().map_or(0, |host| host.rss_bytes)
    }

    /// Disk of the host.
    pub(crate) fn disk_bytes(&self) -> i64 {
        self.disk_allocated_bytes.unwrap_or(0)
    }

    /// What goes to and from disks, bytes in a second.
    pub(crate) fn io_rate(&self) -> f64 {
        let host = self.host.as_ref();
        let rate = |rate: fn(&HostStats) -> Option<f64>| host.and_then(rate).unwrap_or(0.0);
        rate(|host| host.read_bytes_per_second) + rate(|host| host.written_bytes_per_second)
    }

    /// Whether it runs.
    pub(crate) fn is_running(&self) -> bool {
        self.state == "running"
    }

    fn guest_memory(&self) -> String {
        self.guest.as_ref().map_or_else(String::new, |guest| {
            let used = guest
                .memory_total_bytes
                .saturating_sub(guest.memory_available_bytes);
            format!("{} / {}", bytes(used), bytes(guest.memory_total_bytes))
        })
    }

    fn uptime(&self) -> String {
        self.guest.as_ref().map_or_else(String::new, |guest| {
            let millis = u64::try_from(guest.uptime_ms).unwrap_or(0);
            HumanDuration(std::time::Duration::from_millis(millis)).to_string()
        })
    }
}

/// Bytes in a second; empty where they are not known.
fn rate(rate: Option<f64>) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the daemon's rates are of bytes in 64 bits, and what is not saturates"
    )]
    rate.map_or_else(String::new, |rate| format!("{}/s", bytes(rate as i64)))
}

fn percent(percent: Option<f64>) -> String {
    percent.map_or_else(String::new, |percent| format!("{percent:.1}"))
}

impl Row for VmStats {
    const HEADINGS: &'static [&'static str] = &[
        "NAME", "STATE", "CPU%", "MEMORY", "RSS", "DISK", "READ", "WRITTEN", "PROCS", "UPTIME",
    ];

    fn cells(&self) -> Vec<String> {
        let host = self.host.as_ref();
        vec![
            self.name.clone(),
            self.state.clone(),
            percent(host.and_then(|host| host.cpu_percent)),
            self.guest_memory(),
            host.map_or_else(String::new, |host| bytes(host.rss_bytes)),
            self.disk_allocated_bytes.map_or_else(String::new, bytes),
            rate(host.and_then(|host| host.read_bytes_per_second)),
            rate(host.and_then(|host| host.written_bytes_per_second)),
            self.guest
                .as_ref()
                .map_or_else(String::new, |guest| guest.process_count.to_string()),
            self.uptime(),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details = vec![("Name", self.name.clone()), ("State", self.state.clone())];
        details.extend(self.host.iter().flat_map(HostStats::details));
        let disk = format!(
            "{} taken of {}",
            self.disk_allocated_bytes
                .map_or_else(|| "unknown".to_owned(), bytes),
            bytes(self.disk_size_bytes)
        );
        details.push(("Disk", disk));
        details.push(("Guest memory", self.guest_memory()));
        details.extend(self.guest.iter().flat_map(GuestStats::details));
        details.push(("Guest uptime", self.uptime()));
        let error = self.guest_error.as_ref();
        details.push(("Guest error", error.map(Fault::text).unwrap_or_default()));
        let error = self.disk_error.as_ref();
        details.push(("Disk error", error.map(Fault::text).unwrap_or_default()));
        details
    }
}

impl HostStats {
    fn details(&self) -> Vec<(&'static str, String)> {
        let drive = |drive: &DriveStats| {
            format!(
                "{}: {} read, {} written",
                drive.name,
                bytes(drive.read_bytes),
                bytes(drive.written_bytes)
            )
        };
        let drives: Vec<String> = self.drives.iter().map(drive).collect();
        let seconds =
            std::time::Duration::from_millis(u64::try_from(self.cpu_time_ms).unwrap_or(0));
        vec![
            ("CPU %", percent(self.cpu_percent)),
            ("CPU time", format!("{:.1} s", seconds.as_secs_f64())),
            ("RSS", bytes(self.rss_bytes)),
            ("PSS", self.pss_bytes.map(bytes).unwrap_or_default()),
            ("Threads", self.thread_count.to_string()),
            ("Drives", drives.join("\n")),
        ]
    }
}

impl GuestStats {
    fn details(&self) -> Vec<(&'static str, String)> {
        let interface = |interface: &NetworkStats| {
            format!(
                "{}: {} received, {} sent",
                interface.name,
                bytes(interface.received_bytes),
                bytes(interface.sent_bytes)
            )
        };
        let interfaces: Vec<String> = self.interfaces.iter().map(interface).collect();
        let load = format!(
            "{:.2} {:.2} {:.2}",
            self.load_1m, self.load_5m, self.load_15m
        );
        let disk = format!(
            "{} used of {}",
            bytes(self.disk_used_bytes),
            bytes(self.disk_total_bytes)
        );
        vec![
            ("Guest cache", bytes(self.memory_cached_bytes)),
            ("Guest load", load),
            ("Guest disk", disk),
            ("Guest processes", self.process_count.to_string()),
            ("Guest network", interfaces.join("\n")),
        ]
    }
}

/// A socket in a guest.
#[derive(Debug, Serialize)]
pub(crate) struct Port {
    protocol: String,
    address: String,
    port: i32,
    uid: u32,
    process: Option<PortProcess>,
    http: Option<PortAnswer>,
}

#[derive(Debug, Serialize)]
struct PortProcess {
    pid: i32,
    name: String,
    uid: u32,
}

#[derive(Debug, Serialize)]
struct PortAnswer {
    status: i32,
    title: String,
}

impl From<types::Port> for Port {
    fn from(port: types::Port) -> Self {
        Self {
            protocol: word(port.protocol().as_str_name(), "PROTOCOL_"),
            address: port.address,
            port: port.port,
            uid: port.uid,
            process: port.process.map(|process| PortProcess {
                pid: process.pid,
                name: process.name,
                uid: process.uid,
            }),
            http: port.http.map(|http| PortAnswer {
                status: http.status,
                title: http.title,
            }),
        }
    }
}

impl Row for Port {
    const HEADINGS: &'static [&'static str] = &[
        "PROTOCOL", "ADDRESS", "PORT", "PID", "PROCESS", "UID", "HTTP",
    ];

    fn cells(&self) -> Vec<String> {
        let process = self.process.as_ref();
        let http = self.http.as_ref();
        vec![
            self.protocol.clone(),
            self.address.clone(),
            self.port.to_string(),
            process.map_or_else(String::new, |process| process.pid.to_string()),
            process.map_or_else(String::new, |process| process.name.clone()),
            process.map_or(self.uid, |process| process.uid).to_string(),
            http.map_or_else(String::new, |http| {
                format!("{} {}", http.status, http.title)
                    .trim_end()
                    .to_owned()
            }),
        ]
    }

    fn name(&self) -> String {
        self.port.to_string()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        Self::HEADINGS.iter().copied().zip(self.cells()).collect()
    }
}
