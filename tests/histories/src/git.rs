//! git as a user runs it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// What every git here is told.
pub(crate) const SETTINGS: [(&str, &str); 5] = [
    ("user.name", "Ann"),
    ("user.email", "ann@example.com"),
    ("protocol.file.allow", "always"),
    ("core.quotePath", "false"),
    ("maintenance.auto", "false"),
];

pub(crate) fn command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_EDITOR", "true");
    for (name, value) in SETTINGS {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    command
}

/// Runs it; what it says is returned without the last line's end.
pub fn git<S: AsRef<OsStr>>(directory: &Path, words: &[S]) -> String {
    let output = try_git(directory, words);
    let words: Vec<&OsStr> = words.iter().map(AsRef::as_ref).collect();
    output.unwrap_or_else(|error| panic!("git {words:?} in {}: {error}", directory.display()))
}

/// The same, where it may fail.
///
/// # Errors
/// What it said, where it failed.
pub fn try_git<S: AsRef<OsStr>>(directory: &Path, words: &[S]) -> Result<String, String> {
    ended(command(directory).args(words))
}

pub(crate) fn ended(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr) + &text(&output.stdout)),
    }
}

/// What git says, byte for byte.
pub fn git_bytes(directory: &Path, words: &[&str]) -> Vec<u8> {
    let output = command(directory).args(words).output().unwrap();
    assert!(output.status.success(), "git {words:?}");
    output.stdout
}

/// Runs it with an index of its own and this on its standard input; returns what it says.
pub fn git_into(directory: &Path, index: &Path, words: &[&str], input: &[u8]) -> String {
    let mut child = command(directory)
        .env("GIT_INDEX_FILE", index)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(to.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {words:?}: {said}");
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

/// Writes a file, with the directories above it.
pub fn write(directory: &Path, name: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
    let at = directory.join(name.as_ref());
    std::fs::create_dir_all(at.parent().unwrap()).unwrap();
    std::fs::write(at, content).unwrap();
}

/// Commits all that is there. Returns the commit.
pub fn commit(directory: &Path, message: &str) -> String {
    git(directory, &["add", "-A"]);
    git(directory, &["commit", "-q", "--allow-empty", "-m", message]);
    git(directory, &["rev-parse", "HEAD"])
}
