//! Runs git, so that it does what it is told and nothing else.
//!
//! git takes orders from many places: the environment, the system's and the user's configuration, the repository's,
//! hooks, helpers. Here the environment is made from nothing, the configuration of system and user is not read, and
//! what of the repository's could start programs or hide changes is set on the command line, which comes before it.
//! Output is bounded, every command has a deadline, and [`Cancel`] ends what runs.

mod host;
mod process;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};

pub use host::HostLauncher;
pub use process::{Cancel, Ending, Kill, Launcher, Plan, Running};

/// How long one command may take: the largest repositories take minutes where the processor is emulated.
pub const COMMAND_WITHIN: Duration = Duration::from_secs(1800);
/// The most output of a command whose output is kept whole.
pub const OUTPUT_MAX_BYTES: u64 = 64 << 20;
/// The most of what a command says about its failure.
pub const COMPLAINT_MAX_BYTES: u64 = 4 << 10;
/// Where git is looked for.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of every command.
const ENVIRONMENT: [(&str, &str); 20] = [
    ("PATH", SEARCH_PATH),
    ("HOME", "/"),
    ("LC_ALL", "C"),
    ("TZ", "UTC"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", "false"),
    ("SSH_ASKPASS", "false"),
    ("GIT_SSH_COMMAND", "false"),
    ("GIT_EDITOR", "false"),
    ("GIT_SEQUENCE_EDITOR", "false"),
    ("GIT_PAGER", "cat"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_NO_LAZY_FETCH", "1"),
    // No name of a protocol: none is allowed.
    ("GIT_ALLOW_PROTOCOL", "none"),
    ("GIT_ADVICE", "0"),
];

/// Settings that come before those of the repository.
const SETTINGS: [&str; 32] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.sshCommand=false",
    "core.gitProxy=",
    "core.askPass=false",
    "core.pager=cat",
    "core.editor=false",
    "core.alternateRefsCommand=true",
    "core.quotePath=false",
    "core.splitIndex=false",
    "core.ignoreStat=false",
    "core.trustctime=true",
    "core.checkStat=default",
    "core.sparseCheckout=false",
    "core.safecrlf=false",
    "core.warnAmbiguousRefs=false",
    "credential.helper=",
    "protocol.allow=never",
    "diff.external=",
    "diff.ignoreSubmodules=none",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "uploadpack.packObjectsHook=",
    "commit.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "log.showSignature=false",
    "checkout.workers=0",
    "safe.directory=*",
];

/// Why a command did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git.
    #[error("git was not found")]
    NotFound,
    /// It could not be started.
    #[error("git could not be started")]
    Start(#[source] io::Error),
    /// It ended badly.
    #[error("`git {command}` {ending}: {complaint}")]
    Failed {
        /// Which of git's commands.
        command: String,
        /// How it ended.
        ending: Ending,
        /// What it said, at most [`COMPLAINT_MAX_BYTES`].
        complaint: String,
    },
    /// It took too long.
    #[error("`git {command}` took longer than {} s", within.as_secs())]
    TimedOut {
        /// Which of git's commands.
        command: String,
        /// How long it may take.
        within: Duration,
    },
    /// Somebody gave up on it.
    #[error("given up")]
    Cancelled,
    /// It said more than is allowed.
    #[error("`git {command}` has more than {limit} bytes of output")]
    TooMuchOutput {
        /// Which of git's commands.
        command: String,
        /// The bound.
        limit: u64,
    },
    /// Its input or output could not be carried.
    #[error("the input or output of `git {command}` broke")]
    Carry {
        /// Which of git's commands.
        command: String,
        /// How.
        #[source]
        source: io::Error,
    },
}

/// git, at a place.
#[derive(Debug, Clone)]
pub struct Git {
    launcher: Arc<dyn Launcher>,
    cancel: Cancel,
    directory: PathBuf,
    environment: Vec<(OsString, OsString)>,
    settings: Vec<OsString>,
    within: Duration,
}

impl Git {
    /// git with `directory` as its working directory. It looks for a repository there and nowhere above, unless
    /// [`Git::with_repository`] names one.
    #[must_use]
    pub fn at(launcher: Arc<dyn Launcher>, cancel: Cancel, directory: &Path) -> Self {
        let ceiling = directory.parent().unwrap_or(directory).into();
        Self {
            launcher,
            cancel,
            directory: directory.into(),
            environment: vec![("GIT_CEILING_DIRECTORIES".into(), ceiling)],
            settings: Vec::new(),
            within: COMMAND_WITHIN,
        }
    }

    /// The same with the repository `git_dir`, of which its working directory is the working tree.
    #[must_use]
    pub fn with_repository(self, git_dir: &Path) -> Self {
        let tree = self.directory.clone();
        self.with_env("GIT_DIR", git_dir)
            .with_env("GIT_WORK_TREE", tree)
    }

    /// The same with another index.
    #[must_use]
    pub fn with_index(self, path: &Path) -> Self {
        self.with_env("GIT_INDEX_FILE", path)
    }

    /// The same with one more variable in its environment.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The same with one more setting, `name=value`, which comes before the repository's and those of every command.
    #[must_use]
    pub fn with_setting(mut self, setting: impl Into<OsString>) -> Self {
        self.settings.push(setting.into());
        self
    }

    /// The same with another deadline for each command.
    #[must_use]
    pub fn with_deadline(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Where it works.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Who can end what runs.
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Runs a command that must succeed, and returns its output.
    ///
    /// # Errors
    /// If it fails, or says more than [`OUTPUT_MAX_BYTES`].
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Vec<u8>, GitError> {
        self.feed(arguments, |_| Ok(()))
    }

    /// The same as one line of text, without its end.
    ///
    /// # Errors
    /// Those of [`Git::run`].
    pub fn line<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String, GitError> {
        let output = self.run(arguments)?;
        let text = String::from_utf8_lossy(&output);
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// Whether a command succeeds; its output is not looked at.
    ///
    /// # Errors
    /// If it could not be run, or was ended by a signal.
    pub fn test<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<bool, GitError> {
        match self.run(arguments) {
            Ok(_) => Ok(true),
            Err(GitError::Failed {
                ending: Ending::Code(_),
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Runs a command with an input, and returns its output.
    ///
    /// # Errors
    /// If it fails, says more than [`OUTPUT_MAX_BYTES`], or `input` fails while the command takes it.
    pub fn feed<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        input: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
    ) -> Result<Vec<u8>, GitError> {
        let command = name(arguments);
        let keep = |output: &mut dyn Read| {
            let mut kept = Vec::new();
            output.take(OUTPUT_MAX_BYTES + 1).read_to_end(&mut kept)?;
            Ok(kept)
        };
        let kept = self.pipe(arguments, input, keep)?;
        match kept.len() as u64 > OUTPUT_MAX_BYTES {
            true => Err(GitError::TooMuchOutput {
                command,
                limit: OUTPUT_MAX_BYTES,
            }),
            false => Ok(kept),
        }
    }

    /// Runs a command that must succeed: `input` writes what it reads while `output` reads what it writes.
    ///
    /// # Errors
    /// If it fails, or one of the two does. What the command says comes before what they say.
    pub fn pipe<S: AsRef<OsStr>, T>(
        &self,
        arguments: &[S],
        input: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
        output: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    ) -> Result<T, GitError> {
        let command = name(arguments);
        let (pipes, stdio) = pipes().map_err(GitError::Start)?;
        let [mut to, mut from, mut complaints] = pipes;
        let mut running = self.launch(arguments, stdio)?;
        let (fed, read, complaint) = std::thread::scope(|scope| {
            let feeding = scope.spawn(move || {
                // Dropped with its end, so that the command sees the end of its input.
                let fed = input(&mut to);
                drop(to);
                fed
            });
            let listening = scope.spawn(move || complaint(&mut complaints));
            let read = output(&mut from);
            // Whoever has enough, or failed, does not make the command wait for a reader.
            drop(from);
            let fed = feeding.join();
            (fed, read, listening.join())
        });
        let ending = running.wait();
        let complaint = complaint.unwrap_or_default();
        if running.is_cancelled() {
            return Err(GitError::Cancelled);
        }
        let carry = |source| GitError::Carry {
            command: command.clone(),
            source,
        };
        let fed = fed.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")));
        match ending {
            None => Err(GitError::TimedOut {
                command,
                within: self.within,
            }),
            Some(Ending::Code(0)) => {
                let read = read.map_err(carry)?;
                fed.map_err(carry)?;
                Ok(read)
            }
            Some(ending) => match (read, fed) {
                // A broken pipe is how a command looks that has ended; anything else is why it has.
                (Err(error), _) | (Ok(_), Err(error))
                    if error.kind() != io::ErrorKind::BrokenPipe =>
                {
                    Err(carry(error))
                }
                _ => Err(GitError::Failed {
                    command,
                    ending,
                    complaint,
                }),
            },
        }
    }

    fn launch<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        stdio: [OwnedFd; 3],
    ) -> Result<process::Guarded, GitError> {
        let plan = Plan {
            arguments: self.words(arguments),
            environment: self.environment(),
            directory: self.directory.clone(),
            stdio,
        };
        let running = self.launcher.launch(plan).map_err(|error| {
            // The directory is there: whoever made this `Git` was in it.
            match error.kind() {
                io::ErrorKind::NotFound => GitError::NotFound,
                _ => GitError::Start(error),
            }
        })?;
        Ok(self.cancel.guard(running, self.within))
    }

    fn words<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["git".into(), "--no-pager".into()];
        for setting in SETTINGS {
            words.extend(["-c".into(), setting.into()]);
        }
        for setting in &self.settings {
            words.extend(["-c".into(), setting.clone()]);
        }
        words.extend(arguments.iter().map(|word| word.as_ref().to_owned()));
        words
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let fixed = ENVIRONMENT.iter();
        let fixed = fixed.map(|&(name, value)| (name.into(), value.into()));
        fixed.chain(self.environment.iter().cloned()).collect()
    }
}

/// The command among a command's words.
fn name<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    let name = arguments.first().map(AsRef::as_ref).unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Our ends of a command's input, output and complaints, and its own.
fn pipes() -> io::Result<([File; 3], [OwnedFd; 3])> {
    let (theirs_in, ours_in) = pipe_with(PipeFlags::CLOEXEC)?;
    let (ours_out, theirs_out) = pipe_with(PipeFlags::CLOEXEC)?;
    let (ours_err, theirs_err) = pipe_with(PipeFlags::CLOEXEC)?;
    let ours = [ours_in.into(), ours_out.into(), ours_err.into()];
    Ok((ours, [theirs_in, theirs_out, theirs_err]))
}

/// The beginning of what a command complains of; the rest is read and dropped, so that it need not wait.
fn complaint(from: &mut File) -> String {
    let mut kept = Vec::new();
    // What cannot be read is not told.
    let _ = from.take(COMPLAINT_MAX_BYTES).read_to_end(&mut kept);
    let _ = io::copy(from, &mut io::sink());
    String::from_utf8_lossy(&kept).trim().replace('\n', "; ")
}

#[cfg(test)]
mod tests;
