//! What a new VM's guest is set up with: its init, files, and who its user is to others.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use banger_sdk::{CreateVm, InitMode, NewFile};
use clap::Args;

use crate::failure::Failure;

/// The most of a file that is read: the daemon takes no more for all of them.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Options of a guest.
#[derive(Debug, Args)]
pub(crate) struct SetupOptions {
    /// Who is process 1: agent, image (the image's own init, such as systemd), or the path of an init in the image
    #[arg(long, value_name = "INIT", value_parser = init)]
    init: Option<Init>,
    /// Write a file before the VM is running: SRC is here, DEST absolute in the VM. The mode is the file's own if none is given, and the owner root
    #[arg(long, value_name = "SRC:DEST[:MODE[:OWNER]]", value_parser = file)]
    file: Vec<FileOption>,
    /// Set the name of git commits, unless the image sets one
    #[arg(long, value_name = "NAME")]
    git_name: Option<String>,
    /// Set the mail address of git commits, unless the image sets one
    #[arg(long, value_name = "ADDRESS")]
    git_email: Option<String>,
    /// Let the keys in this file (id_ed25519.pub) log in as the image's user
    #[arg(long, value_name = "FILE")]
    ssh_key: Vec<PathBuf>,
    /// Copy the files of this profile of the daemon's configuration to the image's user at each start
    #[arg(long, value_name = "PROFILE")]
    credentials: Vec<String>,
}

/// Who is process 1.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Init {
    Agent,
    Image,
    At(String),
}

fn init(text: &str) -> Result<Init, String> {
    match text {
        "agent" => Ok(Init::Agent),
        "image" => Ok(Init::Image),
        path if path.starts_with('/') => Ok(Init::At(path.to_owned())),
        _ => Err(format!(
            "`{text}` is neither agent, image nor an absolute path"
        )),
    }
}

/// A file as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileOption {
    source: PathBuf,
    path: String,
    mode: Option<i32>,
    owner: String,
}

fn file(text: &str) -> Result<FileOption, String> {
    // The destination is absolute, so what comes before it may hold colons.
    let (source, rest) = text
        .split_once(":/")
        .filter(|(source, _)| !source.is_empty())
        .ok_or_else(|| format!("`{text}` is not SRC:DEST with an absolute DEST"))?;
    let mut parts = rest.splitn(3, ':');
    let path = format!("/{}", parts.next().unwrap_or_default());
    let mode = parts.next().filter(|mode| !mode.is_empty()).map(octal);
    Ok(FileOption {
        source: source.into(),
        path,
        mode: mode.transpose()?,
        owner: parts.next().unwrap_or_default().to_owned(),
    })
}

fn octal(text: &str) -> Result<i32, String> {
    i32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| (1..=0o7777).contains(mode))
        .ok_or_else(|| format!("`{text}` is no mode: write 644 or 0755"))
}

impl SetupOptions {
    /// `create` with these options.
    ///
    /// # Errors
    /// If a file here cannot be read, or is none of its kind.
    pub(crate) fn apply(&self, mut create: CreateVm) -> Result<CreateVm, Failure> {
        create = match &self.init {
            None => create,
            Some(Init::Agent) => create.init(InitMode::Agent),
            Some(Init::Image) => create.init(InitMode::Image),
            Some(Init::At(path)) => create.init_at(path),
        };
        for file in &self.file {
            create = create.file(read_file(file)?);
        }
        if let Some(name) = &self.git_name {
            create = create.git_name(name);
        }
        if let Some(email) = &self.git_email {
            create = create.git_email(email);
        }
        for path in &self.ssh_key {
            for key in public_keys(path)? {
                create = create.ssh_authorized_key(key);
            }
        }
        for profile in &self.credentials {
            create = create.credentials(profile);
        }
        Ok(create)
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, fs::Metadata), Failure> {
    let failed = |source| Failure::ReadFile {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    let mut content = Vec::new();
    file.take(FILE_MAX_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() as u64 > FILE_MAX_BYTES {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok((content, about))
}

fn read_file(file: &FileOption) -> Result<NewFile, Failure> {
    let (content, about) = read(&file.source)?;
    // Permission bits fit; setuid and the like are only given by name.
    let own = i32::try_from(about.permissions().mode() & 0o777).unwrap_or_default();
    Ok(NewFile::new(&file.path, content)
        .mode(file.mode.unwrap_or(own))
        .owner(&file.owner))
}

/// The lines of a file of public keys. A private key is kept from leaving this host by mistake.
fn public_keys(path: &Path) -> Result<Vec<String>, Failure> {
    let (content, _) = read(path)?;
    let text = String::from_utf8_lossy(&content);
    if text.contains("PRIVATE KEY") {
        let problem = format!(
            "`{}` is a private key: name its public half, which ends in .pub",
            path.display()
        );
        return Err(Failure::Usage { problem });
    }
    let lines = text.lines().map(str::trim);
    let keys: Vec<String> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    if keys.is_empty() {
        let problem = format!("`{}` holds no key", path.display());
        return Err(Failure::Usage { problem });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_is_a_word_or_a_path() {
        assert_eq!(init("agent"), Ok(Init::Agent));
        assert_eq!(init("image"), Ok(Init::Image));
        assert_eq!(init("/sbin/init"), Ok(Init::At("/sbin/init".into())));
        assert!(init("systemd").is_err());
    }

    #[test]
    fn a_file_is_named_with_its_place_mode_and_owner() {
        let named = |text: &str| file(text).map(|file| (file.path, file.mode, file.owner));
        assert_eq!(named("a:/b"), Ok(("/b".into(), None, String::new())));
        assert_eq!(
            named("a:/b/c:0755"),
            Ok(("/b/c".into(), Some(0o755), String::new()))
        );
        assert_eq!(named("a:/b::app"), Ok(("/b".into(), None, "app".into())));
        assert_eq!(
            named("a:/b:600:app:app"),
            Ok(("/b".into(), Some(0o600), "app:app".into()))
        );
        assert_eq!(file("c:d:/b").unwrap().source, Path::new("c:d"));
        for wrong in ["", "a", "a:b", ":/b", "a:/b:9", "a:/b:0", "a:/b:17777"] {
            assert!(file(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn public_keys_are_lines_and_private_ones_stay_here() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, "# mine\n\nssh-ed25519 AAAA ann\nssh-rsa BBBB\n").unwrap();
        assert_eq!(
            public_keys(&path).unwrap(),
            ["ssh-ed25519 AAAA ann", "ssh-rsa BBBB"]
        );
        for bad in ["-----BEGIN OPENSSH PRIVATE KEY-----\n", "# none\n"] {
            fs::write(&path, bad).unwrap();
            assert!(public_keys(&path).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_keeps_its_mode_unless_another_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let option = |mode| FileOption {
            source: path.clone(),
            path: "/run".into(),
            mode,
            owner: String::new(),
        };
        let expected = |mode| NewFile::new("/run", "x").mode(mode).owner("");
        assert_eq!(read_file(&option(None)).unwrap(), expected(0o750));
        assert_eq!(read_file(&option(Some(0o600))).unwrap(), expected(0o600));
    }
}
