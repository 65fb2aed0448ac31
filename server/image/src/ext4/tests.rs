use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::content::{ContentReader, kept_runs};
use super::fill::{Filling, fill};
use super::*;
use crate::flatten::Tree;
use crate::tar::{Content, Entry, EntryKind, Extent, Meta};
use crate::writeback::Flush;

fn fsck(disk: &Path) {
    let output = Command::new("e2fsck")
        .arg("-fn")
        .arg(disk)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    let meta = Meta {
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
    };
    Entry {
        path: path.as_bytes().into(),
        kind,
        meta,
        xattrs: Box::default(),
    }
}

/// Writes the entries of one layer, whose files lie in `archive`.
fn disk(entries: Vec<Entry>, archive: &[u8]) -> Result<(tempfile::NamedTempFile, u64), Ext4Error> {
    let mut tree = Tree::new();
    tree.apply(&entries.into_iter().collect())?;
    let layer = tempfile::tempfile().unwrap();
    layer.write_all_at(archive, 0).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let spec = BaseSpec {
        tree,
        sources: &[Source::Archive(layer)],
        uuid: [7; 16],
        flush: Flush::Late,
    };
    let cancel = CancellationToken::new();
    let (_, hidden) = write_base(spec, file.as_file(), &cancel, &|_| {})?;
    hidden.clear(file.as_file(), &cancel)?;
    let size = file.as_file().metadata().unwrap().len();
    Ok((file, size))
}

#[test]
fn an_upper_disk_is_clean_sparse_and_quick() {
    let directory = tempfile::tempdir().unwrap();
    for size in [64 << 20, 4u64 << 30, 64 << 30] {
        let path = directory.path().join(format!("{size}.ext4"));
        create_upper(&path, size).unwrap();
        let metadata = path.metadata().unwrap();
        assert_eq!(metadata.len(), size);
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert!(
            metadata.blocks() * 512 < 8 << 20,
            "{} bytes allocated",
            metadata.blocks() * 512
        );
        fsck(&path);
    }
}

