//! Root filesystems from a distribution's packages, by mmdebstrap on the host.
//!
//! Suites and packages are names and nothing else: what could be read as an option, a path or a second
//! package never reaches the tool.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use banger_core::OperationId;
use banger_core::image::{Image, ImageConfig};
use banger_core::operation::{Progress as _, StageKey};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use super::Builder;
use super::error::BuildError;
use super::log::Origin;
use super::step::text_of;
use crate::error::AppError;

const TOOL: &str = "mmdebstrap";
/// A large set of packages over a slow line.
const WITHIN: Duration = Duration::from_secs(3600);
/// After SIGTERM, by which the tool cleans up after itself, before SIGKILL.
const TERMINATED_WITHIN: Duration = Duration::from_secs(10);
/// Packages of one request.
const PACKAGES_MAX: usize = 1000;
/// Longest name of a package or suite.
const NAME_MAX_BYTES: usize = 100;
/// What mmdebstrap has, beside its custom ones.
const VARIANTS: [&str; 7] = [
    "essential",
    "apt",
    "required",
    "minbase",
    "buildd",
    "important",
    "standard",
];
/// Every file newer than this gets this time, so that the same packages make the same image. Not the epoch:
/// ZIP archives know no time before 1980.
const SOURCE_DATE: &str = "315532800";
/// How much of the tool's output an error carries.
const TAIL_BYTES: usize = 2048;

/// What to make of packages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DebianRequest {
    /// e.g. `bookworm`.
    pub suite: String,
    /// As mmdebstrap has them; empty means `minbase`.
    pub variant: String,
    /// Packages to include.
    pub include: Vec<String>,
}

impl DebianRequest {
    /// Finds what is no name.
    pub(super) fn check(&self) -> Result<(), AppError> {
        let invalid = |field, problem: String| Err(AppError::Invalid { field, problem });
        if !is_suite(&self.suite) {
            return invalid(
                "start.debian.suite",
                format!("`{}` is no name of a suite", shown(&self.suite)),
            );
        }
        if !self.variant.is_empty() && !VARIANTS.contains(&self.variant.as_str()) {
            let variants = VARIANTS.join(", ");
            let problem = format!("`{}` is none of {variants}", shown(&self.variant));
            return invalid("start.debian.variant", problem);
        }
        if self.include.len() > PACKAGES_MAX {
            let problem = format!(
                "has {} packages, and may have {PACKAGES_MAX}",
                self.include.len()
            );
            return invalid("start.debian.include", problem);
        }
        match self.include.iter().find(|name| !is_package(name)) {
            Some(name) => {
                let problem = format!("has `{}`, which is no name of a package", shown(name));
                invalid("start.debian.include", problem)
            }
            None => Ok(()),
        }
    }

    fn arguments(&self, sources: Vec<PathBuf>) -> Vec<std::ffi::OsString> {
        let variant = if self.variant.is_empty() {
            "minbase"
        } else {
            &self.variant
        };
        let mut arguments = vec![
            "--quiet".into(),
            "--format=tar".into(),
            format!("--variant={variant}").into(),
        ];
        if !self.include.is_empty() {
            arguments.push(format!("--include={}", self.include.join(",")).into());
        }
        // Whatever follows is no option.
        arguments.push("--".into());
        arguments.push(self.suite.clone().into());
        arguments.push("-".into());
        arguments.extend(sources.into_iter().map(Into::into));
        arguments
    }
}

fn shown(name: &str) -> String {
    name.chars().take(NAME_MAX_BYTES).collect()
}

fn is_suite(name: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (1..=NAME_MAX_BYTES).contains(&name.len())
        && name.as_bytes()[0].is_ascii_lowercase()
        && name.bytes().all(is_letter)
}

/// Debian policy, 5.6.7: lower-case letters, digits and `+-.`, beginning with a letter or digit. With an
/// architecture after a colon, as apt takes it.
fn is_package(name: &str) -> bool {
    let (name, architecture) = name.split_once(':').unwrap_or((name, "any"));
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    let is_name = |name: &str| {
        (1..=NAME_MAX_BYTES).contains(&name.len())
            && name.as_bytes()[0].is_ascii_alphanumeric()
            && name.bytes().all(is_letter)
    };
    // A sign at the end would mean a removal or an upgrade to apt.
    is_name(name) && is_name(architecture) && !name.ends_with('-')
}

