//! The form of an auth file.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::Login;

/// What of a file matters here; what else it holds is passed over.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AuthFile {
    pub(crate) auths: BTreeMap<String, Entry>,
    pub(crate) creds_store: Option<String>,
    pub(crate) cred_helpers: BTreeMap<String, String>,
}

/// One registry's, or one namespace's.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
pub(crate) struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Entry {
    /// What it holds: `Ok(None)` where it only marks that a store has it, `Err` where it is damaged.
    pub(crate) fn login(&self) -> Result<Option<Login>, ()> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Login::IdentityToken(token)));
        }
        if let Some(auth) = given(&self.auth) {
            let bytes = STANDARD.decode(auth.trim()).map_err(|_| ())?;
            let text = String::from_utf8(bytes).map_err(|_| ())?;
            let (username, password) = text.split_once(':').ok_or(())?;
            return Ok(Some(Login::Password {
                username: username.to_owned(),
                // Docker once padded with NULs.
                password: password.trim_end_matches('\0').to_owned(),
            }));
        }
        Ok(given(&self.username)
            .zip(given(&self.password))
            .map(|(username, password)| Login::Password { username, password }))
    }
}
