//! Trees through both ends of the guest protocol: into a root that is full of traps, and out of it.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::support::rig_in;
use banger_core::guest::{Guest, GuestError, TreePieces};
use banger_core::tree::{Naming, PathKind, TreeEntry, TreeKind, TreePiece, TreePlace};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

fn entry(path: &str, kind: TreeKind) -> TreeEntry {
    TreeEntry {
        path: path.into(),
        kind,
        mode: 0o640,
        uid: 0,
        gid: 0,
        mtime: (1_000_000_000, 5),
        xattrs: BTreeMap::new(),
    }
}

fn file(path: &str, content: &[u8]) -> Vec<TreePiece> {
    let size = content.len() as u64;
    let mut pieces = vec![TreePiece::Entry(Box::new(entry(
        path,
        TreeKind::File { size },
    )))];
    pieces.extend(
        content
            .chunks(7)
            .map(|chunk| TreePiece::Data(Bytes::copy_from_slice(chunk))),
    );
    pieces
}

fn one(path: &str, kind: TreeKind) -> Vec<TreePiece> {
    vec![TreePiece::Entry(Box::new(entry(path, kind)))]
}

fn place(path: &str, naming: Naming) -> TreePlace {
    TreePlace {
        path: path.into(),
        naming,
        owner: (0, 0),
    }
}

async fn put(
    guest: &dyn Guest,
    place: TreePlace,
    pieces: Vec<Vec<TreePiece>>,
) -> Result<(), GuestError> {
    guest
        .put_tree(&place, stream::iter(pieces.concat()).boxed())
        .await
}

