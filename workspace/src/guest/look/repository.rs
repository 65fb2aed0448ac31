//! One repository: where git keeps it, its HEAD, what is unfinished, its settings.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::super::notes::{Loss, Notes};
use super::super::{Place, WorkError};
use super::work::Index;
use super::{Around, SeenRepository, glance, history, work};
use crate::command::{Ending, Git, GitError};
use crate::wire::limits::{SHALLOW_MAX, UNFINISHED_COMMITS_MAX};
use crate::wire::path::{check_ref, is_beneath, is_object_id};
use crate::wire::{NoteKind, ObjectFormat, Repository, RepositoryKind, Unfinished, UnfinishedKind};

/// Ignored files and directories that are named.
const IGNORED_NAMED: usize = 50;
/// Locks of git that may be there.
const LOCKS: [&str; 5] = [
    "index.lock",
    "HEAD.lock",
    "packed-refs.lock",
    "config.lock",
    "shallow.lock",
];
/// Longest of git's small files that is read.
const FILE_MAX_BYTES: u64 = 4 << 20;
/// Settings that are told, if they have one of these values.
const SETTINGS: [(&str, &[&str]); 3] = [
    ("core.autocrlf", &["true", "false", "input"]),
    ("core.eol", &["lf", "crlf", "native"]),
    ("core.filemode", &["true", "false"]),
];

/// References, HEAD and index at one instant.
#[derive(Debug)]
pub(super) struct Print {
    /// Another one means that they changed.
    pub(super) digest: Vec<u8>,
    /// The references as git lists them.
    pub(super) refs: Vec<u8>,
    pub(super) index: Index,
}

/// A repository that git can read.
#[derive(Debug, Clone)]
pub(in super::super) struct Opened {
    /// Beneath the workspace.
    pub(in super::super) path: Vec<u8>,
    pub(in super::super) git: Git,
    pub(in super::super) git_dir: PathBuf,
    pub(in super::super) format: ObjectFormat,
}

impl Opened {
    /// Opens the repository in a directory of the workspace; why not, where git does not take it for one.
    pub(in super::super) fn open(
        place: &Place,
        path: &[u8],
    ) -> Result<Result<Self, String>, WorkError> {
        let directory = match path {
            b"" => place.path.clone(),
            path => place.path.join(OsStr::from_bytes(path)),
        };
        let git = place.git(&directory);
        let words = ["rev-parse", "--absolute-git-dir", "--show-object-format"];
        let found = match git.run(&words) {
            Ok(found) => found,
            Err(GitError::NotFound) => return Ok(Err("there is no git in the VM".to_owned())),
            Err(GitError::Failed { complaint, .. }) => return Ok(Err(complaint)),
            Err(error) => return Err(error.into()),
        };
        // The name of the directory may have ends of lines in it.
        let found = found.strip_suffix(b"\n").unwrap_or(&found);
        let end = found.iter().rposition(|&byte| byte == b'\n');
        let (found, format) = found.split_at(end.unwrap_or(found.len()));
        let git_dir = PathBuf::from(std::ffi::OsString::from_vec(found.to_vec()));
        // What is said on the command line comes before what the repository says, bare ones included.
        let git = git
            .with_repository(&git_dir)
            .with_setting("core.bare=false");
        let format = match format {
            b"\nsha256" => ObjectFormat::Sha256,
            _ => ObjectFormat::Sha1,
        };
        Ok(Ok(Self {
            path: path.to_vec(),
            git,
            git_dir,
            format,
        }))
    }

    /// References, HEAD and index.
    pub(super) fn print(&self) -> Result<Print, WorkError> {
        let mut digest = Sha256::new();
        let refs = history::list(&self.git)?;
        digest.update(&refs);
        digest.update(small(&self.git_dir.join("HEAD")));
        digest.update(b"\0");
        // Not the file itself: to look at a repository may bring the times in it up to date.
        let mut index = Index::default();
        records(&self.git, &["ls-files", "-v", "--stage", "-z"], |record| {
            digest.update(record);
            digest.update(b"\0");
            index.take(record);
            true
        })?;
        Ok(Print {
            digest: digest.finalize().to_vec(),
            refs,
            index,
        })
    }

