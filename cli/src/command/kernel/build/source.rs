//! The kernel's sources: found, fetched, unpacked.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::BuildError;
use super::place::{Place, remove};
use super::run::{Runner, tool};

/// The package that stands for the newest sources of the distribution.
const NEWEST: &str = "linux-source";
/// Where an installed package has its archive.
const INSTALLED: &str = "/usr/src";
/// For 140 MB over a slow line.
const DOWNLOAD: Duration = Duration::from_secs(30 * 60);
/// For a gigabyte of small files on a slow disk.
const UNPACK: Duration = Duration::from_secs(30 * 60);
/// Of a name made of a path.
const KEY_CHARS_MAX: usize = 100;

/// Where the sources are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// An archive.
    Archive(PathBuf),
    /// A directory, which is used as it is.
    Directory(PathBuf),
    /// A package, and the name of its file.
    Package { package: String, file: String },
}

impl Source {
    /// The sources at `path`; without one, those of the distribution.
    pub(super) async fn find(runner: &mut Runner, path: Option<&Path>) -> Result<Self, BuildError> {
        if let Some(path) = path {
            let path = path
                .canonicalize()
                .map_err(BuildError::files("find", path))?;
            return Ok(if path.is_dir() {
                Self::Directory(path)
            } else {
                Self::Archive(path)
            });
        }
        let package = newest(runner).await?;
        for end in ["tar.xz", "tar.zst"] {
            let installed = Path::new(INSTALLED).join(format!("{package}.{end}"));
            if installed.is_file() {
                return Ok(Self::Archive(installed));
            }
        }
        let mut ask = apt_get();
        ask.args(["--print-uris", "download", &package]);
        let said = runner.quick(ask).await?;
        let file = said.iter().find_map(|line| file_of(line));
        let file = file.ok_or_else(|| BuildError::Tool {
            program: "apt-get".into(),
            status: "it knows no file".into(),
            output: package.clone(),
        })?;
        Ok(Self::Package { package, file })
    }

    /// A name for its place: another version has another one.
    pub(super) fn key(&self) -> String {
        let text = match self {
            Self::Package { file, .. } => file.trim_end_matches(".deb").to_owned(),
            Self::Directory(path) => path.display().to_string(),
            Self::Archive(path) => {
                let (size, time) = path
                    .metadata()
                    .map_or((0, 0), |metadata| (metadata.size(), metadata.mtime()));
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                format!("{name}-{size}-{time}")
            }
        };
        let safe = |c: char| {
            if c.is_ascii_alphanumeric() || "._+~-".contains(c) {
                c
            } else {
                '_'
            }
        };
        let name: Vec<char> = text.trim_matches(['/', '.']).chars().map(safe).collect();
        name[name.len().saturating_sub(KEY_CHARS_MAX)..]
            .iter()
            .collect()
    }

    /// Fetches the package, where it is one; the archive with the sources in it. `None` for a directory.
    pub(super) async fn fetch(
        &self,
        runner: &mut Runner,
        place: &Place,
    ) -> Result<Option<PathBuf>, BuildError> {
        const STEP: &str = "download";
        let (package, file) = match self {
            Self::Directory(_) => return Ok(None),
            Self::Archive(path) => return Ok(Some(path.clone())),
            Self::Package { package, file } => (package, file),
        };
        if !place.is_done(STEP, file) {
            let directory = place.fresh(STEP)?;
            let mut download = apt_get();
            download
                .args(["download", package.as_str()])
                .current_dir(&directory);
            runner.work(download, DOWNLOAD).await?;
            let packed = find(&directory, &["deb"])?;
            let unpacked = place.fresh("package")?;
            let mut unpack = tool("dpkg-deb");
            unpack.arg("-x").arg(packed).arg(&unpacked);
            runner.work(unpack, UNPACK).await?;
            remove(&directory)?;
            place.done(STEP, file)?;
        }
        let sources = place.at("package").join("usr/src");
        find(&sources, &["xz", "zst", "gz", "bz2"]).map(Some)
    }

