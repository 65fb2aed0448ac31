//! What a guest says that it uses: the guest's own words, within bounds and otherwise not proven.

use std::time::Duration;

/// What a guest says that it uses.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GuestStats {
    /// What its kernel manages.
    pub memory_total_bytes: u64,
    /// What processes can still get; at most the total.
    pub memory_available_bytes: u64,
    /// Contents of files that are kept in memory; at most the total.
    pub memory_cached_bytes: u64,
    /// The mean number of processes that run or wait for a disk, over 1, 5 and 15 minutes. Finite, not negative.
    pub load: [f64; 3],
    /// Since its kernel began.
    pub uptime: Duration,
    /// What its processors did since boot.
    pub cpu: CpuTimes,
    /// The size of its root file system.
    pub disk_total_bytes: u64,
    /// What of it is taken; at most the size.
    pub disk_used_bytes: u64,
    /// Processes, without the kernel's own threads.
    pub process_count: u32,
    /// Its network interfaces except the loopback.
    pub interfaces: Vec<NetworkUse>,
}

/// What all processors of a guest together did, since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTimes {
    /// Ran processes.
    pub user: Duration,
    /// Ran the kernel.
    pub system: Duration,
    /// Did nothing.
    pub idle: Duration,
    /// Did nothing while a disk was waited for.
    pub io_wait: Duration,
    /// Were wanted and not given by the host.
    pub steal: Duration,
}

/// What went through a network interface of a guest, since boot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkUse {
    /// The interface.
    pub name: String,
    /// Into the guest.
    pub received_bytes: u64,
    /// Out of the guest.
    pub sent_bytes: u64,
}
