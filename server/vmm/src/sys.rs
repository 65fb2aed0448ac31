//! The only unsafe code of this crate: what happens between fork and exec, and the time stamp counter.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use tokio::io::unix::AsyncFd;

/// Makes the child of `command` the leader of a session of its own, and lets it inherit `files` under their
/// present numbers and no other descriptor beyond the standard three.
pub(crate) fn detach_with_files(command: &mut Command, files: Vec<OwnedFd>) {
    let prepare = move || -> io::Result<()> {
        rustix::process::setsid()?;
        // SAFETY: a system call without pointers; marking every descriptor close-on-exec closes nothing
        // before exec, so the descriptors that `Command` itself still uses stay valid.
        let marked = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                3 as libc::c_uint,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        // Before Linux 5.11 the flag is unknown; what this program opens is close-on-exec anyway.
        let _ = marked;
        for file in &files {
            rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are allowed; it
    // makes three kinds of plain system calls, allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
}

/// What a child is held to from its first instruction on.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    /// The `cgroup.procs` of the cgroup that it joins.
    pub(crate) door: Option<OwnedFd>,
    /// Limits of the process, none above the daemon's own.
    pub(crate) limits: Vec<(rustix::process::Resource, u64)>,
}

/// Makes the child of `command` join a cgroup and take limits on, before it executes anything.
pub(crate) fn confine(command: &mut Command, confinement: Confinement) {
    use rustix::process::{Rlimit, getrlimit, setrlimit};
    let Confinement { door, limits } = confinement;
    let limits: Vec<_> = limits
        .into_iter()
        .map(|(resource, wanted)| {
            let limit = getrlimit(resource)
                .maximum
                .map_or(wanted, |most| most.min(wanted));
            let (current, maximum) = (Some(limit), Some(limit));
            (resource, Rlimit { current, maximum })
        })
        .collect();
    let prepare = move || -> io::Result<()> {
        if let Some(door) = &door {
            // Zero is whoever writes it. One that is kept out is found outside by the daemon.
            let _ = rustix::io::write(door, b"0");
        }
        for (resource, limit) in &limits {
            setrlimit(*resource, *limit)?;
        }
        Ok(())
    };
    // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are allowed; it
    // makes plain system calls, allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
}

/// The number by which a child that [`detach_with_files`] prepared knows `file`.
pub(crate) fn number_in_child(file: &OwnedFd) -> i32 {
    file.as_raw_fd()
}

/// The processor's time stamp counter now; later instructions do not start before it is read.
#[cfg(target_arch = "x86_64")]
pub(crate) fn time_stamp_counter() -> u64 {
    // SAFETY: every x86-64 processor has both instructions; neither touches memory.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        let count = core::arch::x86_64::_rdtsc();
        core::arch::x86_64::_mm_lfence();
        count
    }
}

/// Watches a descriptor with the current Tokio runtime.
///
/// # Errors
/// If the kernel cannot watch it. Panics outside a runtime.
pub(crate) fn watch(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it lives and never changes its number; nobody replaces
    // its file, since it moves into the `AsyncFd`.
    let watched = unsafe { AsyncFd::register(file) };
    watched.map_err(io::Error::from)
}