/// The host's own apt sources, where one of them has the suite; otherwise the tool knows Debian's mirrors.
fn sources(suite: &str, etc_apt: &Path) -> Vec<PathBuf> {
    let mut found = vec![etc_apt.join("sources.list")];
    for entry in std::fs::read_dir(etc_apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|ending| ending == "list" || ending == "sources")
        {
            found.push(path);
        }
    }
    found.sort();
    let mut names_suite = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        lines.flat_map(str::split_whitespace).any(|word| {
            word == suite
                || word
                    .strip_prefix(suite)
                    .is_some_and(|rest| rest.starts_with('-'))
        })
    };
    found.retain(&mut names_suite);
    found
}

/// What the tool is started by. As root it mounts the kernel's file systems into what it makes: in namespaces
/// of its own, so that whatever becomes of it no mount and no process stays on the host. As anybody else it
/// does that itself.
fn starter(is_root: bool) -> (&'static str, &'static [&'static str]) {
    match is_root {
        true => (
            "unshare",
            &[
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
                TOOL,
            ],
        ),
        false => (TOOL, &[]),
    }
}

fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(TOOL).is_file())
}

/// Ends a process and all it started when it is let go.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // One that has ended is what is wanted.
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// A file that goes with its value.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What stays is swept at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Builder {
    /// Makes an image of packages.
    pub(super) async fn debian(&self, request: &DebianRequest) -> Result<Image, AppError> {
        let archive = Temporary(self.tmp.join(format!("debian-{}.tar", OperationId::new())));
        let key = StageKey::new("packages");
        self.task.start(&key, None);
        // The tool is ended in order, which takes longer than dropping it: that is no work to be dropped.
        let run = Run {
            request: request.clone(),
            log: self.log.clone(),
            tmp: self.tmp.join(format!("debian-{}", OperationId::new())),
        };
        let (path, cancel) = (archive.0.clone(), self.task.cancelled().clone());
        let run = self.fleet.tasks.spawn(async move {
            let made = tokio::fs::create_dir(&run.tmp).await;
            made.map_err(|source| BuildError::Io {
                step: "make the directory",
                path: run.tmp.clone(),
                source,
            })?;
            let ended = run.to_end(&path, &cancel).await;
            // What stays is swept at the next start.
            let _ = crate::paths::remove_tree(run.tmp).await;
            ended
        });
        run.await.map_err(|_| AppError::Interrupted)??;
        self.task.finish(&key);
        let config = ImageConfig {
            cmd: vec!["/bin/bash".into()],
            ..ImageConfig::default()
        };
        let origin = format!("build: Debian {}", request.suite);
        let progress = (
            &*self.task as &dyn banger_core::operation::Progress,
            self.task.cancelled(),
        );
        self.images
            .register_rootfs(
                &self.reference,
                archive.0.clone(),
                config,
                &origin,
                progress,
            )
            .await
    }
}

/// One run of the tool.
struct Run {
    request: DebianRequest,
    log: std::sync::Arc<super::log::BuildLog>,
    tmp: PathBuf,
}

impl Run {
    async fn to_end(
        &self,
        archive: &Path,
        cancel: &tokio_util::sync::CancellationToken,
    ) -> Result<(), AppError> {
        let mut child = self.spawn(archive)?;
        let pid = child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let group = Group(pid);
        let mut tail = Vec::new();
        let ended = tokio::select! {
            biased; // giving up before more waiting
            // cancel-safe: holds no state
            () = cancel.cancelled() => Err(AppError::GivenUp { why: "the build was cancelled" }),
            // cancel-safe: holds no state
            () = tokio::time::sleep(WITHIN) => Err(BuildError::ToolTimeout { tool: TOOL, limit: WITHIN }.into()),
            // cancel-safe: the process is ended below
            status = self.follow(&mut child, &mut tail) => Ok(status),
        };
        let status = match ended {
            Ok(status) => status,
            Err(error) => {
                group.signal(Signal::TERM);
                // It unmounts and removes what it made; then all that is left is killed.
                let _ = tokio::time::timeout(TERMINATED_WITHIN, child.wait()).await;
                drop(group);
                let _ = child.wait().await;
                return Err(error);
            }
        };
        let status = status.map_err(|source| BuildError::Io {
            step: "follow",
            path: TOOL.into(),
            source,
        })?;
        match status.success() {
            true => Ok(()),
            false => Err(BuildError::ToolFailed {
                tool: TOOL,
                ended: status.to_string(),
                tail: text_of(&tail),
            }
            .into()),
        }
    }

