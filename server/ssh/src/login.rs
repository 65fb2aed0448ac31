//! Who logs in: a user of the guest's own `/etc/passwd`, which is believed no further than for what runs in that guest.

use std::collections::BTreeMap;

use banger_app::{App, AppError};
use banger_core::file::{FileKind, FilePlace, FileRange, Links};
use banger_core::{Explain as _, Name};
use futures::StreamExt as _;
use russh::keys::ssh_key::PublicKey;

use crate::limits::{PASSWD_MAX_BYTES, USER_KNOWN_WITHIN, USER_MAX_BYTES};

/// Where the users are.
const PASSWD: &[u8] = b"/etc/passwd";
/// As whom it is read, whatever the guest's default user is.
const READER: &str = "0:0";
/// For users of whom no shell is known.
const SHELL: &str = "/bin/sh";

/// A user of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    /// As it was given.
    pub(crate) user: String,
    /// Absolute.
    pub(crate) home: String,
    /// Absolute.
    pub(crate) shell: String,
    /// Where programs start: the home, or `/` where there is none.
    pub(crate) working_dir: String,
}

/// Why somebody cannot log in who may.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    /// The guest has no such user.
    #[error("user `{user}` does not exist in VM `{vm}`")]
    UnknownUser {
        /// As given, or a part of it.
        user: String,
        /// The VM's name.
        vm: Name,
    },
    /// The guest did not tell of its users.
    #[error("VM `{vm}` does not tell of its users: {}", banger_core::chain(source))]
    Users {
        /// The VM's name.
        vm: Name,
        /// Why.
        #[source]
        source: Box<AppError>,
    },
    /// The guest took too long.
    #[error("VM `{vm}` did not tell of its users within {USER_KNOWN_WITHIN:?}")]
    Late {
        /// The VM's name.
        vm: Name,
    },
}

impl Login {
    /// Finds a user by name.
    pub(crate) async fn find(
        app: &App,
        id: &str,
        vm: &Name,
        user: &str,
    ) -> Result<Self, LoginError> {
        let finding = tokio::time::timeout(USER_KNOWN_WITHIN, Self::look(app, id, user)).await;
        let found = finding.map_err(|_| LoginError::Late { vm: vm.clone() })?;
        let found = found.map_err(|source| LoginError::Users {
            vm: vm.clone(),
            source: Box::new(source),
        })?;
        found.ok_or_else(|| LoginError::UnknownUser {
            user: user.chars().take(USER_MAX_BYTES / 4).collect(),
            vm: vm.clone(),
        })
    }

    async fn look(app: &App, vm: &str, user: &str) -> Result<Option<Self>, AppError> {
        if user.is_empty() || user.len() > USER_MAX_BYTES || user.contains([':', '\0', '\n']) {
            return Ok(None);
        }
        let passwd = passwd(app, vm).await?;
        let Some(mut login) = Self::parse(&passwd, user) else {
            return Ok(None);
        };
        let place = FilePlace {
            user: user.to_owned(),
            path: login.home.clone().into_bytes(),
        };
        match app.files.stat(vm, &place, Links::Follow).await {
            Ok(home) if home.kind == FileKind::Directory => {
                login.working_dir.clone_from(&login.home);
            }
            _ => {}
        }
        Ok(Some(login))
    }

    /// A user of these lines. Root is there without one.
    fn parse(passwd: &str, user: &str) -> Option<Self> {
        let absolute = |text: Option<&str>, default: &str| match text {
            Some(path) if path.starts_with('/') && !path.contains('\0') => path.to_owned(),
            _ => default.to_owned(),
        };
        let login = |home: Option<&str>, shell: Option<&str>, default: &str| Self {
            user: user.to_owned(),
            home: absolute(home, default),
            shell: absolute(shell, SHELL),
            working_dir: "/".into(),
        };
        let mut lines = passwd.lines().map(|line| line.split(':'));
        // Name, password, uid, gid, comment, home, shell.
        let found = lines.find_map(|mut fields| {
            let is_user = fields.next() == Some(user);
            let has_id = fields.nth(1).is_some_and(|uid| uid.parse::<u32>().is_ok());
            (is_user && has_id).then_some(fields)
        });
        match found {
            Some(mut fields) => {
                let home = fields.nth(2);
                Some(login(home, fields.next(), "/"))
            }
            None => (user == "root").then(|| login(None, None, "/root")),
        }
    }

    /// What programs are told of their user; it wins over what the image and the client say.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let words = [
            ("HOME", &self.home),
            ("USER", &self.user),
            ("LOGNAME", &self.user),
            ("SHELL", &self.shell),
        ];
        let words = words.into_iter();
        words
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect()
    }
}

/// The guest's users. A guest without the file has none.
async fn passwd(app: &App, vm: &str) -> Result<String, AppError> {
    let place = FilePlace {
        user: READER.into(),
        path: PASSWD.to_vec(),
    };
    let range = FileRange {
        offset: 0,
        length: Some(PASSWD_MAX_BYTES),
    };
    let mut content = match app.files.read(vm, &place, range).await {
        Ok((_, content)) => content,
        Err(error) if error.reason() == "FILE_NOT_FOUND" => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    while let Some(piece) = content.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether `offered` is one of the keys of these lines of `authorized_keys`.
pub(crate) fn is_authorized(lines: &[String], offered: &PublicKey) -> bool {
    let mut keys = lines
        .iter()
        .filter_map(|line| PublicKey::from_openssh(line).ok());
    keys.any(|key| key.key_data() == offered.key_data())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\napp:x:1000:1000::/home/app:\nodd:x:1:1::home:sh\n";

    #[test]
    fn users_are_found_by_name_with_home_and_shell() {
        let found = |user| {
            let login = Login::parse(PASSWD, user)?;
            Some((login.home, login.shell))
        };
        let pair = |home: &str, shell: &str| Some((home.to_owned(), shell.to_owned()));
        assert_eq!(found("root"), pair("/root", "/bin/bash"));
        assert_eq!(found("app"), pair("/home/app", "/bin/sh"));
        assert_eq!(found("odd"), pair("/", "/bin/sh"));
        assert_eq!(found("broken"), None);
        assert_eq!(found("nobody"), None);
        assert_eq!(found("0"), None);
    }

    #[test]
    fn root_needs_no_entry() {
        let login = Login::parse("", "root").unwrap();
        assert_eq!(
            (login.home.as_str(), login.shell.as_str()),
            ("/root", SHELL)
        );
    }

    #[test]
    fn keys_are_compared_without_their_comments() {
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPZ1bX0oZ4q1rC2H5vY7mQ3l8xkK0yWc9n6TtJ2sDgEh";
        let other =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";
        let offered = PublicKey::from_openssh(key).unwrap();
        let lines = |line: String| vec!["no key".to_owned(), line];
        assert!(is_authorized(&lines(format!("{key} ann@home")), &offered));
        assert!(!is_authorized(&lines(other.into()), &offered));
        assert!(!is_authorized(&[], &offered));
    }
}
