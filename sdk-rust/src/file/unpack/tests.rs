//! Archives that no honest VM sends: each is refused, and nothing is written outside of the target.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use banger_archive::TarWriter;

use super::*;

/// A directory to unpack into, beside one that must stay as it is.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        fs::write(dir.path().join("out/secret"), "secret").unwrap();
        Self { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn unpack(&self, entries: Vec<(TreeEntry, &[u8])>) -> Result<Unpacked> {
        self.unpack_within(UnpackLimits::default(), &written(entries))
    }

    fn unpack_within(&self, limits: UnpackLimits, archive: &[u8]) -> Result<Unpacked> {
        let unpack = Unpack {
            limits,
            ..Unpack::default()
        };
        self.unpack_as(unpack, archive)
    }

    fn unpack_as(&self, unpack: Unpack, archive: &[u8]) -> Result<Unpacked> {
        let naming = Naming::of(&self.at("in"), "t", false)?;
        Unpacker::open(naming, unpack)?.run(&mut &archive[..])
    }

    /// Nothing was made or changed outside, and nothing unfinished is left inside.
    fn assert_untouched(&self) {
        let names = |path: &str| {
            let mut names: Vec<_> = fs::read_dir(self.at(path))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(""), ["in", "out"]);
        assert_eq!(names("out"), ["secret"]);
        let secret = fs::metadata(self.at("out/secret")).unwrap();
        assert_eq!(fs::read(self.at("out/secret")).unwrap(), b"secret");
        assert_eq!((secret.mode() & 0o7777, secret.nlink()), (0o644, 1));
        let mut left = vec![self.at("in")];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                assert!(!entry.file_name().to_string_lossy().starts_with(".banger-"));
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                }
            }
        }
    }
}

fn entry(path: &str, kind: TreeKind) -> TreeEntry {
    TreeEntry {
        path: path.into(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (1_000_000_000, 0),
        xattrs: BTreeMap::new(),
    }
}

fn dir(path: &str) -> (TreeEntry, &'static [u8]) {
    let mut entry = entry(path, TreeKind::Directory);
    entry.mode = 0o755;
    (entry, b"")
}

fn file(path: &str, content: &'static [u8]) -> (TreeEntry, &'static [u8]) {
    let size = content.len() as u64;
    (entry(path, TreeKind::File { size }), content)
}

fn link(path: &str, target: &str) -> (TreeEntry, &'static [u8]) {
    let target = target.into();
    (entry(path, TreeKind::Symlink { target }), b"")
}

fn hard(path: &str, target: &str) -> (TreeEntry, &'static [u8]) {
    let target = target.into();
    (entry(path, TreeKind::HardLink { target }), b"")
}

fn written(entries: Vec<(TreeEntry, &[u8])>) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (entry, content) in entries {
        tar.entry(&entry).unwrap();
        tar.data(content).unwrap();
    }
    tar.finish().unwrap()
}

#[test]
fn no_name_and_no_link_leads_out() {
    let out = Scene::new();
    let secret = out.at("out/secret");
    let secret = secret.to_str().unwrap();
    let outside = out.at("out");
    let outside = outside.to_str().unwrap();
    let lies: Vec<Vec<(TreeEntry, &[u8])>> = vec![
        vec![dir("t"), file("../x", b"x")],
        vec![dir("t"), file("t/../../x", b"x")],
        vec![file("/etc/x", b"x")],
        vec![dir("t"), file("other", b"x")],
        vec![dir("t"), file("tt", b"x")],
        vec![dir("t"), link("t/l", "../../out"), file("t/l/x", b"x")],
        vec![dir("t"), link("t/l", outside), file("t/l/secret", b"x")],
        vec![dir("t"), link("t/l", outside), dir("t/l/d")],
        vec![dir("t"), link("t/l", outside), hard("t/h", "t/l/secret")],
        vec![dir("t"), hard("t/h", "../out/secret")],
        vec![dir("t"), hard("t/h", secret)],
        vec![link("t", outside), file("t/x", b"x")],
        vec![dir("t"), hard("t/h", "t")],
        vec![dir("t"), hard("t/h", "t/none")],
        vec![dir("t"), file("t/none/x", b"x")],
        vec![dir("t"), file("t/f", b"x"), file("t/f/x", b"x")],
    ];
    for lie in lies {
        let scene = Scene::new();
        let told = format!(
            "{:?}",
            lie.iter().map(|(entry, _)| entry).collect::<Vec<_>>()
        );
        // Links into the other scene lead as far.
        let unpacked = scene.unpack(lie);
        assert!(unpacked.is_err(), "{told}: {unpacked:?}");
        scene.assert_untouched();
    }
    out.assert_untouched();
}

