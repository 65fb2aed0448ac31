//! POSIX access control lists: from the form in which the kernel hands out the attribute, which is what
//! archives hold (`linux/posix_acl_xattr.h`, version 2), to the one ext4 keeps (`fs/ext4/acl.h`, version 1),
//! in which only named users and groups carry an id.

const XATTR_VERSION: u32 = 2;
const EXT4_VERSION: u32 = 1;
const XATTR_ENTRY_BYTES: usize = 8;

const TAG_USER: u16 = 0x02;
const TAG_GROUP: u16 = 0x08;
const TAGS_WITHOUT_ID: [u16; 4] = [0x01, 0x04, 0x10, 0x20];

/// Whether this attribute is an access control list.
pub(super) fn is_acl(name: &str) -> bool {
    matches!(name, "system.posix_acl_access" | "system.posix_acl_default")
}

/// The on-disk form of `value`; `None` when it is malformed.
pub(super) fn to_disk(value: &[u8]) -> Option<Vec<u8>> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != XATTR_VERSION || entries.len() % XATTR_ENTRY_BYTES != 0 {
        return None;
    }
    let mut disk = EXT4_VERSION.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(XATTR_ENTRY_BYTES) {
        match u16::from_le_bytes([entry[0], entry[1]]) {
            TAG_USER | TAG_GROUP => disk.extend_from_slice(entry),
            tag if TAGS_WITHOUT_ID.contains(&tag) => disk.extend_from_slice(&entry[..4]),
            _ => return None,
        }
    }
    Some(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: u16, perm: u16, id: u32) -> Vec<u8> {
        [
            &tag.to_le_bytes()[..],
            &perm.to_le_bytes(),
            &id.to_le_bytes(),
        ]
        .concat()
    }

    #[test]
    fn only_named_users_and_groups_keep_their_id() {
        let value = [
            2u32.to_le_bytes().to_vec(),
            entry(0x01, 6, u32::MAX),
            entry(0x02, 4, 1000),
            entry(0x04, 4, u32::MAX),
            entry(0x10, 4, u32::MAX),
            entry(0x20, 0, u32::MAX),
        ]
        .concat();
        let disk = to_disk(&value).unwrap();
        assert_eq!(disk.len(), 4 + 4 + 8 + 4 + 4 + 4);
        assert_eq!(disk[..4], 1u32.to_le_bytes());
        assert_eq!(disk[8..16], entry(0x02, 4, 1000));
    }

    #[test]
    fn malformed_lists_are_refused() {
        for value in [
            &b""[..],
            &[1, 0, 0, 0],
            &[2, 0, 0, 0, 1],
            &[2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(to_disk(value), None);
        }
    }
}
