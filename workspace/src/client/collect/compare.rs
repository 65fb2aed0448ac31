//! Which files of a working tree are not what the index says, byte for byte.
//!
//! git takes a file for unchanged that has what it would make of the object: other line ends, an expanded `$Id$`. The
//! receiver must have the same bytes, and its git makes its own of an object, so such a file is told too. Whatever a
//! filter program makes is not: the receiver has no such program, and gets what the repository has.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use super::walk::{Found, FoundKind, link_target};
use crate::client::error::{Error, Result};
use crate::client::lines::{fields, path, text};
use crate::client::repository::LocalRepository;

const WHAT: &str = "compare the working tree with the index";
/// Content is compared in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
/// Attributes that make a file differ from its object.
const ATTRIBUTES: [&str; 5] = ["filter", "text", "eol", "ident", "working-tree-encoding"];

/// An entry of the index.
#[derive(Debug, Clone)]
pub(super) struct Indexed {
    pub(super) mode: u32,
    pub(super) id: String,
}

/// The entries of an index, and those of its conflicts.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) entries: HashMap<Vec<u8>, Indexed>,
    /// Path, stage, entry.
    pub(super) conflicts: Vec<(Vec<u8>, u32, Indexed)>,
}

/// What of a working tree is not the index's.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Numbers among what was found.
    pub(super) numbers: HashSet<usize>,
    /// Paths of tracked files that are not there.
    pub(super) missing: Vec<Vec<u8>>,
}

impl Index {
    pub(super) fn read(repository: &LocalRepository) -> Result<Self> {
        let answer = repository.git().run(&["ls-files", "--stage", "-z"]);
        let answer = answer.map_err(Error::git("read the index"))?;
        let mut index = Self::default();
        for line in fields(&answer) {
            let (path, stage, entry) = entry(line).ok_or(Error::Answer {
                what: "what is in the index",
            })?;
            match stage {
                0 => drop(index.entries.insert(path, entry)),
                stage => index.conflicts.push((path, stage, entry)),
            }
        }
        Ok(index)
    }
}

/// `mode id stage TAB path`.
fn entry(line: &[u8]) -> Option<(Vec<u8>, u32, Indexed)> {
    let tab = line.iter().position(|&byte| byte == b'\t')?;
    let words = std::str::from_utf8(&line[..tab]).ok()?;
    let mut words = words.split(' ');
    let mode = u32::from_str_radix(words.next()?, 8).ok()?;
    let id = words.next()?.to_owned();
    let stage = words.next()?.parse().ok()?;
    Some((line[tab + 1..].to_vec(), stage, Indexed { mode, id }))
}

/// What among `found` is tracked and not what the index says, and what is tracked and not there.
pub(super) fn changed(
    repository: &LocalRepository,
    index: &Index,
    found: &[Found],
) -> Result<Changed> {
    let by_git = changed_for_git(repository)?;
    let converted = Converted::of(repository, index)?;
    let conflicts = index.conflicts.iter();
    let conflicts: HashSet<&[u8]> = conflicts.map(|(path, ..)| &path[..]).collect();
    let mut candidates = Vec::new();
    let mut there = HashSet::new();
    let mut changed = Changed::default();
    for (number, one) in found.iter().enumerate() {
        if one.kind != FoundKind::Repository {
            there.insert(&one.path[..]);
        }
        if conflicts.contains(&one.path[..]) {
            changed.numbers.insert(number);
        }
        let is_asked = by_git.contains(&one.path) || converted.on_the_way_in.contains(&one.path);
        let is_written_other = converted.on_the_way_out.contains(&one.path);
        if is_written_other && one.kind == FoundKind::File {
            changed.numbers.insert(number);
            continue;
        }
        let is_leaf = matches!(one.kind, FoundKind::File | FoundKind::Symlink);
        if let Some(entry) = index.entries.get(&one.path)
            && is_asked
            && is_leaf
        {
            candidates.push((number, entry));
        }
    }
    let is_tracked =
        |path: &Vec<u8>| index.entries.contains_key(path) || conflicts.contains(&path[..]);
    let missing = by_git.iter();
    let missing = missing.filter(|path| is_tracked(path) && !there.contains(&path[..]));
    changed.missing = missing.cloned().collect();
    let differing = differing(repository, found, &candidates)?;
    changed.numbers.extend(differing);
    Ok(changed)
}

/// Paths that git takes for changed, or has not looked at since they were touched.
fn changed_for_git(repository: &LocalRepository) -> Result<HashSet<Vec<u8>>> {
    let words = [
        "diff-files",
        "-z",
        "--name-only",
        "--ignore-submodules=all",
        "--no-renames",
    ];
    let answer = repository.git().run(&words).map_err(Error::git(WHAT))?;
    Ok(fields(&answer).map(<[u8]>::to_vec).collect())
}

/// What git makes of objects when it writes files, filters left out.
#[derive(Debug, Default)]
struct Converted {
    /// Files that it would write other than their objects are.
    on_the_way_out: HashSet<Vec<u8>>,
    /// Files that it takes for their objects though they may be other.
    on_the_way_in: HashSet<Vec<u8>>,
}

/// What the settings say of line ends.
struct LineEnds {
    /// `core.autocrlf` is on.
    is_automatic: bool,
    /// Files of text get CR LF.
    is_dos: bool,
}

impl LineEnds {
    fn of(repository: &LocalRepository) -> Result<Self> {
        let setting = |name| -> Result<String> {
            let value = repository.setting(name)?.unwrap_or_default();
            Ok(value.to_lowercase())
        };
        let automatic = setting("core.autocrlf")?;
        let is_true = matches!(&automatic[..], "true" | "yes" | "on" | "1");
        let is_dos = is_true || (automatic != "input" && setting("core.eol")? == "crlf");
        Ok(Self {
            is_automatic: is_true || automatic == "input",
            is_dos,
        })
    }
}