#[test]
fn a_link_that_is_in_the_way_is_replaced_and_not_followed() {
    let scene = Scene::new();
    fs::create_dir(scene.at("in/t")).unwrap();
    symlink(scene.at("out/secret"), scene.at("in/t/f")).unwrap();
    symlink(scene.at("out"), scene.at("in/t/d")).unwrap();
    scene.unpack(vec![dir("t"), file("t/f", b"new")]).unwrap();
    assert_eq!(fs::read(scene.at("in/t/f")).unwrap(), b"new");
    // A directory that would be a link is none.
    assert!(
        scene
            .unpack(vec![dir("t"), dir("t/d"), file("t/d/x", b"x")])
            .is_err()
    );
    scene.assert_untouched();
}

#[test]
fn names_that_repeat_change_nothing_but_themselves() {
    let scene = Scene::new();
    let twice = vec![
        dir("t"),
        file("t/f", b"one"),
        hard("t/h", "t/f"),
        file("t/f", b"two"),
    ];
    scene.unpack(twice).unwrap();
    assert_eq!(fs::read(scene.at("in/t/f")).unwrap(), b"two");
    assert_eq!(fs::read(scene.at("in/t/h")).unwrap(), b"one");
    // The same file by the same name again.
    let again = vec![
        dir("t"),
        file("t/f", b"x"),
        hard("t/f", "t/f"),
        hard("t/g", "t/f"),
        hard("t/g", "t/f"),
    ];
    scene.unpack(again).unwrap();
    let turns = vec![dir("t"), dir("t/f")];
    assert!(scene.unpack(turns).is_err());
    scene.assert_untouched();
}

#[test]
fn links_are_to_what_came_and_to_nothing_else() {
    let scene = Scene::new();
    fs::create_dir(scene.at("in/t")).unwrap();
    fs::write(scene.at("in/t/before"), "mine").unwrap();
    let planted = vec![dir("t"), hard("t/h", "t/before")];
    let refused = scene.unpack(planted).unwrap_err();
    assert!(matches!(refused, Error::UnsafeEntry { .. }), "{refused:?}");
    assert!(!scene.at("in/t/h").exists());
    // A link of two names, and devices of two names.
    let secret = scene.at("out/secret");
    let unpacked = scene
        .unpack(vec![
            dir("t"),
            link("t/l", secret.to_str().unwrap()),
            hard("t/also", "t/l"),
            (entry("t/pipe", TreeKind::Fifo), b""),
            hard("t/pipe2", "t/pipe"),
        ])
        .unwrap();
    assert_eq!(fs::read_link(scene.at("in/t/also")).unwrap(), secret);
    let number = |path: &str| fs::symlink_metadata(scene.at(path)).unwrap().ino();
    assert_eq!(number("in/t/also"), number("in/t/l"));
    assert_eq!(unpacked.skipped_names, ["t/pipe", "t/pipe2"]);
    scene.assert_untouched();
}

