//! The one place with unsafe code: system calls that no safe wrapper covers.
//!
//! Each function is a thin, checked wrapper; policy lives with the callers.
#![allow(unsafe_code)]

mod spawn;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};

pub use spawn::{Launch, LaunchError, Limit, Step, launch};

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

/// The rights with which the calling thread reaches files, until the value is dropped: user, group, supplementary groups,
/// and no capabilities but root's.
///
/// The kernel keeps credentials for each thread (credentials(7)); glibc's wrappers would change all of them. Only the
/// effective ids change. The real and saved ones stay root's, so that the user whose rights these are can neither
/// signal nor trace the thread, and with it the agent (kill(2), ptrace(2): both look at those); and the effective user
/// is another one, not only the file system's, because some files, such as those of /proc/sys, ask for it.
#[derive(Debug)]
pub struct FileRights {
    before: Option<Before>,
    /// They are the thread's: the value stays on it.
    _thread: std::marker::PhantomData<*const ()>,
}

/// What the thread was before.
#[derive(Debug)]
struct Before {
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
}

/// To setresuid(2) and setresgid(2): as it is.
const UNCHANGED: libc::c_long = -1;

impl FileRights {
    /// Those that the thread has anyway.
    #[must_use]
    pub const fn own() -> Self {
        Self {
            before: None,
            _thread: std::marker::PhantomData,
        }
    }

    /// Those of a user, of a group and of supplementary groups.
    ///
    /// # Errors
    /// EPERM for who may not take them.
    pub fn of(uid: u32, gid: u32, groups: &[u32]) -> io::Result<Self> {
        // SAFETY: neither takes anything, and neither fails.
        let (own_uid, own_gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        if own_uid != 0 && (own_uid, own_gid) == (uid, gid) {
            return Ok(Self::own());
        }
        let before = Before {
            uid: own_uid,
            gid: own_gid,
            groups: own_groups()?,
        };
        // From here on what was changed is taken back.
        let rights = Self {
            before: Some(before),
            ..Self::own()
        };
        set_groups(groups)?;
        set_effective(libc::SYS_setresgid, gid)?;
        // The last: root's right to change the others goes with it.
        set_effective(libc::SYS_setresuid, uid)?;
        Ok(rights)
    }
}

impl Drop for FileRights {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // The user first, whose return brings back the right to set the others. None of them fails: the real ids
            // never changed.
            let _ = set_effective(libc::SYS_setresuid, before.uid);
            let _ = set_effective(libc::SYS_setresgid, before.gid);
            let _ = set_groups(&before.groups);
        }
    }
}

fn own_groups() -> io::Result<Vec<libc::gid_t>> {
    // SAFETY: without room it only tells how many there are.
    let room = unsafe { libc::getgroups(0, std::ptr::null_mut()) };
    let mut groups = vec![0; usize::try_from(room).map_err(|_| io::Error::last_os_error())?];
    // SAFETY: the kernel writes at most as many ids as there is room for. Only this thread changes its own.
    let count = unsafe { libc::getgroups(room, groups.as_mut_ptr()) };
    groups.truncate(usize::try_from(count).map_err(|_| io::Error::last_os_error())?);
    Ok(groups)
}

fn set_groups(groups: &[libc::gid_t]) -> io::Result<()> {
    // SAFETY: a bare system call, which changes the calling thread alone; it reads as many ids as there are.
    match unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the calling thread's effective id by one of setresuid(2) and setresgid(2).
fn set_effective(call: libc::c_long, id: u32) -> io::Result<()> {
    // SAFETY: a bare system call on integers, which changes the calling thread alone.
    match unsafe { libc::syscall(call, UNCHANGED, libc::c_long::from(id), UNCHANGED) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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

/// Connects to a port of the host's, over vsock (vsock(7)). Blocks while the host does not answer, for two seconds
/// at most.
///
/// # Errors
/// The errno of socket(2) or connect(2).
pub fn connect_host(port: u32) -> io::Result<OwnedFd> {
    // SAFETY: three integers.
    let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: plain integers, for which zeros are right.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).map_err(io::Error::other)?;
    address.svm_cid = libc::VMADDR_CID_HOST;
    address.svm_port = port;
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes of an address that lives over the call.
    match unsafe { libc::connect(fd, (&raw const address).cast(), length) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

/// FIFREEZE and FITHAW of linux/fs.h: `_IOWR('X', 119, int)` and `_IOWR('X', 120, int)`.
const FIFREEZE: libc::Ioctl = 0xC004_5877_u32 as libc::Ioctl;
const FITHAW: libc::Ioctl = 0xC004_5878_u32 as libc::Ioctl;

/// `EXT4_IOC_RESIZE_FS` of the kernel's fs/ext4/ext4.h: `_IOW('f', 16, __u64)`.
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610_u32 as libc::Ioctl;

/// Makes the mounted ext4 that `fd` is on `blocks` of its blocks large.
///
/// # Errors
/// The errno of ioctl(2): EPERM where the file system has errors, EINVAL where it would shrink.
pub fn resize(fd: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    // SAFETY: it reads one 64-bit number through the pointer, which outlives the call.
    match unsafe { libc::ioctl(fd.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

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
