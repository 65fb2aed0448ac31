//! Entries that cannot be, and layers that do not fit on each other.

use std::collections::BTreeMap;

use super::{Case, entries, layers};
use crate::support::Tar;
use crate::support::raw::{Raw, pax, pax_of};

pub(crate) fn bad_entries() -> Vec<Case> {
    let named = |path: &str| layers([Tar::new().file(path, b"x")]);
    let xattr = |name: &str, value: &[u8]| {
        layers([Tar::new().add("f", b'0', 0o644, b"", "", &[(name, value)])])
    };
    let mut lists = BTreeMap::new();
    for (what, list) in [
        ("a list that is cut off", &[2u8, 0, 0, 0, 1][..]),
        (
            "a list that starts with others",
            &[2, 0, 0, 0, 0x20, 0, 4, 0, 255, 255, 255, 255],
        ),
    ] {
        lists.insert(what, xattr("SCHILY.xattr.system.posix_acl_access", list));
    }
    let mut cases = vec![
        (
            "a name that leads out",
            named("../../etc/passwd"),
            "LAYER_ENTRY_ESCAPES",
            "`../../etc/passwd` leads out",
        ),
        (
            "a name that leads out by and by",
            named("a/../../x"),
            "LAYER_ENTRY_ESCAPES",
            "`a/../../x` leads out",
        ),
        (
            "a hard link that leads out",
            layers([Tar::new().add("evil", b'1', 0, b"", "../../etc/passwd", &[])]),
            "LAYER_ENTRY_ESCAPES",
            "`evil` leads out",
        ),
        (
            "a name with a NUL",
            entries(&[pax(&[("path", b"a\0b")]), Raw::new("f", b'0').header()]),
            "LAYER_NAME_HAS_NUL",
            "`a\\u{0}b` has a NUL",
        ),
        (
            "a name of 256 bytes",
            entries(&[pax(&[("path", &[b'n'; 256])]), Raw::new("f", b'0').header()]),
            "LAYER_PATH_TOO_LONG",
            "too long or too deep",
        ),
        (
            "a path of 4097 bytes",
            entries(&[
                pax(&[("path", &b"n/".repeat(2049)[..4097])]),
                Raw::new("f", b'0').header(),
            ]),
            "LAYER_PATH_TOO_LONG",
            "too long or too deep",
        ),
        (
            "a path of 600 directories",
            entries(&[
                pax(&[("path", "n/".repeat(600).as_bytes())]),
                Raw::new("f", b'0').header(),
            ]),
            "LAYER_PATH_TOO_LONG",
            "too long or too deep",
        ),
        (
            "a symbolic link to nothing",
            entries(&[Raw::new("l", b'2').header()]),
            "LAYER_BAD_LINK_TARGET",
            "empty or overlong",
        ),
        (
            "a symbolic link of 4096 bytes",
            entries(&[
                pax(&[("linkpath", &[b'x'; 4096])]),
                Raw::new("m", b'2').header(),
            ]),
            "LAYER_BAD_LINK_TARGET",
            "empty or overlong",
        ),
        (
            "a hard link to nothing",
            entries(&[Raw::new("h", b'1').header()]),
            "LAYER_BAD_LINK_TARGET",
            "empty or overlong",
        ),
        (
            "an attribute without a name",
            xattr("SCHILY.xattr.user.", b"1"),
            "LAYER_BAD_XATTR",
            "attribute with a bad name",
        ),
        (
            "an attribute's name that is no text",
            entries(&[
                pax_of(b"SCHILY.xattr.user.\xff", b"1"),
                Raw::new("g", b'0').header(),
            ]),
            "LAYER_BAD_XATTR",
            "attribute with a bad name",
        ),
        (
            "attributes of more than a block",
            xattr("SCHILY.xattr.user.a", &[7; 4096]),
            "LAYER_XATTRS_TOO_LARGE",
            "more extended attributes",
        ),
    ];
    cases.extend(lists.into_iter().map(|(what, image)| {
        (
            what,
            image,
            "LAYER_BAD_ACL",
            "malformed access control list",
        )
    }));
    cases
}

pub(crate) fn layers_that_do_not_fit() -> Vec<Case> {
    let tar = Tar::new;
    vec![
        (
            "a hard link to what is not there",
            layers([tar().add("l", b'1', 0, b"", "gone", &[])]),
            "LAYER_BAD_HARD_LINK",
            "a hard link to `gone`",
        ),
        (
            "a hard link to what a layer removed",
            layers([
                tar().file("a", b"x"),
                tar().file(".wh.a", b""),
                tar().add("l", b'1', 0, b"", "a", &[]),
            ]),
            "LAYER_BAD_HARD_LINK",
            "a hard link to `a`",
        ),
        (
            "a hard link to itself",
            layers([tar().add("l", b'1', 0, b"", "l", &[])]),
            "LAYER_BAD_HARD_LINK",
            "a hard link to `l`",
        ),
        (
            "a hard link to a directory",
            layers([tar().dir("d/"), tar().add("l", b'1', 0, b"", "d", &[])]),
            "LAYER_LINK_TO_DIRECTORY",
            "to the directory `d`",
        ),
        (
            "an entry below a file",
            layers([tar().file("a", b"x").file("a/x", b"x")]),
            "LAYER_BAD_PARENT",
            "lies under `a`",
        ),
        (
            "an entry below a device",
            layers([
                tar().add("dev", b'3', 0o600, b"", "", &[]),
                tar().file("dev/x", b"x"),
            ]),
            "LAYER_BAD_PARENT",
            "lies under `dev`",
        ),
        (
            "an entry below links in a circle",
            layers([tar()
                .add("a", b'2', 0, b"", "b", &[])
                .add("b", b'2', 0, b"", "a", &[])
                .file("a/x", b"x")]),
            "LAYER_SYMLINK_LOOP",
            "loop of symbolic links",
        ),
        (
            "a link to a name no disk has",
            layers([tar()
                .add("a", b'2', 0, b"", &"n".repeat(300), &[])
                .file("a/x", b"x")]),
            "LAYER_TOO_DEEP",
            "lies too deep",
        ),
        (
            "a whiteout of nothing",
            layers([tar().file(".wh.", b"")]),
            "LAYER_BAD_WHITEOUT",
            "`.wh.` is not a valid whiteout",
        ),
        (
            "a whiteout of the directory above",
            layers([tar().file("a/.wh...", b"")]),
            "LAYER_BAD_WHITEOUT",
            "`a/.wh...` is not a valid whiteout",
        ),
        (
            "a root that is a file",
            layers([tar().file("./", b"")]),
            "LAYER_BAD_ROOT",
            "root is not a directory",
        ),
        (
            "a root that is a link",
            layers([tar().add("/", b'2', 0, b"", "etc", &[])]),
            "LAYER_BAD_ROOT",
            "root is not a directory",
        ),
        (
            "something in `lost+found`",
            layers([tar().file("lost+found/x", b"")]),
            "LAYER_LOST_FOUND_TAKEN",
            "`lost+found` of its own",
        ),
    ]
}
