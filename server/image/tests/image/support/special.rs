//! Images with every special case, by subject. Each is a stack of layers, lowest first.
#![allow(clippy::too_many_lines)] // its functions are tables

use std::process::Command;

use super::Tar;
use super::raw::{Raw, pax};

const OPAQUE: &str = ".wh..wh..opq";

/// Layers that hide, replace and link what others brought.
pub fn changes() -> Vec<Vec<u8>> {
    let lower = Tar::new()
        .dir("./")
        .dir("white/")
        .file("white/file", b"1")
        .dir("white/directory/")
        .file("white/directory/in", b"2")
        .link("white/symlink", "file")
        .link("white/dangling", "nowhere")
        .link("white/to-directory", "directory")
        .add("white/fifo", b'6', 0o600, b"", "", &[])
        .dir("opaque/")
        .file("opaque/file", b"3")
        .dir("opaque/directory/")
        .file("opaque/directory/in", b"4")
        .link("opaque/symlink", "file")
        .dir("turns/")
        .dir("turns/d-f-d/")
        .file("turns/d-f-d/old", b"5")
        .file("turns/f-d-f", b"6")
        .link("turns/l-d", "d-f-d")
        .dir("turns/d-l/")
        .file("turns/d-l/old", b"7")
        .add("turns/dev-f", b'3', 0o600, b"", "", &[])
        .dir("links/")
        .file("links/one", b"8")
        .add("links/two", b'1', 0, b"", "links/one", &[])
        .add("links/three", b'1', 0, b"", "links/one", &[])
        .file("links/replaced", b"9")
        .add("links/kept", b'1', 0, b"", "links/replaced", &[])
        .link("links/symlink", "one")
        .add("links/of-symlink", b'1', 0, b"", "links/symlink", &[])
        .add("links/null", b'3', 0o666, b"", "", &[])
        .add("links/of-device", b'1', 0, b"", "links/null", &[])
        .dir("usr/")
        .dir("usr/lib/")
        .file("usr/lib/a", b"a")
        .link("lib", "usr/lib");
    let middle = Tar::new()
        .file("white/.wh.file", b"")
        .file("white/.wh.directory", b"")
        .file("white/.wh.symlink", b"")
        .file("white/.wh.dangling", b"")
        .file("white/.wh.to-directory", b"")
        .file("white/.wh.fifo", b"")
        .file("white/.wh.never-was", b"")
        .dir("opaque/")
        .file(&format!("opaque/{OPAQUE}"), b"")
        .file("opaque/new", b"10")
        .dir("opaque/directory/")
        .file("opaque/directory/new", b"11")
        .file("turns/d-f-d", b"now a file")
        .dir("turns/f-d-f/")
        .file("turns/f-d-f/in", b"12")
        .dir("turns/l-d/")
        .file("turns/l-d/in", b"13")
        .link("turns/d-l", "l-d")
        .file("turns/dev-f", b"now a file")
        .add("links/across", b'1', 0, b"", "links/two", &[])
        .file("links/replaced", b"new content")
        .add("links/of-new", b'1', 0, b"", "links/replaced", &[])
        .file("lib/b", b"through a link");
    let upper = Tar::new()
        .dir("turns/d-f-d/")
        .file("turns/d-f-d/new", b"14")
        .file("turns/f-d-f", b"a file again")
        .file("links/.wh.one", b"")
        .add("links/far", b'1', 0, b"", "links/across", &[])
        .file("lib/.wh.a", b"");
    let empty = || Tar::new().finish();
    vec![
        lower.finish(),
        empty(),
        middle.finish(),
        upper.finish(),
        empty(),
    ]
}

