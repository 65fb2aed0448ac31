//! Attributes of files: as the guest tells them, and as SFTP has them.

use banger_core::file::{FileAttributes, FileInfo, FileKind};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::wire::{Reader, Refused, Writer};

const HAS_SIZE: u32 = 1;
const HAS_OWNER: u32 = 2;
const HAS_PERMISSIONS: u32 = 4;
const HAS_TIMES: u32 = 8;
const HAS_EXTENDED: u32 = 0x8000_0000;
/// Permission bits with setuid, setgid and sticky.
const MODE_BITS: u32 = 0o7777;
/// How long a file counts as new in a list, seconds: half a year, as in ls(1).
const RECENT: i64 = 182 * 24 * 3600;

/// What a client sets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) size: Option<u64>,
    owner: Option<(u32, u32)>,
    pub(super) permissions: Option<u16>,
    mtime: Option<u32>,
}

impl Wanted {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Refused> {
        let flags = reader.u32()?;
        let mut wanted = Self::default();
        if flags & HAS_SIZE != 0 {
            wanted.size = Some(reader.u64()?);
        }
        if flags & HAS_OWNER != 0 {
            wanted.owner = Some((reader.u32()?, reader.u32()?));
        }
        if flags & HAS_PERMISSIONS != 0 {
            let bits = reader.u32()? & MODE_BITS;
            wanted.permissions = Some(u16::try_from(bits).expect("twelve bits"));
        }
        if flags & HAS_TIMES != 0 {
            let _accessed = reader.u32()?;
            wanted.mtime = Some(reader.u32()?);
        }
        if flags & HAS_EXTENDED != 0 {
            for _ in 0..reader.u32()? {
                reader.string()?;
                reader.string()?;
            }
        }
        Ok(wanted)
    }

    /// All but the size, as the guest takes it; none where nothing is set.
    pub(super) fn attributes(&self) -> Option<FileAttributes> {
        let owner = self.owner.map(|(uid, gid)| format!("{uid}:{gid}"));
        let attributes = FileAttributes {
            permissions: self.permissions,
            owner: owner.unwrap_or_default(),
            mtime: self.mtime.map(|seconds| (i64::from(seconds), 0)),
        };
        (attributes != FileAttributes::default()).then_some(attributes)
    }
}

/// The bits by which a mode tells what a file is.
const fn kind_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::Fifo => 0o010_000,
        FileKind::CharDevice => 0o020_000,
        FileKind::Directory => 0o040_000,
        FileKind::BlockDevice => 0o060_000,
        FileKind::File => 0o100_000,
        FileKind::Symlink => 0o120_000,
        FileKind::Socket => 0o140_000,
    }
}

/// Writes what is known of a file.
pub(super) fn write(writer: &mut Writer, info: &FileInfo) {
    let seconds = u32::try_from(info.mtime.0.max(0)).unwrap_or(u32::MAX);
    writer
        .u32(HAS_SIZE | HAS_OWNER | HAS_PERMISSIONS | HAS_TIMES)
        .u64(info.size_bytes)
        .u32(info.uid)
        .u32(info.gid)
        .u32(kind_bits(info.kind) | u32::from(info.mode))
        .u32(seconds)
        .u32(seconds);
}

/// Writes that nothing is known.
pub(super) fn write_none(writer: &mut Writer) {
    writer.u32(0);
}

/// A line of `ls -l`, which clients show as it is.
pub(super) fn long_name(info: &FileInfo, name: &[u8]) -> Vec<u8> {
    let or_id = |name: &str, id: u32| match name {
        "" => id.to_string(),
        name => name.to_owned(),
    };
    let front = format!(
        "{} {:>4} {:<8} {:<8} {:>8} {} ",
        mode(info),
        info.link_count,
        or_id(&info.user, info.uid),
        or_id(&info.group, info.gid),
        info.size_bytes,
        time(info.mtime.0),
    );
    [front.as_bytes(), name].concat()
}

fn mode(info: &FileInfo) -> String {
    let kind = match info.kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
    };
    let mut text = String::from(kind);
    for (shift, special, (both, alone)) in [
        (6, 0o4000, ('s', 'S')),
        (3, 0o2000, ('s', 'S')),
        (0, 0o1000, ('t', 'T')),
    ] {
        let bits = info.mode >> shift;
        let set = |bit, letter| if bits & bit != 0 { letter } else { '-' };
        text.push(set(4, 'r'));
        text.push(set(2, 'w'));
        text.push(match (info.mode & special != 0, bits & 1 != 0) {
            (true, true) => both,
            (true, false) => alone,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// A time as ls(1) has it, in UTC: with the hour where it is recent, and with the year where it is not.
fn time(seconds: i64) -> String {
    let Ok(time) = Timestamp::from_second(seconds) else {
        return "?           ".into();
    };
    let age = Timestamp::now().as_second() - seconds;
    let form = if (0..RECENT).contains(&age) {
        "%b %e %H:%M"
    } else {
        "%b %e  %Y"
    };
    time.to_zoned(TimeZone::UTC).strftime(form).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(kind: FileKind, mode: u16) -> FileInfo {
        FileInfo {
            path: b"x".to_vec(),
            kind,
            mode,
            size_bytes: 5,
            allocated_bytes: 0,
            uid: 0,
            gid: 7,
            user: "root".into(),
            group: String::new(),
            mtime: (1_000_000_000, 0),
            link_count: 1,
            link_target: Vec::new(),
            is_unreadable: false,
        }
    }

    #[test]
    fn a_long_name_is_a_line_of_ls() {
        let line = long_name(&info(FileKind::Directory, 0o1755), b"a\xff");
        let expected = b"drwxr-xr-t    1 root     7               5 Sep  9  2001 a\xff";
        assert_eq!(line, expected);
        assert_eq!(mode(&info(FileKind::File, 0o4644)), "-rwSr--r--");
        assert_eq!(mode(&info(FileKind::Symlink, 0o777)), "lrwxrwxrwx");
    }

    #[test]
    fn what_a_client_sets_is_read_and_nothing_is_nothing() {
        let mut writer = Writer::new(0, 0);
        write(&mut writer, &info(FileKind::File, 0o640));
        let packet = writer.finish();
        let wanted = Wanted::read(&mut Reader(&packet[9..])).unwrap();
        assert_eq!((wanted.size, wanted.permissions), (Some(5), Some(0o640)));
        let attributes = wanted.attributes().unwrap();
        assert_eq!(attributes.owner, "0:7");
        assert_eq!(attributes.mtime, Some((1_000_000_000, 0)));
        let none = Wanted::read(&mut Reader(&[0; 4])).unwrap();
        assert_eq!(none.attributes(), None);
        assert!(Wanted::read(&mut Reader(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])).is_err());
    }
}
