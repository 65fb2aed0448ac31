//! From a name in an archive to a path in the image.
//!
//! As Docker and containerd have it, a leading slash means the image's root and `a/../b` means `b`. A `..`
//! that leads out of the image is refused, not clamped: no honest tool writes one. Names are bytes, as Linux
//! has them; only NUL is in none.

use super::TarError;
use super::error::shown;
use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};

/// The path `name` means, as components joined by `/`; empty for the root.
///
/// # Errors
/// A name that leads out of the tree, or that no file system has.
pub fn normalise(name: &[u8]) -> Result<Box<[u8]>, TarError> {
    without_nul(name, name)?;
    let too_long = || TarError::PathTooLong { entry: shown(name) };
    if name.len() > PATH_BYTES_MAX {
        return Err(too_long());
    }
    let mut path = Vec::with_capacity(name.len());
    let mut depth = 0;
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if path.is_empty() => return Err(TarError::Escapes { entry: shown(name) }),
            b".." => {
                path.truncate(parent_and_name(&path).0.len());
                depth -= 1;
            }
            component if component.len() > NAME_BYTES_MAX || depth >= PATH_DEPTH_MAX => {
                return Err(too_long());
            }
            component => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(component);
                depth += 1;
            }
        }
    }
    Ok(path.into())
}

/// The directory a normalised path lies in, and its last component; the root's is empty.
#[must_use]
pub fn parent_and_name(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Refuses bytes with a NUL; the error names `entry`.
pub(super) fn without_nul(bytes: &[u8], entry: &[u8]) -> Result<(), TarError> {
    if bytes.contains(&0) {
        return Err(TarError::NulInName {
            entry: shown(entry),
        });
    }
    Ok(())
}
