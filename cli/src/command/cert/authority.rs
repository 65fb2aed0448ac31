//! An authority in its directory: `ca.crt`, `ca.key`, `ca.crl`, `index.json`. Whoever changes it holds a lock on the
//! directory; the index is written before what it tells of, so that nothing is issued of which nobody knows.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::error::CertError;
use super::record::{Entry, Index, Kind};

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
const REVOKED: &str = "ca.crl";
const INDEX: &str = "index.json";
/// What others must not be allowed to a key.
const OTHERS: u32 = 0o077;
/// A certificate is valid from a little before it is made: clocks differ.
const BEFORE: SignedDuration = SignedDuration::from_mins(5);
/// A list counts until the next, which comes when something is revoked: long.
const LIST_VALID: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// Bytes of a serial number (RFC 5280, 4.1.2.2: at most 20, and positive).
const SERIAL_BYTES: usize = 16;
/// The longest name of a client.
const NAME_MAX: usize = 64;

/// What is to be issued.
pub(super) struct Order {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Further names of a daemon.
    pub(super) sans: Vec<String>,
    pub(super) days: u32,
    /// Where to put it.
    pub(super) out: Option<PathBuf>,
    /// Even if that is there.
    pub(super) replace: bool,
}

/// An authority, held alone.
#[derive(Debug)]
pub(super) struct Authority {
    path: PathBuf,
    index: Index,
    _lock: File,
}

impl Authority {
    /// Makes one. Returns when it ends.
    pub(super) fn make(path: &Path, name: &str, days: u32) -> Result<Timestamp, CertError> {
        make_directory(path)?;
        let key = KeyPair::generate().map_err(CertError::Make)?;
        let now = Timestamp::now();
        let end = now + days_of(days);
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.serial_number = Some(SerialNumber::from_slice(&serial()?));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = moment(now - BEFORE);
        params.not_after = moment(end);
        let certificate = params.self_signed(&key).map_err(CertError::Make)?;
        write_new(&path.join(KEY), key.serialize_pem().as_bytes(), 0o600)?;
        write_new(&path.join(CERTIFICATE), certificate.pem().as_bytes(), 0o644)?;
        let mut authority = Self {
            path: path.to_owned(),
            index: Index::default(),
            _lock: lock(path)?,
        };
        authority.write_list(&Issuer::new(params, key))?;
        Ok(end)
    }

    /// The one in a directory.
    pub(super) fn open(path: &Path) -> Result<Self, CertError> {
        if !path.join(CERTIFICATE).exists() {
            return Err(CertError::NoAuthority {
                path: path.to_owned(),
            });
        }
        let lock = lock(path)?;
        let index = path.join(INDEX);
        let text = read(&index)?;
        Ok(Self {
            path: path.to_owned(),
            index: serde_json::from_str(&text).map_err(|error| damaged(&index, error))?,
            _lock: lock,
        })
    }

