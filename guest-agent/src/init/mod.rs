//! Guests whose image brings its own init: that becomes process 1, and the agent lives beside it.
//!
//! ```text
//! kernel ─► starter, process 1 ── waits ──────────────► executes the image's init
//!              └─► agent ── boots, is set up ── StartInit ─┘
//!                                                   └─► guard, resets the guest when the agent has ended
//! ```
//! Nobody else can become process 1, so the agent is its child from the start. It keeps to a cgroup of its own that
//! no init knows, is passed over by systemd's last killing (its name begins with `@`) and by the kernel's for want of
//! memory. When the guest is to be powered off it asks the init first, so that its services end in their order.

mod cgroup;
pub mod guard;
mod shutdown;
pub mod starter;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::boot::cmdline;
use crate::refusal::{Refusal, describe};

pub use cgroup::PLACE as CGROUPS;

/// The word that asks for the image's init: `image`, or a path.
const KEY: &str = "banger.init=";
/// The value that leaves the choice to us.
const ANY: &str = "image";
/// Where an image's init is looked for, in this order: the kernel's own list, then systemd without its links.
const CANDIDATES: [&str; 5] = [
    "/sbin/init",
    "/usr/sbin/init",
    "/etc/init",
    "/bin/init",
    "/usr/lib/systemd/systemd",
];
/// Bytes of an error number on the way from the starter.
const ERRNO_BYTES: usize = size_of::<i32>();

/// Which program is to be process 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The first that the image has.
    Any,
    /// This one.
    At(String),
}

impl Wanted {
    /// What the kernel's command line says; none where the agent stays process 1.
    #[must_use]
    pub fn on(line: &str) -> Option<Self> {
        match cmdline::decode(cmdline::value(line, KEY)?).as_str() {
            ANY => Some(Self::Any),
            path => Some(Self::At(path.to_owned())),
        }
    }

    /// The program in this root.
    fn find(&self, root: &Path) -> Result<String, Refusal> {
        let is_program = |path: &str| {
            let inside = root.join(path.trim_start_matches('/'));
            std::fs::metadata(inside)
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        let found = match self {
            Self::At(path) => Some(path.as_str()).filter(|path| is_program(path)),
            Self::Any => CANDIDATES.into_iter().find(|path| is_program(path)),
        };
        found.map(str::to_owned).ok_or_else(|| {
            let path = match self {
                Self::At(path) => path.clone(),
                Self::Any => CANDIDATES.join(", "),
            };
            Refusal::InitNotFound { path }
        })
    }
}

/// The image's init, as the agent beside it knows it.
#[derive(Debug)]
pub struct Init {
    wanted: Wanted,
    /// To process 1, for as long as that is the starter.
    starter: Mutex<Option<OwnedFd>>,
    is_started: AtomicBool,
    /// What the guard waits for the end of.
    guard: Mutex<Option<OwnedFd>>,
    patience: Mutex<Duration>,
}

impl Init {
    /// An init that is started through `starter`.
    #[must_use]
    pub fn new(wanted: Wanted, starter: OwnedFd) -> Self {
        Self {
            wanted,
            starter: Mutex::new(Some(starter)),
            is_started: AtomicBool::new(false),
            guard: Mutex::default(),
            patience: Mutex::default(),
        }
    }

    /// Leaves the root of the cgroups, which an init takes for its own.
    pub(crate) fn make_room() {
        cgroup::settle();
    }

    /// Whether process 1 is the image's.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.is_started.load(Ordering::Acquire)
    }

    /// Has process 1 become the init; blocks until it has. A repeat changes nothing.
    ///
    /// # Errors
    /// If there is no such program, or it cannot be executed. Then process 1 still waits.
    pub fn start(&self) -> Result<(), Refusal> {
        let mut starter = self.starter.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(socket) = starter.as_ref() else {
            return Ok(());
        };
        let program = self.wanted.find("/".as_ref())?;
        match ask(socket, &program) {
            Ok(()) => {
                *starter = None;
                self.is_started.store(true, Ordering::Release);
                // A guest without it works as long as its agent does.
                match guard::start() {
                    Ok(held) => {
                        *self.guard.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
                    }
                    Err(error) => eprintln!("banger-agent: has no guard: {error}"),
                }
                Ok(())
            }
            Err(error) => Err(Refusal::InitNotExecutable {
                path: program,
                detail: describe(&error),
            }),
        }
    }

    /// How long the init has for powering off, from now on.
    pub fn set_patience(&self, patience: Duration) {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner) = patience;
    }

    fn patience(&self) -> Duration {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names the program to the starter. The end of the stream is its success: the socket closes as it executes.
fn ask(starter: &impl AsFd, program: &str) -> io::Result<()> {
    send(starter, program.as_bytes(), SendFlags::NOSIGNAL)?;
    let mut answer = [0; ERRNO_BYTES];
    loop {
        return match recv(starter, &mut answer[..], RecvFlags::empty()) {
            Ok((_, 0)) => Ok(()),
            Ok(_) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(answer))),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_command_line_says_who_is_process_one() {
        assert_eq!(Wanted::on("quiet panic=-1"), None);
        assert_eq!(Wanted::on("quiet banger.init=image"), Some(Wanted::Any));
        assert_eq!(
            Wanted::on("banger.init=%2fopt%2fmy%20init"),
            Some(Wanted::At("/opt/my init".into()))
        );
    }

    fn program(root: &Path, path: &str, mode: u32) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_program_that_can_be_executed_is_the_init() {
        let root = tempfile::tempdir().unwrap();
        let find = |wanted: &Wanted| wanted.find(root.path()).ok();
        assert_eq!(find(&Wanted::Any), None);
        program(root.path(), "usr/lib/systemd/systemd", 0o755);
        program(root.path(), "etc/init", 0o644);
        assert_eq!(
            find(&Wanted::Any).as_deref(),
            Some("/usr/lib/systemd/systemd")
        );
        fs::create_dir(root.path().join("sbin")).unwrap();
        symlink("../usr/lib/systemd/systemd", root.path().join("sbin/init")).unwrap();
        assert_eq!(find(&Wanted::Any).as_deref(), Some("/sbin/init"));
        assert_eq!(find(&Wanted::At("/sbin/other".into())), None);
    }

    #[test]
    fn the_end_of_the_stream_is_success_and_a_number_is_an_error() {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let pair = || {
            let flags = SocketFlags::CLOEXEC;
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
        };
        let (ours, theirs) = pair();
        let denied = libc::EACCES.to_ne_bytes();
        send(&theirs, &denied, SendFlags::empty()).unwrap();
        let error = ask(&ours, "/sbin/init").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        let mut name = [0; 64];
        let (_, length) = recv(&theirs, &mut name[..], RecvFlags::empty()).unwrap();
        assert_eq!(&name[..length], b"/sbin/init");
        let (ours, theirs) = pair();
        let ends = std::thread::spawn(move || {
            let mut name = [0; 64];
            recv(&theirs, &mut name[..], RecvFlags::empty()).unwrap();
        });
        ask(&ours, "/sbin/init").unwrap();
        ends.join().unwrap();
    }
}
