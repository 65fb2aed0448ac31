//! What a COPY takes: patterns to paths, paths to entries, entries to what arrives in the guest. Nothing is
//! ever opened by a path of the host: a context is an indexed archive.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use banger_core::tree::{Naming, PathKind, TreeEntry, TreeKind};
use banger_image::{TreeArchive, Unpacked};
use globset::{GlobBuilder, GlobMatcher};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::error::BuildError;
use super::fleet::BuildVm;
use super::plan::clean;
use super::step::Place;

/// Symbolic links followed on the way to one source, as the kernel has it.
const HOPS_MAX: usize = 40;
/// Content is read in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;

/// An archive by path.
#[derive(Debug)]
pub(super) struct Files {
    archive: TreeArchive,
    /// What was taken apart of it: it is asked for more than once.
    unpacked: Mutex<HashMap<usize, Unpacked>>,
    /// Directories that only their children tell of have no entry.
    index: BTreeMap<String, Option<usize>>,
}

/// What arrives in the guest.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) naming: Naming,
    pub(super) items: Vec<Item>,
}

/// An entry as it arrives, and where its content is.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) entry: TreeEntry,
    pub(super) content: Option<(TreeArchive, usize)>,
}

/// How entries are changed on their way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dress {
    /// Absent: as the archive says.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u16>,
}

/// Whether the destination is written as a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dest {
    Directory,
    Name,
}

impl Files {
    pub(super) fn new(archive: TreeArchive) -> Self {
        let mut index = BTreeMap::new();
        index.insert(String::new(), None);
        for (number, entry) in archive.entries().enumerate() {
            // A name that is no text can be written in no Dockerfile, but in a directory it is copied.
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            let mut parent = path.as_str();
            while let Some((above, _)) = parent.rsplit_once('/') {
                index.entry(above.to_owned()).or_insert(None);
                parent = above;
            }
            index.insert(path, Some(number));
        }
        Self {
            archive,
            unpacked: Mutex::default(),
            index,
        }
    }

    fn entry(&self, path: &str) -> Option<&TreeEntry> {
        self.archive.entry((*self.index.get(path)?)?)
    }

    fn is_directory(&self, path: &str) -> bool {
        match self.index.get(path) {
            Some(None) => true,
            Some(Some(_)) => self
                .entry(path)
                .is_some_and(|entry| entry.kind == TreeKind::Directory),
            None => false,
        }
    }

    /// The path without links, if something is there. Links stay inside: `..` stops at the top.
    fn resolve(&self, path: &str) -> Option<String> {
        let mut left: Vec<String> = clean(path).split('/').rev().map(str::to_owned).collect();
        let mut at = String::new();
        let mut hops = 0;
        while let Some(name) = left.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    at.truncate(at.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let next = if at.is_empty() {
                name
            } else {
                format!("{at}/{name}")
            };
            if let Some(TreeKind::Symlink { target }) = self.entry(&next).map(|entry| &entry.kind) {
                hops += 1;
                if hops > HOPS_MAX {
                    return None;
                }
                let target = String::from_utf8_lossy(target);
                if target.starts_with('/') {
                    at.clear();
                }
                left.extend(target.split('/').rev().map(str::to_owned));
                continue;
            }
            self.index.contains_key(&next).then_some(())?;
            at = next;
        }
        Some(at)
    }

    /// What a path is, and the names in it.
    pub(super) fn list(&self, path: &str) -> PathKind {
        let Some(path) = self.resolve(path) else {
            return PathKind::Missing;
        };
        if !self.is_directory(&path) {
            return PathKind::Other;
        }
        let children = self.beneath(&path).filter_map(|(child, _)| {
            let name = if path.is_empty() {
                child
            } else {
                child.get(path.len() + 1..)?
            };
            (!name.contains('/')).then(|| name.as_bytes().to_vec())
        });
        PathKind::Directory(children.collect())
    }

