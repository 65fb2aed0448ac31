//! A repository of the owner's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Error, Result};
use super::lines::line_path;
use crate::command::{Cancel, Ending, Git, GitError, HostLauncher};
use crate::wire::ObjectFormat;

/// A repository, or a working tree linked to one, on this machine.
#[derive(Debug, Clone)]
pub struct LocalRepository {
    top: PathBuf,
    git_dir: PathBuf,
    common_dir: PathBuf,
    format: ObjectFormat,
    git: Git,
}

impl LocalRepository {
    /// The repository that `path` lies in; none if it lies in none.
    ///
    /// # Errors
    /// If there is no git, the repository is bare, or git cannot read it.
    pub fn find(path: &Path, cancel: &Cancel) -> Result<Option<Self>> {
        const WHAT: &str = "find the repository";
        let path = std::fs::canonicalize(path).map_err(Error::file("find", path))?;
        let git = Git::at(Arc::new(HostLauncher), cancel.clone(), &path)
            .with_env("GIT_CEILING_DIRECTORIES", "");
        let git_dir = match git.run(&["rev-parse", "--absolute-git-dir"]) {
            Ok(answer) => line_path(&answer),
            Err(GitError::Failed { complaint, .. })
                if complaint.contains("not a git repository") =>
            {
                return Ok(None);
            }
            Err(source) => return Err(Error::Git { what: WHAT, source }),
        };
        let ask = |argument| git.run(&["rev-parse", argument]).map_err(Error::git(WHAT));
        if ask("--is-inside-work-tree")? != b"true\n" {
            return Err(Error::Bare { path });
        }
        let top = line_path(&ask("--show-toplevel")?);
        let common = path.join(line_path(&ask("--git-common-dir")?));
        let common_dir = std::fs::canonicalize(&common).map_err(Error::file("find", &common))?;
        let format = match &ask("--show-object-format")?[..] {
            b"sha1\n" => ObjectFormat::Sha1,
            b"sha256\n" => ObjectFormat::Sha256,
            _ => {
                return Err(Error::Answer {
                    what: "how objects are named",
                });
            }
        };
        Ok(Some(Self {
            git: Git::at(Arc::new(HostLauncher), cancel.clone(), &top),
            top,
            git_dir,
            common_dir,
            format,
        }))
    }

    /// The repository whose working tree is `path` itself; none if that is none.
    pub(super) fn exactly(path: &Path, cancel: &Cancel) -> Result<Option<Self>> {
        let real = std::fs::canonicalize(path).map_err(Error::file("find", path))?;
        match Self::find(path, cancel) {
            Ok(found) => Ok(found.filter(|repository| repository.top == real)),
            Err(Error::Bare { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The top of its working tree.
    #[must_use]
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// Where it keeps what is this working tree's own.
    #[must_use]
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// Where it keeps objects and references.
    #[must_use]
    pub fn common_dir(&self) -> &Path {
        &self.common_dir
    }

    /// How its objects are named.
    #[must_use]
    pub const fn format(&self) -> ObjectFormat {
        self.format
    }

    /// git in it: it writes nothing by itself, starts nothing of the repository's, and knows no configuration but the
    /// repository's.
    #[must_use]
    pub const fn git(&self) -> &Git {
        &self.git
    }

    /// The commit of a revision; none where it has none.
    ///
    /// # Errors
    /// If git cannot be asked.
    pub fn commit(&self, revision: &str) -> Result<Option<String>> {
        self.resolve(&format!("{revision}^{{commit}}"))
    }

    /// What a name leads to; none for nothing.
    pub(super) fn resolve(&self, name: &str) -> Result<Option<String>> {
        let words = ["rev-parse", "--quiet", "--verify", "--end-of-options", name];
        optional(self.git.line(&words), "look up a revision")
    }

    /// The reference that HEAD is; none where it is detached.
    ///
    /// # Errors
    /// If git cannot be asked.
    pub fn head_ref(&self) -> Result<Option<String>> {
        let words = ["symbolic-ref", "--quiet", "HEAD"];
        optional(self.git.line(&words), "look at HEAD")
    }

    /// Name and address on commits that are made in it; none where git was not told.
    ///
    /// # Errors
    /// If git cannot be asked.
    pub fn identity(&self) -> Result<Option<(String, String)>> {
        super::user::identity(self)
    }

    /// A setting of the repository's own configuration.
    pub(super) fn setting(&self, name: &str) -> Result<Option<String>> {
        let words = ["config", "--local", "--get", name];
        optional(self.git.line(&words), "read the configuration")
    }
}

/// An answer that git gives by failing is none.
pub(super) fn optional<T>(
    answer: std::result::Result<T, GitError>,
    what: &'static str,
) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(GitError::Failed {
            ending: Ending::Code(1),
            ..
        }) => Ok(None),
        Err(source) => Err(Error::Git { what, source }),
    }
}
