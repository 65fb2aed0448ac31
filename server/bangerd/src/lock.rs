//! One daemon per state directory: a lock that the kernel frees when its holder ends, however it ends.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The lock's name below the state directory. It is never removed: who removes a lock file lets two in.
const LOCK: &str = "bangerd.lock";
/// How long a process that a daemon was just starting may hold its copy of the lock, until it becomes another program or
/// ends, though that daemon is gone.
const HANDOVER: Duration = Duration::from_secs(5);
/// The same where the daemon that took the lock runs, and most likely has it.
const HANDOVER_OF_RUNNING: Duration = Duration::from_secs(1);
/// Between two looks at it, of which the kernel does not tell.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The longest pid, with room: what is read of a lock file.
const PID_BYTES_MAX: u64 = 16;

/// Holds a state directory until it is dropped. VMMs do not inherit it.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

/// Why a state directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("another bangerd{} uses the state directory `{}`", with_pid(pid), state_dir.display())]
    Held {
        /// The other's process id, if it could be read.
        pid: String,
        /// The directory.
        state_dir: PathBuf,
    },
    /// The directory or lock file cannot be made.
    #[error("could not open the state directory `{}`", state_dir.display())]
    Open {
        /// The directory.
        state_dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn with_pid(pid: &str) -> String {
    if pid.is_empty() {
        String::new()
    } else {
        format!(" (pid {pid})")
    }
}

impl StateLock {
    /// Makes the directory if it is not there, for its owner alone, and takes it.
    ///
    /// # Errors
    /// If another daemon has it, or it cannot be written.
    pub fn acquire(state_dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Open {
            state_dir: state_dir.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(failed)?;
        let mut file = open(&state_dir.join(LOCK)).map_err(failed)?;
        let begin = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            let pid = read_pid(&mut file).map_err(failed)?;
            let patience = match is_running(&pid) {
                true => HANDOVER_OF_RUNNING,
                false => HANDOVER,
            };
            if begin.elapsed() >= patience {
                return Err(LockError::Held {
                    pid,
                    state_dir: state_dir.to_owned(),
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        write_pid(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// The pid is for people: the lock itself is what counts.
fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// Empty where none is written, or something else.
fn read_pid(file: &mut File) -> io::Result<String> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(PID_BYTES_MAX).read_to_end(&mut text)?;
    let digits = text.into_iter().filter(u8::is_ascii_digit);
    Ok(digits.map(char::from).collect())
}

/// Whether the holder lives, or may: nobody knows of one that is not named.
fn is_running(pid: &str) -> bool {
    pid.is_empty() || Path::new("/proc").join(pid).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_with_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("a/b");
        let first = StateLock::acquire(&state_dir).unwrap();
        let refused = StateLock::acquire(&state_dir).unwrap_err();
        let text = format!(
            "another bangerd (pid {}) uses the state directory `{}`",
            std::process::id(),
            state_dir.display()
        );
        assert_eq!(refused.to_string(), text);
        drop(first);
        StateLock::acquire(&state_dir).unwrap();
    }

    #[test]
    fn what_a_killed_daemon_was_starting_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut copy = open(&dir.path().join(LOCK)).unwrap();
        copy.lock().unwrap();
        let gone = std::process::Command::new("true").spawn().unwrap();
        writeln!(copy, "{}", gone.id()).unwrap();
        gone.wait_with_output().unwrap();
        let taking = std::thread::spawn({
            let path = dir.path().to_owned();
            move || StateLock::acquire(&path).map(drop)
        });
        std::thread::sleep(LOOK_EVERY * 10);
        assert!(!taking.is_finished());
        drop(copy);
        taking.join().unwrap().unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_told() {
        let refused = StateLock::acquire(Path::new("/proc/nope")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "could not open the state directory `/proc/nope`"
        );
    }
}