    /// What git ignores, whole directories by their own name; the first of them are noted.
    pub(super) fn ignored(&self, notes: &mut Notes) -> Result<BTreeSet<Vec<u8>>, WorkError> {
        let words = [
            "ls-files",
            "-z",
            "--others",
            "--ignored",
            "--exclude-standard",
            "--directory",
        ];
        let mut ignored = BTreeSet::new();
        records(&self.git, &words, |path| {
            let path = path.strip_suffix(b"/").unwrap_or(path);
            if ignored.len() < IGNORED_NAMED {
                notes.add(
                    NoteKind::Ignored,
                    &self.beneath(path),
                    "it is ignored",
                    Loss::No,
                );
            }
            ignored.insert(self.beneath(path));
            ignored.len() < crate::wire::limits::ENTRIES_MAX
        })?;
        if let Some(more) = ignored.len().checked_sub(IGNORED_NAMED + 1) {
            let detail = format!("{} more are ignored", more + 1);
            notes.add(NoteKind::Ignored, &self.path, &detail, Loss::No);
        }
        Ok(ignored)
    }

    /// A path of the repository, beneath the workspace.
    pub(super) fn beneath(&self, path: &[u8]) -> Vec<u8> {
        match &self.path[..] {
            b"" => path.to_vec(),
            own => [own, b"/", path].concat(),
        }
    }
}

/// Looks at a repository.
pub(super) fn see(
    opened: Opened,
    around: &Around<'_>,
    notes: &mut Notes,
) -> Result<SeenRepository, WorkError> {
    let glance = glance::at(&opened.git_dir);
    let print = opened.print()?;
    let base = around.base.repositories.iter();
    let base = base.filter(|base| base.path[..] == opened.path[..]);
    let (mut known, mut cut) = (Vec::new(), Vec::new());
    for base in base {
        known.extend_from_slice(&base.commits);
        cut.extend_from_slice(&base.shallow);
    }
    let (head_commit, base) = history::head_and_existing(&opened.git, &known)?;
    let head_ref = head(&opened, head_commit.is_some(), notes)?;
    let shallow = shallow(&opened);
    let behind = history::behind(&opened.git, &cut, &shallow)?;
    let unfinished = unfinished(&opened);
    let tips = unfinished.iter().flat_map(|thing| &thing.commits);
    let tips: Vec<&str> = tips.map(String::as_str).collect();
    let mut refs = history::refs(&opened, &print.refs, &base, &tips, notes)?;
    let work = work::of(&opened, head_commit.as_deref(), &print.index, around, notes)?;
    for lock in LOCKS {
        if opened.git_dir.join(lock).exists() {
            let detail = format!("{lock} is there: git is at work, or was ended in its work");
            notes.add(NoteKind::Locked, &opened.path, &detail, Loss::No);
        }
    }
    let heads = elsewhere(&opened, notes)?;
    history::add_lost(&opened, &mut refs, &heads)?;
    let told = Repository {
        path: Bytes::copy_from_slice(&opened.path),
        kind: RepositoryKind::Git.into(),
        object_format: opened.format.into(),
        head_ref: head_ref.into(),
        head_commit: head_commit.unwrap_or_default(),
        shallow,
        unfinished,
        settings: settings(&opened.git)?,
    };
    Ok(SeenRepository {
        told,
        is_ignored: around.walked.passed.contains(&opened.path),
        opened: Some(opened),
        refs,
        index: work.index,
        drafts: work.drafts,
        untracked: work.untracked,
        conflicted: work.conflicted,
        base,
        behind,
        print: print.digest,
        glance,
    })
}

