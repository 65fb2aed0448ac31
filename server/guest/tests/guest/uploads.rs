//! Trees that go into a guest's files, and users of the guest who are in the way.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use crate::support::PATIENCE;
use crate::support::scene::{APP, Guest, app, own, problem, skipped};
use banger_core::file::{FileProblem, TreeOwners};
use banger_core::tree::{
    DownloadPiece, Omission, OmissionReason, Omissions, TreeEntry, TreeKind, TreePiece,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_keep_holes_and_become_the_users() {
    if skipped("trees_keep_holes_and_become_the_users") {
        return;
    }
    let guest = Guest::new().await;
    let from = guest.at("srv/from");
    fs::create_dir_all(from.join("closed")).unwrap();
    fs::write(from.join("closed/x"), "x").unwrap();
    let _socket = UnixListener::bind(from.join("closed/socket")).unwrap();
    fs::write(from.join("suid"), "s").unwrap();
    fs::set_permissions(from.join("suid"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::hard_link(from.join("suid"), from.join("zlink")).unwrap();
    let sparse = fs::File::create(from.join("sparse")).unwrap();
    sparse.set_len(32 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", 20 << 20).unwrap();
    fs::set_permissions(from.join("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    let tree = guest
        .rig
        .guest
        .download_files(&own("/srv/from"))
        .await
        .unwrap();
    let mut pieces = Vec::new();
    let mut omissions = None;
    for piece in tree.try_collect::<Vec<_>>().await.unwrap() {
        match piece {
            DownloadPiece::Tree(piece) => pieces.push(piece),
            DownloadPiece::Omissions(told) => omissions = Some(told),
        }
    }
    let first = vec![Omission {
        path: b"closed/socket".to_vec(),
        reason: OmissionReason::Socket,
    }];
    assert_eq!(omissions, Some(Omissions { count: 1, first }));
    let told: usize = pieces
        .iter()
        .map(|piece| match piece {
            TreePiece::Data(data) => data.len(),
            TreePiece::Entry(_) => 0,
        })
        .sum();
    assert!(told < 1 << 20, "holes were told: {told}");
    for piece in &mut pieces {
        if let TreePiece::Entry(entry) = piece {
            let inside = std::mem::take(&mut entry.path);
            entry.path = [b"from/".as_slice(), &inside].concat();
            if entry.path.ends_with(b"/") {
                entry.path.pop();
            }
            if let TreeKind::HardLink { target } = &mut entry.kind {
                *target = [b"from/".as_slice(), target].concat();
            }
        }
    }
    let source = stream::iter(pieces).boxed();
    let put = guest
        .rig
        .guest
        .upload_files(&app("to"), true, TreeOwners::User, source)
        .await
        .unwrap();
    assert_eq!(put.entries, 6);
    let to = guest.at("home/app/to");
    let meta = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
    assert_eq!(meta("sparse").len(), 32 << 20);
    assert!(meta("sparse").blocks() < 2048);
    assert_eq!(
        (meta("suid").uid(), meta("suid").mode() & 0o7777),
        (APP, 0o755)
    );
    assert_eq!(meta("suid").ino(), meta("zlink").ino());
    assert_eq!(meta("closed").mode() & 0o7777, 0o555);
    assert_eq!(fs::read(to.join("closed/x")).unwrap(), b"x");
    guest.assert_nothing_unfinished();
}

/// Pieces that wait for their turn.
const PIECES_MAX: usize = 16;

fn entry(path: &str, kind: TreeKind) -> TreePiece {
    TreePiece::Entry(Box::new(TreeEntry {
        path: path.into(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (1_000_000_000, 5),
        xattrs: BTreeMap::new(),
    }))
}

fn file(path: &str) -> [TreePiece; 2] {
    [
        entry(path, TreeKind::File { size: 4 }),
        TreePiece::Data(Bytes::from_static(b"evil")),
    ]
}

/// A link of the user's, who may make it where root is going to put something.
fn planted(target: &str, link: &Path) {
    symlink(target, link).unwrap();
    lchown(link, Some(APP), Some(APP)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_of_another_user_are_not_followed_and_roots_are() {
    if skipped("links_of_another_user_are_not_followed_and_roots_are") {
        return;
    }
    let guest = Guest::new().await;
    let shadow = fs::read(guest.at("etc/shadow")).unwrap();
    planted("/etc", &guest.at("home/app/sub"));
    let upload = async |place, pieces: Vec<TreePiece>| {
        let source = stream::iter(pieces).boxed();
        let agent = &guest.rig.guest;
        agent
            .upload_files(&place, false, TreeOwners::User, source)
            .await
    };
    for path in ["sub/shadow", "sub/new", "sub/deeper/new"] {
        let put = upload(own("/home/app"), file(path).into()).await;
        assert_eq!(problem(put), FileProblem::AccessDenied, "{path}");
    }
    let linked = TreeKind::HardLink {
        target: b"sub/shadow".into(),
    };
    let put = upload(own("/home/app"), vec![entry("copy", linked)]).await;
    assert_eq!(problem(put), FileProblem::AccessDenied);
    assert_eq!(fs::read(guest.at("etc/shadow")).unwrap(), shadow);
    assert_eq!(fs::read_dir(guest.at("etc")).unwrap().count(), 3);
    assert!(!guest.at("home/app/copy").exists());
    // The user itself follows it, and has no more rights than before.
    let put = upload(app("/home/app"), file("sub/new").into()).await;
    assert_eq!(problem(put), FileProblem::AccessDenied);
    // As in an image whose /lib is a link.
    fs::create_dir_all(guest.at("usr/lib/x")).unwrap();
    symlink("usr/lib", guest.at("lib")).unwrap();
    symlink("../lib/./x", guest.at("srv/far")).unwrap();
    upload(own("/"), file("lib/so").into()).await.unwrap();
    upload(own("/"), file("srv/far/so").into()).await.unwrap();
    assert!(guest.at("usr/lib/so").exists() && guest.at("usr/lib/x/so").exists());
    // No way leads out of the root, and a loop ends.
    symlink("../../../../../../usr", guest.at("srv/up")).unwrap();
    upload(own("/"), file("srv/up/so").into()).await.unwrap();
    assert!(guest.at("usr/so").exists());
    symlink("loop", guest.at("srv/loop")).unwrap();
    let put = upload(own("/"), file("srv/loop/so").into()).await;
    assert_eq!(problem(put), FileProblem::LinkLoop);
    guest.assert_nothing_unfinished();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_becomes_a_link_meanwhile_leads_nowhere() {
    if skipped("a_directory_that_becomes_a_link_meanwhile_leads_nowhere") {
        return;
    }
    let guest = Guest::new().await;
    let (pieces, source) = mpsc::channel(PIECES_MAX);
    let source = ReceiverStream::new(source).boxed();
    let place = own("/home/app/missing/base");
    let agent = &guest.rig.guest;
    let uploading = agent.upload_files(&place, false, TreeOwners::User, source);
    let swapping = async {
        pieces.try_send(entry("a", TreeKind::Directory)).unwrap();
        for piece in file("a/first") {
            pieces.try_send(piece).unwrap();
        }
        let base = guest.at("home/app/missing/base");
        let came = async {
            while !base.join("a/first").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, came).await.unwrap();
        fs::rename(base.join("a"), base.join("moved")).unwrap();
        planted("/etc", &base.join("a"));
        fs::rename(guest.at("home/app/missing"), guest.at("home/app/elsewhere")).unwrap();
        planted("/etc", &guest.at("home/app/missing"));
        pieces.try_send(entry("b", TreeKind::Directory)).unwrap();
        for piece in [file("b/new"), file("a/new")].into_iter().flatten() {
            pieces.try_send(piece).unwrap();
        }
        drop(pieces);
    };
    let (put, ()) = tokio::join!(uploading, swapping);
    assert_eq!(problem(put), FileProblem::AccessDenied);
    let base = guest.at("home/app/elsewhere/base");
    assert!(base.join("b/new").exists(), "it goes where it went before");
    assert_eq!(fs::read_dir(guest.at("etc")).unwrap().count(), 3);
    guest.assert_nothing_unfinished();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_replaced_is_there_until_the_new_one_is() {
    let guest = Guest::new().await;
    let at = |path: &str| guest.at(path);
    fs::write(at("srv/link"), "old").unwrap();
    fs::write(at("srv/name"), "old").unwrap();
    fs::create_dir(at("srv/directory")).unwrap();
    let link = |path: &str| {
        let target = b"name".into();
        entry(path, TreeKind::Symlink { target })
    };
    let hard = |path: &str, target: &str| {
        let target = target.into();
        entry(path, TreeKind::HardLink { target })
    };
    let upload = async |pieces: Vec<TreePiece>| {
        let source = stream::iter(pieces).boxed();
        let agent = &guest.rig.guest;
        agent
            .upload_files(&own("/srv"), false, TreeOwners::User, source)
            .await
    };
    let missing = upload(vec![hard("link", "none")]).await;
    assert_eq!(problem(missing), FileProblem::NotFound);
    assert_eq!(fs::read(at("srv/link")).unwrap(), b"old");
    for piece in [link("directory"), hard("directory", "name")] {
        let put = upload(vec![piece]).await;
        assert_eq!(problem(put), FileProblem::IsDirectory);
    }
    upload(vec![
        link("link"),
        hard("same", "name"),
        hard("same", "name"),
    ])
    .await
    .unwrap();
    assert_eq!(fs::read_link(at("srv/link")).unwrap(), Path::new("name"));
    assert_eq!(fs::metadata(at("srv/name")).unwrap().nlink(), 2);
    guest.assert_nothing_unfinished();
}