impl Converted {
    fn of(repository: &LocalRepository, index: &Index) -> Result<Self> {
        let ends = LineEnds::of(repository)?;
        let has_attributes = repository.common_dir().join("info/attributes").exists()
            || index
                .entries
                .keys()
                .any(|path| path.ends_with(b".gitattributes"));
        let mut converted = Self::default();
        if !ends.is_automatic && !has_attributes {
            return Ok(converted);
        }
        let mut words = vec!["check-attr", "-z", "--stdin"];
        words.extend(ATTRIBUTES);
        let feed = |input: &mut dyn Write| -> io::Result<()> {
            let mut input = io::BufWriter::new(input);
            for path in index.entries.keys() {
                input.write_all(path)?;
                input.write_all(&[0])?;
            }
            input.flush()
        };
        let answer = repository.git().feed(&words, feed);
        let answer = answer.map_err(Error::git(WHAT))?;
        let told: Vec<&[u8]> = fields(&answer).collect();
        // Path, attribute and value, for each attribute of each path.
        for of_path in told.chunks_exact(3 * ATTRIBUTES.len()) {
            let values: Vec<&[u8]> = of_path.chunks_exact(3).map(|told| told[2]).collect();
            converted.add(of_path[0], &values, &ends);
        }
        Ok(converted)
    }

    fn add(&mut self, path: &[u8], values: &[&[u8]], ends: &LineEnds) {
        let is_none = |value: &[u8]| matches!(value, b"unspecified" | b"unset");
        let &[filter, text, eol, ident, encoding] = values else {
            return;
        };
        if !is_none(filter) {
            return;
        }
        let is_text = match text {
            b"unset" => false,
            b"unspecified" => ends.is_automatic || !is_none(eol),
            _ => true,
        };
        let is_dos = match eol {
            b"crlf" => true,
            b"lf" => false,
            _ => ends.is_dos,
        };
        if (is_text && is_dos) || !is_none(ident) || !is_none(encoding) {
            self.on_the_way_out.insert(path.to_vec());
        } else if is_text {
            self.on_the_way_in.insert(path.to_vec());
        }
    }
}

fn write_ids(input: &mut dyn Write, asked: &[(usize, &Indexed)]) -> io::Result<()> {
    let mut input = io::BufWriter::new(input);
    for (_, entry) in asked {
        writeln!(input, "{}", entry.id)?;
    }
    input.flush()
}

/// The candidates whose content or kind is not the index's.
fn differing(
    repository: &LocalRepository,
    found: &[Found],
    candidates: &[(usize, &Indexed)],
) -> Result<Vec<usize>> {
    let mut differing = Vec::new();
    let mut alike = Vec::new();
    for &(number, entry) in candidates {
        match has_mode(&found[number], entry.mode) {
            true => alike.push((number, entry)),
            false => differing.push(number),
        }
    }
    if alike.is_empty() {
        return Ok(differing);
    }
    let words = ["cat-file", "--buffer", "--batch-check=%(objectsize)"];
    let sizes = repository
        .git()
        .feed(&words, |input| write_ids(input, &alike));
    let sizes = text(&sizes.map_err(Error::git(WHAT))?);
    let mut same_size = Vec::new();
    for (&(number, entry), size) in alike.iter().zip(sizes.lines()) {
        match size.parse() == Ok(found[number].size) {
            true => same_size.push((number, entry)),
            false => differing.push(number),
        }
    }
    let words = ["cat-file", "--buffer", "--batch=%(objectsize)"];
    let compare = |output: &mut dyn Read| {
        let mut output = BufReader::new(output);
        let mut others = Vec::new();
        for &(number, _) in &same_size {
            let mut size = String::new();
            output.read_line(&mut size)?;
            let size: u64 = size.trim_end().parse().map_err(io::Error::other)?;
            let file = repository.top().join(path(&found[number].path));
            let mut content = (&mut output).take(size);
            if !is_same(&file, found[number].kind, &mut content)? {
                others.push(number);
            }
            io::copy(&mut content, &mut io::sink())?;
            output.read_exact(&mut [0])?;
        }
        Ok(others)
    };
    let feed = |input: &mut dyn Write| write_ids(input, &same_size);
    let others = repository.git().pipe(&words, feed, compare);
    differing.extend(others.map_err(Error::git(WHAT))?);
    Ok(differing)
}

/// Whether the file is of the index's kind, and executable as there.
fn has_mode(found: &Found, mode: u32) -> bool {
    match found.kind {
        FoundKind::Symlink => mode == 0o120_000,
        FoundKind::File if found.mode & 0o100 != 0 => mode == 0o100_755,
        FoundKind::File => mode == 0o100_644,
        FoundKind::EmptyDirectory | FoundKind::Repository => false,
    }
}

fn is_same(file: &Path, kind: FoundKind, content: &mut dyn Read) -> io::Result<bool> {
    if kind == FoundKind::Symlink {
        let mut target = Vec::new();
        content.read_to_end(&mut target)?;
        return Ok(link_target(file).is_ok_and(|found| found == target));
    }
    // What cannot be read is told as unreadable later.
    let Ok(mut file) = File::open(file) else {
        return Ok(false);
    };
    let (mut one, mut other) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    loop {
        let length = content.read(&mut one)?;
        if length == 0 {
            return Ok(file.read(&mut other[..1])? == 0);
        }
        match file.read_exact(&mut other[..length]) {
            Ok(()) if one[..length] == other[..length] => {}
            _ => return Ok(false),
        }
    }
}
