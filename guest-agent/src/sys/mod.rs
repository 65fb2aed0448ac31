//! The one place with unsafe code: system calls that no safe wrapper covers.
//!
//! Each function is a thin, checked wrapper; policy lives with the callers.
#![allow(unsafe_code)]

mod spawn;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};

pub use spawn::{Launch, LaunchError, Step, launch};

/// Sends signal `signal` to `pid` as kill(2) takes it: above zero one process, below a process group,
/// -1 every process but the caller.
///
/// # Errors
/// The errno of kill(2).
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes two integers and touches no memory of ours.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Chunks up to this many bytes come from the heap, whose pages stay mapped when they are freed.
const HEAP_CHUNK_MAX_BYTES: libc::c_int = 8 << 20;
/// Free memory at the top of the heap that is kept for the next chunk.
const HEAP_KEEP_BYTES: libc::c_int = 4 << 20;

/// Makes the allocator reuse the pages of large buffers. By default each would be mapped, zeroed by the
/// kernel page by page and unmapped again, which costs more than filling it.
pub fn keep_large_buffers() {
    // SAFETY: mallopt(3) changes parameters of the allocator, at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, HEAP_CHUNK_MAX_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, HEAP_KEEP_BYTES);
    }
}

/// Reads once from `fd` into the unfilled part of `buffer`, without filling it with zeros first.
///
/// # Errors
/// The errno of read(2).
pub fn read_into(fd: BorrowedFd<'_>, buffer: &mut ReadBuf<'_>) -> rustix::io::Result<()> {
    // SAFETY: nothing is written through the reference but by read(2), which only initialises.
    let (filled, _) = rustix::io::read(fd, unsafe { buffer.unfilled_mut() })?;
    let length = filled.len();
    // SAFETY: the kernel has just written that many bytes.
    unsafe { buffer.assume_init(length) };
    buffer.advance(length);
    Ok(())
}

/// A descriptor whose number stays the same and open for as long as the value lives.
pub trait Steady: AsRawFd + 'static {}

impl Steady for OwnedFd {}
impl Steady for Arc<OwnedFd> {}

/// Watches `fd`, which must not block, from the current runtime.
///
/// # Errors
/// If the kernel cannot watch it.
pub fn watch<T: Steady>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: `Steady` says that the number stays this descriptor's until the value is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// FIFREEZE and FITHAW of linux/fs.h: `_IOWR('X', 119, int)` and `_IOWR('X', 120, int)`.
const FIFREEZE: libc::Ioctl = 0xC004_5877_u32 as libc::Ioctl;
const FITHAW: libc::Ioctl = 0xC004_5878_u32 as libc::Ioctl;

/// What is done to the writes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// All are flushed, and new ones wait.
    Hold,
    /// They go on.
    Release,
}

/// Holds or releases the writes of the file system that `fd` is on.
///
/// # Errors
/// The errno of ioctl(2): EBUSY where they are held already, EINVAL where they are not.
pub fn set_writes(fd: BorrowedFd<'_>, writes: Writes) -> io::Result<()> {
    let request = match writes {
        Writes::Hold => FIFREEZE,
        Writes::Release => FITHAW,
    };
    // SAFETY: both take an integer that is not used, and touch no memory of ours.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
