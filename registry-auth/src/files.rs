//! Which files are looked into, and what they say about a place.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use crate::entry::AuthFile;
use crate::{AuthError, Login, Place, helper};

/// Bytes of one auth file: far more than a thousand registries need.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How long a credential helper may take. It may ask its user to unlock a key ring.
const HELPER_DEADLINE: Duration = Duration::from_secs(60);

/// Files with credentials, in the order in which they are asked; the first that knows the place is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthFiles {
    files: Vec<PathBuf>,
    missing: Missing,
    helper_deadline: Duration,
}

/// What a file means that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// It knows nothing.
    Passed,
    /// A mistake of whoever named it.
    Refused,
}

impl Default for AuthFiles {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl AuthFiles {
    /// These files; those that do not exist know nothing.
    #[must_use]
    pub const fn of(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            missing: Missing::Passed,
            helper_deadline: HELPER_DEADLINE,
        }
    }

    /// This file alone, which must exist.
    #[must_use]
    pub fn only(file: PathBuf) -> Self {
        Self {
            missing: Missing::Refused,
            ..Self::of(vec![file])
        }
    }

    /// A user's own files: `$REGISTRY_AUTH_FILE` alone if it is set; else Podman's
    /// (`$XDG_RUNTIME_DIR/containers/auth.json`, `$XDG_CONFIG_HOME/containers/auth.json`), then Docker's
    /// (`$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`).
    #[must_use]
    pub fn of_user(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        if let Some(file) = path("REGISTRY_AUTH_FILE") {
            return Self::only(file);
        }
        let home = path("HOME");
        let below_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
        let podman = |directory: PathBuf| directory.join("containers/auth.json");
        let files = [
            path("XDG_RUNTIME_DIR").map(podman),
            path("XDG_CONFIG_HOME")
                .or_else(|| below_home(".config"))
                .map(podman),
            path("DOCKER_CONFIG")
                .or_else(|| below_home(".docker"))
                .map(|directory| directory.join("config.json")),
        ];
        Self::of(files.into_iter().flatten().collect())
    }

    /// Helpers may take this long.
    #[must_use]
    pub const fn helper_deadline(mut self, deadline: Duration) -> Self {
        self.helper_deadline = deadline;
        self
    }

    /// Who we are for `place`; `None` where nobody is named.
    ///
    /// # Errors
    /// If a file that comes first cannot be understood, or the helper it names fails.
    pub async fn login(&self, place: &Place) -> Result<Option<Login>, AuthError> {
        for path in &self.files {
            if let Some(file) = self.read(path).await?
                && let Some(login) = self.ask(path, &file, place).await?
            {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    async fn read(&self, path: &Path) -> Result<Option<AuthFile>, AuthError> {
        let failed = |source| AuthError::Read {
            path: path.to_owned(),
            source,
        };
        let metadata = match tokio::fs::metadata(path).await {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && self.missing == Missing::Passed =>
            {
                return Ok(None);
            }
            metadata => metadata.map_err(failed)?,
        };
        if !metadata.is_file() {
            // A pipe would make us wait for its writer.
            return Err(failed(io::Error::other("it is not a regular file")));
        }
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let mut bytes = Vec::new();
        let mut bounded = file.take(FILE_BYTES_MAX + 1);
        bounded.read_to_end(&mut bytes).await.map_err(failed)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(AuthError::TooLarge {
                path: path.to_owned(),
                limit: FILE_BYTES_MAX,
            });
        }
        // serde's own words repeat what they found: a secret, perhaps.
        let parsed = serde_json::from_slice(&bytes).map_err(|error| AuthError::Malformed {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
        });
        parsed.map(Some)
    }

    /// The nearest entry; at the registry itself a helper goes before what lies in the file, as Docker has it.
    async fn ask(
        &self,
        path: &Path,
        file: &AuthFile,
        place: &Place,
    ) -> Result<Option<Login>, AuthError> {
        for repository in place.keys() {
            if let Some(login) = entry(path, file, place, Some(repository))? {
                return Ok(Some(login));
            }
        }
        let own = file
            .cred_helpers
            .iter()
            .find(|(key, _)| place.is_named_by(key, None))
            .map(|(_, name)| name);
        for name in own.into_iter().chain(&file.creds_store) {
            let name = name.trim();
            if name.is_empty() {
                continue;
            }
            let program = helper::program(name).ok_or_else(|| AuthError::BadHelper {
                path: path.to_owned(),
            })?;
            if let Some(login) =
                helper::get(&program, place.for_helpers(), self.helper_deadline).await?
            {
                return Ok(Some(login));
            }
        }
        entry(path, file, place, None)
    }
}

fn entry(
    path: &Path,
    file: &AuthFile,
    place: &Place,
    repository: Option<&str>,
) -> Result<Option<Login>, AuthError> {
    let named = file
        .auths
        .iter()
        .filter(|(key, _)| place.is_named_by(key, repository));
    for (key, entry) in named {
        let login = entry.login().map_err(|()| AuthError::BadEntry {
            path: path.to_owned(),
            key: key.clone(),
        })?;
        if login.is_some() {
            return Ok(login);
        }
    }
    Ok(None)
}
