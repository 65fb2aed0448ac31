//! An image with one of everything that is known to go wrong.

use super::Tar;

/// Two layers, the upper of which changes the lower in every way.
pub fn nasty() -> Vec<Vec<u8>> {
    let mut lower = many_kinds(Tar::new());
    lower = to_be_changed(lower).dir("many/");
    for number in 0..3000 {
        lower = lower.file(&format!("many/file-with-a-longer-name-{number:05}"), b"m");
    }
    vec![lower.finish(), upper()]
}

fn many_kinds(tar: Tar) -> Tar {
    let acl = [
        &2u32.to_le_bytes()[..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 0xe8, 3, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 4, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    let big: Vec<u8> = (0..700_000u32).flat_map(u32::to_le_bytes).collect();
    let xattr: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.user.binary", b"a\n12 b=c\n\x00\xff"),
        ("SCHILY.xattr.trusted.t", b"root's"),
        (
            "SCHILY.xattr.security.capability",
            b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ),
        ("mtime", b"1699999999.123456789"),
    ];
    tar.dir("./")
        .dir("bin/")
        .add("bin/su", b'0', 0o4755, b"setuid", "", &[])
        .add("bin/wall", b'0', 0o2755, b"setgid", "", &[])
        .add("bin/sh", b'2', 0o777, b"", "su", &[])
        .add("bin/slow", b'2', 0o777, b"", &"x/".repeat(45), &[])
        .add("tmp", b'5', 0o1777, b"", "", &[])
        .dir("dev/")
        .add("dev/null", b'3', 0o666, b"", "", &[])
        .add("dev/disk", b'4', 0o660, b"", "", &[])
        .add("dev/pipe", b'6', 0o600, b"", "", &[])
        .add("none", b'0', 0, b"mode 0", "", &[])
        .add(
            "owner",
            b'0',
            0o640,
            b"",
            "",
            &[("uid", b"4000000000"), ("gid", b"70000")],
        )
        .add("attr", b'0', 0o644, b"attributes", "", &xattr)
        .add("old", b'0', 0o644, b"", "", &[("mtime", b"-86400.5")])
        .add(
            "acl",
            b'0',
            0o640,
            b"",
            "",
            &[("SCHILY.xattr.system.posix_acl_access", &acl)],
        )
        .dir("acldir/")
        .add("newline\nname", b'0', 0o644, b"n", "", &[])
        .file("h\u{e4}\u{1f980}", b"utf-8")
        .file("big", &big)
        .file("empty", b"")
        .file("linked", b"one inode")
        .add("link1", b'1', 0o644, b"", "linked", &[])
        .add("link2", b'1', 0o644, b"", "./link1", &[])
        .dir("usr/")
        .dir("usr/lib/")
        .add("lib", b'2', 0o777, b"", "usr/lib", &[])
}

fn to_be_changed(tar: Tar) -> Tar {
    let long = format!("long/{}/{}", "d".repeat(150), "n".repeat(255));
    tar.dir("gone/")
        .file("gone/a", b"a")
        .file("goner", b"b")
        .dir("opaque/")
        .file("opaque/old", b"old")
        .dir("becomes-file/")
        .file("becomes-file/x", b"x")
        .file("becomes-dir", b"f")
        .dir("merged/")
        .file("merged/kept", b"kept")
        .dir("long/")
        .dir(&format!("long/{}/", "d".repeat(150)))
        .file(&long, b"long")
}

fn upper() -> Vec<u8> {
    Tar::new()
        .file(".wh.gone", b"")
        .file(".wh.goner", b"")
        .dir("opaque/")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .file("becomes-file", b"now a file")
        .dir("becomes-dir/")
        .file("becomes-dir/y", b"y")
        .add("merged", b'5', 0o700, b"", "", &[])
        .file("merged/added", b"added")
        .file("usr/lib/libz", b"through")
        .add("across", b'1', 0o644, b"", "linked", &[])
        .finish()
}
