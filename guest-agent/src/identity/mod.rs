//! Who a guest's default user is to others: the name on git commits, the keys that may log in, the files that prove
//! who somebody is.
//!
//! Files beneath the user's home are written with the user's own rights, so that a link which the user left there
//! leads nowhere that the user could not go. Every file appears whole or not at all.

mod file;
mod git;
mod keys;

use std::path::Path;

use banger_proto::guest::v1::{IdentityFile, SetIdentityRequest};

use crate::refusal::Refusal;
use crate::session::users::Users;
use file::User;

/// Sets all of it in this root. What is so already stays.
///
/// # Errors
/// A user that does not exist, or the file that could not be written.
pub fn set(root: &Path, request: &SetIdentityRequest) -> Result<(), Refusal> {
    git::set(root, &request.git_name, &request.git_email)?;
    if request.authorized_keys.is_empty() && request.files.is_empty() {
        return Ok(());
    }
    let user = User::new(root, Users::read(root).resolve(&request.user)?)?;
    if !request.authorized_keys.is_empty() {
        keys::authorize(&user, &request.authorized_keys)?;
    }
    let put = |file: &IdentityFile| user.write(&file.path, file.mode, &file.content);
    request.files.iter().try_for_each(put)
}

#[cfg(test)]
mod tests;
