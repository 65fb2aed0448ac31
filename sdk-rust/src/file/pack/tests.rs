//! What is packed is unpacked as it was.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use super::super::unpack::{Naming, Unpacker};
use super::super::{Unpack, Unpacked};
use super::*;
use crate::Error;

fn packed(tree: PackedTree) -> Vec<u8> {
    let mut archive = Vec::new();
    tree.write_to(&mut archive).unwrap();
    archive
}

fn first(omitted: &Omitted) -> Vec<(String, Reason)> {
    let told = |told: &v1::Omission| (told.path.clone(), told.reason());
    let omissions = omitted.told().unwrap_or_default();
    assert_eq!(
        omissions.count,
        i64::try_from(omissions.first.len()).unwrap()
    );
    omissions.first.iter().map(told).collect()
}

/// Takes an archive, and does something at each write.
struct Meddling<'a> {
    archive: Vec<u8>,
    meddle: &'a mut dyn FnMut(&[u8]),
}

impl Write for Meddling<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (self.meddle)(data);
        self.archive.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_goes_or_shrinks_while_a_tree_is_packed_is_told_and_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join("t").join(name);
    let size = 4 * PIECE_BYTES;
    fs::create_dir_all(at("left")).unwrap();
    for name in ["a", "gone", "left/x", "other"] {
        fs::write(at(name), name).unwrap();
    }
    fs::write(at("grows"), "1").unwrap();
    fs::write(at("shrinks"), vec![7; size]).unwrap();
    let mut meddle = |data: &[u8]| {
        if data.starts_with(b"a\0") {
            fs::remove_file(at("gone")).unwrap();
            fs::remove_dir_all(at("left")).unwrap();
        }
        if data.starts_with(b"grows\0") {
            fs::write(at("grows"), "12345").unwrap();
        }
        if data.len() > 512 && data[0] == 7 {
            let file = File::options().write(true).open(at("shrinks"));
            file.unwrap().set_len(1).unwrap();
        }
    };
    let mut writer = Meddling {
        archive: Vec::new(),
        meddle: &mut meddle,
    };
    let tree = PackedTree::content_of(dir.path().join("t"));
    let omitted = tree.omitted();
    tree.write_to(&mut writer).unwrap();
    let told = [
        ("gone", Reason::Vanished),
        ("left", Reason::Vanished),
        ("shrinks", Reason::Shrank),
    ];
    assert_eq!(first(&omitted), told.map(|(path, why)| (path.into(), why)));
    let to = dir.path().join("to");
    assert_eq!(unpacked(&writer.archive, &to, "", true).entries, 4);
    assert_eq!(fs::read(to.join("grows")).unwrap(), b"1");
    let content = fs::read(to.join("shrinks")).unwrap();
    assert_eq!((content.len(), content[0], content[size - 1]), (size, 7, 0));
    // What was named itself must be there.
    let missing = PackedTree::named(at("gone")).write_to(&mut Vec::new());
    assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    let missing = PackedTree::content_of(at("left")).write_to(&mut Vec::new());
    assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn what_takes_a_files_place_is_not_taken_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join("t").join(name);
    fs::create_dir_all(at("")).unwrap();
    for name in ["a", "link", "other", "pipe", "tree"] {
        fs::write(at(name), name).unwrap();
    }
    fs::hard_link(at("other"), at("second")).unwrap();
    fs::hard_link(at("a"), at("z")).unwrap();
    let mut meddle = |data: &[u8]| {
        if !data.starts_with(b"a\0") {
            return;
        }
        for name in ["link", "other", "pipe", "tree"] {
            fs::remove_file(at(name)).unwrap();
        }
        symlink("/etc/passwd", at("link")).unwrap();
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), kind, 0o600.into(), 0).unwrap();
        fs::create_dir(at("tree")).unwrap();
        fs::write(at("other"), "another").unwrap();
    };
    // Each is looked at before that, and opened behind it.
    let names = ["link", "other", "pipe", "second", "tree", "z"];
    let mut writer = Meddling {
        archive: Vec::new(),
        meddle: &mut meddle,
    };
    let mut packer = Packer {
        tar: TarWriter::new(&mut writer as &mut dyn Write),
        links: HashMap::new(),
        omitted: Omitted::default(),
    };
    packer.file(&at("a"), b"a").unwrap();
    let done = names.map(|name| packer.file(&at(name), name.as_bytes()));
    packer.tar.finish().unwrap();
    for (name, done) in names.iter().zip(done) {
        match (*name, done) {
            ("link" | "pipe" | "tree", Err(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::NotFound, "{name}");
            }
            (_, done) => done.unwrap(),
        }
    }
    let to = dir.path().join("to");
    assert_eq!(unpacked(&writer.archive, &to, "", true).entries, 4);
    // The one that was first has another content now, and its other name has the old one.
    let read = |name: &str| fs::read_to_string(to.join(name)).unwrap();
    assert_eq!(
        ["a", "z", "other", "second"].map(read),
        ["a", "a", "another", "other"]
    );
}