    /// What was issued, oldest first.
    pub(super) fn entries(self) -> Vec<Entry> {
        self.index.certificates
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, CertError> {
        let path = self.path.join(KEY);
        let about = fs::metadata(&path).map_err(failed("read", &path))?;
        if about.mode() & OTHERS != 0 {
            return Err(CertError::Exposed { path });
        }
        let key = KeyPair::from_pem(&read(&path)?).map_err(|error| damaged(&path, error))?;
        let path = self.path.join(CERTIFICATE);
        Issuer::from_ca_cert_pem(&read(&path)?, key).map_err(|error| damaged(&path, error))
    }

    /// Issues a certificate. Returns where it is.
    pub(super) fn issue(mut self, order: Order) -> Result<(Entry, PathBuf), CertError> {
        let names = names(&order)?;
        let directory = self.directory(&order)?;
        let issuer = self.issuer()?;
        let end = self.end()?;
        let now = Timestamp::now();
        let serial = serial()?;
        let entry = Entry {
            serial: hexadecimal(&serial),
            name: order.name,
            not_before: now - BEFORE,
            not_after: now + days_of(order.days),
            kind: order.kind,
            revoke_time: None,
        };
        if entry.not_after > end {
            return Err(CertError::OutlivesAuthority {
                end,
                days: order.days,
            });
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&entry.name);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = moment(entry.not_before);
        params.not_after = moment(entry.not_after);
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let (usage, file) = match entry.kind {
            Kind::Client { .. } => (ExtendedKeyUsagePurpose::ClientAuth, "client"),
            Kind::Server => (ExtendedKeyUsagePurpose::ServerAuth, "server"),
        };
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().map_err(CertError::Make)?;
        let certificate = params.signed_by(&key, &issuer).map_err(CertError::Make)?;
        self.index.certificates.push(entry.clone());
        self.write_index()?;
        let authority = read(&self.path.join(CERTIFICATE))?;
        let files = [
            (format!("{file}.key"), key.serialize_pem(), 0o600),
            (format!("{file}.crt"), certificate.pem(), 0o644),
            ("ca.crt".to_owned(), authority, 0o644),
        ];
        if !directory.exists() {
            make_directory(&directory)?;
        }
        for (name, content, mode) in files {
            replace(&directory.join(name), content.as_bytes(), mode)?;
        }
        Ok((entry, directory))
    }

    /// Where an order goes: nothing that is there is replaced unasked.
    fn directory(&self, order: &Order) -> Result<PathBuf, CertError> {
        let among = match order.kind {
            Kind::Client { .. } => "clients",
            Kind::Server => "servers",
        };
        let path = match &order.out {
            Some(path) => std::path::absolute(path).map_err(failed("find", path))?,
            None => self.path.join(among).join(&order.name),
        };
        let is_there = path.symlink_metadata().is_ok();
        if is_there && !(order.replace && path.is_dir()) {
            return Err(CertError::Exists { path });
        }
        Ok(path)
    }

    /// When the authority's own certificate ends.
    fn end(&self) -> Result<Timestamp, CertError> {
        let path = self.path.join(CERTIFICATE);
        x509_end(&read(&path)?).map_err(|error| damaged(&path, error))
    }

    /// Revokes a certificate by its serial number, or all of a name.
    pub(super) fn revoke(mut self, certificate: &str) -> Result<Vec<Entry>, CertError> {
        let issuer = self.issuer()?;
        let now = Timestamp::now();
        let is_meant = |entry: &&mut Entry| {
            let is_named =
                entry.serial.eq_ignore_ascii_case(certificate) || entry.name == certificate;
            is_named && entry.revoke_time.is_none()
        };
        let mut revoked = Vec::new();
        for entry in self.index.certificates.iter_mut().filter(is_meant) {
            entry.revoke_time = Some(now);
            revoked.push(entry.clone());
        }
        if revoked.is_empty() {
            return Err(CertError::NotFound {
                certificate: certificate.to_owned(),
            });
        }
        self.write_list(&issuer)?;
        Ok(revoked)
    }

    /// The index, and the list that it makes.
    fn write_list(&mut self, issuer: &Issuer<'_, KeyPair>) -> Result<(), CertError> {
        self.index.crl_number += 1;
        self.write_index()?;
        let now = Timestamp::now();
        let revoked = self.index.certificates.iter().filter_map(|entry| {
            Some(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&bytes(&entry.serial)?),
                revocation_time: moment(entry.revoke_time?),
                reason_code: Some(RevocationReason::Unspecified),
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: moment(now - BEFORE),
            next_update: moment(now + LIST_VALID),
            crl_number: SerialNumber::from(self.index.crl_number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(issuer).map_err(CertError::Make)?;
        let text = list.pem().map_err(CertError::Make)?;
        replace(&self.path.join(REVOKED), text.as_bytes(), 0o644)
    }

    fn write_index(&self) -> Result<(), CertError> {
        let text = serde_json::to_string_pretty(&self.index).expect("strings and numbers are JSON");
        replace(&self.path.join(INDEX), text.as_bytes(), 0o600)
    }
}

/// What a certificate says of its holder: for a client the URI that daemons map by themselves.
fn names(order: &Order) -> Result<Vec<SanType>, CertError> {
    let refused = |name: &str, whose| CertError::Name {
        name: name.to_owned(),
        whose,
    };
    match &order.kind {
        Kind::Client { role } => {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
            let name = &order.name;
            let is_name = (1..=NAME_MAX).contains(&name.len())
                && name.bytes().all(fits)
                && !name.starts_with('.');
            if !is_name {
                return Err(refused(name, "of a client"));
            }
            let uri = format!("banger:{role}/{name}").try_into();
            Ok(vec![SanType::URI(uri.map_err(CertError::Make)?)])
        }
        Kind::Server => [&order.name]
            .into_iter()
            .chain(&order.sans)
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) if is_dns(name) => name
                    .as_str()
                    .try_into()
                    .map(SanType::DnsName)
                    .map_err(CertError::Make),
                Err(_) => Err(refused(name, "or address of a daemon")),
            })
            .collect(),
    }
}

fn is_dns(name: &str) -> bool {
    let is_label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(fits) && !label.starts_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn days_of(days: u32) -> SignedDuration {
    SignedDuration::from_hours(24 * i64::from(days))
}

/// To the second: certificates know no parts of it.
fn moment(time: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(time.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn serial() -> Result<[u8; SERIAL_BYTES], CertError> {
    let mut bytes = [0; SERIAL_BYTES];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let failed = failed("get randomness from", Path::new("the system"));
    match filled {
        Ok(SERIAL_BYTES) => {}
        Ok(_) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => return Err(failed(error.into())),
    }
    // Positive, and of full length.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(bytes)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    let pairs = (0..hexadecimal.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(hexadecimal.get(at..at + 2)?, 16).ok())
        .collect()
}

fn failed(step: &'static str, path: &Path) -> impl Fn(io::Error) -> CertError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::AlreadyExists => CertError::Exists { path: path.clone() },
        _ => CertError::Io {
            step,
            path: path.clone(),
            source,
        },
    }
}

fn damaged(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CertError {
    CertError::Damaged {
        path: path.to_owned(),
        source: error.into(),
    }
}

fn read(path: &Path) -> Result<String, CertError> {
    fs::read_to_string(path).map_err(failed("read", path))
}

/// A directory that was not there, for its owner alone.
fn make_directory(path: &Path) -> Result<(), CertError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
        .recursive(true)
        .create(parent)
        .map_err(failed("make the directory", parent))?;
    builder
        .recursive(false)
        .create(path)
        .map_err(failed("make the directory", path))
}

/// Waits for whoever else changes the authority.
fn lock(path: &Path) -> Result<File, CertError> {
    let directory = File::open(path).map_err(failed("open", path))?;
    directory.lock().map_err(failed("lock", path))?;
    Ok(directory)
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), CertError> {
    let failed = failed("write", path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(&failed)?;
    file.write_all(content).map_err(&failed)?;
    file.sync_all().map_err(&failed)
}

/// Whole or not at all.
fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), CertError> {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let next = PathBuf::from(next);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &next)(error));
        }
        _ => write_new(&next, content, mode)?,
    }
    fs::rename(&next, path).map_err(failed("write", path))
}

/// When a certificate ends.
fn x509_end(pem: &str) -> Result<Timestamp, Box<dyn std::error::Error + Send + Sync>> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes())?;
    let end = pem.parse_x509()?.validity().not_after.timestamp();
    Ok(Timestamp::from_second(end)?)
}

#[cfg(test)]
mod tests;