async fn got(pieces: TreePieces) -> Vec<(String, TreeKind, Vec<u8>)> {
    let pieces: Vec<TreePiece> = pieces.try_collect().await.unwrap();
    let mut found: Vec<(String, TreeKind, Vec<u8>)> = Vec::new();
    for piece in pieces {
        match piece {
            TreePiece::Entry(entry) => {
                let path = String::from_utf8(entry.path).unwrap();
                found.push((path, entry.kind, Vec::new()));
            }
            TreePiece::Data(data) => found.last_mut().unwrap().2.extend_from_slice(&data),
        }
    }
    found
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn skipped(rule: &str) -> bool {
    if !is_root() {
        eprintln!("SKIPPED {rule}: only root may give files away");
    }
    !is_root()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_arrives_with_owner_mode_and_time() {
    if skipped("what_is_put_arrives_with_owner_mode_and_time") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let rig = rig_in(root.path()).await;
    let mut owned = entry("sub/file", TreeKind::File { size: 5 });
    (owned.uid, owned.gid, owned.mode) = (12, 34, 0o4755);
    owned
        .xattrs
        .insert("user.note".into(), Bytes::from_static(b"a\nb"));
    let pieces = vec![
        one("sub", TreeKind::Directory),
        vec![
            TreePiece::Entry(Box::new(owned)),
            TreePiece::Data(Bytes::from_static(b"hello")),
        ],
        one(
            "sub/link",
            TreeKind::Symlink {
                target: b"/nowhere".to_vec(),
            },
        ),
        one(
            "sub/hard",
            TreeKind::HardLink {
                target: b"sub/file".to_vec(),
            },
        ),
        one("sub/pipe", TreeKind::Fifo),
        one("sub/null", TreeKind::CharDevice { major: 1, minor: 3 }),
    ];
    put(&*rig.guest, place("/a/b", Naming::Directory), pieces)
        .await
        .unwrap();
    let at = |path: &str| root.path().join("a/b").join(path);
    let file = fs::metadata(at("sub/file")).unwrap();
    assert_eq!(
        (file.uid(), file.gid(), file.mode() & 0o7777),
        (12, 34, 0o4755)
    );
    assert_eq!((file.mtime(), file.mtime_nsec()), (1_000_000_000, 5));
    assert_eq!(fs::read(at("sub/hard")).unwrap(), b"hello");
    assert_eq!(file.ino(), fs::metadata(at("sub/hard")).unwrap().ino());
    assert_eq!(
        fs::read_link(at("sub/link")).unwrap(),
        Path::new("/nowhere")
    );
    assert_eq!(fs::symlink_metadata(at("sub/null")).unwrap().rdev(), 0x103);
    assert_eq!(fs::metadata(at("sub")).unwrap().mtime(), 1_000_000_000);
    let back = got(rig.guest.get_tree(b"/a/b").await.unwrap()).await;
    let names: Vec<&str> = back.iter().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(
        names,
        [
            "", "sub", "sub/file", "sub/hard", "sub/link", "sub/null", "sub/pipe"
        ]
    );
    assert_eq!(back[2].2, b"hello");
    assert_eq!(
        back[3].1,
        TreeKind::HardLink {
            target: b"sub/file".to_vec()
        }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_link_leads_out_of_the_root() {
    if skipped("no_link_leads_out_of_the_root") {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("inside")).unwrap();
    symlink(outside.path(), root.path().join("absolute")).unwrap();
    symlink("../../../../inside", root.path().join("upwards")).unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let rig = rig_in(root.path()).await;
    put(
        &*rig.guest,
        place("/upwards", Naming::Directory),
        vec![file("x", b"x")],
    )
    .await
    .unwrap();
    assert_eq!(fs::read(root.path().join("inside/x")).unwrap(), b"x");
    // It leads to a path that the root does not have: nothing is there, and nothing is made outside.
    let put = put(
        &*rig.guest,
        place("/absolute", Naming::Directory),
        vec![file("x", b"x")],
    )
    .await;
    assert!(matches!(put, Err(GuestError::File { .. })), "{put:?}");
    assert!(!outside.path().join("x").exists());
    let got = rig.guest.get_tree(b"/absolute/secret").await.unwrap();
    let got: Result<Vec<_>, _> = got.try_collect().await;
    assert!(matches!(got, Err(GuestError::File { .. })), "{got:?}");
    for path in [&b"relative"[..], b"/../secret", b"/a\0b"] {
        let listed = rig.guest.list_directory(path).await;
        assert!(
            matches!(listed, Err(GuestError::Refused { .. })),
            "{listed:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_takes_the_name_or_lies_in_the_directory() {
    if skipped("a_file_takes_the_name_or_lies_in_the_directory") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("target"), "old").unwrap();
    symlink("target", at("link")).unwrap();
    let rig = rig_in(root.path()).await;
    for (path, lies) in [
        ("/dir", "dir/f"),
        ("/new/name", "new/name"),
        ("/link", "link"),
    ] {
        put(
            &*rig.guest,
            place(path, Naming::Entry),
            vec![file("f", b"new")],
        )
        .await
        .unwrap();
        assert_eq!(fs::read(at(lies)).unwrap(), b"new", "{path}");
    }
    // The link was replaced, not what it leads to.
    assert_eq!(fs::read(at("target")).unwrap(), b"old");
    let over = put(
        &*rig.guest,
        place("/", Naming::Directory),
        vec![file("dir", b"x")],
    )
    .await;
    assert!(matches!(over, Err(GuestError::File { .. })), "{over:?}");
    assert_eq!(
        rig.guest.list_directory(b"/dir").await.unwrap(),
        PathKind::Directory(vec![b"f".to_vec()])
    );
    assert_eq!(
        rig.guest.list_directory(b"/link").await.unwrap(),
        PathKind::Other
    );
    assert_eq!(
        rig.guest.list_directory(b"/none").await.unwrap(),
        PathKind::Missing
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_there_keeps_its_mode() {
    if skipped("a_directory_that_is_there_keeps_its_mode") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("tmp");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
    let rig = rig_in(root.path()).await;
    let pieces = vec![one("tmp", TreeKind::Directory), file("tmp/x", b"x")];
    put(&*rig.guest, place("/", Naming::Directory), pieces)
        .await
        .unwrap();
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o1777);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_that_breaks_off_is_no_tree() {
    let root = tempfile::tempdir().unwrap();
    let rig = rig_in(root.path()).await;
    let mut short = file("x", b"hello");
    short.pop();
    short.push(TreePiece::Data(Bytes::from_static(b"hel")));
    let done = put(&*rig.guest, place("/", Naming::Directory), vec![short]).await;
    assert!(matches!(done, Err(GuestError::Refused { .. })), "{done:?}");
    let long = [
        file("x", b"hello"),
        vec![TreePiece::Data(Bytes::from_static(b"!"))],
    ]
    .concat();
    let done = put(&*rig.guest, place("/", Naming::Directory), vec![long]).await;
    assert!(matches!(done, Err(GuestError::Refused { .. })), "{done:?}");
}

#[tokio::test]
async fn a_tree_that_is_deeper_than_stacks_are_is_refused_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let deep = |levels: usize| vec!["d"; levels].join("/");
    fs::create_dir_all(dir.path().join("fits").join(deep(200))).unwrap();
    fs::create_dir_all(dir.path().join("deep").join(deep(700))).unwrap();
    let rig = rig_in(dir.path()).await;
    let fits = got(rig.guest.get_tree(b"/fits").await.unwrap()).await;
    assert_eq!(fits.len(), 201);
    let pieces = rig.guest.get_tree(b"/deep").await.unwrap();
    let refused = pieces.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(
        refused.to_string().contains("directories in each other"),
        "{refused:?}"
    );
}