/// The reference that HEAD is; empty for none.
fn head(opened: &Opened, has_commit: bool, notes: &mut Notes) -> Result<Vec<u8>, WorkError> {
    let mut head_ref = match head_in_file(&opened.git_dir) {
        Some(head_ref) => head_ref,
        None => match opened.git.run(&["symbolic-ref", "-q", "HEAD"]) {
            Ok(name) => name.strip_suffix(b"\n").unwrap_or(&name).to_vec(),
            Err(GitError::Failed {
                ending: Ending::Code(_),
                ..
            }) => Vec::new(),
            Err(error) => return Err(error.into()),
        },
    };
    if !head_ref.is_empty() && check_ref(&head_ref).is_err() {
        notes.lost(
            NoteKind::BadRef,
            b"HEAD",
            "it is a reference that cannot be told",
        );
        head_ref = b"refs/heads/unknown".to_vec();
    }
    if head_ref.is_empty() && !has_commit {
        notes.lost(NoteKind::BadRef, b"HEAD", "it leads to no commit");
        head_ref = b"refs/heads/unknown".to_vec();
    }
    Ok(head_ref)
}

/// What the file of HEAD says, where it is as git makes it; none where git must be asked.
fn head_in_file(git_dir: &Path) -> Option<Vec<u8>> {
    let file = git_dir.join("HEAD");
    if !fs::symlink_metadata(&file).is_ok_and(|found| found.is_file()) {
        return None;
    }
    let text = small(&file);
    let text = text.strip_suffix(b"\n")?;
    match text.strip_prefix(b"ref: ") {
        // What keeps its references elsewhere leaves such a name here.
        Some(name) => (name != b"refs/heads/.invalid").then(|| name.to_vec()),
        None => is_object_id(std::str::from_utf8(text).ok()?).then(Vec::new),
    }
}

/// Working trees of the repository that are elsewhere. Returns the commits of those that are on no branch.
fn elsewhere(opened: &Opened, notes: &mut Notes) -> Result<Vec<String>, WorkError> {
    let at = |name: &str| opened.git_dir.join(name).exists();
    let mut heads = Vec::new();
    if !at("worktrees") && !at("commondir") {
        return Ok(heads);
    }
    let listed = match opened.git.run(&["worktree", "list", "--porcelain"]) {
        Ok(listed) => listed,
        Err(GitError::Failed { .. }) => return Ok(heads),
        Err(error) => return Err(error.into()),
    };
    let own = opened.git.directory();
    for line in listed.split(|&byte| byte == b'\n') {
        if let Some(head) = line.strip_prefix(b"HEAD ") {
            heads.push(String::from_utf8_lossy(head).into_owned());
        }
        let Some(path) = line.strip_prefix(b"worktree ") else {
            continue;
        };
        let path = Path::new(OsStr::from_bytes(path));
        // Of a submodule the first one is where git keeps it.
        let is_kept_there = opened.git_dir.starts_with(path);
        if !is_kept_there && !path.starts_with(own) && !own.starts_with(path) {
            let detail =
                "a working tree of the repository: its commits are told, its files are not";
            notes.lost(
                NoteKind::LinkedWorktree,
                path.as_os_str().as_bytes(),
                detail,
            );
        }
    }
    Ok(heads)
}

/// A small file of git's; empty where it is missing.
pub(in super::super) fn small(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        // What cannot be read is not there.
        let _ = file.take(FILE_MAX_BYTES).read_to_end(&mut text);
    }
    text
}

/// The ids in a small file of git's, one a line, whatever follows them.
fn ids(path: &Path) -> Vec<String> {
    let text = String::from_utf8_lossy(&small(path)).into_owned();
    let ids = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    ids.filter(|id| is_object_id(id))
        .map(str::to_owned)
        .collect()
}

fn shallow(opened: &Opened) -> Vec<String> {
    let mut shallow = ids(&opened.git_dir.join("shallow"));
    shallow.truncate(SHALLOW_MAX);
    shallow
}

