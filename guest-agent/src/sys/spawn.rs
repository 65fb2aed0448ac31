//! Starts a process: `clone(CLONE_VM | CLONE_VFORK)`, so that no page table is copied, then a few system
//! calls in the child up to `execve`.
//!
//! The child shares the caller's memory and runs on a stack of its own while the calling thread waits.
//! It only makes system calls on memory that was prepared before: it allocates nothing, takes no lock,
//! and changes ids by bare system calls, because glibc's wrappers would reach for the other threads.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{io, mem, ptr};

/// Bytes of the child's stack before `execve`. It holds a few frames that call no library code.
const STACK_BYTES: usize = 64 << 10;

/// What to start. Everything is prepared: the child only makes system calls.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Paths to try in turn, as for a name that is looked up in `PATH`.
    pub candidates: &'a [CString],
    /// Program name and arguments.
    pub arguments: &'a [CString],
    /// `NAME=value` words.
    pub environment: &'a [CString],
    /// Entered as the new user.
    pub working_dir: &'a CStr,
    /// User, group and supplementary groups; absent keeps the caller's.
    pub identity: Option<(u32, u32, &'a [u32])>,
    /// Become 0, 1 and 2.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Whether `stdio[0]` becomes the controlling terminal of the new session.
    pub controls_terminal: bool,
    /// An open `cgroup.procs` that the child enters.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Permissions that new files do not get.
    pub umask: u32,
    /// Set while the child still may raise them.
    pub limits: &'a [Limit],
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The kernel's number of the resource.
    pub resource: u32,
    /// What applies.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

/// The step of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Making the process.
    Clone,
    /// Entering its cgroup.
    Cgroup,
    /// Taking the terminal.
    Terminal,
    /// Placing standard input, output and error.
    Stdio,
    /// Limiting what it may have.
    Limits,
    /// Becoming the user.
    Identity,
    /// Entering the working directory.
    WorkingDir,
    /// Executing the program.
    Execute,
}

/// The step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step:?} failed")]
pub struct LaunchError {
    /// Which.
    pub step: Step,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// The highest signal number, signal(7).
const SIGNAL_MAX: i32 = 64;

/// What the child reads, and where it says what failed.
struct Shared<'a> {
    launch: &'a Launch<'a>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    failure: Option<(Step, i32)>,
}

/// A null-terminated table of pointers to `words`.
fn table(words: &[CString]) -> Vec<*const c_char> {
    let mut table: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    table.push(ptr::null());
    table
}

/// Starts the process as the leader of a new session, returning its pid once it has been executed.
///
/// # Errors
/// The step that failed; then no process is left, except a zombie that the caller's reaper takes.
pub fn launch(launch: &Launch<'_>) -> Result<i32, LaunchError> {
    let mut shared = Shared {
        launch,
        argv: table(launch.arguments),
        envp: table(launch.environment),
        failure: None,
    };
    let mut stack: Vec<u128> = Vec::with_capacity(STACK_BYTES / size_of::<u128>());
    let mut all: libc::sigset_t = blank();
    let mut before: libc::sigset_t = blank();
    // SAFETY: both sets are ours; every signal is blocked, so that no handler runs in the child.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
    }
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is large enough, aligned to 16 bytes, grows down from its end and outlives the
    // child's use of it, since CLONE_VFORK holds this thread until the child executes or exits. `shared`
    // outlives it for the same reason, and nobody else touches it meanwhile.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(stack.capacity()).cast::<c_void>();
        libc::clone(child, top, flags, (&raw mut shared).cast::<c_void>())
    };
    let cloned = io::Error::last_os_error();
    // SAFETY: restores the mask that was read above.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
    }
    if pid < 0 {
        return Err(LaunchError {
            step: Step::Clone,
            source: cloned,
        });
    }
    // SAFETY: `shared` is initialised. The child wrote through its own pointer, hence the volatile read.
    match unsafe { ptr::read_volatile(&raw const shared.failure) } {
        None => Ok(pid),
        Some((step, errno)) => {
            // SAFETY: waits for our own child, which has called _exit; a reaper that was faster is fine.
            unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
            Err(LaunchError {
                step,
                source: io::Error::from_raw_os_error(errno),
            })
        }
    }
}

