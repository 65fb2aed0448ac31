//! What the user has told git about every repository, where it matters here.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::error::Result;
use super::lines::{line_path, text};
use super::repository::{LocalRepository, optional};
use crate::command::Git;

fn variable(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    value.map(PathBuf::from)
}

/// The user's directory of configuration.
fn config(home: &std::path::Path) -> PathBuf {
    variable("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"))
}

/// A setting in the user's own files, as git looks for it.
fn setting(git: &Git, kind: &str, name: &str) -> Result<Option<Vec<u8>>> {
    let Some(home) = variable("HOME") else {
        return Ok(None);
    };
    let git = git.clone().with_env("HOME", &home);
    for file in [home.join(".gitconfig"), config(&home).join("git/config")] {
        let words: [&OsStr; 7] = [
            "config".as_ref(),
            "--includes".as_ref(),
            kind.as_ref(),
            "--file".as_ref(),
            file.as_os_str(),
            "--get".as_ref(),
            name.as_ref(),
        ];
        if file.is_file()
            && let Some(found) = optional(git.run(&words), "read your configuration")?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The file of what is ignored everywhere.
pub(super) fn excludes(git: &Git) -> Result<Option<PathBuf>> {
    if let Some(found) = setting(git, "--type=path", "core.excludesFile")? {
        return Ok(Some(line_path(&found)));
    }
    let home = variable("HOME");
    let usual = home.map(|home| config(&home).join("git/ignore"));
    Ok(usual.filter(|file| file.is_file()))
}

/// Name and address on commits that are made in `repository`; none where nobody has told git.
pub(super) fn identity(repository: &LocalRepository) -> Result<Option<(String, String)>> {
    let one = |name: &str| -> Result<Option<String>> {
        if let Some(found) = repository.setting(name)? {
            return Ok(Some(found));
        }
        let found = setting(repository.git(), "--no-type", name)?;
        Ok(found.map(|found| text(&found).trim().to_owned()))
    };
    Ok(one("user.name")?.zip(one("user.email")?))
}
