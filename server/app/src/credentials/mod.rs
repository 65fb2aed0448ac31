//! Credential files by profile: what the daemon's configuration says where they are, and who may have them.
//!
//! A request names a profile and nothing else. Contents are read from their source at each start of a VM, with the
//! daemon's rights, and go to the guest at once: they are in no record, no log and no error.

mod error;

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_core::guest::SecretFile;
use banger_core::setup::Secret;
use banger_core::{Name, Owner};
use rustix::fs::{Mode, OFlags};

pub use error::CredentialError;

/// The most bytes of one file: an agent's login is a few kilobytes.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// The most bytes of all files of one VM, which one message to its agent holds.
const ALL_BYTES_MAX: u64 = 1 << 20;
/// How long a file may take: its disk may be a network's, and hang.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Nobody but the owner writes, and nobody but owner and group reads.
const MODE_FORBIDDEN: u32 = 0o027;

/// The profiles of a daemon, by name.
pub type Profiles = BTreeMap<Name, Profile>;

/// Files that prove who somebody is, under one name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// In this order.
    pub files: Vec<ProfileFile>,
    /// The users of this host whose VMs may have them. Where neither these nor owners are named, all users of this host.
    pub allowed_uids: Option<Vec<u32>>,
    /// Other owners whose VMs may have them: callers of other hosts have none that does not name them.
    pub allowed_owners: Option<Vec<Owner>>,
}

/// One file of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileFile {
    /// On this host.
    pub source: PathBuf,
    /// In the guest: absolute, or beneath its user's home by `~/`.
    pub path: String,
    /// Its mode in the guest.
    pub mode: u16,
}

impl Profile {
    fn allows(&self, owner: &Owner) -> bool {
        if self.allowed_uids.is_none() && self.allowed_owners.is_none() {
            return owner.certificate().is_none();
        }
        let owners = self.allowed_owners.iter().flatten();
        let mut uids = self.allowed_uids.iter().flatten();
        uids.any(|uid| owner.uid() == Some(*uid)) || owners.into_iter().any(|named| named == owner)
    }
}

/// The profiles of these names, if `owner` may have all of them. To who may not, a profile does not exist.
///
/// # Errors
/// The first that does not exist, with those that do.
pub(crate) fn find<'p>(
    profiles: &'p Profiles,
    owner: &Owner,
    names: &[Name],
) -> Result<Vec<(&'p Name, &'p Profile)>, CredentialError> {
    let find = |name: &Name| {
        let found = profiles.get_key_value(name);
        found
            .filter(|(_, profile)| profile.allows(owner))
            .ok_or_else(|| CredentialError::Unknown {
                profile: name.clone(),
                known: profiles
                    .iter()
                    .filter(|(_, profile)| profile.allows(owner))
                    .map(|(name, _)| name.clone())
                    .collect(),
            })
    };
    names.iter().map(find).collect()
}

/// Reads the files of these profiles, now.
///
/// # Errors
/// As [`find`], and the first file that cannot be read or that others could have written or read.
pub(crate) async fn read(
    profiles: &Profiles,
    owner: &Owner,
    names: &[Name],
) -> Result<Vec<SecretFile>, CredentialError> {
    let found = find(profiles, owner, names)?;
    let files: Vec<(Name, ProfileFile)> = found
        .into_iter()
        .flat_map(|(name, profile)| {
            let files = profile.files.iter().cloned();
            files.map(|file| (name.clone(), file))
        })
        .collect();
    let mut left = ALL_BYTES_MAX;
    let mut secrets = Vec::new();
    for (profile, file) in &files {
        let content = read_in_time(file.source.clone(), FILE_BYTES_MAX.min(left)).await;
        let content = content.map_err(|fault| fault.of(profile, file))?;
        left -= content.len() as u64;
        secrets.push(SecretFile {
            path: file.path.clone(),
            mode: file.mode,
            content: Secret::new(content.into()),
        });
    }
    Ok(secrets)
}

/// Reads a file on a thread, which is left behind where the file's disk hangs.
async fn read_in_time(source: PathBuf, limit: u64) -> Result<Vec<u8>, Fault> {
    let reading = tokio::task::spawn_blocking(move || read_one(&source, limit));
    match tokio::time::timeout(READ_WITHIN, reading).await {
        Ok(read) => read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
        Err(elapsed) => Err(Fault::Read(elapsed.into())),
    }
}

/// What is wrong with a file, whosever it is.
#[derive(Debug)]
enum Fault {
    Read(io::Error),
    Unsafe(String),
    TooLarge(u64),
}

impl Fault {
    fn of(self, profile: &Name, file: &ProfileFile) -> CredentialError {
        let (profile, path) = (profile.clone(), file.path.clone());
        match self {
            Self::Read(source) => CredentialError::Read {
                profile,
                path,
                source,
            },
            Self::Unsafe(problem) => CredentialError::Unsafe {
                profile,
                path,
                problem,
            },
            Self::TooLarge(limit) => CredentialError::TooLarge {
                profile,
                path,
                limit,
            },
        }
    }
}

fn read_one(source: &Path, limit: u64) -> Result<Vec<u8>, Fault> {
    // What is opened is what is looked at. A fifo must not make us wait for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let opened = rustix::fs::open(source, flags, Mode::empty());
    let file = File::from(opened.map_err(|error| Fault::Read(error.into()))?);
    let about = file.metadata().map_err(Fault::Read)?;
    check(&about, rustix::process::geteuid().as_raw())?;
    let mut content = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut content)
        .map_err(Fault::Read)?;
    if content.len() as u64 > limit {
        return Err(Fault::TooLarge(limit));
    }
    Ok(content)
}

/// Whether a file can be believed, and was kept as a secret.
fn check(about: &Metadata, daemon: u32) -> Result<(), Fault> {
    if !about.is_file() {
        return Err(Fault::Unsafe("is no ordinary file".into()));
    }
    // The daemon as root reads what any user keeps for it; as another, only its own and root's.
    if daemon != 0 && ![0, daemon].contains(&about.uid()) {
        return Err(Fault::Unsafe(format!("belongs to user {}", about.uid())));
    }
    let mode = about.mode() & 0o7777;
    if mode & MODE_FORBIDDEN != 0 {
        return Err(Fault::Unsafe(format!(
            "has mode {mode:04o}: its group may write it, or others may read it"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
