//! Credentials for registries, as Docker's and Podman's users already have them.
//!
//! [`AuthFiles`] reads `config.json` and `auth.json` (docker-login(1), containers-auth.json(5)) and runs the
//! credential helpers these name. The daemon looks into its own files, the client into its user's. Nothing is
//! written, cached or logged; a secret is in no error and in no `Debug`.
//!
//! There is a crate for this (`docker_credential`); it knows neither Podman's paths and namespaces nor a
//! deadline for a helper, so a helper that waits for a key ring would hang a pull.
#![forbid(unsafe_code)]

mod entry;
mod error;
mod files;
mod helper;
mod login;
mod logins;
mod name;

pub use error::AuthError;
pub use files::AuthFiles;
pub use login::Login;
pub use logins::Logins;
pub use name::{Place, registry_and_repository};