#[test]
fn a_directory_is_refused_where_a_file_was_asked_for() {
    let scene = Scene::new();
    let unpack = Unpack {
        file_only: true,
        ..Unpack::default()
    };
    for tree in [vec![dir("t")], vec![dir("t"), file("t/f", b"x")]] {
        let refused = scene.unpack_as(unpack, &written(tree)).unwrap_err();
        assert!(matches!(refused, Error::UnsafeEntry { .. }), "{refused:?}");
    }
    scene
        .unpack_as(unpack, &written(vec![file("t", b"x")]))
        .unwrap();
    assert_eq!(fs::read(scene.at("in/t")).unwrap(), b"x");
    scene.assert_untouched();
}

#[test]
fn devices_are_left_out_and_rights_that_go_beyond_the_file_are_dropped() {
    let scene = Scene::new();
    let mut set = file("t/suid", b"x");
    set.0.mode = 0o6755;
    let capability = bytes::Bytes::from_static(b"\x01\0\0\x02");
    set.0
        .xattrs
        .insert("security.capability".into(), capability);
    let mut sticky = dir("t/sticky");
    sticky.0.mode = 0o3777;
    let unpacked = scene
        .unpack(vec![
            dir("t"),
            set,
            sticky,
            (
                entry("t/null", TreeKind::CharDevice { major: 1, minor: 3 }),
                b"",
            ),
            (
                entry("t/disk", TreeKind::BlockDevice { major: 8, minor: 0 }),
                b"",
            ),
            (entry("t/pipe", TreeKind::Fifo), b""),
        ])
        .unwrap();
    assert_eq!(unpacked.skipped, 3);
    assert_eq!(unpacked.skipped_names, ["t/null", "t/disk", "t/pipe"]);
    let mode = |path: &str| fs::metadata(scene.at(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("in/t/suid"), mode("in/t/sticky")), (0o755, 0o777));
    let mut none = [0; 64];
    let capability =
        rustix::fs::getxattr(scene.at("in/t/suid"), "security.capability", &mut none[..]);
    assert!(capability.is_err());
    scene.assert_untouched();
}

#[test]
fn endless_lists_and_lengths_end_at_their_bounds() {
    let scene = Scene::new();
    let limits = UnpackLimits {
        entries: 3,
        bytes: 10,
    };
    let names = written(vec![
        dir("t"),
        file("t/a", b""),
        file("t/b", b""),
        file("t/c", b""),
    ]);
    assert!(matches!(
        scene.unpack_within(limits, &names),
        Err(Error::UnsafeEntry { .. })
    ));
    let sparse = TreeKind::SparseFile {
        size: 1 << 40,
        ranges: Vec::new(),
    };
    let hole = written(vec![dir("t"), (entry("t/hole", sparse), b"")]);
    assert!(matches!(
        scene.unpack_within(limits, &hole),
        Err(Error::UnsafeEntry { .. })
    ));
    scene.assert_untouched();
}

#[test]
fn an_archive_that_is_cut_off_leaves_nothing_unfinished() {
    let scene = Scene::new();
    let archive = written(vec![
        dir("t"),
        file("t/whole", b"whole"),
        file("t/half", b"half"),
    ]);
    // In the middle of the last file's content.
    let end = archive.len() - 1024 - 510;
    let cut = scene.unpack_within(UnpackLimits::default(), &archive[..end]);
    assert!(matches!(cut, Err(Error::Archive(_))), "{cut:?}");
    assert_eq!(fs::read(scene.at("in/t/whole")).unwrap(), b"whole");
    assert!(!scene.at("in/t/half").exists());
    scene.assert_untouched();
}

#[test]
fn a_directory_without_rights_is_filled_before_it_loses_them() {
    let scene = Scene::new();
    let mut closed = dir("t/closed");
    closed.0.mode = 0o555;
    scene
        .unpack(vec![dir("t"), closed, file("t/closed/x", b"x")])
        .unwrap();
    let mode = fs::metadata(scene.at("in/t/closed")).unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o555);
    assert!(scene.at("in/t/closed/x").exists());
    scene.assert_untouched();
}
