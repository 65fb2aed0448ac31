//! Archives byte by byte: what no builder of archives lets through.

/// One header, with or without data.
#[derive(Debug, Clone)]
pub struct Raw {
    header: tar::Header,
    is_damaged: bool,
}

impl Raw {
    /// An entry of nobody's, of mode 0644, at the epoch.
    pub fn new(name: impl AsRef<[u8]>, kind: u8) -> Self {
        let mut header = tar::Header::new_ustar();
        let name = name.as_ref();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        Self {
            header,
            is_damaged: false,
        }
    }

    /// States this size, whatever there is.
    pub fn size(mut self, size: u64) -> Self {
        self.header.set_size(size);
        self
    }

    /// Puts bytes somewhere into the header.
    pub fn field(mut self, at: usize, bytes: &[u8]) -> Self {
        self.header.as_mut_bytes()[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// The header with a wrong checksum.
    pub fn damaged(mut self) -> Vec<u8> {
        self.is_damaged = true;
        self.header()
    }

    /// The header alone.
    pub fn header(mut self) -> Vec<u8> {
        self.header.set_cksum();
        if self.is_damaged {
            self.header.as_mut_bytes()[0] ^= 1;
        }
        self.header.as_bytes().to_vec()
    }

    /// The header with these data, padded.
    pub fn data(self, data: &[u8]) -> Vec<u8> {
        let mut bytes = self.size(data.len() as u64).header();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

/// A PAX header with these records.
pub fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let data: Vec<u8> = records
        .iter()
        .flat_map(|(key, value)| record(key.as_bytes(), value))
        .collect();
    Raw::new("pax", b'x').data(&data)
}

/// A PAX header with one record, whose key need not be text.
pub fn pax_of(key: &[u8], value: &[u8]) -> Vec<u8> {
    Raw::new("pax", b'x').data(&record(key, value))
}

/// `length key=value\n`, where the length counts itself.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}