#[test]
fn an_upper_disk_never_replaces_a_file_and_leaves_none_of_a_bad_size() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    for size in [0, 4096, (64 << 20) + 1, u64::MAX / 4096 * 4096] {
        assert!(
            matches!(create_upper(&path, size), Err(Ext4Error::BadSize { .. })),
            "{size}"
        );
    }
    assert!(!path.exists());
    std::fs::write(&path, "mine").unwrap();
    assert!(matches!(
        create_upper(&path, 64 << 20),
        Err(Ext4Error::Create { .. })
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn the_empty_tree_makes_a_clean_disk() {
    let (file, size) = disk(Vec::new(), b"").unwrap();
    fsck(file.path());
    assert_eq!(file.path().metadata().unwrap().len(), size);
    assert!(file.path().metadata().unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn trees_of_many_shapes_fit_and_are_clean() {
    let many = |count: usize, name: usize| -> Vec<Entry> {
        (0..count)
            .map(|n| {
                entry(
                    &format!("d/{n:0name$}"),
                    EntryKind::File(Content::dense(0, 5)),
                )
            })
            .collect()
    };
    let deep: Vec<Entry> = vec![entry(&vec!["deep"; 200].join("/"), EntryKind::Directory)];
    let links: Vec<Entry> = std::iter::once(entry("f", EntryKind::File(Content::dense(0, 9))))
        .chain((0..500).map(|n| {
            entry(
                &format!("l{n}"),
                EntryKind::HardLink {
                    target: (*b"f").into(),
                },
            )
        }))
        .chain((0..50).map(|n| {
            entry(
                &format!("s{n}"),
                EntryKind::Symlink {
                    target: vec![b'x'; 60 + n].into(),
                },
            )
        }))
        .collect();
    let large = vec![entry("big", EntryKind::File(Content::dense(0, 200 << 20)))];
    for (entries, archive) in [
        (many(20_000, 40), vec![b'x'; 16]),
        (many(900, 250), vec![b'x'; 16]),
        (deep, Vec::new()),
        (links, vec![b'y'; 16]),
        (large, vec![b'z'; 200 << 20]),
    ] {
        let (file, _) = disk(entries, &archive).unwrap();
        fsck(file.path());
    }
}

#[test]
fn holes_stay_holes_and_zeros_become_them() {
    let sparse = Content {
        size: 1 << 30,
        extents: vec![Extent {
            logical: 123_456,
            offset: 0,
            len: 10,
        }]
        .into(),
    };
    let hole = Content {
        size: 1 << 30,
        extents: crate::tar::Extents::None,
    };
    let zeros = Content::dense(16, 32 << 20);
    let files = [("sparse", sparse), ("hole", hole), ("zeros", zeros)];
    let entries = files.map(|(name, content)| entry(name, EntryKind::File(content)));
    let mut archive = vec![0; (32 << 20) + 16];
    archive[..10].copy_from_slice(b"0123456789");
    let (file, size) = disk(entries.into(), &archive).unwrap();
    fsck(file.path());
    assert!(size < 64 << 20, "{size}");
    assert!(file.path().metadata().unwrap().blocks() * 512 < 2 << 20);
}

#[test]
fn the_same_tree_makes_the_same_bytes() {
    let make = || {
        disk(
            vec![entry("a/b", EntryKind::File(Content::dense(0, 3)))],
            b"abc",
        )
        .unwrap()
        .0
    };
    assert!(std::fs::read(make().path()).unwrap() == std::fs::read(make().path()).unwrap());
}

#[test]
fn an_images_own_lost_found_may_only_be_empty() {
    let (file, _) = disk(vec![entry("lost+found", EntryKind::Directory)], b"").unwrap();
    fsck(file.path());
    for entries in [
        vec![entry("lost+found", EntryKind::Fifo)],
        vec![
            entry("lost+found", EntryKind::Directory),
            entry("lost+found/x", EntryKind::Fifo),
        ],
    ] {
        let error = disk(entries, b"").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the image has a `lost+found` of its own that is not an empty directory"
        );
    }
}

#[test]
fn a_cancelled_disk_says_so() {
    let mut tree = Tree::new();
    let file = entry("a", EntryKind::File(Content::dense(0, 3)));
    tree.apply(&[file].into_iter().collect()).unwrap();
    let (layer, cancel) = (tempfile::tempfile().unwrap(), CancellationToken::new());
    cancel.cancel();
    let spec = BaseSpec {
        tree,
        sources: &[Source::Archive(layer)],
        uuid: [7; 16],
        flush: Flush::Late,
    };
    let result = write_base(spec, &tempfile::tempfile().unwrap(), &cancel, &|_| {});
    assert!(matches!(result, Err(Ext4Error::Cancelled)));
}

#[test]
fn what_is_done_beside_the_copying_is_given_up_when_that_fails() {
    let mut tree = Tree::new();
    let file = entry("a", EntryKind::File(Content::dense(0, 9)));
    tree.apply(&[file].into_iter().collect()).unwrap();
    let (number, content) = tree.files().next().unwrap();
    let filling = Filling {
        number,
        blocks: Cursor::new().take_file(content),
        is_hidden: false,
    };
    // Of the nine bytes there is none.
    let sources = [Source::Archive(tempfile::tempfile().unwrap())];
    let (disk, cancel) = (tempfile::tempfile().unwrap(), CancellationToken::new());
    let (stopped, is_stopped) = std::sync::mpsc::channel();
    let wait = |_: &Tree, stop: &CancellationToken| {
        let begin = Instant::now();
        while !stop.is_cancelled() && begin.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
        }
        stopped.send(stop.is_cancelled()).unwrap();
        Err(Ext4Error::Cancelled)
    };
    let progress: &dyn Fn(u64) = &|_| {};
    let (to, watched) = ((&disk, Flush::Late), (&cancel, progress));
    let filled = fill(&mut tree, vec![filling], &sources, to, watched, wait);
    assert!(is_stopped.recv().unwrap());
    assert!(matches!(filled, Err(Ext4Error::Write(_))), "{filled:?}");
    assert!(!cancel.is_cancelled());
}

#[test]
fn a_layer_that_is_too_short_is_an_error_not_zeros() {
    assert!(matches!(
        disk(
            vec![entry("a", EntryKind::File(Content::dense(0, 9)))],
            b"abc"
        ),
        Err(Ext4Error::Write(_))
    ));
}

/// Pieces with gaps, in order.
fn contents() -> impl Strategy<Value = Content> {
    prop::collection::vec((0u64..10_000, 1u64..10_000), 0..8).prop_flat_map(|pieces| {
        (Just(pieces), 0u64..10_000).prop_map(|(pieces, tail)| {
            let (mut logical, mut offset, mut extents) = (0, 0, Vec::new());
            for (gap, len) in pieces {
                logical += gap;
                extents.push(Extent {
                    logical,
                    offset,
                    len,
                });
                logical += len;
                offset += len;
            }
            Content {
                size: logical + tail,
                extents: extents.into(),
            }
        })
    })
}

proptest! {
    #[test]
    fn what_is_read_and_what_is_a_hole_make_the_file(content in contents()) {
        let archive = tempfile::tempfile().unwrap();
        let total: u64 = content.extents.iter().map(|extent| extent.len).sum();
        let bytes: Vec<u8> = (0..total).map(|n| u8::try_from(n % 251).unwrap() + 1).collect();
        archive.write_all_at(&bytes, 0).unwrap();
        let mut expected = vec![0; usize::try_from(content.size).unwrap()];
        for extent in &content.extents {
            let at = |n: u64| usize::try_from(n).unwrap();
            expected[at(extent.logical)..at(extent.logical + extent.len)]
                .copy_from_slice(&bytes[at(extent.offset)..at(extent.offset + extent.len)]);
        }
        let mut read = Vec::new();
        ContentReader::new(&archive, &content).read_to_end(&mut read).unwrap();
        let mut actual = vec![0; expected.len()];
        let mut from = &*read;
        for (begin, end) in kept_runs(&content) {
            prop_assert_eq!(begin % 4096, 0);
            let range = usize::try_from(begin).unwrap()..usize::try_from(end).unwrap();
            from.read_exact(&mut actual[range]).unwrap();
        }
        prop_assert!(from.is_empty());
        prop_assert!(actual == expected);
    }
}

#[test]
fn reading_stops_at_the_end_of_the_archive() {
    let archive: File = tempfile::tempfile().unwrap();
    let mut read = Vec::new();
    ContentReader::new(&archive, &Content::dense(0, 5))
        .read_to_end(&mut read)
        .unwrap();
    assert!(read.is_empty());
}

#[test]
fn names_that_are_no_text_lie_on_the_disk_as_they_are() {
    let odd = |path: &[u8], kind| Entry {
        path: path.into(),
        ..entry("", kind)
    };
    let link = |target: Vec<u8>| EntryKind::Symlink {
        target: target.into(),
    };
    let mut entries = vec![
        odd(b"\xff", EntryKind::Fifo),
        // What stands for it until it is written is in use.
        odd(b"0000", EntryKind::Fifo),
        odd(b"caf\xe9", EntryKind::Directory),
        odd(b"caf\xe9/\xfe\xfd", EntryKind::File(Content::dense(0, 3))),
        odd(
            b"linked\xe9",
            EntryKind::HardLink {
                target: b"caf\xe9/\xfe\xfd".as_slice().into(),
            },
        ),
        odd(b"short", link(b"\xe9".to_vec())),
        odd(b"long", link(vec![0xe9; 300])),
        odd(&[b"n/".as_slice(), &[0xe9; 255]].concat(), EntryKind::Fifo),
    ];
    // Large enough for a hash index of one level, and of two.
    for (directory, count) in [("m", 500u32), ("b", 80_000)] {
        entries.extend((0..count).map(|number| {
            let name =
                format!("{directory}/{number:07}-with-a-name-that-takes-some-room-on-the-disk");
            odd(
                &[name.as_bytes(), if number % 7 == 3 { b"\xe9" } else { b"" }].concat(),
                EntryKind::Fifo,
            )
        }));
    }
    let (file, _) = disk(entries, b"abc").unwrap();
    fsck(file.path());
    let fs = mkext4::reader::Fs::open(file.as_file()).unwrap();
    assert_eq!(fs.verify().unwrap(), []);
    let find = |directory: u32, name: &[u8]| fs.lookup(directory, name).unwrap().unwrap();
    let root = mkext4::spec::ROOT_INO;
    find(root, b"\xff");
    find(root, b"0000");
    find(find(root, b"n"), &[0xe9; 255]);
    assert_eq!(
        find(find(root, b"caf\xe9"), b"\xfe\xfd"),
        find(root, b"linked\xe9")
    );
    assert_eq!(fs.symlink_target(find(root, b"short")).unwrap(), b"\xe9");
    assert_eq!(fs.symlink_target(find(root, b"long")).unwrap(), [0xe9; 300]);
    let large = find(root, b"b");
    find(
        large,
        b"0079998-with-a-name-that-takes-some-room-on-the-disk",
    );
    find(
        large,
        b"0000003-with-a-name-that-takes-some-room-on-the-disk\xe9",
    );
    assert_eq!(fs.read_dir(large).unwrap().len(), 80_000 + 2);
}

#[test]
fn a_directory_may_hold_more_directories_than_its_links_count() {
    let entries = (0..66_000)
        .map(|number| entry(&format!("d/{number}"), EntryKind::Directory))
        .collect();
    fsck(disk(entries, b"").unwrap().0.path());
}

#[test]
fn attributes_and_links_as_large_as_they_may_be_fit() {
    let mut full = entry("full", EntryKind::File(Content::dense(0, 3)));
    full.xattrs = [(
        "user.a".to_owned(),
        vec![7; banger_archive::limits::XATTR_BYTES_MAX - 20],
    )]
    .into();
    let target = vec![b'x'; 4095].into();
    fsck(
        disk(
            vec![full, entry("link", EntryKind::Symlink { target })],
            b"abc",
        )
        .unwrap()
        .0
        .path(),
    );
}