/// Names of every length and of every byte.
pub fn names() -> Vec<Vec<u8>> {
    let name = "n".repeat(255);
    // As long as a path may be, in directories of ten bytes: 4095 without the slash that begins it.
    let deep = format!("{}x", "ninebytes/".repeat(400));
    let mut tar = Tar::new()
        .dir("./")
        .file(&name, b"255")
        .file(
            &format!("{name}/").replace('n', "m").replace('/', "x")[..255],
            b"255 too",
        )
        .dir("new\nline/")
        .file("new\nline/tab\t", b"")
        .file("back\\slash", b"")
        .file(" ", b"a space")
        .file("-", b"")
        .file("...", b"")
        .file("h\u{e4}\u{1f980}", b"utf-8")
        .file(".wh", b"no whiteout")
        .file("a.wh.b", b"nor this");
    for depth in 1..=400 {
        tar = tar.dir(&"ninebytes/".repeat(depth));
    }
    tar = tar.file(&deep, b"deep");
    let mut bytes = tar.entries();
    let gnu = |kind: u8, name: &[u8]| Raw::new("././@LongLink", kind).data(&[name, b"\0"].concat());
    let target = [b"../".repeat(100), vec![0xe9; 50]].concat();
    bytes.extend(
        [
            Raw::new(b"caf\xe9", b'5').header(),
            Raw::new(b"caf\xe9/\xff", b'0').data(b"latin"),
            Raw::new(b"caf\xe9/\xc3", b'0').data(b"half a letter"),
            pax(&[("path", b"pax\xff\xfe")]),
            Raw::new("cut", b'0').data(b"raw bytes in PAX"),
            gnu(b'L', &[b"g".repeat(254), b"\xff".to_vec()].concat()),
            Raw::new("cut", b'0').data(b"GNU long name"),
            gnu(b'K', &target),
            Raw::new("long-link", b'2').header(),
            gnu(b'K', b"\xe9"),
            Raw::new("short-link", b'2').header(),
            pax(&[("linkpath", b"caf\xe9/\xff")]),
            Raw::new(b"linked\xe9", b'1').header(),
            pax(&[("linkpath", &b"x".repeat(4095))]),
            Raw::new("longest-link", b'2').header(),
        ]
        .concat(),
    );
    for number in 0..400 {
        let name = [
            format!("many-{number}-").as_bytes(),
            &[0x80 + u8::try_from(number % 100).unwrap(); 30],
        ]
        .concat();
        bytes.extend(Raw::new(name, b'0').data(b"in a large directory"));
    }
    bytes.extend([0; 1024]);
    let upper = [
        Raw::new(b"caf\xe9/.wh.\xff", b'0').header(),
        Raw::new(b"caf\xe9/new\xfe", b'0').data(b"new"),
        vec![0; 1024],
    ];
    vec![bytes, upper.concat()]
}

