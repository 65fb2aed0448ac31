//! What git-fast-import(1) is told: blobs, and commits that differ from others in some paths.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Who is said to have made the states that banger makes commits of.
const WHO: &str = "banger <banger@localhost>";

/// What is at a path of a tree.
#[derive(Debug, Clone)]
pub(in crate::client) enum Change {
    /// Nothing.
    Remove(Vec<u8>),
    /// An object, with git's mode and its id, or `:mark`.
    Put(Vec<u8>, u32, String),
}

/// A commit that is made.
#[derive(Debug)]
pub(in crate::client) struct Commit<'a> {
    /// The reference it gets.
    pub(in crate::client) name: &'a str,
    pub(in crate::client) mark: usize,
    /// Its text.
    pub(in crate::client) message: &'a str,
    /// The first has the tree that changes; ids, or `:mark`.
    pub(in crate::client) parents: Vec<String>,
    /// Removals come first: a file may take the place of a directory, and the other way round.
    pub(in crate::client) changes: Vec<&'a Change>,
}

/// Writes a script.
pub(in crate::client) struct Script<'a> {
    to: io::BufWriter<&'a mut dyn Write>,
    /// Seconds since the epoch, of all commits.
    time: u64,
}

impl<'a> Script<'a> {
    pub(in crate::client) fn new(to: &'a mut dyn Write, time: u64) -> Self {
        Self {
            to: io::BufWriter::with_capacity(1 << 16, to),
            time,
        }
    }

    /// A blob of a file's content.
    pub(super) fn file(&mut self, mark: usize, content: &Path) -> io::Result<()> {
        let mut file = File::open(content)?;
        let size = file.metadata()?.len();
        self.content(mark, size, &mut file)
    }

    /// A blob of so many bytes of a reader.
    pub(in crate::client) fn content(
        &mut self,
        mark: usize,
        size: u64,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        write!(self.to, "blob\nmark :{mark}\ndata {size}\n")?;
        match io::copy(content, &mut self.to)? == size {
            true => self.to.write_all(b"\n"),
            false => Err(io::Error::other("a file has changed while it was read")),
        }
    }

    /// A blob of these bytes.
    pub(in crate::client) fn blob(&mut self, mark: usize, content: &[u8]) -> io::Result<()> {
        write!(self.to, "blob\nmark :{mark}\ndata {}\n", content.len())?;
        self.to.write_all(content)?;
        self.to.write_all(b"\n")
    }

    pub(in crate::client) fn commit(&mut self, commit: &Commit<'_>) -> io::Result<()> {
        let (name, mark, message) = (commit.name, commit.mark, commit.message);
        let (time, length) = (self.time, message.len());
        write!(self.to, "reset {name}\ncommit {name}\nmark :{mark}\n")?;
        write!(
            self.to,
            "committer {WHO} {time} +0000\ndata {length}\n{message}\n"
        )?;
        for (number, parent) in commit.parents.iter().enumerate() {
            let word = match number {
                0 => "from",
                _ => "merge",
            };
            writeln!(self.to, "{word} {parent}")?;
        }
        let is_removal = |change: &&&Change| matches!(change, Change::Remove(_));
        for change in commit.changes.iter().filter(is_removal) {
            self.change(change)?;
        }
        for change in commit.changes.iter().filter(|change| !is_removal(change)) {
            self.change(change)?;
        }
        self.to.write_all(b"\n")
    }

    fn change(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Remove(path) => {
                self.to.write_all(b"D ")?;
                self.path(path)
            }
            Change::Put(path, mode, object) => {
                write!(self.to, "M {mode:o} {object} ")?;
                self.path(path)
            }
        }
    }

    /// A path between quotes: any bytes but those that would end it.
    fn path(&mut self, path: &[u8]) -> io::Result<()> {
        let mut quoted = Vec::with_capacity(path.len() + 3);
        quoted.push(b'"');
        for &byte in path {
            match byte {
                b'"' | b'\\' => quoted.extend([b'\\', byte]),
                b'\n' => quoted.extend(b"\\n"),
                byte => quoted.push(byte),
            }
        }
        quoted.extend(b"\"\n");
        self.to.write_all(&quoted)
    }

    pub(in crate::client) fn end(mut self) -> io::Result<()> {
        self.to.write_all(b"done\n")?;
        self.to.flush()
    }
}
