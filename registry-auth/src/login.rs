//! What a registry wants to know.

use std::fmt;

/// Who somebody is for a registry. Its secrets are never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A user with a password, or with a token in its place.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// What a token server changes into a token for one repository (an OAuth 2 refresh token).
    IdentityToken(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => f
                .debug_struct("Password")
                .field("username", username)
                .finish_non_exhaustive(),
            Self::IdentityToken(_) => f.debug_struct("IdentityToken").finish_non_exhaustive(),
        }
    }
}
