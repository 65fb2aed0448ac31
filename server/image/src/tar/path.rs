//! From a name in an archive to a path in the image.
//!
//! As Docker and containerd have it, a leading slash means the image's root and `a/../b` means `b`. A `..`
//! that leads out of the image is refused, not clamped: no honest tool writes one.

use super::TarError;
use super::error::shown;
use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};

/// The path `name` means, as components joined by `/`; empty for the root.
pub(crate) fn normalise(name: &[u8]) -> Result<String, TarError> {
    let text = text(name, name)?;
    if text.len() > PATH_BYTES_MAX {
        return Err(TarError::PathTooLong { entry: shown(name) });
    }
    let mut path = String::with_capacity(text.len());
    let mut depth = 0;
    for component in text.split('/') {
        match component {
            "" | "." => {}
            ".." if path.is_empty() => return Err(TarError::Escapes { entry: shown(name) }),
            ".." => {
                path.truncate(path.rfind('/').unwrap_or(0));
                depth -= 1;
            }
            component if component.len() > NAME_BYTES_MAX || depth >= PATH_DEPTH_MAX => {
                return Err(TarError::PathTooLong { entry: shown(name) });
            }
            component => {
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(component);
                depth += 1;
            }
        }
    }
    Ok(path)
}

/// `bytes` as text without NUL; the error names `entry`.
pub(super) fn text<'a>(bytes: &'a [u8], entry: &[u8]) -> Result<&'a str, TarError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(TarError::NotText {
            entry: shown(entry),
        }),
    }
}
