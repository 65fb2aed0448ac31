//! One daemon per state directory: a lock that the kernel frees when its holder ends, however it ends.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The lock's name below the state directory. It is never removed: who removes a lock file lets two in.
const LOCK: &str = "bangerd.lock";
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
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held {
                    pid: read_pid(&mut file),
                    state_dir: state_dir.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
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

fn read_pid(file: &mut File) -> String {
    let mut text = String::new();
    // Nothing that is read here is needed.
    let _ = file.take(PID_BYTES_MAX).read_to_string(&mut text);
    text.trim().chars().filter(char::is_ascii_digit).collect()
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
    fn a_directory_that_cannot_be_made_is_told() {
        let refused = StateLock::acquire(Path::new("/proc/nope")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "could not open the state directory `/proc/nope`"
        );
    }
}
