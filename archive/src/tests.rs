use std::io::{Cursor, Write};
use std::process::Command;

use super::*;

/// A tar stream in memory.
struct Bytes(Cursor<Vec<u8>>);

impl TarInput for Bytes {
    fn read_up_to(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        read_up_to(&mut self.0, buf)
    }

    fn skip(&mut self, len: u64) -> std::io::Result<bool> {
        self.0.set_position(self.0.position() + len);
        Ok(self.0.position() <= self.0.get_ref().len() as u64)
    }

    fn position(&self) -> u64 {
        self.0.position()
    }
}

fn read(bytes: Vec<u8>) -> Result<Vec<Entry>, TarError> {
    let budget = Budget::default();
    let mut reader = TarReader::new(Bytes(Cursor::new(bytes)), &budget);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    Ok(entries)
}

fn one(bytes: Vec<u8>) -> Entry {
    let mut entries = read(bytes).unwrap();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

/// A ustar header without checksum.
fn header(name: &str, kind: u8, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn block(mut header: tar::Header, data: &[u8]) -> Vec<u8> {
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let data: Vec<u8> = records
        .iter()
        .flat_map(|(key, value)| record(key, value))
        .collect();
    block(header("pax", b'x', data.len() as u64), &data)
}

#[test]
fn a_binary_attribute_with_newlines_survives() {
    let value = b"\x01\n13 path=evil\n\xff";
    let bytes = [
        pax(&[("SCHILY.xattr.user.x", value)]),
        block(header("f", b'0', 3), b"abc"),
    ]
    .concat();
    let entry = one(bytes);
    assert_eq!(*entry.path, *b"f");
    assert_eq!(*entry.xattrs, [("user.x".to_owned(), value.to_vec())]);
    assert_eq!(entry.kind, EntryKind::File(Content::dense(1536, 3)));
}

#[test]
fn attributes_of_overlayfs_do_not_come_from_an_image() {
    let records: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.kept", b"1"),
    ];
    let entry = one([pax(&records), block(header("d", b'5', 0), b"")].concat());
    assert_eq!(*entry.xattrs, [("trusted.kept".to_owned(), b"1".to_vec())]);
}

#[test]
fn large_owners_and_fine_times_come_from_pax() {
    let records: [(&str, &[u8]); 3] = [
        ("uid", b"3000000000"),
        ("gid", b"70000"),
        ("mtime", b"-1.5"),
    ];
    let entry = one([pax(&records), block(header("f", b'0', 0), b"")].concat());
    assert_eq!((entry.meta.uid, entry.meta.gid), (3_000_000_000, 70_000));
    assert_eq!(entry.meta.mtime, (-2, 500_000_000));
}

#[test]
fn binary_numbers_may_be_negative() {
    let mut old = header("f", b'0', 0);
    old.as_old_mut().mtime = [0xff; 12];
    old.as_old_mut().uid = [0x80, 0, 0, 0, 0x7f, 0, 0, 1];
    let entry = one(block(old, b""));
    assert_eq!(entry.meta.mtime, (-1, 0));
    assert_eq!(entry.meta.uid, 0x7f00_0001);
}

#[test]
fn gnu_long_names_and_links_are_taken_whole() {
    let long = "d/".repeat(120) + "name";
    let name = [long.as_bytes(), b"\0"].concat();
    let bytes = [
        block(header("././@LongLink", b'L', name.len() as u64), &name),
        block(header("././@LongLink", b'K', name.len() as u64), &name),
        block(header("cut", b'2', 0), b""),
    ];
    let entry = one(bytes.concat());
    assert_eq!(*entry.path, *long.as_bytes());
    let target = long.as_bytes().into();
    assert_eq!(entry.kind, EntryKind::Symlink { target });
}

#[test]
fn names_mean_paths_inside_the_image() {
    for (name, path) in [
        ("/etc/x", "etc/x"),
        ("./a//b/./c", "a/b/c"),
        ("a/../b", "b"),
        ("./", ""),
        ("//x/..", ""),
    ] {
        assert_eq!(
            *normalise(name.as_bytes()).unwrap(),
            *path.as_bytes(),
            "{name}"
        );
    }
}

#[test]
fn a_name_that_leads_out_is_refused_by_name() {
    for name in ["../x", "a/../../x", "/../x", ".."] {
        let error = read(block(header(name, b'0', 0), b"")).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("entry `{name}` leads out of the image")
        );
    }
    let mut link = header("evil", b'1', 0);
    link.set_link_name_literal("../../etc/passwd").unwrap();
    let error = read(block(link, b"")).unwrap_err();
    assert_eq!(error.to_string(), "entry `evil` leads out of the image");
}

#[test]
fn names_are_bytes_and_are_shown_escaped() {
    let mut odd = header("", b'0', 0);
    odd.as_old_mut().name[..3].copy_from_slice(b"a\xff\xfe");
    assert_eq!(*one(block(odd, b"")).path, *b"a\xff\xfe");
    let error = normalise(b"../\xff\xc3\xa4\n\\").unwrap_err();
    assert_eq!(
        error.to_string(),
        "entry `../\\xff\u{e4}\\n\\\\` leads out of the image"
    );
    let long = [b"../".as_slice(), &[0xff; 5000]].concat();
    assert_eq!(shown(&long).chars().count(), 201);
}

