//! PAX extended headers (POSIX.1-2001, pax Interchange Format): records `length key=value\n`.
//!
//! The length decides where a record ends, never a newline: extended attributes are binary.

use super::sparse::PaxSparse;

/// The prefix of extended attributes in PAX records, as star, GNU tar, Go and libarchive write it.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What the records before an entry say about it.
#[derive(Debug, Default)]
pub(super) struct PaxRecords {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

impl PaxRecords {
    /// Whether anything is said of what an entry is called or holds. For all entries of an archive together
    /// that makes no sense, and programs differ in what they make of it.
    pub(super) fn says_what(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.sparse.is_present()
    }

    /// Reads one header's records; `None` when they are malformed.
    pub(super) fn parse(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
            let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            self.take(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        Some(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        // An empty value takes the record back: the header's own field counts (POSIX, pax).
        match key {
            b"path" => self.path = (!value.is_empty()).then(|| value.to_vec()),
            b"linkpath" => self.link = (!value.is_empty()).then(|| value.to_vec()),
            b"size" => self.size = unless_empty(value, decimal)?,
            b"uid" => self.uid = unless_empty(value, decimal)?,
            b"gid" => self.gid = unless_empty(value, decimal)?,
            b"mtime" => self.mtime = unless_empty(value, timestamp)?,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    self.xattrs.retain(|(other, _)| other != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(key, value)?;
                }
            }
        }
        Some(())
    }
}

/// `Some(None)` for an empty value, `None` for a malformed one.
fn unless_empty<T>(value: &[u8], parse: impl FnOnce(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() {
        Some(None)
    } else {
        parse(value).map(Some)
    }
}

/// A decimal number without sign.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// `[-]seconds[.fraction]`, towards minus infinity, to the nanosecond.
fn timestamp(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanos = 0u32;
    for place in 0..9 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        nanos = nanos * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        let mut bytes = format!("{length} {key}=").into_bytes();
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
        bytes
    }

    #[test]
    fn a_value_may_hold_newlines_and_equals_signs() {
        let value = b"a\nb=c\n\x00\xff\n12 path=/etc\n";
        let mut bytes = record("SCHILY.xattr.user.x", value);
        bytes.extend(record("path", b"kept"));
        let mut records = PaxRecords::default();
        records.parse(&bytes).unwrap();
        assert_eq!(records.xattrs, [(b"user.x".to_vec(), value.to_vec())]);
        assert_eq!(records.path.unwrap(), b"kept");
    }

    #[test]
    fn malformed_records_are_refused() {
        let cases: [&[u8]; 8] = [
            b"x",
            b"5 a=b",
            b"99 a=b\n",
            b"6 a=b\nx",
            b"0 a=b\n",
            b"3 \n",
            b"18446744073709551616 a=b\n",
            b"9 size=x\n",
        ];
        for bytes in cases {
            assert!(
                PaxRecords::default().parse(bytes).is_none(),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn times_before_the_epoch_keep_their_fraction() {
        assert_eq!(timestamp(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(
            timestamp(b"1700000000.123456789999"),
            Some((1_700_000_000, 123_456_789))
        );
        assert_eq!(timestamp(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(timestamp(b"-3"), Some((-3, 0)));
        assert_eq!(timestamp(b""), None);
        assert_eq!(timestamp(b"1.x"), None);
    }
}
