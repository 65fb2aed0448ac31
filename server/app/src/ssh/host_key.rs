//! The key by which a VM's ssh server is known: ed25519, one file in the VM's directory that nobody else reads.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use rustix::rand::{GetRandomFlags, getrandom};
use tempfile::NamedTempFile;

/// The kind of the key, as ssh names it.
const KIND: &str = "ssh-ed25519";
/// Secret bytes of a key, and all of its file.
const SEED_BYTES: usize = 32;

/// A host key. Forgets its secret when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKey(SigningKey);

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostKey").field(&self.public_line()).finish()
    }
}

impl HostKey {
    /// The key in the file at `path`, which is made if it is not there: whole or not at all, and once, however many ask.
    ///
    /// # Errors
    /// If it can be neither read nor made, or is no key.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(path),
            read => Self::parse(&read?),
        }
    }

    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let seed: &[u8; SEED_BYTES] = bytes
            .try_into()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the file is no host key"))?;
        Ok(Self(SigningKey::from_bytes(seed)))
    }

    fn make(path: &Path) -> io::Result<Self> {
        let dir = path.parent().expect("a file is in a directory");
        let mut seed = [0; SEED_BYTES];
        let filled = getrandom(&mut seed, GetRandomFlags::empty())?;
        if filled != SEED_BYTES {
            return Err(io::Error::other("the kernel gave too few random bytes"));
        }
        // Mode 0600 from the beginning.
        let mut file = NamedTempFile::new_in(dir)?;
        file.write_all(&seed)?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Ok(_) => {
                fs::File::open(dir)?.sync_all()?;
                Self::parse(&seed)
            }
            // Another was first.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Self::parse(&fs::read(path)?)
            }
            Err(error) => Err(error.error),
        }
    }

    /// The secret half.
    #[must_use]
    pub fn seed(&self) -> &[u8; SEED_BYTES] {
        self.0.as_bytes()
    }

    /// The public half, as a line of `known_hosts` has it after the host: `ssh-ed25519 BASE64`.
    #[must_use]
    pub fn public_line(&self) -> String {
        let mut blob = Vec::new();
        for field in [KIND.as_bytes(), self.0.verifying_key().as_bytes()] {
            let length = u32::try_from(field.len()).expect("a field is short");
            blob.extend_from_slice(&length.to_be_bytes());
            blob.extend_from_slice(field);
        }
        format!("{KIND} {}", STANDARD.encode(blob))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let made = HostKey::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(HostKey::open(&path).unwrap(), made);
        assert_eq!(HostKey::make(&path).unwrap(), made);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(!format!("{made:?}").contains(&format!("{:?}", made.seed())));
    }

    #[test]
    fn what_is_no_key_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "short").unwrap();
        assert!(HostKey::open(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }

    #[test]
    fn the_public_half_is_written_as_ssh_keygen_writes_it() {
        // Test 1 of RFC 8032, section 7.1.
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec,
            0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03,
            0x1c, 0xae, 0x7f, 0x60,
        ];
        assert_eq!(
            HostKey::parse(&seed).unwrap().public_line(),
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea"
        );
    }
}
