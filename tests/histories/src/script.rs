//! What a case does, as a script for a shell elsewhere.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::git::SETTINGS;

/// What comes before the first recorded work: `g` is git in a directory at a time, `t` the same where it may fail. Words
/// that follow are those of [`crate::Case::recorded`], in the directory that the case was recorded in.
pub const PRELUDE: &str = "set -e
umask 022
export HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 GIT_EDITOR=true
g() {
at=$1 GIT_AUTHOR_DATE=\"$2 +0000\" GIT_COMMITTER_DATE=\"$2 +0000\"
export GIT_AUTHOR_DATE GIT_COMMITTER_DATE
shift 2
git -C \"$at\" \"$@\" >/dev/null
}
t() { g \"$@\" 2>/dev/null || :; }
";

/// A script that is being recorded.
#[derive(Debug)]
pub(crate) struct Script {
    top: PathBuf,
    contents: PathBuf,
    count: usize,
    text: Vec<u8>,
}

impl Script {
    /// Of work in `top`. Contents of files go to the directory `contents`, which the script is told as its first word.
    pub(crate) fn new(top: &Path, contents: &Path) -> Self {
        let mut text = format!("export GIT_CONFIG_COUNT={}\n", SETTINGS.len()).into_bytes();
        for (number, (name, value)) in SETTINGS.iter().enumerate() {
            let line = format!(
                "export GIT_CONFIG_KEY_{number}={name} GIT_CONFIG_VALUE_{number}={value}\n"
            );
            text.extend(line.into_bytes());
        }
        Self {
            top: top.to_owned(),
            contents: contents.to_owned(),
            count: 0,
            text,
        }
    }

    pub(crate) fn into_text(self) -> Vec<u8> {
        self.text
    }

    /// A command with the paths that it is about.
    pub(crate) fn line(&mut self, command: &str, paths: &[&Path]) {
        self.text.extend(command.as_bytes());
        for path in paths {
            self.text.push(b' ');
            let path = self.inside(path);
            self.word(path.as_os_str());
        }
        self.text.push(b'\n');
    }

    /// A file with this content.
    pub(crate) fn file(&mut self, at: &Path, content: &[u8]) {
        let name = self.count.to_string();
        self.count += 1;
        std::fs::write(self.contents.join(&name), content).unwrap();
        self.line(&format!("cat \"$1/{name}\" >"), &[at]);
    }

    /// A link.
    pub(crate) fn link(&mut self, target: &str, at: &Path) {
        self.text.extend(b"ln -s ");
        self.word(OsStr::new(target));
        self.line("", &[at]);
    }

    /// git at a time; `verb` says whether it may fail.
    pub(crate) fn git<S: AsRef<OsStr>>(&mut self, verb: &str, at: &Path, time: u64, words: &[S]) {
        self.text.extend(verb.as_bytes());
        self.text.push(b' ');
        let at = self.inside(at);
        self.word(at.as_os_str());
        self.text.extend(format!(" {time}").into_bytes());
        for word in words {
            self.text.push(b' ');
            self.word(word.as_ref());
        }
        self.text.push(b'\n');
    }

    /// A path in the directory that the work is in, as no option.
    fn inside(&self, path: &Path) -> PathBuf {
        Path::new(".").join(path.strip_prefix(&self.top).unwrap())
    }

    fn word(&mut self, word: &OsStr) {
        self.text.push(b'\'');
        for byte in word.as_bytes() {
            match byte {
                b'\'' => self.text.extend(b"'\\''"),
                byte => self.text.push(*byte),
            }
        }
        self.text.push(b'\'');
    }
}
