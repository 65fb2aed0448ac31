//! Process 1 until the image's init is: it starts the agent as its child, and becomes the init when the agent says
//! so. It has one thread and does nothing else.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt,
};
use rustix::process::{chroot, fchdir};
use rustix::stdio::{stderr, stdin, stdout};

use crate::boot::Kernel;
use crate::sys::{Launch, launch};

/// The argument that makes the agent one beside an init.
pub const ARGUMENT: &str = "--beside-init";
/// How the agent is called then. systemd leaves processes alone whose name begins so (its root storage daemons).
const NAME: &str = "@banger-agent";
/// This program, in the initramfs, which is still there.
const PROGRAM: &str = "/proc/self/exe";
/// What the kernel gives its init.
const ENVIRONMENT: [(&str, &str); 2] = [("HOME", "/"), ("TERM", "linux")];
/// Longest path of an init.
const PATH_MAX_BYTES: usize = 4096;
/// The lowest number for a descriptor that is not to be one of the standard ones.
const FIRST_FREE: i32 = 3;

/// Starts the agent, and becomes the init that it names. Returns only if nothing works, whereupon the kernel panics.
///
/// # Errors
/// If the agent cannot be started, or has ended.
pub fn run(kernel: &Kernel) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let agent = start_ourselves(NAME, ARGUMENT, &theirs)?;
    drop(theirs);
    let mut path = [0; PATH_MAX_BYTES];
    loop {
        let length = match recv(&ours, &mut path[..], RecvFlags::empty()) {
            Ok((_, 0)) => return Err(io::Error::other("the agent has ended")),
            Ok((length, _)) => length,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let error = become_init(kernel, agent, &path[..length]);
        let number = error.raw_os_error().unwrap_or(libc::EIO);
        send(&ours, &number.to_ne_bytes(), SendFlags::NOSIGNAL)?;
    }
}

/// Starts this program again, called `name` and with this argument and standard input.
pub(super) fn start_ourselves(name: &str, argument: &str, input: &impl AsFd) -> io::Result<i32> {
    let word = |text: &str| CString::new(text).map_err(io::Error::from);
    launch(&Launch {
        candidates: &[word(PROGRAM)?],
        arguments: &[word(name)?, word(argument)?],
        environment: &[],
        working_dir: c"/",
        identity: None,
        stdio: [input.as_fd(), stdout(), stderr()],
        controls_terminal: false,
        cgroup: None,
        umask: 0o022,
        limits: &[],
    })
    .map_err(|error| error.source)
}

/// Goes to the root that the agent has made and executes the program there. Returns only on failure.
fn become_init(kernel: &Kernel, agent: i32, path: &[u8]) -> io::Error {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entered = openat(&kernel.proc, format!("{agent}/root"), flags, Mode::empty())
        .and_then(fchdir)
        .and_then(|()| chroot("."));
    if let Err(error) = entered {
        return error.into();
    }
    // Resets the signals too. The standard streams are the console's.
    Command::new(std::ffi::OsStr::from_bytes(path))
        .env_clear()
        .envs(ENVIRONMENT)
        .exec()
}

/// The agent's end of the socket to process 1, which it has as its standard input.
///
/// # Errors
/// If the other end is not process 1: somebody else called us.
pub fn socket() -> io::Result<OwnedFd> {
    let socket = fcntl_dupfd_cloexec(stdin(), FIRST_FREE)?;
    let peer = sockopt::socket_peercred(&socket)?;
    if !peer.pid.is_init() {
        return Err(io::Error::other("not started by process 1 of a guest"));
    }
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(null)?;
    Ok(socket)
}