#[test]
fn what_shrinks_and_grows_again_lies_where_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let size = 4 * PIECE_BYTES;
    fs::write(&path, vec![7; size]).unwrap();
    let mut step = 0;
    let mut meddle = |data: &[u8]| {
        if data.len() <= 512 {
            return;
        }
        step += 1;
        let file = File::options().write(true).open(&path).unwrap();
        match step {
            1 => file.set_len(1).unwrap(),
            2 => file.write_all_at(&vec![8; size], 0).unwrap(),
            _ => {}
        }
    };
    let mut writer = Meddling {
        archive: Vec::new(),
        meddle: &mut meddle,
    };
    let tree = PackedTree::named(&path);
    let omitted = tree.omitted();
    tree.write_to(&mut writer).unwrap();
    assert_eq!(first(&omitted), [("file".to_owned(), Reason::Shrank)]);
    let to = dir.path().join("to");
    unpacked(&writer.archive, &to, "file", false);
    let content = fs::read(&to).unwrap();
    let at = |piece: usize| {
        (
            content[piece * PIECE_BYTES],
            content[(piece + 1) * PIECE_BYTES - 1],
        )
    };
    assert_eq!(content.len(), size);
    assert_eq!([0, 1, 2, 3].map(at), [(7, 7), (0, 0), (8, 8), (8, 8)]);
}

fn unpacked(archive: &[u8], target: &Path, top: &str, contents: bool) -> Unpacked {
    let unpack = Unpack {
        contents,
        ..Unpack::default()
    };
    let unpacker = Unpacker::open(Naming::of(target, top, contents).unwrap(), unpack).unwrap();
    unpacker.run(&mut &archive[..]).unwrap()
}

