//! From what was asked to what is started: defaults, user, environment, and where the program is looked
//! for. Everything here is decided before a process exists.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use banger_proto::guest::v1::{ResourceLimit, SessionSpec, TerminalSize};
use rustix::process::{Resource, getrlimit};
use rustix::termios::Winsize;

use super::users::{Identity, Users};
use crate::refusal::Refusal;
use crate::sys::Limit;

/// Where programs are looked for if the environment does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The terminal that programs are told of if the environment does not say.
const DEFAULT_TERM: &str = "xterm-256color";
/// What the words of a command or of an environment may come to, each with its zero byte and its pointer. It bounds
/// memory only: the kernel takes at most 6 MiB of both together, and says so itself.
const WORDS_MAX_BYTES: usize = 8 << 20;
/// What a word costs the kernel beside its bytes: its zero byte and its pointer.
const WORD_COST: usize = 1 + size_of::<usize>();
/// The kernel takes this much of arguments and environment however small the stack may be (`ARG_MAX`).
const ARGUMENTS_MIN_BYTES: u64 = 128 << 10;
/// And this much however large it may be: three quarters of the kernel's own `_STK_LIM`.
const ARGUMENTS_MAX_BYTES: u64 = 6 << 20;
/// The umask of a session that asks for none.
const DEFAULT_UMASK: u32 = 0o022;
/// Limits of a session: more than there are resources.
const LIMITS_MAX: usize = 32;
/// Directories of a `PATH` that are tried.
const PATH_MAX_ENTRIES: usize = 64;

/// What every session starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Below each session's own.
    pub env: BTreeMap<String, String>,
    /// For sessions that name none; empty means root.
    pub user: String,
    /// For sessions that name none; empty means `/`.
    pub working_dir: String,
    /// The host name, for the environment.
    pub hostname: String,
}

/// A session that can be started.
#[derive(Debug)]
pub struct Plan {
    /// What was asked, with the defaults filled in.
    pub spec: SessionSpec,
    /// Whom it runs as.
    pub identity: Identity,
    /// Paths to try in turn.
    pub candidates: Vec<CString>,
    /// Program name and arguments.
    pub arguments: Vec<CString>,
    /// `NAME=value` words.
    pub environment: Vec<CString>,
    /// Where it starts.
    pub working_dir: CString,
    /// The size of its terminal; absent means pipes.
    pub terminal: Option<Winsize>,
    /// When it is killed.
    pub timeout: Option<Duration>,
    /// Permissions that new files do not get.
    pub umask: u32,
    /// What the kernel lets it have.
    pub limits: Vec<Limit>,
}

impl Plan {
    /// Fills in `defaults` and resolves user, program and environment.
    ///
    /// # Errors
    /// What is malformed or unknown.
    pub fn new(mut spec: SessionSpec, defaults: &Defaults, users: &Users) -> Result<Self, Refusal> {
        let program = match spec.command.first() {
            Some(program) if !program.is_empty() => program.clone(),
            _ => return Err(Refusal::invalid("the command is empty")),
        };
        if spec.user.is_empty() {
            spec.user.clone_from(&defaults.user);
        }
        let is_default_dir = spec.working_dir.is_empty();
        if is_default_dir {
            spec.working_dir = match defaults.working_dir.as_str() {
                "" => "/".to_owned(),
                path => path.to_owned(),
            };
        }
        if !spec.working_dir.starts_with('/') {
            return Err(Refusal::invalid("the working directory is not absolute"));
        }
        let terminal = spec.terminal.map(window).transpose()?;
        let timeout = spec.timeout.map(timeout).transpose()?;
        let umask = spec.umask.unwrap_or(DEFAULT_UMASK);
        if umask > 0o777 {
            return Err(Refusal::invalid("a umask has nine bits"));
        }
        let limits = limits(&spec.limits)?;
        let identity = users.resolve(&spec.user)?;
        let env = environment(&spec, defaults, &identity);
        if is_default_dir {
            make_dir(&spec.working_dir);
        }
        let path = env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        Ok(Self {
            candidates: words("program", candidates(&program, path))?,
            arguments: words("command", spec.command.iter().cloned())?,
            environment: words(
                "environment",
                env.iter().map(|(name, value)| format!("{name}={value}")),
            )?,
            working_dir: words("working directory", [spec.working_dir.clone()])?.remove(0),
            spec,
            identity,
            terminal,
            timeout,
            umask,
            limits,
        })
    }