/// A C structure whose every byte is zero.
fn blank<T: Copy>() -> T {
    // SAFETY: called for plain C structures of integers only, for which zero is a value.
    unsafe { mem::zeroed() }
}

/// The child: runs the steps, and leaves on the first that fails.
extern "C" fn child(argument: *mut c_void) -> c_int {
    // SAFETY: `launch` passes its `Shared`, which outlives us and is used by nobody else meanwhile.
    let shared = unsafe { &mut *argument.cast::<Shared<'_>>() };
    // SAFETY: we are the vforked child and call it once.
    let failure = unsafe { steps(shared) };
    shared.failure = Some(failure);
    // SAFETY: ends the child without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

/// The last error of the calling thread.
fn errno() -> i32 {
    // SAFETY: the pointer is valid for the calling thread.
    unsafe { *libc::__errno_location() }
}

/// Leaves [`steps`] with the step's name if the call returned below zero.
macro_rules! check {
    ($step:expr, $result:expr) => {
        if $result < 0 {
            return ($step, errno());
        }
    };
}

/// All steps up to the program. Returns only on failure.
///
/// # Safety
/// Runs in the vforked child alone.
unsafe fn steps(shared: &Shared<'_>) -> (Step, i32) {
    let launch = shared.launch;
    // SAFETY: system calls on memory that the parent prepared and that lives until we execute or exit.
    unsafe {
        if let Some(cgroup) = launch.cgroup {
            let written = libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1);
            check!(Step::Cgroup, written);
        }
        expendable();
        check!(Step::Terminal, libc::setsid());
        for (target, fd) in (0..).zip(launch.stdio) {
            check!(Step::Stdio, libc::dup2(fd.as_raw_fd(), target));
        }
        if launch.controls_terminal {
            check!(Step::Terminal, libc::ioctl(0, libc::TIOCSCTTY, 0));
        }
        for limit in launch.limits {
            let set = libc::rlimit {
                rlim_cur: limit.soft,
                rlim_max: limit.hard,
            };
            check!(
                Step::Limits,
                libc::setrlimit(limit.resource, &raw const set)
            );
        }
        if let Some((uid, gid, groups)) = launch.identity {
            let set = libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr());
            check!(Step::Identity, set);
            let set = libc::syscall(libc::SYS_setresgid, gid, gid, gid);
            check!(Step::Identity, set);
            let set = libc::syscall(libc::SYS_setresuid, uid, uid, uid);
            check!(Step::Identity, set);
        }
        check!(Step::WorkingDir, libc::chdir(launch.working_dir.as_ptr()));
        libc::umask(launch.umask);
        // Caught signals fall back by themselves; ignored ones would stay ignored: SIGPIPE, which the runtime
        // ignores, and whatever whoever started us ignored. The two that nobody can set fail, and may.
        let mut default: libc::sigaction = blank();
        default.sa_sigaction = libc::SIG_DFL;
        for signal in 1..=SIGNAL_MAX {
            libc::sigaction(signal, &raw const default, ptr::null_mut());
        }
        let none: libc::sigset_t = blank();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        execute(shared)
    }
}

/// What we start may be ended by the kernel for want of memory, though we may not. It stays as it is where there is
/// no /proc, or no right.
///
/// # Safety
/// Runs in the vforked child alone.
unsafe fn expendable() {
    // SAFETY: system calls on constants; the descriptor is our own.
    unsafe {
        let file = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        if file >= 0 {
            libc::write(file, c"0".as_ptr().cast(), 1);
            libc::close(file);
        }
    }
}

/// Tries the candidates as execvp(3) does: what is missing or forbidden is passed over, and forbidden is
/// what is told if nothing else was found.
///
/// # Safety
/// Runs in the vforked child alone.
unsafe fn execute(shared: &Shared<'_>) -> (Step, i32) {
    let mut result = libc::ENOENT;
    for path in shared.launch.candidates {
        // SAFETY: the tables are null-terminated and point to words that outlive us.
        unsafe {
            libc::execve(path.as_ptr(), shared.argv.as_ptr(), shared.envp.as_ptr());
        }
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => result = libc::EACCES,
            other => return (Step::Execute, other),
        }
    }
    (Step::Execute, result)
}