#[test]
fn what_is_not_a_valid_archive_says_where() {
    let good = block(header("f", b'0', 600), &[1; 600]);
    let cases: [(Vec<u8>, &str); 5] = [
        (
            [&good[..700]].concat(),
            "the archive ends in the middle of an entry",
        ),
        (
            [&good[..300]].concat(),
            "the archive ends in the middle of an entry",
        ),
        (
            [good.clone(), vec![7; 512]].concat(),
            "there is no valid tar header at byte 1536",
        ),
        (
            block(header("x", b'x', 5), b"abcde"),
            "the PAX header at byte 512 is malformed",
        ),
        (
            block(header("x", b'x', 2 << 20), b""),
            "the header extension at byte 512 has 2097152 bytes",
        ),
    ];
    for (bytes, message) in cases {
        let error = read(bytes).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error} / {message}");
    }
}

#[test]
fn unknown_kinds_and_bad_devices_are_refused() {
    let error = read(block(header("v", b'M', 0), b"")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "entry `v` is of the unsupported type `M`"
    );
    let mut device = header("dev/x", b'3', 0);
    device.set_device_major(5000).unwrap();
    let error = read(block(device, b"")).unwrap_err();
    assert_eq!(error.to_string(), "entry `dev/x` has a bad device number");
}

#[test]
fn global_headers_do_not_change_entries() {
    let archive = |data: Vec<u8>| {
        let global = block(header("g", b'g', data.len() as u64), &data);
        [global, block(header("f", b'0', 0), b"")].concat()
    };
    let entry = one(archive(
        [record("comment", b"c0ffee"), record("mtime", b"7")].concat(),
    ));
    assert_eq!((&*entry.path, entry.meta.mtime), (&b"f"[..], (0, 0)));
    // GNU tar would call every entry so.
    for data in [
        record("path", b"evil"),
        record("size", b"9"),
        record("GNU.sparse.size", b"9"),
    ] {
        assert!(matches!(
            read(archive(data)),
            Err(TarError::Ambiguous { .. })
        ));
    }
}

/// Whether `bytes` are refused because programs would read them in different ways.
fn is_ambiguous(bytes: Vec<u8>) -> bool {
    matches!(read(bytes), Err(TarError::Ambiguous { .. }))
}

#[test]
fn two_sizes_of_one_entry_are_refused() {
    let sized = |header_size: u64, records: &[u8]| {
        let bytes = [
            pax(&[("size", records)]),
            block(header("f", b'0', header_size), &[7; 1024]),
        ];
        bytes.concat()
    };
    assert!(is_ambiguous(sized(0, b"1024")));
    assert!(is_ambiguous(sized(1024, b"0")));
    assert!(is_ambiguous(sized(0o777_7777_7777, b"1024")));
    assert!(is_ambiguous(sized(1, b"8589934592")));
    assert!(read(sized(1024, b"1024")).is_ok());
    // An empty record takes itself back.
    assert!(read(sized(1024, b"")).is_ok());
    // Too large for the field: nothing contradicts, the archive is only cut off.
    for filler in [0, 0o777_7777_7777] {
        let error = read(sized(filler, b"8589934592")).unwrap_err();
        assert!(matches!(error, TarError::Truncated { .. }), "{error}");
    }
}

#[test]
fn what_is_said_twice_of_an_entry_is_refused() {
    let long =
        |kind: u8, name: &[u8]| block(header("././@LongLink", kind, name.len() as u64), name);
    let file = || block(header("f", b'0', 0), b"");
    let link = || block(header("f", b'2', 0), b"");
    assert!(is_ambiguous(
        [pax(&[("path", b"a")]), long(b'L', b"b"), file()].concat()
    ));
    assert!(is_ambiguous(
        [pax(&[("linkpath", b"a")]), long(b'K', b"b"), link()].concat()
    ));
    assert!(is_ambiguous(
        [long(b'L', b"a"), long(b'L', b"a"), file()].concat()
    ));
    assert!(is_ambiguous(
        [pax(&[("uid", b"1")]), pax(&[("gid", b"1")]), file()].concat()
    ));
    assert_eq!(
        *one([pax(&[("path", b"a")]), long(b'L', b"a\0"), file()].concat()).path,
        *b"a"
    );
}

#[test]
fn empty_names_before_an_entry_leave_it_its_own() {
    let entry = one([pax(&[("path", b"")]), block(header("f", b'0', 0), b"")].concat());
    assert_eq!(*entry.path, *b"f");
    let long = block(header("././@LongLink", b'L', 1), b"\0");
    assert_eq!(
        *one([long, block(header("f", b'0', 0), b"")].concat()).path,
        *b"f"
    );
}

