use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::tar::{Content, Entry, EntryKind, Meta};

fn entry(path: &str, kind: EntryKind) -> Entry {
    let meta = Meta {
        mode: 0o700,
        uid: 1,
        gid: 2,
        mtime: (3, 4),
    };
    Entry {
        path: path.as_bytes().into(),
        kind,
        meta,
        xattrs: Box::default(),
    }
}

fn file(path: &str, id: u64) -> Entry {
    entry(path, EntryKind::File(Content::dense(id, 1)))
}

fn dir(path: &str) -> Entry {
    entry(path, EntryKind::Directory)
}

fn symlink(path: &str, target: &str) -> Entry {
    entry(
        path,
        EntryKind::Symlink {
            target: target.as_bytes().into(),
        },
    )
}

fn link(path: &str, target: &str) -> Entry {
    entry(
        path,
        EntryKind::HardLink {
            target: target.as_bytes().into(),
        },
    )
}

fn build(layers: Vec<Vec<Entry>>) -> Result<Tree, FlattenError> {
    let mut tree = Tree::new();
    for layer in layers {
        tree.apply(&layer.into_iter().collect())?;
    }
    Ok(tree)
}

/// The tree as paths: `d` for a directory, the place in the archive for a file, `->` for a link.
fn shape(tree: &Tree) -> BTreeMap<String, String> {
    let mut shape = BTreeMap::new();
    let mut todo = vec![(String::new(), ROOT)];
    while let Some((path, number)) = todo.pop() {
        let text = match &tree.inode(number).node {
            Node::Directory(_) => {
                todo.extend(
                    tree.names(number)
                        .map(|(name, inode)| (format!("{path}/{}", name.escape_ascii()), inode)),
                );
                "d".to_owned()
            }
            Node::File { layer, content, .. } => format!("{layer}:{}", content.extents[0].offset),
            Node::Symlink(target) => format!("->{}", target.escape_ascii()),
            _ => "?".to_owned(),
        };
        shape.insert(path, text);
    }
    shape.remove("");
    shape
}

