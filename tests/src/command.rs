//! Running a program to its end, within a time, with all it says kept.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a program may run if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How often an ending is looked for.
const LOOK: Duration = Duration::from_millis(5);

/// A program to run.
#[derive(Debug)]
pub struct Run {
    command: Command,
    words: Vec<OsString>,
    stdin: Vec<u8>,
    timeout: Duration,
    first_word: Option<Sender<()>>,
}

/// A program that ended.
#[derive(Debug)]
pub struct Done {
    /// What was run, for messages.
    pub words: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// How long it ran.
    pub took: Duration,
}

impl Run {
    /// This program.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program.as_ref());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            command,
            words: vec![program.as_ref().to_owned()],
            stdin: Vec::new(),
            timeout: TIMEOUT,
            first_word: None,
        }
    }

    /// With an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.words.push(argument.as_ref().to_owned());
        self.command.arg(argument);
        self
    }

    /// With arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = S>) -> Self {
        arguments
            .into_iter()
            .fold(self, |run, argument| run.arg(argument))
    }

    /// With a variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Without a variable.
    #[must_use]
    pub fn without_env(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }

    /// In a directory.
    #[must_use]
    pub fn in_dir(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// As another user, without supplementary groups of ours.
    #[must_use]
    pub fn as_user(mut self, uid: u32, gid: u32) -> Self {
        self.command.uid(uid).gid(gid);
        self
    }

    /// With this on standard input, which is closed after it.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// With this much time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Tells when the first of its output comes.
    #[must_use]
    pub fn telling(mut self, first_word: Sender<()>) -> Self {
        self.first_word = Some(first_word);
        self
    }

    /// Starts it, unheard, and leaves it to the caller, in a process group of its own.
    pub fn spawn(mut self) -> Child {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        self.command
            .spawn()
            .unwrap_or_else(|error| panic!("`{}` did not start: {error}", text(&self.words)))
    }

    /// Runs it to its end.
    pub fn done(mut self) -> Done {
        let words = text(&self.words);
        let begin = Instant::now();
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("`{words}` did not start: {error}"));
        let mut input = child.stdin.take().unwrap();
        let bytes = std::mem::take(&mut self.stdin);
        let writer = std::thread::spawn(move || drop(input.write_all(&bytes)));
        let stdout = reader(child.stdout.take().unwrap(), self.first_word.take());
        let stderr = reader(child.stderr.take().unwrap(), None);
        let status = ended(&mut child, self.timeout);
        let took = begin.elapsed();
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
        let _ = writer.join();
        let Some(status) = status else {
            panic!(
                "`{words}` did not end within {:?}\n{}",
                self.timeout,
                said(&stdout, &stderr)
            );
        };
        Done {
            words,
            status,
            stdout,
            stderr,
            took,
        }
    }

    /// Runs it; it must succeed.
    pub fn ok(self) -> Done {
        let done = self.done();
        assert!(
            done.status.success(),
            "`{}` failed: {}\n{}",
            done.words,
            done.status,
            done.said()
        );
        done
    }
}

impl Done {
    /// The exit code; 128 and the number for a signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Standard output as text, without line ends at its end.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard error as text, without line ends at its end.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }

    /// Standard output as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| {
            panic!("`{}` printed no JSON: {error}\n{}", self.words, self.said())
        })
    }

    /// Both outputs, for messages.
    #[must_use]
    pub fn said(&self) -> String {
        said(&self.stdout, &self.stderr)
    }

    /// It failed with this exit code; returns the error object on standard error (`--output json`).
    pub fn refused(&self, code: i32) -> serde_json::Value {
        assert_eq!(self.code(), code, "`{}`\n{}", self.words, self.said());
        let line = self.err();
        let line = line.lines().next_back().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| {
            panic!(
                "`{}` ended without an error object: {error}\n{}",
                self.words,
                self.said()
            )
        })
    }
}

/// Waits for a child's end.
pub fn ended(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// Waits until `level` holds.
pub fn until(what: &str, timeout: Duration, mut level: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !level() {
        assert!(Instant::now() < deadline, "{what}: not within {timeout:?}");
        std::thread::sleep(LOOK * 4);
    }
}

fn reader(
    mut from: impl Read + Send + 'static,
    first_word: Option<Sender<()>>,
) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = vec![0];
        let length = from.read(&mut bytes).unwrap_or_default();
        bytes.truncate(length);
        if length > 0
            && let Some(first_word) = first_word
        {
            // Nobody may wait for it any more.
            let _ = first_word.send(());
        }
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

fn text(words: &[OsString]) -> String {
    words
        .iter()
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The longest output in a message.
const SAID_MAX: usize = 4000;

fn said(stdout: &[u8], stderr: &[u8]) -> String {
    let tail = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SAID_MAX)..]).into_owned()
    };
    format!("-- stdout\n{}\n-- stderr\n{}", tail(stdout), tail(stderr))
}