#[test]
fn a_lone_block_of_zeros_may_only_be_the_end() {
    let file = || block(header("f", b'0', 0), b"");
    let zeros = vec![0; 512];
    assert_eq!(read([file(), zeros.clone()].concat()).unwrap().len(), 1);
    assert_eq!(
        read([file(), zeros.clone(), zeros.clone(), file()].concat())
            .unwrap()
            .len(),
        1
    );
    let error = read([file(), zeros, file()].concat()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no valid tar header at byte 512"
    );
}

#[test]
fn an_extension_header_without_its_entry_is_refused() {
    let end = vec![0; 1024];
    assert!(matches!(
        read([pax(&[("uid", b"1")]), end].concat()),
        Err(TarError::Truncated { .. })
    ));
}

#[test]
fn a_directory_of_version_7_may_have_data_which_are_passed_over() {
    let mut old = header("d/", 0, 600);
    old.as_mut_bytes()[156] = 0;
    old.as_mut_bytes()[257..265].fill(0);
    let entries = read([block(old, &[1; 600]), block(header("f", b'0', 0), b"")].concat()).unwrap();
    assert_eq!(entries[0].kind, EntryKind::Directory);
    assert_eq!(*entries[1].path, *b"f");
}

#[test]
fn entries_without_content_have_no_data_whatever_their_size() {
    // So it is in archives made by Go's writer from a file's own metadata.
    for kind in [b'1', b'2', b'5', b'6'] {
        let mut linked = header("x", kind, 5000);
        linked.set_link_name_literal("f").unwrap();
        let entries =
            read([block(linked, b""), block(header("f", b'0', 0), b"")].concat()).unwrap();
        assert_eq!(*entries[1].path, *b"f");
    }
}

#[test]
fn checksums_of_signed_bytes_are_right_too() {
    let mut old = header("", b'0', 0);
    old.as_old_mut().name[..2].copy_from_slice(b"\xe9t");
    let mut bytes = block(old, b"");
    let sum: i64 = bytes[..148]
        .iter()
        .chain(&bytes[156..512])
        .map(|byte| i64::from(byte.cast_signed()))
        .sum();
    bytes[148..156].copy_from_slice(format!("{:06o}\0 ", sum + 256).as_bytes());
    assert_eq!(*one(bytes).path, *b"\xe9t");
}

#[test]
fn numbers_may_be_padded_on_either_side() {
    let mut padded = header("f", b'0', 0);
    padded.as_old_mut().mtime = *b"\0 000000017\0";
    assert_eq!(one(block(padded, b"")).meta.mtime, (0o17, 0));
}

/// What the file of `content` holds, read from the archive.
fn unpack(archive: &[u8], content: &Content) -> Vec<u8> {
    let mut file = vec![0; usize::try_from(content.size).unwrap()];
    for extent in &content.extents {
        let at = |value: u64| usize::try_from(value).unwrap();
        let bytes = &archive[at(extent.offset)..at(extent.offset + extent.len)];
        file[at(extent.logical)..at(extent.logical + extent.len)].copy_from_slice(bytes);
    }
    file
}

#[test]
fn sparse_files_of_gnu_tar_are_understood_in_every_form() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = std::fs::File::create(directory.path().join("sparse")).unwrap();
    // More pieces than one old header holds.
    for piece in 0..40u64 {
        use std::io::Seek;
        file.seek(std::io::SeekFrom::Start(piece * 100_000))
            .unwrap();
        file.write_all(&[u8::try_from(piece + 1).unwrap(); 5000])
            .unwrap();
    }
    file.set_len(5_000_001).unwrap();
    let expected = std::fs::read(directory.path().join("sparse")).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let mut tar = Command::new("tar");
        tar.arg("-S").args(format).args(["-cf", "-", "-C"]);
        let archive = tar
            .arg(directory.path())
            .arg("sparse")
            .output()
            .unwrap()
            .stdout;
        let entries = read(archive.clone()).unwrap();
        assert_eq!(*entries[0].path, *b"sparse", "{format:?}");
        let EntryKind::File(content) = &entries[0].kind else {
            panic!("{format:?}")
        };
        assert!(
            content.extents.iter().map(|extent| extent.len).sum::<u64>() < 1_000_000,
            "{format:?}"
        );
        assert!(unpack(&archive, content) == expected, "{format:?}");
    }
}

#[test]
fn sparse_maps_that_make_no_sense_are_refused() {
    for map in [
        "0,4,2,4",
        "0,5,100,1",
        "10,4",
        "0,4,18446744073709551615,4",
        "x",
        "0",
    ] {
        let records: [(&str, &[u8]); 2] = [
            ("GNU.sparse.size", b"50"),
            ("GNU.sparse.map", map.as_bytes()),
        ];
        let bytes = [pax(&records), block(header("s", b'0', 8), b"12345678")].concat();
        assert!(read(bytes).is_err(), "{map}");
    }
}

proptest::proptest! {
    #[test]
    fn no_input_makes_the_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..4096)) {
        let _ = read(bytes);
    }

    #[test]
    fn no_header_makes_the_reader_panic(at in 0usize..512, value: u8, kind: u8, size in 0u64..4096) {
        let mut mutated = header("some/name", kind, size);
        mutated.as_mut_bytes()[at] = value;
        let _ = read(block(mutated, &[0x31; 2048]));
    }
}
