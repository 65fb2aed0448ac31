//! Where workspaces land: the owner's repository, or one of banger's own beside it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::error::{Error, Result};
use super::lines::text;
use super::repository::{LocalRepository, optional};
use crate::command::{Cancel, Git, HostLauncher};
use crate::wire::ObjectFormat;

/// Beneath a repository: what banger keeps there.
const OWN_DIRECTORY: &str = "banger";
/// A file of a store of banger's own: what it is for.
const PLACE_FILE: &str = "banger-place";

/// A place for objects and references.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
    format: ObjectFormat,
    git: Git,
}

impl Store {
    /// The owner's repository.
    #[must_use]
    pub fn of(repository: &LocalRepository) -> Self {
        let cancel = repository.git().cancel();
        Self::at(repository.common_dir(), repository.format(), cancel)
    }

    /// The one whose git directory this is: [`LandedRepository::store`](super::land::LandedRepository::store).
    ///
    /// # Errors
    /// If it is none.
    pub fn open(directory: &Path) -> Result<Self> {
        let found = Self::at(directory, ObjectFormat::Sha1, &Cancel::default());
        let format = found.git.run(&["rev-parse", "--show-object-format"]);
        let format = match &format.map_err(Error::git("open the repository"))?[..] {
            b"sha256\n" => ObjectFormat::Sha256,
            _ => ObjectFormat::Sha1,
        };
        Ok(Self { format, ..found })
    }

    fn at(directory: &Path, format: ObjectFormat, cancel: &Cancel) -> Self {
        let git = Git::at(Arc::new(HostLauncher), cancel.clone(), directory);
        Self {
            directory: directory.to_owned(),
            format,
            git: git.with_env("GIT_DIR", directory),
        }
    }

    /// A store of banger's own at `directory`, for `place`; made if it is missing. `shares` has objects that it need not
    /// have itself.
    pub(super) fn own(
        directory: &Path,
        format: ObjectFormat,
        place: &[u8],
        shares: Option<&Self>,
        cancel: &Cancel,
    ) -> Result<Self> {
        if !directory.join(PLACE_FILE).exists() {
            let made = make_bare(directory, format, shares);
            let made = made.and_then(|()| fs::write(directory.join(PLACE_FILE), place));
            made.map_err(Error::file("make", directory))?;
        }
        Ok(Self::at(directory, format, cancel))
    }

    /// Where the store of banger's own is for a repository at `place` inside, of the VM.
    pub(super) fn inside(&self, vm: &str, place: &[u8], format: ObjectFormat) -> PathBuf {
        let mut digest = Sha256::new();
        digest.update(place);
        digest.update([0]);
        digest.update(format.as_str_name());
        let digest = digest.finalize();
        let name: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.stores(vm).join(format!("{name}.git"))
    }

    fn stores(&self, vm: &str) -> PathBuf {
        self.own_directory().join("stores").join(vm)
    }

    /// The stores of banger's own for repositories inside, of the VM, with what they are for.
    pub(super) fn all_inside(&self, vm: &str, cancel: &Cancel) -> Vec<(Vec<u8>, Self)> {
        let all = fs::read_dir(self.stores(vm)).into_iter().flatten();
        let mut found: Vec<(Vec<u8>, Self)> = all
            .flatten()
            .filter_map(|entry| {
                let place = fs::read(entry.path().join(PLACE_FILE)).ok()?;
                let config = fs::read_to_string(entry.path().join("config")).ok()?;
                let format = match config.contains("sha256") {
                    true => ObjectFormat::Sha256,
                    false => ObjectFormat::Sha1,
                };
                Some((place, Self::at(&entry.path(), format, cancel)))
            })
            .collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        found
    }

    /// Its git directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// git in it.
    #[must_use]
    pub const fn git(&self) -> &Git {
        &self.git
    }

    /// git in it that nobody ends who gives up, for what must not be cut in its middle.
    pub(super) fn lasting_git(&self) -> Git {
        Self::at(&self.directory, self.format, &Cancel::default()).git
    }

    /// How its objects are named.
    #[must_use]
    pub const fn format(&self) -> ObjectFormat {
        self.format
    }

    /// What banger keeps here.
    pub(super) fn own_directory(&self) -> PathBuf {
        self.directory.join(OWN_DIRECTORY)
    }