/// Owners, modes, times, attributes, device numbers.
pub fn metadata() -> Vec<Vec<u8>> {
    const CAPABILITY: &str = "SCHILY.xattr.security.capability";
    let version_2 = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let version_3 = b"\x01\0\0\x03\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xe8\x03\0\0";
    let minimal = acl(&[
        (0x01, 6, u32::MAX),
        (0x04, 4, u32::MAX),
        (0x20, 4, u32::MAX),
    ]);
    let named = acl(&[
        (0x01, 6, u32::MAX),
        (0x02, 4, 1000),
        (0x04, 4, u32::MAX),
        (0x08, 6, 50),
        (0x10, 6, u32::MAX),
        (0x20, 0, u32::MAX),
    ]);
    let mut tar = Tar::new().dir("./").add(
        "cap2",
        b'0',
        0o755,
        b"c",
        "",
        &[(CAPABILITY, version_2), ("mtime", b"1.000000001")],
    );
    for (name, kind, mode) in [
        ("suid", b'0', 0o4711),
        ("sgid", b'0', 0o2755),
        ("sticky", b'0', 0o1644),
        ("all", b'0', 0o7777),
        ("none", b'0', 0),
        ("suid-dir", b'5', 0o4755),
        ("sgid-dir", b'5', 0o2775),
        ("tmp", b'5', 0o1777),
        ("fifo", b'6', 0o4640),
    ] {
        tar = tar.add(name, kind, mode, b"", "", &[]);
    }
    tar = tar
        .add("cap3", b'0', 0o755, b"c", "", &[(CAPABILITY, version_3)])
        .add(
            "acl",
            b'0',
            0o660,
            b"",
            "",
            &[("SCHILY.xattr.system.posix_acl_access", &named)],
        )
        .add(
            "acl-dir",
            b'5',
            0o755,
            b"",
            "",
            &[("SCHILY.xattr.system.posix_acl_default", &named)],
        )
        .add(
            "acl-dir-small",
            b'5',
            0o755,
            b"",
            "",
            &[("SCHILY.xattr.system.posix_acl_default", &minimal)],
        )
        .add(
            "acl-small",
            b'0',
            0o644,
            b"",
            "",
            &[("SCHILY.xattr.system.posix_acl_access", &minimal)],
        )
        .add(
            "acl-mode",
            b'0',
            0o777,
            b"",
            "",
            &[("SCHILY.xattr.system.posix_acl_access", &named)],
        )
        .add(
            "attr-dir",
            b'5',
            0o755,
            b"",
            "",
            &[
                ("SCHILY.xattr.user.d", b"d"),
                ("SCHILY.xattr.trusted.d", b"\0"),
            ],
        )
        .add(
            "attr-link",
            b'2',
            0o777,
            b"",
            "x",
            &[("SCHILY.xattr.trusted.l", b"on a link")],
        )
        .add(
            "attr-fifo",
            b'6',
            0o644,
            b"",
            "",
            &[("SCHILY.xattr.security.f", b"on a fifo")],
        )
        .add(
            "attr-large",
            b'0',
            0o644,
            b"",
            "",
            &[
                ("SCHILY.xattr.user.large", &[b'v'; 3000]),
                ("SCHILY.xattr.user.small", b"v"),
            ],
        )
        .add(
            "owner",
            b'0',
            0o4640,
            b"",
            "",
            &[("uid", b"4294967294"), ("gid", b"2147483648")],
        )
        .add("before", b'0', 0o644, b"", "", &[("mtime", b"-0.25")])
        .add("early", b'0', 0o644, b"", "", &[("mtime", b"-2147483648")])
        .add(
            "late",
            b'0',
            0o644,
            b"",
            "",
            &[("mtime", b"15032385535.999999999")],
        )
        .add(
            "dir-time",
            b'5',
            0o755,
            b"",
            "",
            &[("mtime", b"1234567890.987654321")],
        )
        .file("dir-time/later", b"made after its directory")
        .add("link-time", b'2', 0o777, b"", "x", &[("mtime", b"77.5")]);
    let mut bytes = tar.entries();
    let device = |name: &str, kind: u8, major: &[u8; 8], minor: &[u8; 8]| {
        Raw::new(name, kind)
            .field(329, major)
            .field(337, minor)
            .header()
    };
    bytes.extend(
        [
            device("small", b'3', b"0000001\0", b"0000003\0"),
            device("edge", b'4', b"0000377\0", b"0000377\0"),
            device("major", b'3', b"0007777\0", b"0000000\0"),
            device("minor", b'4', b"0000000\0", b"3777777\0"),
            // A time in binary, and one of version 7's directories.
            Raw::new("binary", b'0')
                .field(
                    136,
                    &[
                        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0,
                    ],
                )
                .header(),
            Raw::new("version7/", 0)
                .field(156, &[0])
                .field(257, &[0; 8])
                .data(b""),
            vec![0; 1024],
        ]
        .concat(),
    );
    let upper = Tar::new()
        .add(
            "attr-dir",
            b'5',
            0o700,
            b"",
            "",
            &[("SCHILY.xattr.user.other", b"o")],
        )
        .add("cap2", b'0', 0o755, b"replaced", "", &[])
        .file("tmp/in", b"in a directory of a lower layer");
    vec![bytes, upper.finish()]
}

/// An access control list as archives hold it.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// The directories of [`sparse`], lowest layer first.
pub const SPARSE_FORMS: [&str; 4] = ["gnu", "pax-0.0", "pax-0.1", "pax-1.0"];

/// Sparse files as GNU tar writes them, a layer for each form; `None` without GNU tar.
pub fn sparse() -> Option<Vec<Vec<u8>>> {
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().unwrap();
    let options: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ];
    let mut layers = Vec::new();
    for (form, options) in SPARSE_FORMS.into_iter().zip(options) {
        let path = directory.path().join(form);
        std::fs::create_dir(&path).unwrap();
        for (name, pieces, len) in [
            ("many", 60, 6_000_001),
            ("end", 0, 3_000_000),
            ("one", 1, 1_000_000),
        ] {
            let file = std::fs::File::create(path.join(name)).unwrap();
            for piece in 0..pieces {
                file.write_all_at(&[u8::try_from(piece).unwrap() + 1; 5000], piece * 100_000)
                    .unwrap();
            }
            file.set_len(len).unwrap();
        }
        let mut tar = Command::new("tar");
        tar.arg("-S").args(options).args([
            "--mtime=@1700000000",
            "--owner=7",
            "--group=8",
            "-cf",
            "-",
            "-C",
        ]);
        let output = tar.arg(directory.path()).arg(form).output().ok()?;
        assert!(output.status.success());
        layers.push(output.stdout);
    }
    Some(layers)
}