    /// Everything beneath a directory, parents first.
    fn beneath(&self, path: &str) -> impl Iterator<Item = (&str, Option<usize>)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        // Not from the directory on: names that only begin alike lie between it and what is in it.
        let from = if path.is_empty() {
            Excluded("")
        } else {
            Included(prefix.as_str())
        };
        self.index
            .range::<str, _>((from, Unbounded))
            .take_while({
                let prefix = prefix.clone();
                move |(found, _)| found.starts_with(&prefix)
            })
            .map(|(found, number)| (found.as_str(), *number))
    }

    /// What `paths`, found by [`expand`], become. ADD takes archives apart. Blocks.
    pub(super) fn select(
        &self,
        paths: &[String],
        dest: Dest,
        dress: Dress,
        unpack: Option<&Unpacking>,
    ) -> Result<Selection, SelectError> {
        let mut items = Vec::new();
        let mut naming = Naming::Directory;
        for path in paths {
            let missing = || SelectError::Missing(path.clone());
            let found = self.resolve(path).ok_or_else(missing)?;
            if self.is_directory(&found) {
                self.directory(&found, dress, &mut items);
                continue;
            }
            let number = self
                .index
                .get(&found)
                .copied()
                .flatten()
                .ok_or_else(missing)?;
            if let Some(unpacking) = unpack {
                match self.unpack(number, unpacking)? {
                    Unpacked::Archive(inner) => {
                        let dress = Dress {
                            owner: None,
                            ..dress
                        };
                        Self::new(inner).directory("", dress, &mut items);
                        continue;
                    }
                    Unpacked::Unsupported(format) => {
                        return Err(SelectError::Compression(path.clone(), format));
                    }
                    Unpacked::Plain => {}
                }
            }
            let name = path.rsplit('/').next().unwrap_or(path).to_owned();
            let mut hard_links = HashMap::new();
            items.extend(self.item(number, name, dress, &mut hard_links));
            if paths.len() == 1 && dest == Dest::Name {
                naming = Naming::Entry;
            }
        }
        Ok(Selection { naming, items })
    }

    /// A file seen as an archive, taken apart once.
    fn unpack(&self, number: usize, unpacking: &Unpacking) -> Result<Unpacked, SelectError> {
        let mut known = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&number) {
            return Ok(known.clone());
        }
        let Unpacking { tmp, cancel } = unpacking;
        let unpacked = self.archive.unpack(number, tmp, cancel);
        let unpacked = unpacked.map_err(SelectError::Image)?;
        known.insert(number, unpacked.clone());
        Ok(unpacked)
    }

    fn directory(&self, path: &str, dress: Dress, items: &mut Vec<Item>) {
        let mut hard_links = HashMap::new();
        let top = if path.is_empty() { 0 } else { path.len() + 1 };
        for (found, number) in self.beneath(path) {
            let relative = found[top..].to_owned();
            match number {
                Some(number) => items.extend(self.item(number, relative, dress, &mut hard_links)),
                None => items.push(Item {
                    entry: TreeEntry {
                        path: relative.into(),
                        kind: TreeKind::Directory,
                        mode: dress.mode.unwrap_or(0o755),
                        uid: dress.owner.map_or(0, |owner| owner.0),
                        gid: dress.owner.map_or(0, |owner| owner.1),
                        mtime: (0, 0),
                        xattrs: BTreeMap::new(),
                    },
                    content: None,
                }),
            }
        }
    }

    /// One entry under its new path; a hard link becomes a file of its own where its first name is not
    /// taken along.
    fn item(
        &self,
        number: usize,
        path: String,
        dress: Dress,
        taken: &mut HashMap<usize, Vec<u8>>,
    ) -> Option<Item> {
        let mut entry = self.archive.entry(number)?.clone();
        let mut content = number;
        if let TreeKind::HardLink { target } = &entry.kind {
            let first = (*self.index.get(String::from_utf8_lossy(target).as_ref())?)?;
            if let Some(target) = taken.get(&first) {
                let target = target.clone();
                entry.kind = TreeKind::HardLink { target };
            } else {
                let original = self.archive.entry(first)?;
                entry = TreeEntry {
                    path: Vec::new(),
                    ..original.clone()
                };
                content = first;
            }
        }
        entry.path = path.into();
        if let TreeKind::File { .. } = entry.kind {
            taken.insert(content, entry.path.clone());
        }
        if let Some((uid, gid)) = dress.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        if let (Some(mode), TreeKind::File { .. } | TreeKind::Directory) = (dress.mode, &entry.kind)
        {
            entry.mode = mode;
        }
        let has_content = matches!(entry.kind, TreeKind::File { size } if size > 0);
        Some(Item {
            entry,
            content: has_content.then(|| (self.archive.clone(), content)),
        })
    }
}

