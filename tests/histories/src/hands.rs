//! All by which a case changes something: done here, and recorded.

use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::git::{command, ended};
use crate::history::Case;
use crate::script::Script;

/// Each git of a case has a second of its own: the same case makes the same commits.
pub(crate) const FIRST_SECOND: u64 = 1_700_000_000;

impl Case {
    /// Records from now on what is done in `top`; contents of files go to the directory `contents`.
    pub fn record(&mut self, top: &Path, contents: &Path) {
        self.script = Some(Script::new(top, contents));
    }

    /// What was done meanwhile, as a script for a shell in the directory, after [`crate::PRELUDE`]. Its first word is where
    /// the contents are.
    pub fn recorded(&mut self) -> Vec<u8> {
        let script = self.script.take();
        script.map(Script::into_text).unwrap_or_default()
    }

    pub(crate) fn git<S: AsRef<OsStr>>(&mut self, top: &Path, words: &[S]) {
        self.run("g", top, words).unwrap_or_else(|error| {
            let words: Vec<&OsStr> = words.iter().map(AsRef::as_ref).collect();
            panic!("git {words:?} in {}: {error}", top.display())
        });
    }

    /// Whether it succeeded.
    pub(crate) fn may_git<S: AsRef<OsStr>>(&mut self, top: &Path, words: &[S]) -> bool {
        self.run("t", top, words).is_ok()
    }

    fn run<S: AsRef<OsStr>>(&mut self, verb: &str, top: &Path, words: &[S]) -> Result<(), String> {
        self.seconds += 1;
        let time = FIRST_SECOND + self.seconds;
        if let Some(script) = &mut self.script {
            script.git(verb, top, time, words);
        }
        let date = format!("{time} +0000");
        let mut command = command(top);
        command
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date)
            .args(words);
        ended(&mut command).map(drop)
    }

    /// Commits all that is there.
    pub(crate) fn commit(&mut self, top: &Path, message: &str) {
        self.git(top, &["add", "-A"]);
        self.git(top, &["commit", "-q", "--allow-empty", "-m", message]);
    }

    fn note(&mut self, command: &str, paths: &[&Path]) {
        if let Some(script) = &mut self.script {
            script.line(command, paths);
        }
    }

    pub(crate) fn remove(&mut self, at: &Path) {
        self.note("rm -rf", &[at]);
        match at.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(at).unwrap(),
            Ok(_) => std::fs::remove_file(at).unwrap(),
            Err(_) => {}
        }
    }

    /// Whether the directory could be made.
    pub(crate) fn directory(&mut self, at: &Path) -> bool {
        let is_made = std::fs::create_dir_all(at).is_ok();
        if is_made {
            self.note("mkdir -p", &[at]);
        }
        is_made
    }

    /// Writes a file, with the directories above it.
    pub(crate) fn put(&mut self, at: &Path, content: &[u8]) {
        assert!(self.directory(at.parent().unwrap()), "{}", at.display());
        if let Some(script) = &mut self.script {
            script.file(at, content);
        }
        std::fs::write(at, content).unwrap();
    }

    pub(crate) fn link(&mut self, target: &str, at: &Path) {
        if let Some(script) = &mut self.script {
            script.link(target, at);
        }
        symlink(target, at).unwrap();
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) {
        self.note("mv", &[from, to]);
        std::fs::rename(from, to).unwrap();
    }

    pub(crate) fn mode(&mut self, at: &Path, mode: u32) {
        self.note(&format!("chmod {mode:o}"), &[at]);
        std::fs::set_permissions(at, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}
