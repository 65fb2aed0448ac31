//! The agent's guard beside an image's init: resets the guest when the agent has ended. Process 1 would go on without it,
//! and the VM would look alive and be of no use to anybody.
//!
//! It has the one end of a pipe whose other end only the agent has, and so learns of its death however it came.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::system::{RebootCommand, reboot};

use super::starter;

/// The argument that makes the agent's program its guard.
pub const ARGUMENT: &str = "--guard";
/// How it is called: see the starter's name for the agent.
const NAME: &str = "@banger-guard";

/// Starts the guard of the calling process, for as long as that has what is returned.
///
/// # Errors
/// If no pipe or process can be made.
pub(super) fn start() -> io::Result<OwnedFd> {
    let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
    starter::start_ourselves(NAME, ARGUMENT, &theirs)?;
    Ok(ours)
}

/// The guard itself, with its end of the pipe as its standard input. Returns only on failure.
///
/// # Errors
/// If the kernel does not reset the guest.
pub fn run() -> io::Result<()> {
    wait(io::stdin().lock())?;
    eprintln!("banger-agent: the agent has ended; without it the guest is of no use, and is reset");
    rustix::fs::sync();
    Ok(reboot(RebootCommand::Restart)?)
}

/// Returns when nobody has the other end any more.
fn wait(mut pipe: impl Read) -> io::Result<()> {
    io::copy(&mut pipe, &mut io::sink()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_end_of_the_other_side_is_noticed_and_nothing_else() {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(wait(std::fs::File::from(theirs)).is_ok()));
        rustix::io::write(&ours, b"a word").unwrap();
        assert!(ended.recv_timeout(Duration::from_millis(50)).is_err());
        drop(ours);
        assert_eq!(ended.recv_timeout(Duration::from_secs(10)), Ok(true));
    }
}