/// What git's own files say of what goes on (`wt_status_get_state`).
fn unfinished(opened: &Opened) -> Vec<Unfinished> {
    let at = |name: &str| opened.git_dir.join(name);
    let digits = match opened.format {
        ObjectFormat::Sha256 => 64,
        _ => 40,
    };
    let mut found = Vec::new();
    let mut add = |kind: UnfinishedKind, files: &[&str]| {
        let mut commits: Vec<String> = files.iter().flat_map(|file| ids(&at(file))).collect();
        commits.retain(|id| id.len() == digits);
        commits.truncate(UNFINISHED_COMMITS_MAX);
        found.push(Unfinished {
            kind: kind.into(),
            commits,
        });
    };
    if at("MERGE_HEAD").exists() {
        add(UnfinishedKind::Merge, &["MERGE_HEAD"]);
    }
    if at("rebase-merge").is_dir() {
        let files = [
            "rebase-merge/orig-head",
            "rebase-merge/onto",
            "rebase-merge/stopped-sha",
        ];
        add(UnfinishedKind::Rebase, &files);
    } else if at("rebase-apply/applying").exists() {
        add(UnfinishedKind::Am, &["rebase-apply/abort-safety"]);
    } else if at("rebase-apply").is_dir() {
        add(
            UnfinishedKind::Rebase,
            &["rebase-apply/orig-head", "rebase-apply/onto"],
        );
    }
    if at("CHERRY_PICK_HEAD").exists() {
        add(UnfinishedKind::CherryPick, &["CHERRY_PICK_HEAD"]);
    }
    if at("REVERT_HEAD").exists() {
        add(UnfinishedKind::Revert, &["REVERT_HEAD"]);
    }
    if at("BISECT_LOG").exists() {
        add(UnfinishedKind::Bisect, &[]);
    }
    found
}

fn settings(git: &Git) -> Result<BTreeMap<String, String>, WorkError> {
    let words = [
        "config",
        "--local",
        "-z",
        "--get-regexp",
        r"^core\.(autocrlf|eol|filemode)$",
    ];
    let mut settings = BTreeMap::new();
    // The last one of a name holds.
    let listed = records(git, &words, |record| {
        let record = String::from_utf8_lossy(record).to_ascii_lowercase();
        let (name, value) = record.split_once('\n').unwrap_or((&record, ""));
        let known = SETTINGS.iter().find(|(known, _)| *known == name);
        match known.is_some_and(|(_, values)| values.contains(&value)) {
            true => settings.insert(name.to_owned(), value.to_owned()),
            false => settings.remove(name),
        };
        true
    });
    match listed {
        // It is how git says that there is none.
        Ok(()) | Err(WorkError::Git(GitError::Failed { .. })) => Ok(settings),
        Err(error) => Err(error),
    }
}

/// Hands on each record, without the zero byte at its end, until `each` has enough.
pub(in super::super) fn records(
    git: &Git,
    words: &[&str],
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<(), WorkError> {
    records_of(git, words, |_| Ok(()), &mut each)
}

/// The same with an input.
pub(super) fn records_of(
    git: &Git,
    words: &[&str],
    input: impl FnOnce(&mut dyn io::Write) -> io::Result<()> + Send,
    each: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<(), WorkError> {
    let mut had_enough = false;
    let enough = &mut had_enough;
    let result = git.pipe(words, input, move |output| {
        let mut output = BufReader::with_capacity(64 << 10, output);
        let mut record = Vec::new();
        loop {
            record.clear();
            let mut bounded = (&mut output).take(FILE_MAX_BYTES);
            if bounded.read_until(0, &mut record)? == 0 {
                return Ok(());
            }
            let record = record.strip_suffix(b"\0").unwrap_or(&record);
            if !each(record) {
                *enough = true;
                return Ok(());
            }
        }
    });
    match result {
        // It was ended by what nobody read any more.
        Err(GitError::Failed { .. } | GitError::Carry { .. }) if had_enough => Ok(()),
        other => Ok(other?),
    }
}

/// The paths among `paths` beneath none of `nested`.
pub(super) fn is_nested(path: &[u8], nested: &[&[u8]]) -> bool {
    nested
        .iter()
        .any(|nested| !nested.is_empty() && (path == *nested || is_beneath(path, nested)))
}
