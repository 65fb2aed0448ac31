//! Makes the process of a session with its pipes or its terminal.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::cgroup::{Cgroup, Parent};
use super::plan::Plan;
use crate::reap::{Ending, Reaper};
use crate::refusal::{Refusal, describe};
use crate::sys::{self, Launch, LaunchError, Step, launch};

/// Our end of one of a process's streams.
pub type End = AsyncFd<OwnedFd>;

/// A process that was started.
#[derive(Debug)]
pub struct Started {
    /// Its pid, which is also its process group and session.
    pub pid: i32,
    /// Resolves when it has ended.
    pub ending: oneshot::Receiver<Ending>,
    /// Its cgroup, where there is one.
    pub cgroup: Option<Cgroup>,
    /// Our ends.
    pub ends: Ends,
}

/// Our ends of a process's streams.
#[derive(Debug)]
pub enum Ends {
    /// Three pipes; standard input is absent where the process was given none.
    Pipes {
        /// We write.
        stdin: Option<End>,
        /// We read.
        stdout: End,
        /// We read; absent where it is the same pipe.
        stderr: Option<End>,
    },
    /// One terminal, once to read and once to write.
    Terminal {
        /// We read.
        output: End,
        /// We write; the size and the end-of-file character are asked here too.
        input: End,
    },
}

/// Starts what was planned.
///
/// # Errors
/// Why nothing runs.
pub fn start(
    plan: &Plan,
    id: &str,
    parent: Option<&Parent>,
    reaper: &Reaper,
) -> Result<Started, Refusal> {
    let (stdio, ends) = match plan.terminal {
        None => pipes(plan.spec.stdin, plan.spec.merge_output),
        Some(size) => terminal(size, plan.identity.uid, plan.identity.gid),
    }
    .map_err(|error| Refusal::start("making its streams", &error))?;
    let cgroup = parent
        .map(|parent| parent.create(id))
        .transpose()
        .map_err(|error| Refusal::start("making its cgroup", &error))?;
    let entrance = cgroup
        .as_ref()
        .map(Cgroup::entrance)
        .transpose()
        .map_err(|error| Refusal::start("opening its cgroup", &error))?;
    let identity = &plan.identity;
    let launched = Launch {
        candidates: &plan.candidates,
        arguments: &plan.arguments,
        environment: &plan.environment,
        working_dir: &plan.working_dir,
        identity: Some((identity.uid, identity.gid, identity.groups.as_slice())),
        stdio: [stdio[0].as_fd(), stdio[1].as_fd(), stdio[2].as_fd()],
        controls_terminal: plan.terminal.is_some(),
        cgroup: entrance.as_ref().map(AsFd::as_fd),
        umask: plan.umask,
        limits: &plan.limits,
    };
    let (pid, ending) = reaper
        .start(|| launch(&launched))
        .map_err(|error| refusal(plan, &error))?;
    Ok(Started {
        pid,
        ending,
        cgroup,
        ends,
    })
}

fn refusal(plan: &Plan, error: &LaunchError) -> Refusal {
    let program = plan.spec.command[0].clone();
    let detail = describe(&error.source);
    match (error.step, error.source.raw_os_error()) {
        (Step::Execute, Some(libc::ENOENT | libc::ENOTDIR)) if plan.program_exists() => {
            Refusal::ProgramNotExecutable {
                program,
                detail: "its interpreter was not found".into(),
            }
        }
        (Step::Execute, Some(libc::ENOENT | libc::ENOTDIR)) => Refusal::ProgramNotFound { program },
        (Step::Execute, Some(libc::E2BIG)) => Refusal::ArgumentsTooLong {
            detail: plan.sizes(),
        },
        (Step::Execute, Some(libc::ENOMEM | libc::EAGAIN)) => Refusal::StartProcess { detail },
        (Step::Execute, _) => Refusal::ProgramNotExecutable { program, detail },
        (Step::WorkingDir, _) => Refusal::WorkingDirectory {
            path: plan.spec.working_dir.clone(),
            detail,
        },
        (step, _) => Refusal::start(&format!("{step:?}").to_lowercase(), &error.source),
    }
}

fn pipes(has_stdin: bool, merge: bool) -> io::Result<([OwnedFd; 3], Ends)> {
    let (stdin, our_stdin) = if has_stdin {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        (theirs, Some(end(ours, Interest::WRITABLE)?))
    } else {
        (File::open("/dev/null")?.into(), None)
    };
    let (our_stdout, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (our_stderr, stderr) = if merge {
        (None, stdout.try_clone()?)
    } else {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        (Some(end(ours, Interest::READABLE)?), theirs)
    };
    let ends = Ends::Pipes {
        stdin: our_stdin,
        stdout: end(our_stdout, Interest::READABLE)?,
        stderr: our_stderr,
    };
    Ok(([stdin, stdout, stderr], ends))
}

fn terminal(size: Winsize, uid: u32, gid: u32) -> io::Result<([OwnedFd; 3], Ends)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty())?;
    tcsetwinsize(&slave, size)?;
    fchown(&slave, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    let stdio = [slave.try_clone()?, slave.try_clone()?, slave];
    let ends = Ends::Terminal {
        input: end(master.try_clone()?, Interest::WRITABLE)?,
        output: end(master, Interest::READABLE)?,
    };
    Ok((stdio, ends))
}

fn end(fd: OwnedFd, interest: Interest) -> io::Result<End> {
    fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
    sys::watch(fd, interest)
}