    /// Unpacks `archive`; the directory with the sources.
    pub(super) async fn unpack(
        &self,
        runner: &mut Runner,
        place: &Place,
        archive: Option<&Path>,
    ) -> Result<PathBuf, BuildError> {
        const STEP: &str = "unpack";
        let sources = match (self, archive) {
            (Self::Directory(path), _) => path.clone(),
            (_, None) => place.at("source"),
            (_, Some(archive)) => {
                let sources = place.at("source");
                if !place.is_done(STEP, &self.key()) {
                    let part = place.fresh("source.part")?;
                    let mut unpack = tool("tar");
                    unpack.arg("--extract").arg("--strip-components=1");
                    unpack.arg("--no-same-owner").arg("--file").arg(archive);
                    unpack.arg("--directory").arg(&part);
                    runner.work(unpack, UNPACK).await?;
                    remove(&sources)?;
                    fs::rename(&part, &sources).map_err(BuildError::files("write", &sources))?;
                    place.done(STEP, &self.key())?;
                }
                sources
            }
        };
        if sources.join("Makefile").is_file() && sources.join("Kconfig").is_file() {
            Ok(sources)
        } else {
            place.undone(STEP)?;
            Err(BuildError::NoSource {
                path: archive.unwrap_or(&sources).to_owned(),
            })
        }
    }
}

/// `linux-source-6.1`, what `linux-source` stands for.
async fn newest(runner: &mut Runner) -> Result<String, BuildError> {
    let mut ask = tool("apt-cache");
    ask.args(["depends", "--important", NEWEST]);
    let said = runner.quick(ask).await?;
    let depends = said
        .iter()
        .filter_map(|line| line.trim().strip_prefix("Depends: "));
    let package = depends
        .map(str::trim)
        .find(|name| name.starts_with("linux-source-"));
    Ok(package.unwrap_or(NEWEST).to_owned())
}

fn apt_get() -> tokio::process::Command {
    let mut command = tool("apt-get");
    // apt's own sandbox user could not write into a directory of ours.
    command.args(["-q", "-o", "APT::Sandbox::User="]);
    command
}

/// The file in a line of `apt-get --print-uris`: `'http://…' name_version_all.deb 139331676 SHA256:…`.
fn file_of(line: &str) -> Option<String> {
    let file = line.strip_prefix('\'')?.split_whitespace().nth(1)?;
    let is_plain = Path::new(file).extension() == Some(OsStr::new("deb")) && !file.contains('/');
    is_plain.then(|| file.to_owned())
}

/// The file in a directory that ends in one of `ends`.
fn find(directory: &Path, ends: &[&str]) -> Result<PathBuf, BuildError> {
    let entries = fs::read_dir(directory).map_err(BuildError::files("read", directory))?;
    let is_wanted = |path: &PathBuf| {
        let end = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        ends.contains(&end) && path.is_file()
    };
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(is_wanted)
        .ok_or_else(|| BuildError::NoSource {
            path: directory.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_package_is_read_from_what_apt_says() {
        let line = "'http://deb.debian.org/pool/main/l/linux/linux-source-6.1_6.1.4-1_all.deb' \
                    linux-source-6.1_6.1.4-1_all.deb 139331676 SHA256:00";
        assert_eq!(
            file_of(line).as_deref(),
            Some("linux-source-6.1_6.1.4-1_all.deb")
        );
        for line in [
            "",
            "Reading package lists...",
            "'http://x' ../x.deb 1",
            "'http://x' x.tar 1",
        ] {
            assert_eq!(file_of(line), None, "{line}");
        }
    }

    #[test]
    fn a_place_is_named_by_what_is_built() {
        let package = Source::Package {
            package: "linux-source-6.1".into(),
            file: "linux-source-6.1_6.1.4-1_all.deb".into(),
        };
        assert_eq!(package.key(), "linux-source-6.1_6.1.4-1_all");
        let directory = Source::Directory("/home/me/linux tree".into());
        assert_eq!(directory.key(), "home_me_linux_tree");
        let long = Source::Directory(format!("/{}", "x".repeat(300)).into());
        assert_eq!(long.key().len(), KEY_CHARS_MAX);
    }
}