fn shown(layers: Vec<Vec<Entry>>) -> String {
    let shape = shape(&build(layers).unwrap());
    shape
        .iter()
        .map(|(path, text)| format!("{path}={text}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn a_whiteout_hides_what_is_below_and_nothing_of_its_own_layer() {
    let lower = || vec![dir("a"), file("a/x", 1), file("a/y", 2)];
    assert_eq!(
        shown(vec![lower(), vec![file("a/.wh.x", 0)]]),
        "/a=d /a/y=0:2"
    );
    for upper in [
        vec![file("a/.wh.x", 0), file("a/x", 9)],
        vec![file("a/x", 9), file("a/.wh.x", 0)],
    ] {
        assert_eq!(shown(vec![lower(), upper]), "/a=d /a/x=1:9 /a/y=0:2");
    }
}

#[test]
fn an_opaque_directory_hides_all_that_is_below_in_any_order() {
    let lower = || vec![dir("a"), file("a/x", 1), dir("a/s"), file("a/s/z", 2)];
    let mark = || file("a/.wh..wh..opq", 0);
    for upper in [
        vec![dir("a"), mark(), dir("a/s"), file("a/s/n", 7)],
        vec![dir("a"), dir("a/s"), file("a/s/n", 7), mark()],
    ] {
        assert_eq!(shown(vec![lower(), upper]), "/a=d /a/s=d /a/s/n=1:7");
    }
}

#[test]
fn a_whiteout_of_a_directory_made_anew_hides_its_old_content() {
    let lower = || vec![dir("a"), file("a/old", 1)];
    for upper in [
        vec![file(".wh.a", 0), dir("a"), file("a/new", 2)],
        vec![dir("a"), file("a/new", 2), file(".wh.a", 0)],
    ] {
        assert_eq!(shown(vec![lower(), upper]), "/a=d /a/new=1:2");
    }
}

#[test]
fn whiteouts_of_nothing_are_passed_over_and_bad_ones_refused() {
    assert_eq!(
        shown(vec![vec![file(".wh.gone", 0), file("no/where/.wh.x", 0)]]),
        ""
    );
    assert_eq!(
        shown(vec![vec![
            file(".wh..wh.plnk/1", 0),
            file(".wh..wh.aufs", 0)
        ]]),
        ""
    );
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.."] {
        let expected = FlattenError::BadWhiteout {
            entry: name.to_owned(),
        };
        assert_eq!(build(vec![vec![file(name, 0)]]).unwrap_err(), expected);
    }
}

#[test]
fn a_hard_link_may_reach_into_a_lower_layer_and_shares_the_file() {
    let tree = build(vec![
        vec![file("a", 1)],
        vec![link("d/b", "a"), file(".wh.a", 0)],
    ])
    .unwrap();
    assert_eq!(shape(&tree)["/d/b"], "0:1");
    let tree = build(vec![
        vec![file("a", 1)],
        vec![link("b", "a"), link("c", "b")],
    ])
    .unwrap();
    assert!(tree.child(ROOT, b"a").is_some());
    assert_eq!(tree.child(ROOT, b"a"), tree.child(ROOT, b"c"));
}

#[test]
fn hard_links_to_nothing_and_to_directories_are_refused() {
    let error = build(vec![vec![link("b", "a")]]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "entry `b` is a hard link to `a`, which does not exist in the image"
    );
    let error = build(vec![vec![dir("a"), link("b", "a")]]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "entry `b` is a hard link to the directory `a`"
    );
    assert!(build(vec![vec![file("a", 1), link("a", "a")]]).is_err());
}

#[test]
fn a_file_replaces_a_directory_and_a_directory_a_link() {
    let lower = || {
        vec![
            dir("a"),
            file("a/x", 1),
            dir("t"),
            file("t/y", 2),
            symlink("l", "t"),
        ]
    };
    assert_eq!(
        shown(vec![lower(), vec![file("a", 5)]]),
        "/a=1:5 /l=->t /t=d /t/y=0:2"
    );
    assert_eq!(
        shown(vec![lower(), vec![dir("l"), file("l/z", 6)]]),
        "/a=d /a/x=0:1 /l=d /l/z=1:6 /t=d /t/y=0:2"
    );
}

#[test]
fn a_directory_over_a_directory_keeps_the_children_and_takes_the_metadata() {
    let mut changed = dir("a");
    changed.meta.mode = 0o1777;
    let tree = build(vec![vec![dir("a"), file("a/x", 1)], vec![changed]]).unwrap();
    let a = tree.child(ROOT, b"a").unwrap();
    assert_eq!(tree.inode(a).meta.mode, 0o1777);
    assert!(shape(&tree).contains_key("/a/x"));
}

#[test]
fn links_on_the_way_are_followed_inside_the_image_only() {
    let lower = || {
        vec![
            dir("usr"),
            dir("usr/lib"),
            symlink("lib", "usr/lib"),
            symlink("out", "../../../etc"),
            symlink("abs", "/usr"),
        ]
    };
    let upper = vec![
        file("lib/x", 1),
        file("out/passwd", 2),
        file("abs/lib/y", 3),
    ];
    let tree = shown(vec![lower(), upper]);
    for part in [
        "/usr/lib/x=1:1",
        "/etc/passwd=1:2",
        "/usr/lib/y=1:3",
        "/lib=->usr/lib",
    ] {
        assert!(tree.contains(part), "{part} in {tree}");
    }
}

#[test]
fn loops_and_files_on_the_way_are_refused() {
    let error = build(vec![vec![
        symlink("a", "b"),
        symlink("b", "a"),
        file("a/x", 1),
    ]])
    .unwrap_err();
    assert_eq!(
        error,
        FlattenError::SymlinkLoop {
            entry: "a/x".into()
        }
    );
    let error = build(vec![vec![file("a", 1), file("a/x", 1)]]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "entry `a/x` lies under `a`, which is not a directory"
    );
}

#[test]
fn one_entry_cannot_stand_for_many_directories_again_and_again() {
    // Each name of the link leads to a chain of directories of its own, which no layer declares.
    let chain = vec!["d"; 500].join("/");
    let mut layer = vec![symlink("l", &chain)];
    for number in 0..4500 {
        layer.push(dir(&number.to_string()));
        layer.push(link(&format!("{number}/l"), "l"));
        layer.push(file(&format!("{number}/l/f"), 1));
    }
    assert!(matches!(
        build(vec![layer]),
        Err(FlattenError::TooManyFiles { .. })
    ));
}

#[test]
fn the_root_takes_its_metadata_and_is_nothing_but_a_directory() {
    let tree = build(vec![vec![dir("")]]).unwrap();
    assert_eq!(tree.inode(ROOT).meta.mode, 0o700);
    assert_eq!(
        build(vec![vec![file("", 1)]]).unwrap_err(),
        FlattenError::RootNotDirectory
    );
}

/// What the model knows of a path in one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Directory,
    Opaque,
    File,
    Whiteout,
}

