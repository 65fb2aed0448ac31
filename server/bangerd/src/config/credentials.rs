//! The `[credentials]` table: files that prove who somebody is, by profile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use banger_app::config::{Profile, ProfileFile, Profiles};
use banger_core::{Name, Owner};
use serde::{Deserialize, Serialize};

use super::{Mistake, table};

/// The key of the table.
pub(super) const KEY: &str = "credentials";
/// The most files of a profile.
const FILES_MAX: usize = 16;
/// Of a file for which none is named.
const DEFAULT_MODE: &str = "0600";
/// The highest mode: permission bits alone.
const MODE_MAX: u16 = 0o777;

/// One profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CredentialsConfig {
    /// In this order.
    pub files: Vec<CredentialFile>,
    /// The users of this host whose VMs may have them. Where neither these nor owners are named, all that may use the
    /// socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_uids: Option<Vec<u32>>,
    /// Other owners whose VMs may have them: `cert:` and the name of a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_owners: Option<Vec<Owner>>,
}

/// One file of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialFile {
    /// On this host.
    pub source: PathBuf,
    /// In the guest: absolute, or beneath its user's home by `~/`.
    pub path: String,
    /// Its mode in the guest, octal.
    #[serde(default = "default_mode")]
    pub mode: String,
}

fn default_mode() -> String {
    DEFAULT_MODE.to_owned()
}

/// The permission bits of an octal number.
fn mode(text: &str) -> Option<u16> {
    u16::from_str_radix(text, 8)
        .ok()
        .filter(|&mode| mode <= MODE_MAX)
}

/// Whether a path leads to a file in a guest or in its user's home, without a way up.
fn is_path(path: &str) -> bool {
    let inside = path.strip_prefix("~/").or_else(|| path.strip_prefix('/'));
    inside.is_some_and(|inside| {
        let is_plain = |part| matches!(part, Component::Normal(_));
        !inside.is_empty()
            && !inside.ends_with('/')
            && !inside.contains('\0')
            && Path::new(inside).components().all(is_plain)
    })
}

/// What types cannot say.
pub(super) fn mistakes(profiles: &BTreeMap<String, CredentialsConfig>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (name, profile) in profiles {
        let mut refuse = |wrong: bool, problem: &str| {
            if wrong {
                mistakes.push(Mistake::new(&table::path(KEY, name, "files"), problem));
            }
        };
        let files = &profile.files;
        refuse(files.is_empty(), "must name at least one file");
        refuse(files.len() > FILES_MAX, "has more than 16 entries");
        refuse(
            files.iter().any(|file| !file.source.is_absolute()),
            "has a source that is not an absolute path",
        );
        refuse(
            !files.iter().all(|file| is_path(&file.path)),
            "has a path that is neither absolute nor beneath `~/`, or leads upwards",
        );
        refuse(
            !files.iter().all(|file| mode(&file.mode).is_some()),
            "has a mode that is not octal up to 0777",
        );
        let paths: BTreeSet<&String> = files.iter().map(|file| &file.path).collect();
        refuse(paths.len() < files.len(), "names a path twice");
        let mut owners = profile.allowed_owners.iter().flatten();
        if !owners.all(super::quota::is_somebody) {
            let at = table::path(KEY, name, "allowed_owners");
            mistakes.push(Mistake::new(&at, super::quota::NOBODY));
        }
        if let Err(error) = name.parse::<Name>() {
            let at = format!("{KEY}.\"{name}\"");
            mistakes.push(Mistake::new(&at, &format!("is no name: {error}")));
        }
    }
    mistakes
}

/// As VMs are given them. What is wrong was told by [`mistakes`].
pub(super) fn profiles(profiles: &BTreeMap<String, CredentialsConfig>) -> Profiles {
    let file = |file: &CredentialFile| ProfileFile {
        source: file.source.clone(),
        path: file.path.clone(),
        mode: mode(&file.mode).unwrap_or(0o600),
    };
    let profile = |profile: &CredentialsConfig| Profile {
        files: profile.files.iter().map(file).collect(),
        allowed_uids: profile.allowed_uids.clone(),
        allowed_owners: profile.allowed_owners.clone(),
    };
    profiles
        .iter()
        .filter_map(|(name, config)| Some((name.parse().ok()?, profile(config))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn said(text: &str) -> String {
        let wrong = match Config::parse(text) {
            Err(mistakes) => mistakes,
            Ok(config) => config.mistakes(),
        };
        let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn a_profile_names_files_and_users() {
        let text = r#"
            [credentials.claude]
            allowed_uids = [1000]
            allowed_owners = ["cert:ci"]
            files = [
              { source = "/home/ann/.claude/credentials.json", path = "~/.claude/credentials.json" },
              { source = "/etc/banger/npmrc", path = "/etc/npmrc", mode = "0640" },
            ]
        "#;
        let config = Config::parse(text).unwrap();
        assert_eq!(config.mistakes(), []);
        let app = config.app();
        let profile = &app.credentials[&"claude".parse().unwrap()];
        assert_eq!(profile.allowed_uids, Some(vec![1000]));
        let ci = banger_core::Owner::of_certificate("ci").unwrap();
        assert_eq!(profile.allowed_owners, Some(vec![ci]));
        let modes: Vec<u16> = profile.files.iter().map(|file| file.mode).collect();
        assert_eq!(modes, [0o600, 0o640]);
    }

    #[test]
    fn each_mistake_in_a_profile_is_told_by_its_key() {
        let wrong = r#"
            [credentials.empty]
            [credentials."Not A Name"]
            files = [{ source = "/a", path = "~/a" }]
            allowed_owners = ["ann"]
            [credentials.files]
            files = [
              { source = "a", path = "b", mode = "1777" },
              { source = "/a", path = "~/../b" },
              { source = "/a", path = "b" },
            ]
        "#;
        let said_of_values = said(wrong);
        for part in [
            "`credentials.\"empty\".files`: must name at least one file",
            "`credentials.\"Not A Name\"`: is no name",
            "`credentials.\"Not A Name\".allowed_owners`: must be written as uid:",
            "`credentials.\"files\".files`: has a source that is not an absolute path",
            "`credentials.\"files\".files`: has a path that is neither",
            "`credentials.\"files\".files`: has a mode that is not octal",
            "`credentials.\"files\".files`: names a path twice",
        ] {
            assert!(said_of_values.contains(part), "{part} in {said_of_values}");
        }
        let said_of_types =
            said("[credentials.x]\nallowed = 1\nallowed_uids = \"me\"\nfiles = [{ source = 1 }]\n");
        for key in ["allowed", "allowed_uids", "files"] {
            let at = format!("`credentials.\"x\".{key}`");
            assert!(said_of_types.contains(&at), "{at} in {said_of_types}");
        }
    }
}
