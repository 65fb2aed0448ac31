//! Layers whose archive is broken, or reads differently to different programs.

use super::{Case, entries};
use crate::support::TestImage;
use crate::support::raw::{Raw, pax};

pub(crate) fn broken_archives() -> Vec<Case> {
    let file = || Raw::new("f", b'0').data(b"x");
    let whole = Raw::new("f", b'0').data(&[1; 600]);
    vec![
        (
            "no archive",
            TestImage::of(&[b"no archive".repeat(100)]),
            "LAYER_BAD_HEADER",
            "no valid tar header at byte 0",
        ),
        (
            "a header cut off",
            entries(&[whole[..300].to_vec()]),
            "LAYER_CUT_OFF",
            "entry, at byte 0",
        ),
        (
            "data cut off",
            entries(&[whole[..700].to_vec()]),
            "LAYER_CUT_OFF",
            "entry, at byte 700",
        ),
        (
            "a wrong checksum",
            entries(&[Raw::new("f", b'0').damaged()]),
            "LAYER_BAD_HEADER",
            "no valid tar header at byte 0",
        ),
        (
            "entries behind a lone block of zeros",
            entries(&[file(), vec![0; 512], file()]),
            "LAYER_BAD_HEADER",
            "at byte 1024",
        ),
        (
            "a PAX header without an entry",
            entries(&[pax(&[("uid", b"1")]), vec![0; 1024]]),
            "LAYER_CUT_OFF",
            "at byte 2048",
        ),
        (
            "a PAX record that is too long",
            entries(&[Raw::new("x", b'x').data(b"99 a=b\n"), file()]),
            "LAYER_BAD_PAX",
            "PAX header at byte 512",
        ),
        (
            "a PAX time that is none",
            entries(&[pax(&[("mtime", b"noon")]), file()]),
            "LAYER_BAD_PAX",
            "PAX header at byte 512",
        ),
        (
            "a PAX header of a MiB",
            entries(&[Raw::new("x", b'x').size(2 << 20).header()]),
            "LAYER_EXTENSION_TOO_LARGE",
            "has 2097152 bytes",
        ),
        (
            "a long name of a MiB",
            entries(&[Raw::new("x", b'L').size(3 << 20).header()]),
            "LAYER_EXTENSION_TOO_LARGE",
            "has 3145728 bytes",
        ),
        (
            "a size that is no number",
            entries(&[Raw::new("f", b'0').field(124, b"0000000008\0").header()]),
            "LAYER_BAD_FIELD",
            "has a bad size",
        ),
        (
            "a negative size",
            entries(&[Raw::new("f", b'0').field(124, &[0xff; 12]).header()]),
            "LAYER_BAD_FIELD",
            "has a bad size",
        ),
        (
            "an owner that is no number",
            entries(&[Raw::new("f", b'0').field(108, b"root\0\0\0\0").header()]),
            "LAYER_BAD_FIELD",
            "has a bad user id",
        ),
        (
            "the owner that means none",
            entries(&[pax(&[("gid", b"4294967295")]), file()]),
            "LAYER_BAD_FIELD",
            "has a bad group id",
        ),
        (
            "a mode that is no number",
            entries(&[Raw::new("f", b'0').field(100, b"rwxr-xr-").header()]),
            "LAYER_BAD_FIELD",
            "has a bad mode",
        ),
        (
            "a device number Linux has not",
            entries(&[Raw::new("d", b'3').field(329, b"0010000\0").header()]),
            "LAYER_BAD_FIELD",
            "has a bad device number",
        ),
        (
            "a file of eight TiB",
            entries(&[Raw::new("f", b'0')
                .field(124, &[0x80, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0])
                .header()]),
            "LAYER_FILE_TOO_LARGE",
            "has 8796093022208 bytes",
        ),
        (
            "a part of a volume",
            entries(&[Raw::new("f", b'M').header()]),
            "LAYER_ENTRY_UNSUPPORTED",
            "unsupported type `M`",
        ),
        (
            "a socket of a vendor",
            entries(&[Raw::new("f", b'Z').header()]),
            "LAYER_ENTRY_UNSUPPORTED",
            "unsupported type `Z`",
        ),
    ]
}

pub(crate) fn ambiguous_archives() -> Vec<Case> {
    let file = || Raw::new("f", b'0').data(b"12345678");
    let gnu = |kind: u8, name: &[u8]| Raw::new("././@LongLink", kind).data(name);
    let sparse = |size: &[u8], map: &[u8]| {
        entries(&[
            pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)]),
            file(),
        ])
    };
    vec![
        (
            "two sizes",
            entries(&[pax(&[("size", b"1024")]), file(), vec![0; 1024]]),
            "LAYER_AMBIGUOUS",
            "different sizes",
        ),
        (
            "two names",
            entries(&[pax(&[("path", b"a")]), gnu(b'L', b"b"), file()]),
            "LAYER_AMBIGUOUS",
            "two long names",
        ),
        (
            "two targets",
            entries(&[
                pax(&[("linkpath", b"a")]),
                gnu(b'K', b"b"),
                Raw::new("l", b'2').header(),
            ]),
            "LAYER_AMBIGUOUS",
            "two long link targets",
        ),
        (
            "two PAX headers",
            entries(&[pax(&[("uid", b"1")]), pax(&[("gid", b"1")]), file()]),
            "LAYER_AMBIGUOUS",
            "two extension headers",
        ),
        (
            "one name for all entries",
            entries(&[Raw::new("g", b'g').data(b"13 path=evil\n"), file()]),
            "LAYER_AMBIGUOUS",
            "a global header",
        ),
        (
            "sparse pieces that overlap",
            sparse(b"50", b"0,4,2,4"),
            "LAYER_BAD_SPARSE_MAP",
            "malformed sparse map",
        ),
        (
            "a sparse piece behind the end",
            sparse(b"50", b"48,8"),
            "LAYER_BAD_SPARSE_MAP",
            "malformed sparse map",
        ),
        (
            "sparse pieces for more than there is",
            sparse(b"50", b"0,4,10,8"),
            "LAYER_BAD_SPARSE_MAP",
            "malformed sparse map",
        ),
        (
            "a sparse piece around the end of numbers",
            sparse(b"50", b"0,4,18446744073709551615,4"),
            "LAYER_BAD_SPARSE_MAP",
            "malformed sparse map",
        ),
        (
            "a sparse map with half a piece",
            sparse(b"50", b"0,4,8"),
            "LAYER_BAD_PAX",
            "PAX header at byte 512",
        ),
        (
            "a sparse file of eight TiB",
            sparse(b"8796093022208", b"0,8"),
            "LAYER_FILE_TOO_LARGE",
            "has 8796093022208 bytes",
        ),
        (
            "a sparse map of another length than stated",
            entries(&[
                pax(&[
                    ("GNU.sparse.size", b"50"),
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.map", b"0,8"),
                ]),
                file(),
            ]),
            "LAYER_BAD_SPARSE_MAP",
            "malformed sparse map",
        ),
    ]
}