    fn spawn(&self, archive: &Path) -> Result<Child, AppError> {
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| AppError::from(BuildError::Io { step, path, source })
        };
        let output = std::fs::File::create(archive).map_err(failed("make", archive))?;
        let sources = sources(&self.request.suite, Path::new("/etc/apt"));
        // Told here, because what starts it would tell it in other words.
        if !is_installed() {
            return Err(BuildError::ToolMissing { tool: TOOL }.into());
        }
        let (program, before) = starter(rustix::process::geteuid().is_root());
        let spawned = Command::new(program)
            .args(before)
            .args(self.request.arguments(sources))
            .env("SOURCE_DATE_EPOCH", SOURCE_DATE)
            .env("TMPDIR", &self.tmp)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        spawned.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BuildError::ToolMissing { tool: TOOL }.into(),
            _ => failed("start", Path::new(TOOL))(source),
        })
    }

    /// Passes the tool's words on until it ends.
    async fn follow(
        &self,
        child: &mut Child,
        tail: &mut Vec<u8>,
    ) -> io::Result<std::process::ExitStatus> {
        if let Some(mut words) = child.stderr.take() {
            let mut piece = vec![0; 8 << 10];
            loop {
                let read = words.read(&mut piece).await?;
                if read == 0 {
                    break;
                }
                tail.extend_from_slice(&piece[..read]);
                let excess = tail.len().saturating_sub(TAIL_BYTES);
                tail.drain(..excess);
                let data = Bytes::copy_from_slice(&piece[..read]);
                self.log.write(&"packages".into(), Origin::Stderr, data);
            }
        }
        child.wait().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(suite: &str, include: &[&str]) -> DebianRequest {
        DebianRequest {
            suite: suite.into(),
            variant: String::new(),
            include: include.iter().map(|name| (*name).into()).collect(),
        }
    }

    #[test]
    fn only_names_reach_the_tool() {
        for suite in ["bookworm", "trixie-backports", "stable"] {
            request(suite, &["git", "g++", "libc6:amd64", "python3.11"])
                .check()
                .unwrap();
        }
        for suite in [
            "",
            "-x",
            "--mode=root",
            "book worm",
            "a/b",
            "../x",
            "Bookworm",
            "a\nb",
            "a'b",
        ] {
            assert!(request(suite, &[]).check().is_err(), "{suite:?}");
        }
        for package in [
            "",
            "-o",
            "git,curl",
            "git curl",
            "./x.deb",
            "git-",
            "?essential",
            "git=1",
            "a\0",
        ] {
            assert!(
                request("bookworm", &[package]).check().is_err(),
                "{package:?}"
            );
        }
        let mut odd = request("bookworm", &[]);
        odd.variant = "custom --hook".into();
        assert!(odd.check().is_err());
    }

    #[test]
    fn the_suite_comes_after_all_options() {
        let arguments = request("bookworm", &["git", "curl"]).arguments(vec!["/x.sources".into()]);
        let words: Vec<_> = arguments
            .iter()
            .map(|word| word.to_str().unwrap())
            .collect();
        assert_eq!(
            words,
            [
                "--quiet",
                "--format=tar",
                "--variant=minbase",
                "--include=git,curl",
                "--",
                "bookworm",
                "-",
                "/x.sources"
            ]
        );
    }

    #[test]
    fn the_hosts_sources_are_used_where_they_have_the_suite() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("sources.list.d");
        std::fs::create_dir(&list).unwrap();
        std::fs::write(
            list.join("debian.sources"),
            "Types: deb\nSuites: bookworm bookworm-updates\n",
        )
        .unwrap();
        std::fs::write(
            list.join("other.list"),
            "# deb http://x bookworm main\ndeb http://x jammy main\n",
        )
        .unwrap();
        std::fs::write(
            list.join("off.list.disabled"),
            "deb http://x bookworm main\n",
        )
        .unwrap();
        assert_eq!(
            sources("bookworm", dir.path()),
            [list.join("debian.sources")]
        );
        assert_eq!(sources("sid", dir.path()), Vec::<PathBuf>::new());
    }
}
