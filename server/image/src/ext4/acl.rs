//! POSIX access control lists: from the form in which the kernel hands out the attribute, which is what
//! archives hold (`linux/posix_acl_xattr.h`, version 2), to the one ext4 keeps (`fs/ext4/acl.h`, version 1),
//! in which only named users and groups carry an id.

const XATTR_VERSION: u32 = 2;
const EXT4_VERSION: u32 = 1;
const XATTR_ENTRY_BYTES: usize = 8;

/// Who may do what with the file.
pub(super) const ACCESS: &str = "system.posix_acl_access";
/// What files made in the directory begin with.
pub(super) const DEFAULT: &str = "system.posix_acl_default";

const TAG_OWNER: u16 = 0x01;
const TAG_USER: u16 = 0x02;
const TAG_OWNING_GROUP: u16 = 0x04;
const TAG_GROUP: u16 = 0x08;
const TAG_MASK: u16 = 0x10;
const TAG_OTHERS: u16 = 0x20;

/// A list as the disk has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DiskAcl {
    /// The attribute's value; absent where it says no more than the mode does, as the kernel keeps it.
    pub(super) value: Option<Vec<u8>>,
    /// The permission bits the list stands for.
    pub(super) mode: Option<u16>,
}

/// Whether this attribute is an access control list.
pub(super) fn is_acl(name: &str) -> bool {
    name == ACCESS || name == DEFAULT
}

/// The permissions of an inode with these attributes: an access list decides over the mode beside it, as it does
/// when the kernel sets the attribute.
pub(super) fn effective_mode(mode: u16, xattrs: &[(String, Vec<u8>)]) -> u16 {
    let list = xattrs.iter().find(|(name, _)| name == ACCESS);
    match list.and_then(|(_, value)| to_disk(ACCESS, value)?.mode) {
        Some(permissions) => mode & !0o777 | permissions,
        None => mode,
    }
}

/// The on-disk form of `value`, that of the attribute `name`; `None` when it is malformed.
pub(super) fn to_disk(name: &str, value: &[u8]) -> Option<DiskAcl> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != XATTR_VERSION || entries.len() % XATTR_ENTRY_BYTES != 0 {
        return None;
    }
    let mut disk = EXT4_VERSION.to_le_bytes().to_vec();
    let (mut before, mut mode, mut is_extended) = (None, 0, false);
    for entry in entries.chunks_exact(XATTR_ENTRY_BYTES) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u16::from_le_bytes([entry[2], entry[3]]);
        if !may_follow(before, tag) || permissions > 7 {
            return None;
        }
        before = Some(tag);
        match tag {
            TAG_USER | TAG_GROUP => disk.extend_from_slice(entry),
            _ => disk.extend_from_slice(&entry[..4]),
        }
        match tag {
            TAG_OWNER => mode |= permissions << 6,
            TAG_OWNING_GROUP => mode |= permissions << 3,
            TAG_MASK => mode = mode & !0o070 | permissions << 3,
            TAG_OTHERS => mode |= permissions,
            _ => {}
        }
        is_extended |= matches!(tag, TAG_USER | TAG_GROUP | TAG_MASK);
    }
    match before {
        // Without entries it is the removal of a list.
        None => Some(DiskAcl {
            value: None,
            mode: None,
        }),
        Some(TAG_OTHERS) => Some(DiskAcl {
            value: (is_extended || name == DEFAULT).then_some(disk),
            mode: Some(mode),
        }),
        Some(_) => None,
    }
}

/// The order the kernel demands (`posix_acl_valid`): whoever reads another one refuses the file.
fn may_follow(before: Option<u16>, tag: u16) -> bool {
    match before {
        None => tag == TAG_OWNER,
        Some(TAG_OWNER | TAG_USER) => matches!(tag, TAG_USER | TAG_OWNING_GROUP),
        Some(TAG_OWNING_GROUP) => matches!(tag, TAG_GROUP | TAG_MASK | TAG_OTHERS),
        Some(TAG_GROUP) => matches!(tag, TAG_GROUP | TAG_MASK),
        Some(TAG_MASK) => tag == TAG_OTHERS,
        Some(_) => false,
    }
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
        let list = to_disk(ACCESS, &value).unwrap();
        assert_eq!(list.mode, Some(0o640));
        let disk = list.value.unwrap();
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
            assert_eq!(to_disk(ACCESS, value), None);
        }
        let list = |tags: &[u16]| {
            let entries = tags.iter().flat_map(|tag| entry(*tag, 7, 1));
            let value: Vec<u8> = XATTR_VERSION
                .to_le_bytes()
                .into_iter()
                .chain(entries)
                .collect();
            to_disk(ACCESS, &value)
        };
        let small = list(&[TAG_OWNER, TAG_OWNING_GROUP, TAG_OTHERS]).unwrap();
        assert_eq!((small.value, small.mode), (None, Some(0o777)));
        let none = XATTR_VERSION.to_le_bytes();
        assert_eq!(to_disk(DEFAULT, &none).unwrap().value, None);
        for tags in [
            &[TAG_OTHERS, TAG_OWNER, TAG_OWNING_GROUP][..],
            &[TAG_OWNER, TAG_OWNING_GROUP],
            &[TAG_OWNER, TAG_OWNING_GROUP, TAG_GROUP, TAG_OTHERS],
            &[TAG_OWNER, TAG_OWNING_GROUP, TAG_OTHERS, TAG_OTHERS],
        ] {
            assert_eq!(list(tags), None, "{tags:?}");
        }
    }
}