#[test]
fn a_tree_comes_back_with_links_holes_modes_times_and_attributes() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("sub/empty")).unwrap();
    fs::write(from.join("sub/file"), vec![7; 700_000]).unwrap();
    fs::hard_link(from.join("sub/file"), from.join("again")).unwrap();
    symlink("../nowhere", from.join("sub/link")).unwrap();
    let sparse = File::create(from.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"data", 33 << 20).unwrap();
    let script = from.join("sub/file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(from.join("sub/empty"), fs::Permissions::from_mode(0o555)).unwrap();
    let noted = rustix::fs::setxattr(
        from.join("sub/file"),
        "user.note",
        b"a\nb",
        rustix::fs::XattrFlags::empty(),
    );
    let _socket = UnixListener::bind(from.join("socket")).unwrap();
    let tree = PackedTree::named(&from);
    let omitted = tree.omitted();
    let archive = packed(tree);
    assert_eq!(
        first(&omitted),
        [("from/socket".to_owned(), Reason::Socket)]
    );
    assert!(
        archive.len() < 4 << 20,
        "holes take no room: {}",
        archive.len()
    );
    let told = unpacked(&archive, &dir.path().join("to"), "from", false);
    assert_eq!((told.entries, told.skipped), (7, 0));
    let to = dir.path().join("to");
    assert_eq!(fs::read(to.join("again")).unwrap(), vec![7; 700_000]);
    let meta = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
    let before = |path: &str| fs::symlink_metadata(from.join(path)).unwrap();
    assert_eq!(meta("again").ino(), meta("sub/file").ino());
    for path in ["sub/file", "sub/empty", "sub", "sparse", ""] {
        assert_eq!(meta(path).mode(), before(path).mode(), "{path}");
        let time = |meta: &Metadata| (meta.mtime(), meta.mtime_nsec());
        assert_eq!(time(&meta(path)), time(&before(path)), "{path}");
    }
    assert_eq!(
        fs::read_link(to.join("sub/link")).unwrap(),
        Path::new("../nowhere")
    );
    assert_eq!(meta("sparse").len(), 64 << 20);
    if before("sparse").blocks() < 1000 {
        assert!(meta("sparse").blocks() < 1000, "holes stay holes");
    }
    let mut data = [0; 4];
    let copy = File::open(to.join("sparse")).unwrap();
    copy.read_exact_at(&mut data, 33 << 20).unwrap();
    assert_eq!(&data, b"data");
    assert!(!to.join("socket").exists());
    if noted.is_ok() {
        let mut note = [0; 8];
        let length = rustix::fs::getxattr(to.join("sub/file"), "user.note", &mut note[..]);
        assert_eq!(&note[..length.unwrap()], b"a\nb");
    }
}

#[test]
fn what_is_named_is_followed_and_what_is_no_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::write(at("file"), "content").unwrap();
    fs::write(at("old"), "old").unwrap();
    symlink("old", at("link")).unwrap();
    let archive = packed(PackedTree::named(at("file")));
    unpacked(&archive, &at("link"), "file", false);
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("old"));
    assert_eq!(fs::read(at("old")).unwrap(), b"content");
    symlink("nowhere", at("lost")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    symlink("/dev/null", at("device")).unwrap();
    for name in ["new/", "old/", "lost", "socket", "device"] {
        let refused = Naming::of(&at(name), "file", false);
        assert!(matches!(refused, Err(Error::Unpack { .. })), "{name}");
    }
    assert!(!at("new").exists());
    // What is in a directory makes one.
    unpacked(&archive, &at("made/"), "", true);
    assert_eq!(fs::read(at("made/file")).unwrap(), b"content");
}

#[test]
fn targets_are_as_cp_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::write(at("file"), "content").unwrap();
    fs::create_dir(at("into")).unwrap();
    let archive = packed(PackedTree::named(at("file")));
    for (target, lies) in [("into", "into/file"), ("new", "new"), ("file", "file")] {
        unpacked(&archive, &at(target), "file", false);
        assert_eq!(fs::read(at(lies)).unwrap(), b"content", "{target}");
    }
    symlink("file", at("link")).unwrap();
    unpacked(
        &packed(PackedTree::named(at("link"))),
        &at("into"),
        "link",
        false,
    );
    assert!(!at("into/link").is_symlink());
    assert_eq!(fs::read(at("into/link")).unwrap(), b"content");
    fs::create_dir(at("tree")).unwrap();
    fs::write(at("tree/x"), "x").unwrap();
    let archive = packed(PackedTree::named(at("tree")));
    unpacked(&archive, &at("into"), "tree", false);
    assert!(at("into/tree/x").exists());
    unpacked(&archive, &at("flat"), "tree", true);
    assert!(at("flat/x").exists());
    let archive = packed(PackedTree::content_of(at("tree")));
    unpacked(&archive, &at("root"), "", false);
    assert!(at("root/x").exists());
}

#[test]
fn what_cannot_be_read_is_named() {
    let mut archive = Vec::new();
    let error = PackedTree::named("/does/not/exist").write_to(&mut archive);
    assert!(error.unwrap_err().to_string().contains("/does/not/exist"));
    assert!(PackedTree::named("/").write_to(&mut archive).is_err());
}