const PATHS: [&str; 12] = [
    "a", "b", "a/a", "a/b", "b/a", "b/b", "a/a/a", "a/a/b", "a/b/a", "a/b/b", "b/a/a", "b/b/b",
];

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        Just(Op::Directory),
        Just(Op::Opaque),
        Just(Op::File),
        Just(Op::Whiteout)
    ]
}

type LayerOps = BTreeMap<usize, Op>;

/// Drops what lies under something that is no directory in its own layer.
fn sane(ops: &LayerOps) -> BTreeMap<&'static str, Op> {
    let mut kept: BTreeMap<&str, Op> = BTreeMap::new();
    for (index, op) in ops {
        let path = PATHS[*index];
        let parents = PATHS
            .iter()
            .filter(|parent| path.starts_with(&format!("{parent}/")));
        if parents
            .clone()
            .all(|parent| !matches!(kept.get(parent), Some(Op::File | Op::Whiteout)))
        {
            for parent in parents {
                kept.entry(parent).or_insert(Op::Directory);
            }
            kept.insert(path, *op);
        }
    }
    kept
}

/// The naive overlay: what of the lower layers is not hidden, and over it the layer's own.
fn overlay(layers: &[BTreeMap<&'static str, Op>]) -> BTreeMap<String, String> {
    let mut below: BTreeMap<String, String> = BTreeMap::new();
    for (number, layer) in layers.iter().enumerate() {
        below.retain(|path, text| {
            let path = &path[1..];
            layer.iter().all(|(other, op)| {
                let inside = path.starts_with(&format!("{other}/"));
                match op {
                    Op::Directory => path != *other || text == "d",
                    Op::Opaque => !inside && (path != *other || text == "d"),
                    Op::File | Op::Whiteout => !inside && path != *other,
                }
            })
        });
        for (path, op) in layer {
            match op {
                Op::Directory | Op::Opaque => drop(below.insert(format!("/{path}"), "d".into())),
                Op::File => drop(below.insert(format!("/{path}"), format!("{number}:7"))),
                Op::Whiteout => {}
            }
        }
    }
    below
}

fn entries(layer: &BTreeMap<&'static str, Op>, marks_last: bool) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut marks = Vec::new();
    for (path, op) in layer {
        let (parent, name) = path
            .rsplit_once('/')
            .map_or(("", *path), |(parent, name)| (parent, name));
        match op {
            Op::Directory => entries.push(dir(path)),
            Op::Opaque => {
                entries.push(dir(path));
                marks.push(file(&format!("{path}/.wh..wh..opq"), 0));
            }
            Op::File => entries.push(file(path, 7)),
            Op::Whiteout => marks.push(file(
                format!("{parent}/.wh.{name}").trim_start_matches('/'),
                0,
            )),
        }
    }
    if marks_last {
        entries.extend(marks);
        return entries;
    }
    // Directly behind the directory they are in, as most tools write them.
    let mut mixed = Vec::new();
    let parent_of = |mark: &Entry| {
        let text = mark.path_text().unwrap();
        text.rsplit_once('/')
            .map_or(String::new(), |(parent, _)| parent.to_owned())
    };
    mixed.extend(
        marks
            .iter()
            .filter(|mark| parent_of(mark).is_empty())
            .cloned(),
    );
    for entry in entries {
        let path = entry.path_text().unwrap().to_owned();
        mixed.push(entry);
        mixed.extend(marks.iter().filter(|mark| parent_of(mark) == path).cloned());
    }
    mixed
}

proptest! {
    #[test]
    fn layers_make_what_a_naive_overlay_makes(
        layers in prop::collection::vec(prop::collection::btree_map(0..PATHS.len(), ops(), 0..8), 1..5),
        marks_last: bool,
    ) {
        let layers: Vec<_> = layers.iter().map(sane).collect();
        let tree = build(layers.iter().map(|layer| entries(layer, marks_last)).collect()).unwrap();
        prop_assert_eq!(shape(&tree), overlay(&layers));
    }
}
