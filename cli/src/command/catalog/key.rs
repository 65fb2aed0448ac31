//! The files of the keys that catalogs are signed with.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use banger_sdk::catalog_file::SecretKey;

use super::CatalogError;

/// Bytes of a key file: one line.
const KEY_FILE_BYTES_MAX: u64 = 1024;
/// What others must not be allowed.
const OTHERS: u32 = 0o077;

/// The key in a file, which is made where it is missing. Returns whether it was.
pub(super) fn load_or_make(path: &Path) -> Result<(SecretKey, bool), CatalogError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((make(path)?, true)),
        _ => Ok((load(path)?, false)),
    }
}

fn load(path: &Path) -> Result<SecretKey, CatalogError> {
    let failed = |source| CatalogError::KeyFile {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & OTHERS != 0 {
        return Err(CatalogError::KeyExposed {
            path: path.to_owned(),
        });
    }
    let mut text = String::new();
    file.take(KEY_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    text.parse().map_err(|source| CatalogError::Key {
        path: path.to_owned(),
        source,
    })
}

fn make(path: &Path) -> Result<SecretKey, CatalogError> {
    let failed = |source| CatalogError::KeyFile {
        path: path.to_owned(),
        source,
    };
    let mut bytes = [0; 32];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if filled.map_err(|error| failed(error.into()))? != bytes.len() {
        return Err(failed(io::Error::other(
            "the system gave too little randomness",
        )));
    }
    let key = SecretKey::from_random(&bytes);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(key.to_file().as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_and_kept_to_oneself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let (made, is_new) = load_or_make(&path).unwrap();
        assert!(is_new);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let (again, is_new) = load_or_make(&path).unwrap();
        assert!(!is_new);
        assert_eq!(again.public(), made.public());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(
            load_or_make(&path).unwrap_err().reason(),
            "CATALOG_KEY_FILE"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, made.public().to_string()).unwrap();
        assert_eq!(
            load_or_make(&path).unwrap_err().to_string(),
            format!("`{}` holds no key to sign with", path.display())
        );
    }
}
