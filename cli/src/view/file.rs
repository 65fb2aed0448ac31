//! Files of VMs, and what changes of them. Names are a guest's: what would move the terminal's cursor is escaped.

use banger_sdk::types::{self, file_info::Kind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;

use super::{age, bytes, timestamp, word};
use crate::output::Row;

/// A file.
#[derive(Debug, Serialize)]
pub(crate) struct File {
    path: String,
    /// The path as it is, in base64, where it is no text.
    raw_path: Option<String>,
    kind: String,
    mode: String,
    size_bytes: i64,
    allocated_bytes: i64,
    uid: u32,
    gid: u32,
    user: String,
    group: String,
    mtime: Option<Timestamp>,
    link_count: i64,
    link_target: Option<String>,
    is_unreadable: bool,
    #[serde(skip)]
    letters: String,
}

impl From<types::FileInfo> for File {
    fn from(file: types::FileInfo) -> Self {
        let kind = word(file.kind().as_str_name(), "KIND_");
        let letters = letters(file.kind(), file.mode);
        Self {
            raw_path: (!file.raw_path.is_empty()).then(|| STANDARD.encode(&file.raw_path)),
            path: file.path,
            kind,
            mode: format!("{:04o}", file.mode),
            size_bytes: file.size_bytes,
            allocated_bytes: file.allocated_bytes,
            uid: file.uid,
            gid: file.gid,
            user: file.user,
            group: file.group,
            mtime: timestamp(file.mtime),
            link_count: file.link_count,
            link_target: (!file.link_target.is_empty()).then_some(file.link_target),
            is_unreadable: file.is_unreadable,
            letters,
        }
    }
}

/// As ls(1) shows them.
fn letters(kind: Kind, mode: u32) -> String {
    let kind = match kind {
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
        Kind::File | Kind::Unspecified => '-',
    };
    let mut letters = String::from(kind);
    for (shift, special, set, unset) in [
        (6, 0o4000, 's', 'S'),
        (3, 0o2000, 's', 'S'),
        (0, 0o1000, 't', 'T'),
    ] {
        let bits = mode >> shift;
        letters.push(if bits & 4 == 0 { '-' } else { 'r' });
        letters.push(if bits & 2 == 0 { '-' } else { 'w' });
        letters.push(match (bits & 1 == 0, mode & special == 0) {
            (false, true) => 'x',
            (true, true) => '-',
            (false, false) => set,
            (true, false) => unset,
        });
    }
    letters
}

/// A guest's name, for people.
pub(crate) fn shown(name: &str) -> String {
    let is_harmless = |c: char| {
        !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    name.chars()
        .flat_map(|c| match is_harmless(c) {
            true => vec![c],
            false => c.escape_default().collect(),
        })
        .collect()
}

impl File {
    fn owner(&self) -> String {
        let name = |name: &str, id: u32| match name {
            "" => id.to_string(),
            name => shown(name),
        };
        format!(
            "{}:{}",
            name(&self.user, self.uid),
            name(&self.group, self.gid)
        )
    }

    fn text(&self) -> String {
        let path = shown(&self.path);
        match &self.link_target {
            Some(target) => format!("{path} -> {}", shown(target)),
            None if self.is_unreadable => format!("{path} (may not be read)"),
            None => path,
        }
    }
}

impl Row for File {
    const HEADINGS: &'static [&'static str] = &["MODE", "OWNER", "SIZE", "CHANGED", "NAME"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.letters.clone(),
            self.owner(),
            bytes(self.size_bytes),
            age(self.mtime),
            self.text(),
        ]
    }

    fn name(&self) -> String {
        shown(&self.path)
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("Path", shown(&self.path)),
            ("Kind", self.kind.clone()),
            (
                "Leads to",
                self.link_target.as_deref().map(shown).unwrap_or_default(),
            ),
            ("Mode", format!("{} ({})", self.mode, self.letters)),
            ("Owner", self.owner()),
            ("Size", bytes(self.size_bytes)),
            ("Takes", bytes(self.allocated_bytes)),
            ("Names", self.link_count.to_string()),
            ("Changed", age(self.mtime)),
        ]
    }
}

/// A line of a watch.
#[derive(Debug, Serialize)]
pub(crate) struct FileChange {
    event: String,
    path: String,
    is_directory: bool,
    rename_id: Option<i64>,
}

impl FileChange {
    /// Changes were lost.
    pub(crate) fn overflow() -> Self {
        Self {
            event: "overflow".into(),
            path: String::new(),
            is_directory: false,
            rename_id: None,
        }
    }

