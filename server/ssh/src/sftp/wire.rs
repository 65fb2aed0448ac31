//! Packets of SFTP version 3 (draft-ietf-secsh-filexfer-02), which is what OpenSSH speaks. Names are bytes.

use bytes::{BufMut as _, Bytes, BytesMut};

/// The version that is spoken.
pub(super) const VERSION: u32 = 3;

/// Kinds of packets.
pub(super) mod kind {
    pub(in crate::sftp) const INIT: u8 = 1;
    pub(in crate::sftp) const VERSION: u8 = 2;
    pub(in crate::sftp) const OPEN: u8 = 3;
    pub(in crate::sftp) const CLOSE: u8 = 4;
    pub(in crate::sftp) const READ: u8 = 5;
    pub(in crate::sftp) const WRITE: u8 = 6;
    pub(in crate::sftp) const LSTAT: u8 = 7;
    pub(in crate::sftp) const FSTAT: u8 = 8;
    pub(in crate::sftp) const SETSTAT: u8 = 9;
    pub(in crate::sftp) const FSETSTAT: u8 = 10;
    pub(in crate::sftp) const OPENDIR: u8 = 11;
    pub(in crate::sftp) const READDIR: u8 = 12;
    pub(in crate::sftp) const REMOVE: u8 = 13;
    pub(in crate::sftp) const MKDIR: u8 = 14;
    pub(in crate::sftp) const RMDIR: u8 = 15;
    pub(in crate::sftp) const REALPATH: u8 = 16;
    pub(in crate::sftp) const STAT: u8 = 17;
    pub(in crate::sftp) const RENAME: u8 = 18;
    pub(in crate::sftp) const READLINK: u8 = 19;
    pub(in crate::sftp) const SYMLINK: u8 = 20;
    pub(in crate::sftp) const STATUS: u8 = 101;
    pub(in crate::sftp) const HANDLE: u8 = 102;
    pub(in crate::sftp) const DATA: u8 = 103;
    pub(in crate::sftp) const NAME: u8 = 104;
    pub(in crate::sftp) const ATTRS: u8 = 105;
    pub(in crate::sftp) const EXTENDED: u8 = 200;
    pub(in crate::sftp) const EXTENDED_REPLY: u8 = 201;
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

/// What was asked for is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: Code,
    pub(super) text: String,
}

impl Refused {
    pub(super) fn new(code: Code, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }

    /// The packet ends in the middle of something.
    fn short() -> Self {
        Self::new(Code::BadMessage, "the packet is too short")
    }
}

/// Reads a packet from its front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Refused> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(Refused::short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Refused> {
        let bytes = self.take(4)?.try_into().expect("four bytes were taken");
        Ok(u32::from_be_bytes(bytes))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Refused> {
        let bytes = self.take(8)?.try_into().expect("eight bytes were taken");
        Ok(u64::from_be_bytes(bytes))
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8], Refused> {
        let length = usize::try_from(self.u32()?).map_err(|_| Refused::short())?;
        self.take(length)
    }
}

/// Writes a packet of one kind that answers the request `id`.
pub(super) struct Writer(BytesMut);

impl Writer {
    pub(super) fn new(kind: u8, id: u32) -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_u32(0);
        bytes.put_u8(kind);
        bytes.put_u32(id);
        Self(bytes)
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.put_u32(value);
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.put_u64(value);
        self
    }

    pub(super) fn string(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).expect("what is sent is bounded"));
        self.0.put_slice(value);
        self
    }

    /// The packet with its length.
    pub(super) fn finish(&mut self) -> Bytes {
        let length = u32::try_from(self.0.len() - 4).expect("what is sent is bounded");
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0.split().freeze()
    }
}

/// The answer to a request that has no other.
pub(super) fn status(id: u32, refused: &Refused) -> Bytes {
    let mut writer = Writer::new(kind::STATUS, id);
    writer.u32(refused.code as u32);
    writer
        .string(refused.text.as_bytes())
        .string(b"en")
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let packet = Writer::new(kind::DATA, 7)
            .u64(1 << 40)
            .string(b"ab")
            .finish();
        let mut reader = Reader(&packet);
        assert_eq!(reader.u32().unwrap() as usize, packet.len() - 4);
        assert_eq!(reader.take(1).unwrap(), [kind::DATA]);
        assert_eq!(reader.u32(), Ok(7));
        assert_eq!(reader.u64(), Ok(1 << 40));
        assert_eq!(reader.string(), Ok(&b"ab"[..]));
        assert_eq!(reader.u32().unwrap_err().code, Code::BadMessage);
    }

    #[test]
    fn a_length_beyond_the_packet_is_refused() {
        assert!(Reader(&[0xff, 0xff, 0xff, 0xff, 1]).string().is_err());
        assert!(Reader(&[0, 0, 0]).u32().is_err());
    }
}