    /// How long arguments and environment are, and what the kernel takes, for who asked for too much.
    #[must_use]
    pub fn sizes(&self) -> String {
        let all = || self.arguments.iter().chain(&self.environment);
        let longest = all().map(|word| word.as_bytes().len()).max();
        format!(
            "{} arguments and {} variables come to {} bytes, pointers included, of which the kernel takes {}; the longest has {}, of which it takes {}",
            self.arguments.len(),
            self.environment.len(),
            counted(&self.arguments) + counted(&self.environment),
            self.arguments_max(),
            longest.unwrap_or_default(),
            // MAX_ARG_STRLEN, its zero byte excluded.
            32 * rustix::param::page_size() - 1,
        )
    }

    /// What the kernel takes of arguments and environment together: a quarter of the stack's limit, within bounds.
    fn arguments_max(&self) -> u64 {
        let asked = self
            .limits
            .iter()
            .find(|limit| limit.resource == libc::RLIMIT_STACK)
            .map(|limit| limit.soft);
        let own = || getrlimit(Resource::Stack).current.unwrap_or(u64::MAX);
        (asked.unwrap_or_else(own) / 4).clamp(ARGUMENTS_MIN_BYTES, ARGUMENTS_MAX_BYTES)
    }

    /// Whether a program is there, though executing it was answered with "not found": its interpreter is
    /// what is missing.
    #[must_use]
    pub fn program_exists(&self) -> bool {
        self.candidates.iter().any(|path| {
            rustix::fs::stat(path.as_c_str())
                .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file())
        })
    }
}

/// The default directory of an image may be missing, and is then made, as docker does. Where that fails,
/// entering it fails, with a reason.
fn make_dir(path: &str) {
    if !Path::new(path).is_dir() {
        let _ = fs::create_dir_all(path);
    }
}

/// The kernel's form of a terminal's size.
///
/// # Errors
/// A size outside 1 to 65535.
pub fn window(size: TerminalSize) -> Result<Winsize, Refusal> {
    let cells = |count: i32| match u16::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Refusal::invalid(
            "a terminal has 1 to 65535 rows and columns",
        )),
    };
    Ok(Winsize {
        ws_row: cells(size.rows)?,
        ws_col: cells(size.columns)?,
        ws_xpixel: 0,
        ws_ypixel: 0,
    })
}

fn timeout(duration: prost_types::Duration) -> Result<Duration, Refusal> {
    Duration::try_from(duration).map_err(|_| Refusal::invalid("the timeout is negative"))
}

/// In the form of the kernel.
fn limits(limits: &[ResourceLimit]) -> Result<Vec<Limit>, Refusal> {
    if limits.len() > LIMITS_MAX {
        return Err(Refusal::invalid("there are too many limits"));
    }
    let limit = |limit: &ResourceLimit| {
        if limit.resource > libc::RLIMIT_RTTIME {
            return Err(Refusal::invalid("a limit is of no resource"));
        }
        let (soft, hard) = (
            limit.soft.unwrap_or(libc::RLIM_INFINITY),
            limit.hard.unwrap_or(libc::RLIM_INFINITY),
        );
        if soft > hard {
            return Err(Refusal::invalid("a soft limit is above the hard one"));
        }
        Ok(Limit {
            resource: limit.resource,
            soft,
            hard,
        })
    };
    limits.iter().map(limit).collect()
}

fn environment(
    spec: &SessionSpec,
    defaults: &Defaults,
    identity: &Identity,
) -> BTreeMap<String, String> {
    let mut env = defaults.env.clone();
    env.extend(spec.env.clone());
    let mut default = |name: &str, value: &str| {
        if !value.is_empty() && !env.contains_key(name) {
            env.insert(name.to_owned(), value.to_owned());
        }
    };
    default("PATH", DEFAULT_PATH);
    default("HOME", &identity.home);
    default("USER", &identity.name);
    default("LOGNAME", &identity.name);
    default("HOSTNAME", &defaults.hostname);
    if spec.terminal.is_some() {
        default("TERM", DEFAULT_TERM);
    }
    env
}

fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    path.split(':')
        .take(PATH_MAX_ENTRIES)
        .map(|dir| match dir {
            "" => format!("./{program}"),
            dir => format!("{dir}/{program}"),
        })
        .collect()
}

/// What the kernel counts of `words`.
fn counted(words: &[CString]) -> usize {
    let cost = |word: &CString| word.as_bytes().len() + WORD_COST;
    words.iter().map(cost).sum()
}

fn words(what: &str, words: impl IntoIterator<Item = String>) -> Result<Vec<CString>, Refusal> {
    let mut bytes = 0;
    let mut list = Vec::new();
    for word in words {
        bytes += word.len() + WORD_COST;
        if bytes > WORDS_MAX_BYTES {
            return Err(Refusal::invalid(format!("the {what} is too long")));
        }
        let word = CString::new(word)
            .map_err(|_| Refusal::invalid(format!("the {what} has a zero byte")))?;
        list.push(word);
    }
    Ok(list)
}