    /// The commits at which its history was cut: it need not have what lies behind them.
    pub(super) fn cut(&self) -> Result<BTreeSet<String>> {
        let file = self.directory.join("shallow");
        match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            read => {
                let read = read.map_err(Error::file("read", &file))?;
                Ok(read.lines().map(str::to_owned).collect())
            }
        }
    }

    /// Says where its history was cut, at once. Only of a store of banger's own.
    pub(super) fn set_cut(&self, cut: &BTreeSet<String>) -> Result<()> {
        let file = self.directory.join("shallow");
        let next = file.with_extension("banger");
        let lines: String = cut.iter().map(|id| format!("{id}\n")).collect();
        let written = match cut.is_empty() {
            // An empty file would be one of a history that was cut.
            true => fs::remove_file(&file),
            false => fs::write(&next, lines).and_then(|()| fs::rename(&next, &file)),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written.map_err(Error::file("write", &file)),
        }
    }

    /// Its references whose names begin with `prefix`, with what they lead to.
    ///
    /// # Errors
    /// If git cannot be asked.
    pub fn refs(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        let words = ["for-each-ref", "--format=%(objectname) %(refname)", prefix];
        let answer = self.git.run(&words);
        let answer = answer.map_err(Error::git("read the references"))?;
        let pair = |line: &[u8]| {
            let line = String::from_utf8(line.to_vec()).ok()?;
            let (id, name) = line.split_once(' ')?;
            Some((name.to_owned(), id.to_owned()))
        };
        let lines = answer.split(|&byte| byte == b'\n');
        Ok(lines.filter_map(pair).collect())
    }

    /// What a reference or another name leads to.
    ///
    /// # Errors
    /// If git cannot be asked.
    pub fn resolve(&self, name: &str) -> Result<Option<String>> {
        let words = ["rev-parse", "--quiet", "--verify", "--end-of-options", name];
        optional(self.git.line(&words), "look up a name")
    }

    /// What those of `names` lead to that lead to something.
    pub(super) fn has(&self, names: &[String]) -> Result<Vec<String>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let feed = |input: &mut dyn Write| -> io::Result<()> {
            names.iter().try_for_each(|name| writeln!(input, "{name}"))
        };
        let words = ["cat-file", "--buffer", "--batch-check=%(objectname)"];
        let answer = self.git.feed(&words, feed);
        let answer = text(&answer.map_err(Error::git("look for objects"))?);
        let found = answer.lines().filter(|line| !line.contains(' '));
        Ok(found.map(str::to_owned).collect())
    }

    /// The bytes of a blob by a name such as `COMMIT:path`; none if it is not there.
    pub(super) fn blob(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(id) = self.resolve(name)? else {
            return Ok(None);
        };
        let read = self.git.run(&["cat-file", "blob", &id]);
        read.map(Some).map_err(Error::git("read what landed"))
    }
}

/// A bare repository, without anything that git's templates would put there.
fn make_bare(directory: &Path, format: ObjectFormat, shares: Option<&Store>) -> io::Result<()> {
    fs::create_dir_all(directory.join("objects/info"))?;
    fs::create_dir_all(directory.join("objects/pack"))?;
    fs::create_dir_all(directory.join("refs"))?;
    let config = match format {
        ObjectFormat::Sha256 => {
            "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n"
        }
        ObjectFormat::Unspecified | ObjectFormat::Sha1 => {
            "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
        }
    };
    fs::write(directory.join("config"), config)?;
    if let Some(shares) = shares {
        let mut alternates = shares.directory.join("objects").into_os_string();
        alternates.push("\n");
        let file = directory.join("objects/info/alternates");
        fs::write(file, alternates.as_encoded_bytes())?;
        let shallow = shares.directory.join("shallow");
        if shallow.exists() {
            fs::copy(shallow, directory.join("shallow"))?;
        }
    }
    // Last: without it there is no repository.
    fs::write(directory.join("HEAD"), "ref: refs/heads/none\n")
}

/// The beginning of the names of a VM's references, `refs/banger/<vm>/`.
///
/// # Errors
/// If that is no name of a VM.
pub fn vm_prefix(vm: &str) -> Result<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_name = !vm.is_empty() && vm.len() <= 64 && !vm.starts_with('-');
    match is_name && vm.bytes().all(fits) {
        true => Ok(format!("refs/banger/{vm}/")),
        false => Err(Error::VmName { vm: vm.to_owned() }),
    }
}