/// How archives are taken apart.
#[derive(Debug)]
pub(super) struct Unpacking {
    /// Where the plain ones go, as files without names.
    pub(super) tmp: PathBuf,
    /// Nobody wants them any more.
    pub(super) cancel: CancellationToken,
}

/// Why nothing can be selected.
#[derive(Debug)]
pub(super) enum SelectError {
    Missing(String),
    Compression(String, &'static str),
    Image(banger_image::StoreError),
}

impl Selection {
    /// A file of the Dockerfile's own.
    pub(super) fn inline(text: &str, dress: Dress) -> (TreeEntry, Vec<u8>) {
        let entry = TreeEntry {
            path: b"inline".to_vec(),
            kind: TreeKind::File {
                size: text.len() as u64,
            },
            mode: dress.mode.unwrap_or(0o644),
            uid: dress.owner.map_or(0, |owner| owner.0),
            gid: dress.owner.map_or(0, |owner| owner.1),
            mtime: (0, 0),
            xattrs: BTreeMap::new(),
        };
        (entry, text.as_bytes().to_vec())
    }

    /// A digest of all that arrives: names, kinds, modes, owners and contents, not times. Blocks.
    pub(super) fn digest(&self, cancel: &CancellationToken) -> io::Result<[u8; 32]> {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(format!("{:?}", self.naming).as_bytes());
        for Item { entry, content } in &self.items {
            field(&entry.path);
            field(
                format!(
                    "{:?} {:o} {} {}",
                    entry.kind, entry.mode, entry.uid, entry.gid
                )
                .as_bytes(),
            );
            for (name, value) in &entry.xattrs {
                field(name.as_bytes());
                field(value);
            }
            if let Some((archive, number)) = content {
                let mut inner = Sha256::new();
                let mut reader = archive.content(*number);
                let mut piece = vec![0; PIECE_BYTES];
                loop {
                    if cancel.is_cancelled() {
                        return Err(io::Error::other("it was given up"));
                    }
                    let read = reader.read(&mut piece)?;
                    if read == 0 {
                        break;
                    }
                    inner.update(&piece[..read]);
                }
                field(&inner.finalize());
            }
        }
        Ok(hasher.finalize().into())
    }
}

/// Where a source is looked for.
#[derive(Clone, Copy)]
pub(super) enum Within<'a> {
    Files(&'a Files),
    Guest(&'a BuildVm, &'a Place<'a>),
}

impl Within<'_> {
    async fn list(self, path: &str) -> Result<PathKind, BuildError> {
        match self {
            Self::Files(files) => Ok(files.list(path)),
            Self::Guest(vm, place) => super::step::list(vm, place, path).await,
        }
    }
}

/// The paths that a source means: itself, or what its wildcards match, sorted. A wildcard stands for no
/// slash, as the reference has it.
pub(super) async fn expand(source: &str, within: Within<'_>) -> Result<Vec<String>, BuildError> {
    let mut found = vec![String::new()];
    for name in clean(source).split('/').filter(|name| !name.is_empty()) {
        let matcher = pattern(name);
        let mut next = Vec::new();
        for parent in found {
            let join = |name: &str| match parent.as_str() {
                "" => name.to_owned(),
                parent => format!("{parent}/{name}"),
            };
            match &matcher {
                None => next.push(join(&literal(name))),
                Some(matcher) => {
                    if let PathKind::Directory(names) = within.list(&parent).await? {
                        let names = names
                            .iter()
                            .filter_map(|name| std::str::from_utf8(name).ok());
                        next.extend(names.filter(|name| matcher.is_match(name)).map(join));
                    }
                }
            }
        }
        next.sort_unstable();
        found = next;
    }
    if is_pattern(source) {
        let mut there = Vec::new();
        for path in found {
            if within.list(&path).await? != PathKind::Missing {
                there.push(path);
            }
        }
        return Ok(there);
    }
    Ok(found)
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// A name without the escapes that keep its signs from being wildcards.
fn literal(name: &str) -> String {
    let mut out = String::new();
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

/// A matcher for one name; none where it has no wildcard.
fn pattern(name: &str) -> Option<GlobMatcher> {
    if !is_pattern(name) {
        return None;
    }
    // Braces are ordinary letters in a Dockerfile.
    let escaped = name.replace('{', "\\{").replace('}', "\\}");
    let glob = GlobBuilder::new(&escaped)
        .literal_separator(true)
        .backslash_escape(true)
        .build();
    glob.ok().map(|glob| glob.compile_matcher())
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use banger_image::TarWriter;

    use super::*;

    const PLAIN: Dress = Dress {
        owner: Some((0, 0)),
        mode: None,
    };

    fn files(entries: &[(&str, Option<&str>, &str)]) -> Files {
        let mut tar = TarWriter::new(tempfile::tempfile().unwrap());
        for (path, link, content) in entries {
            let kind = match link {
                Some(target) if target.starts_with("hard:") => TreeKind::HardLink {
                    target: target[5..].into(),
                },
                Some(target) => TreeKind::Symlink {
                    target: (*target).into(),
                },
                None => TreeKind::File {
                    size: content.len() as u64,
                },
            };
            tar.entry(&TreeEntry {
                path: (*path).into(),
                kind,
                mode: 0o600,
                uid: 7,
                gid: 7,
                mtime: (1, 0),
                xattrs: BTreeMap::new(),
            })
            .unwrap();
            tar.data(content.as_bytes()).unwrap();
        }
        let mut file = tar.finish().unwrap();
        file.rewind().unwrap();
        Files::new(TreeArchive::open(file, std::path::Path::new("context")).unwrap())
    }

    fn context() -> Files {
        files(&[
            ("a.txt", None, "a"),
            ("b.txt", None, "b"),
            ("src/main.rs", None, "main"),
            ("src/deep/x", None, "x"),
            ("src-other/y", None, "y"),
            ("link", Some("src"), ""),
            ("evil", Some("../../../../etc"), ""),
            ("loop", Some("loop"), ""),
            ("same", Some("hard:a.txt"), ""),
        ])
    }

    fn paths(selection: &Selection) -> Vec<String> {
        let paths = selection.items.iter().map(|item| item.entry.path.clone());
        paths.map(|path| String::from_utf8(path).unwrap()).collect()
    }

    async fn found(files: &Files, source: &str) -> Vec<String> {
        expand(source, Within::Files(files)).await.unwrap()
    }

    #[tokio::test]
    async fn wildcards_match_names_and_never_a_slash() {
        let files = context();
        assert_eq!(found(&files, "*.txt").await, ["a.txt", "b.txt"]);
        assert_eq!(found(&files, "/s*/m?in.rs").await, ["src/main.rs"]);
        assert_eq!(found(&files, "[ab].txt").await, ["a.txt", "b.txt"]);
        assert_eq!(found(&files, "*main.rs").await, Vec::<String>::new());
        assert_eq!(found(&files, "{a,b}.txt").await, ["{a,b}.txt"]);
        // What has no wildcard is left to the selection, which says what is missing.
        assert_eq!(found(&files, "../../none").await, ["none"]);
    }

    #[test]
    fn a_directory_gives_its_content_and_a_file_its_name() {
        let files = context();
        let select = |sources: &[&str], dest| {
            let sources: Vec<String> = sources.iter().map(|source| (*source).into()).collect();
            files.select(&sources, dest, PLAIN, None)
        };
        let selection = select(&["src"], Dest::Name).unwrap();
        assert_eq!(paths(&selection), ["deep", "deep/x", "main.rs"]);
        assert_eq!(selection.naming, Naming::Directory);
        let selection = select(&["src/main.rs"], Dest::Name).unwrap();
        assert_eq!(
            (paths(&selection), selection.naming),
            (vec!["main.rs".into()], Naming::Entry)
        );
        let selection = select(&["a.txt", "link"], Dest::Directory).unwrap();
        assert_eq!(paths(&selection), ["a.txt", "deep", "deep/x", "main.rs"]);
        assert!(selection.items.iter().all(|item| item.entry.uid == 0));
        assert!(matches!(
            select(&["nothing"], Dest::Name),
            Err(SelectError::Missing(_))
        ));
    }

    #[test]
    fn links_never_leave_the_context() {
        let files = context();
        for source in [
            "evil",
            "evil/passwd",
            "loop",
            "src/../../etc",
            "link/../../../etc/passwd",
        ] {
            let selected = files.select(&[source.into()], Dest::Name, PLAIN, None);
            assert!(matches!(selected, Err(SelectError::Missing(_))), "{source}");
        }
        assert_eq!(files.resolve("link/deep").as_deref(), Some("src/deep"));
        assert_eq!(
            files.resolve("../src/./main.rs").as_deref(),
            Some("src/main.rs")
        );
    }

    #[test]
    fn an_archive_is_taken_apart_once() {
        let mut inner = TarWriter::new(Vec::new());
        let entry = files(&[("x", None, "x")]).archive.entry(0).unwrap().clone();
        inner.entry(&entry).unwrap();
        inner.data(b"x").unwrap();
        let inner = String::from_utf8(inner.finish().unwrap()).unwrap();
        let files = files(&[("inner.tar", None, &inner)]);
        let tmp = tempfile::tempdir().unwrap();
        let unpacking = Unpacking {
            tmp: tmp.path().to_owned(),
            cancel: CancellationToken::new(),
        };
        let paths = || {
            let sources = ["inner.tar".to_owned()];
            let selected = files.select(&sources, Dest::Name, PLAIN, Some(&unpacking));
            paths(&selected.unwrap())
        };
        assert_eq!(paths(), ["x"]);
        // It could not be read again.
        unpacking.cancel.cancel();
        assert_eq!(paths(), ["x"]);
    }

    #[test]
    fn a_hard_link_without_its_first_name_is_a_file() {
        let files = context();
        let alone = files
            .select(&["same".into()], Dest::Name, PLAIN, None)
            .unwrap();
        assert_eq!(alone.items[0].entry.kind, TreeKind::File { size: 1 });
        let (archive, number) = alone.items[0].content.as_ref().unwrap();
        let mut text = String::new();
        archive.content(*number).read_to_string(&mut text).unwrap();
        assert_eq!(text, "a");
        let all = files
            .select(&[String::new()], Dest::Name, PLAIN, None)
            .unwrap();
        let link = all
            .items
            .iter()
            .find(|item| item.entry.path == b"same")
            .unwrap();
        assert_eq!(
            link.entry.kind,
            TreeKind::HardLink {
                target: b"a.txt".to_vec()
            }
        );
    }

    #[test]
    fn the_digest_is_of_content_mode_and_owner_not_of_time() {
        let digest = |content: &str, dress| {
            let files = files(&[("x", None, content)]);
            let selection = files
                .select(&["x".into()], Dest::Name, dress, None)
                .unwrap();
            selection.digest(&CancellationToken::new()).unwrap()
        };
        let owned = Dress {
            owner: Some((1, 1)),
            mode: None,
        };
        let moded = Dress {
            owner: Some((0, 0)),
            mode: Some(0o755),
        };
        assert_eq!(digest("a", PLAIN), digest("a", PLAIN));
        assert!(digest("a", PLAIN) != digest("b", PLAIN));
        assert!(digest("a", PLAIN) != digest("a", owned));
        assert!(digest("a", PLAIN) != digest("a", moded));
    }
}