    /// From now on changes are seen.
    pub(crate) fn started() -> Self {
        Self {
            event: "started".into(),
            ..Self::overflow()
        }
    }
}

impl From<types::FileEvent> for FileChange {
    fn from(event: types::FileEvent) -> Self {
        Self {
            event: word(event.kind().as_str_name(), "KIND_"),
            path: event.path,
            is_directory: event.is_directory,
            rename_id: (event.rename_id != 0).then_some(event.rename_id),
        }
    }
}

impl Row for FileChange {
    const HEADINGS: &'static [&'static str] = &["EVENT", "PATH"];

    fn cells(&self) -> Vec<String> {
        let slash = match self.is_directory {
            true => "/",
            false => "",
        };
        vec![
            format!("{:10}", self.event),
            format!("{}{slash}", shown(&self.path)),
        ]
    }

    fn name(&self) -> String {
        shown(&self.path)
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![("Event", self.event.clone()), ("Path", self.name())]
    }
}

/// What was copied.
#[derive(Debug, Serialize)]
pub(crate) struct Copied {
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// Devices and pipes, which are not made here.
    pub(crate) skipped: u64,
    /// What was not copied, or not as it is.
    pub(crate) omissions: Omissions,
}

/// What a copy lacks.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Omissions {
    count: i64,
    /// Not all, where there are many.
    first: Vec<Omission>,
}

/// Something that a copy lacks.
#[derive(Debug, Serialize)]
struct Omission {
    path: String,
    reason: String,
}

impl From<&types::Omissions> for Omissions {
    fn from(omissions: &types::Omissions) -> Self {
        let omission = |omission: &types::Omission| Omission {
            path: omission.path.clone(),
            reason: word(omission.reason().as_str_name(), "REASON_"),
        };
        Self {
            count: omissions.count,
            first: omissions.first.iter().map(omission).collect(),
        }
    }
}

impl Omissions {
    /// A line for people; none where nothing is lacking.
    pub(crate) fn note(&self) -> Option<String> {
        let told = |omission: &Omission| {
            let why = match &*omission.reason {
                "socket" => "a socket",
                "vanished" => "gone meanwhile",
                "mount-point" => "another file system",
                "attributes" => "without some attributes",
                "shrank" => "became shorter, ends in zeros",
                other => other,
            };
            format!("`{}` ({why})", shown(&omission.path))
        };
        let first: Vec<String> = self.first.iter().map(told).collect();
        let more = match i64::try_from(first.len()) {
            Ok(told) if told < self.count => ", …",
            _ => "",
        };
        (self.count > 0).then(|| format!("{} in all: {}{more}", self.count, first.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_ls_writes_them() {
        for (kind, mode, text) in [
            (Kind::File, 0o644, "-rw-r--r--"),
            (Kind::Directory, 0o1777, "drwxrwxrwt"),
            (Kind::File, 0o6750, "-rwsr-s---"),
            (Kind::File, 0o7000, "---S--S--T"),
            (Kind::Symlink, 0o777, "lrwxrwxrwx"),
        ] {
            assert_eq!(letters(kind, mode), text);
        }
    }

    #[test]
    fn what_the_vm_left_out_is_told_with_the_reason() {
        use types::omission::Reason;
        let omission = |path: &str, reason: Reason| types::Omission {
            path: path.into(),
            reason: reason.into(),
        };
        let told = |count, first| Omissions::from(&types::Omissions { count, first }).note();
        assert_eq!(told(0, vec![]), None);
        let first = vec![
            omission("run/a\u{1b}", Reason::Socket),
            omission("log", Reason::Shrank),
        ];
        let note = "2 in all: `run/a\\u{1b}` (a socket), `log` (became shorter, ends in zeros)";
        assert_eq!(told(2, first.clone()).unwrap(), note);
        assert!(told(3, first).unwrap().ends_with(", …"));
        for reason in [Reason::Vanished, Reason::MountPoint, Reason::Attributes] {
            let note = told(1, vec![omission("x", reason)]).unwrap();
            let word = word(reason.as_str_name(), "REASON_");
            assert!(!note.contains(&format!("({word})")), "{note}");
        }
    }

    #[test]
    fn names_cannot_move_the_cursor() {
        assert_eq!(shown("a\u{1b}[2Jé\n"), "a\\u{1b}[2Jé\\n");
    }
}
