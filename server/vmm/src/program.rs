//! A VMM's program: where it is, and which version.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use banger_core::vmm::VmmError;

/// How long a program has to tell its version.
pub(crate) const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// The most characters of a version.
const MAX_VERSION: usize = 32;

/// A path as it is, a name as `PATH` has it; `None` where there is no such file.
pub(crate) fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// Why a program tells no version.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoVersion {
    #[error("it did not tell its version within {VERSION_LIMIT:?}")]
    Silent,
    #[error("it cannot be started")]
    NotStarted(#[source] io::Error),
    #[error("asked for its version, it ended with {0}")]
    Ended(ExitStatus),
    #[error("it tells no version")]
    Wordless,
}

/// What the program calls its version: the first word that begins with a digit, with or without a `v` before.
pub(crate) async fn version(program: &Path) -> Result<String, NoVersion> {
    let output = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(VERSION_LIMIT, output).await;
    let output = output.map_err(|_elapsed| NoVersion::Silent)?;
    let output = output.map_err(NoVersion::NotStarted)?;
    if !output.status.success() {
        return Err(NoVersion::Ended(output.status));
    }
    version_in(&String::from_utf8_lossy(&output.stdout)).ok_or(NoVersion::Wordless)
}

/// The version of a program that is used whatever it says of itself.
pub(crate) async fn version_or_unknown(program: &Path) -> Result<String, VmmError> {
    match version(program).await {
        Ok(version) => Ok(version),
        Err(NoVersion::Ended(_) | NoVersion::Wordless) => Ok("unknown".into()),
        Err(NoVersion::Silent) => Err(VmmError::Deadline {
            during: "telling its version",
            limit: VERSION_LIMIT,
        }),
        Err(NoVersion::NotStarted(source)) => Err(VmmError::Spawn {
            program: program.display().to_string(),
            source,
        }),
    }
}

fn version_in(text: &str) -> Option<String> {
    let number = |word: &str| {
        let word = word.strip_prefix('v').unwrap_or(word);
        word.starts_with(|first: char| first.is_ascii_digit())
            .then(|| word.chars().take(MAX_VERSION).collect())
    };
    text.split_whitespace().find_map(number)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn executable(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("program");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn the_version_is_the_first_number() {
        let dir = tempfile::tempdir().unwrap();
        let table = [
            (
                "echo 'QEMU emulator version 7.2.22 (Debian 1:7.2)'",
                "7.2.22",
            ),
            ("echo Firecracker v1.17.0-dev; echo", "1.17.0-dev"),
            ("echo QEMU emulator version", "unknown"),
            ("exit 1", "unknown"),
            ("head -c 100000 /dev/zero", "unknown"),
            (
                "echo version 0123456789012345678901234567890123456789",
                "01234567890123456789012345678901",
            ),
        ];
        for (script, expected) in table {
            let program = executable(dir.path(), script);
            let told = version_or_unknown(&program).await.unwrap();
            assert_eq!(told, expected, "{script}");
        }
    }

    #[tokio::test]
    async fn a_program_without_a_version_says_why() {
        let dir = tempfile::tempdir().unwrap();
        for (script, expected) in [
            ("exit 3", "it ended with exit status: 3"),
            ("echo none", "it tells no version"),
        ] {
            let program = executable(dir.path(), script);
            let error = version(&program).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = version(&dir.path().join("absent")).await.unwrap_err();
        assert!(matches!(error, NoVersion::NotStarted(_)), "{error:?}");
    }

    #[test]
    fn a_path_is_not_looked_up() {
        let dir = tempfile::tempdir().unwrap();
        let program = executable(dir.path(), "");
        assert_eq!(find(&program), Some(program));
        assert_eq!(find(&dir.path().join("absent")), None);
        assert_eq!(find(dir.path()), None, "a directory is no program");
        assert!(find(Path::new("sh")).is_some_and(|path| path.is_absolute()));
    }
}
