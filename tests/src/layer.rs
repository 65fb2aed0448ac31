//! Layers, written entry by entry, so that one can also say what no tool would write.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// A layer in the making.
#[derive(Debug, Default)]
pub struct Layer {
    archive: Vec<u8>,
}

impl Layer {
    /// With a directory.
    #[must_use]
    pub fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(name, EntryType::Directory, mode, (0, 0), "", &[])
    }

    /// With a file of root's.
    #[must_use]
    pub fn file(self, name: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, mode, (0, 0), "", content)
    }

    /// With a file of another user's.
    #[must_use]
    pub fn file_of(self, name: &str, mode: u32, owner: (u64, u64), content: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, mode, owner, "", content)
    }

    /// With a symbolic link.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Symlink, 0o777, (0, 0), target, &[])
    }

    /// With a hard link.
    #[must_use]
    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Link, 0o644, (0, 0), target, &[])
    }

    /// With any entry; the name is written as it is.
    #[must_use]
    pub fn entry(
        mut self,
        name: &str,
        kind: EntryType,
        mode: u32,
        owner: (u64, u64),
        link: &str,
        content: &[u8],
    ) -> Self {
        if name.len() > 99 || link.len() > 99 {
            let records = [("path", name), ("linkpath", link)]
                .into_iter()
                .filter(|(_, value)| !value.is_empty());
            let records: String = records.map(|(key, value)| pax(key, value)).collect();
            self.raw(
                "pax",
                EntryType::XHeader,
                0o644,
                (0, 0),
                "",
                records.as_bytes(),
            );
        }
        self.raw(name, kind, mode, owner, link, content);
        self
    }

    fn raw(
        &mut self,
        name: &str,
        kind: EntryType,
        mode: u32,
        owner: (u64, u64),
        link: &str,
        content: &[u8],
    ) {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        // By hand: the library would refuse the names that matter here.
        let fields = header.as_ustar_mut().expect("made as ustar");
        copy(&mut fields.name, name);
        copy(&mut fields.linkname, link);
        header.set_cksum();
        self.archive.extend_from_slice(header.as_bytes());
        self.archive.extend_from_slice(content);
        self.archive
            .resize(self.archive.len().next_multiple_of(512), 0);
    }

    /// The archive.
    #[must_use]
    pub fn tar(mut self) -> Vec<u8> {
        self.archive.resize(self.archive.len() + 1024, 0);
        self.archive
    }
}

fn copy(field: &mut [u8], text: &str) {
    let length = text.len().min(field.len() - 1);
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
}

/// A PAX record: its length in decimal, which counts itself, then key and value (pax(1), "Extended Header").
fn pax(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

/// Bytes, compressed with gzip.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The SHA-256 of bytes, as registries write it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
