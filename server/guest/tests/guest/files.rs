//! Files of a guest through both ends of the guest protocol, with an agent in this process.
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use crate::support::scene::{APP, Guest, app, own, problem, skipped};
use crate::support::{PATIENCE, rig_in};
use banger_core::file::{
    ChangeKind, FileAttributes, FileKind, FileListing, FilePlace, FileProblem, FileRange,
    FileWrite, Links, Removal, Replacing, WatchEvent, WriteMode,
};
use banger_core::guest::GuestError;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_its_own_rights_and_no_others() {
    if skipped("a_user_has_its_own_rights_and_no_others") {
        return;
    }
    let guest = Guest::new().await;
    let made = guest
        .write(&app("notes"), WriteMode::Replace, "mine")
        .await
        .unwrap();
    assert_eq!((made.uid, made.gid, made.user.as_str()), (APP, APP, "app"));
    assert_eq!(fs::read(guest.at("home/app/notes")).unwrap(), b"mine");
    let all = FileRange::default();
    assert_eq!(
        problem(guest.read(&app("/etc/shadow"), all).await),
        FileProblem::AccessDenied
    );
    let written = guest.write(&app("/etc/x"), WriteMode::Replace, "x").await;
    assert_eq!(problem(written), FileProblem::AccessDenied);
    let agent = &guest.rig.guest;
    let removal = Removal {
        recursive: true,
        allow_missing: false,
    };
    assert_eq!(
        problem(agent.remove_file(&app("/etc"), removal).await),
        FileProblem::AccessDenied
    );
    let root = FileAttributes {
        owner: "root".into(),
        ..FileAttributes::default()
    };
    let given = agent
        .set_file_attributes(&app("notes"), Links::Follow, &root)
        .await;
    assert_eq!(problem(given), FileProblem::AccessDenied);
    // Supplementary groups count too.
    fs::write(guest.at("srv/staff"), "staff").unwrap();
    std::os::unix::fs::chown(guest.at("srv/staff"), Some(0), Some(50)).unwrap();
    fs::set_permissions(guest.at("srv/staff"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(guest.read(&app("/srv/staff"), all).await.unwrap(), b"staff");
    // The thread that did it is the agent's again.
    assert_eq!(
        guest.read(&own("/etc/shadow"), all).await.unwrap(),
        b"secret"
    );
    let user = FilePlace {
        user: "nobody-here".into(),
        path: b"/etc".to_vec(),
    };
    let unknown = agent.stat_file(&user, Links::Follow).await;
    assert!(
        matches!(unknown, Err(GuestError::UnknownUser { .. })),
        "{unknown:?}"
    );
    guest.assert_nothing_unfinished();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_ask_for_the_effective_user_do_not_see_root() {
    if skipped("files_that_ask_for_the_effective_user_do_not_see_root") {
        return;
    }
    // /proc/sys looks at the effective user, not at the one of the file system.
    let rig = rig_in(Path::new("/")).await;
    let nobody = FilePlace {
        user: "65534:65534".into(),
        path: b"/proc/sys/kernel/printk".to_vec(),
    };
    let write = FileWrite {
        mode: WriteMode::At {
            offset: 0,
            truncate: false,
        },
        attributes: FileAttributes::default(),
        make_parents: false,
    };
    let before = fs::read("/proc/sys/kernel/printk").unwrap();
    let source = stream::iter([Bytes::from(before)]).boxed();
    let written = rig.guest.write_file(&nobody, &write, source).await;
    assert_eq!(problem(written), FileProblem::AccessDenied);
    // What the agent has open, or in its memory, is nobody's.
    for path in [
        "/proc/self/mem",
        "/proc/thread-self/mem",
        "/proc/self/environ",
    ] {
        let place = FilePlace {
            path: path.into(),
            ..nobody.clone()
        };
        let read = rig.guest.read_file(&place, FileRange::default()).await;
        assert_eq!(problem(read.map(drop)), FileProblem::AccessDenied, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_replaced_whole_or_not_at_all() {
    let guest = Guest::new().await;
    let file = own("/srv/file");
    let all = FileRange::default();
    guest.write(&file, WriteMode::Replace, "old").await.unwrap();
    fs::set_permissions(guest.at("srv/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("file", guest.at("srv/link")).unwrap();
    let told = guest
        .write(&own("/srv/link"), WriteMode::Replace, "new")
        .await
        .unwrap();
    // Through the link, with the mode it had but for setuid.
    assert_eq!((told.mode, told.size_bytes), (0o751, 3));
    assert!(guest.at("srv/link").is_symlink());
    assert_eq!(guest.read(&file, all).await.unwrap(), b"new");
    let created = guest.write(&file, WriteMode::Create, "x").await;
    assert_eq!(problem(created), FileProblem::Exists);
    guest
        .write(&own("/srv/made"), WriteMode::Create, "made")
        .await
        .unwrap();
    symlink("nowhere", guest.at("srv/dangling")).unwrap();
    for mode in [WriteMode::Replace, WriteMode::Append] {
        let written = guest.write(&own("/srv/dangling"), mode, "x").await;
        assert_eq!(problem(written), FileProblem::NotFound);
    }
    assert_eq!(
        problem(guest.write(&own("/srv"), WriteMode::Replace, "x").await),
        FileProblem::IsDirectory
    );
    assert_eq!(
        problem(guest.write(&own("/no/x"), WriteMode::Replace, "x").await),
        FileProblem::NotFound
    );
    let parents = FileWrite {
        mode: WriteMode::Replace,
        attributes: FileAttributes {
            permissions: Some(0o600),
            mtime: Some((1_000_000_000, 5)),
            ..FileAttributes::default()
        },
        make_parents: true,
    };
    let none = stream::empty().boxed();
    let told = guest
        .rig
        .guest
        .write_file(&own("/srv/a/b/c"), &parents, none)
        .await
        .unwrap();
    assert_eq!(
        (told.mode, told.mtime, told.size_bytes),
        (0o600, (1_000_000_000, 5), 0)
    );
    // A stream that breaks off changes nothing.
    let broken = stream::iter([Bytes::from_static(b"half")])
        .chain(stream::pending())
        .boxed();
    let write = FileWrite {
        make_parents: false,
        ..parents
    };
    let writing = guest.rig.guest.write_file(&file, &write, broken);
    assert!(timeout(Duration::from_millis(300), writing).await.is_err());
    let is_clean = async {
        while fs::read_dir(guest.at("srv")).unwrap().any(|entry| {
            let name = entry.unwrap().file_name();
            name.to_string_lossy().starts_with(".banger")
        }) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, is_clean).await.unwrap();
    assert_eq!(guest.read(&file, all).await.unwrap(), b"new");
    guest.assert_nothing_unfinished();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_read_and_written() {
    let guest = Guest::new().await;
    let file = own("/srv/file");
    let at = |offset, truncate| WriteMode::At { offset, truncate };
    guest
        .write(&file, WriteMode::Append, "hello")
        .await
        .unwrap();
    guest
        .write(&file, WriteMode::Append, " world")
        .await
        .unwrap();
    guest.write(&file, at(6, false), "W").await.unwrap();
    let range = |offset, length| FileRange { offset, length };
    for (offset, length, expected) in [
        (0, None, "hello World"),
        (6, Some(3), "Wor"),
        (-5, None, "World"),
        (-5, Some(1), "W"),
        (-500, Some(2), "he"),
        (11, None, ""),
        (500, None, ""),
        (0, Some(0), ""),
    ] {
        let read = guest.read(&file, range(offset, length)).await.unwrap();
        assert_eq!(
            String::from_utf8(read).unwrap(),
            expected,
            "{offset} {length:?}"
        );
    }
    let cut = guest.write(&file, at(2, true), "y").await.unwrap();
    assert_eq!(cut.size_bytes, 3);
    assert_eq!(guest.read(&file, range(0, None)).await.unwrap(), b"hey");
    rustix_fifo(&guest.at("srv/pipe"));
    for path in ["/srv/pipe", "/srv"] {
        assert!(
            guest.read(&own(path), range(0, None)).await.is_err(),
            "{path}"
        );
        assert!(
            guest
                .write(&own(path), WriteMode::Append, "x")
                .await
                .is_err(),
            "{path}"
        );
    }
}

fn rustix_fifo(path: &Path) {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a path that lives over the call.
    #[allow(unsafe_code)]
    let made = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(made, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_page_through_everything_once_in_order() {
    let guest = Guest::new().await;
    for dir in ["srv/a", "srv/a/x", "srv/b"] {
        fs::create_dir_all(guest.at(dir)).unwrap();
    }
    for file in ["srv/a.txt", "srv/a/1", "srv/a/x/deep", "srv/b/2", "srv/z"] {
        fs::write(guest.at(file), "").unwrap();
    }
    symlink("/nowhere", guest.at("srv/link")).unwrap();
    let all = [
        "a", "a/1", "a/x", "a/x/deep", "a.txt", "b", "b/2", "link", "z",
    ];
    for limit in 1..=10 {
        let mut found = Vec::new();
        let mut listing = FileListing {
            depth: 3,
            limit,
            after: Vec::new(),
        };
        loop {
            let (files, more) = guest
                .rig
                .guest
                .list_files(&own("/srv"), &listing)
                .await
                .unwrap();
            found.extend(
                files
                    .iter()
                    .map(|file| String::from_utf8(file.path.clone()).unwrap()),
            );
            if !more {
                break;
            }
            listing.after = files.last().unwrap().path.clone();
        }
        assert_eq!(found, all, "{limit} at a time");
    }
    // A page begins after a path though it is gone.
    let listing = FileListing {
        depth: 1,
        limit: 100,
        after: b"am".to_vec(),
    };
    let (files, _) = guest
        .rig
        .guest
        .list_files(&own("/srv"), &listing)
        .await
        .unwrap();
    assert_eq!(files.len(), 3);
    assert_eq!(files[1].kind, FileKind::Symlink);
    assert_eq!(files[1].link_target, b"/nowhere");
    assert_eq!(
        problem(guest.rig.guest.list_files(&own("/srv/z"), &listing).await),
        FileProblem::NotDirectory
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_names_and_attributes_are_changed() {
    let guest = Guest::new().await;
    let agent = &guest.rig.guest;
    let made = agent.make_directory(&own("/srv/a/b"), None, false).await;
    assert_eq!(problem(made), FileProblem::NotFound);
    let made = agent
        .make_directory(&own("/srv/a/b"), Some(0o1700), true)
        .await
        .unwrap();
    assert_eq!((made.kind, made.mode), (FileKind::Directory, 0o1700));
    agent
        .make_directory(&own("/srv/a/b"), None, true)
        .await
        .unwrap();
    let again = agent.make_directory(&own("/srv/a/b"), None, false).await;
    assert_eq!(problem(again), FileProblem::Exists);
    guest
        .write(&own("/srv/x"), WriteMode::Replace, "x")
        .await
        .unwrap();
    guest
        .write(&own("/srv/y"), WriteMode::Replace, "y")
        .await
        .unwrap();
    let kept = agent
        .rename_file(&own("/srv/x"), b"/srv/y", Replacing::Refused)
        .await;
    assert_eq!(problem(kept), FileProblem::Exists);
    let moved = agent
        .rename_file(&own("/srv/x"), b"/srv/y", Replacing::Allowed)
        .await
        .unwrap();
    assert_eq!(
        (moved.path.as_slice(), moved.size_bytes),
        (&b"/srv/y"[..], 1)
    );
    let link = agent
        .make_symlink(&own("/srv/l"), b"y", Replacing::Refused)
        .await
        .unwrap();
    assert_eq!(
        (link.kind, link.link_target.as_slice()),
        (FileKind::Symlink, &b"y"[..])
    );
    let again = agent
        .make_symlink(&own("/srv/l"), b"z", Replacing::Refused)
        .await;
    assert_eq!(problem(again), FileProblem::Exists);
    agent
        .make_symlink(&own("/srv/l"), b"./y", Replacing::Allowed)
        .await
        .unwrap();
    let wanted = FileAttributes {
        permissions: Some(0o4640),
        owner: String::new(),
        mtime: Some((-5, 1)),
    };
    let set = agent
        .set_file_attributes(&own("/srv/l"), Links::Follow, &wanted)
        .await
        .unwrap();
    assert_eq!((set.mode, set.mtime), (0o4640, (-5, 1)));
    let of_link = agent
        .set_file_attributes(&own("/srv/l"), Links::Keep, &wanted)
        .await;
    assert_eq!(problem(of_link), FileProblem::Unsupported);
    let found = agent.stat_file(&own("/srv/l"), Links::Keep).await.unwrap();
    assert_eq!(found.kind, FileKind::Symlink);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_is_removed_and_what_its_links_lead_to_is_not() {
    let guest = Guest::new().await;
    let agent = &guest.rig.guest;
    fs::create_dir_all(guest.at("srv/t/a/b")).unwrap();
    fs::write(guest.at("srv/t/a/b/c"), "").unwrap();
    fs::write(guest.at("tmp/kept"), "kept").unwrap();
    symlink(guest.at("tmp"), guest.at("srv/t/a/out")).unwrap();
    symlink("../tmp", guest.at("srv/link")).unwrap();
    let removal = |recursive, allow_missing| Removal {
        recursive,
        allow_missing,
    };
    let whole = agent
        .remove_file(&own("/srv/t"), removal(false, false))
        .await;
    assert_eq!(problem(whole), FileProblem::NotEmpty);
    let removed = agent
        .remove_file(&own("/srv/t"), removal(true, false))
        .await
        .unwrap();
    assert_eq!(removed, 5);
    assert_eq!(
        agent
            .remove_file(&own("/srv/link"), removal(true, false))
            .await
            .unwrap(),
        1
    );
    assert_eq!(fs::read(guest.at("tmp/kept")).unwrap(), b"kept");
    assert_eq!(
        problem(
            agent
                .remove_file(&own("/srv/t"), removal(true, false))
                .await
        ),
        FileProblem::NotFound
    );
    assert_eq!(
        agent
            .remove_file(&own("/srv/t"), removal(true, true))
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        problem(agent.remove_file(&own("/"), removal(true, false)).await),
        FileProblem::Busy
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_told_below_a_directory_and_new_ones_in_it() {
    let guest = Guest::new().await;
    fs::create_dir(guest.at("srv/old")).unwrap();
    let mut events = guest
        .rig
        .guest
        .watch_files(&own("/srv"), true)
        .await
        .unwrap();
    let started = timeout(PATIENCE, events.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(started, WatchEvent::Started { directories: 2 });
    let mut until = async |kinds: &[ChangeKind], path: &str| {
        let found = async {
            loop {
                if let WatchEvent::Changed(change) = events.next().await.unwrap().unwrap()
                    && kinds.contains(&change.kind)
                    && change.path == path.as_bytes()
                {
                    return change;
                }
            }
        };
        let found = timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("{kinds:?} of {path} was not told"))
    };
    fs::write(guest.at("srv/old/file"), "x").unwrap();
    until(&[ChangeKind::Written], "old/file").await;
    // Deeper than the watch could follow one by one.
    fs::create_dir_all(guest.at("srv/new/a/b")).unwrap();
    fs::write(guest.at("srv/new/a/b/c"), "x").unwrap();
    until(&[ChangeKind::Created], "new/a/b/c").await;
    fs::write(guest.at("srv/new/a/b/d"), "x").unwrap();
    until(&[ChangeKind::Written], "new/a/b/d").await;
    fs::rename(guest.at("srv/new"), guest.at("srv/moved")).unwrap();
    let from = until(&[ChangeKind::MovedFrom], "new").await;
    let to = until(&[ChangeKind::MovedTo], "moved").await;
    assert!(from.rename != 0 && from.rename == to.rename && to.is_directory);
    fs::write(guest.at("srv/moved/a/e"), "x").unwrap();
    // It may have been there before `a` was watched by its new name.
    until(&[ChangeKind::Created, ChangeKind::Written], "moved/a/e").await;
    fs::remove_dir_all(guest.at("srv")).unwrap();
    until(&[ChangeKind::RootGone], "").await;
    assert!(timeout(PATIENCE, events.next()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_have_a_bound_and_end_with_their_reader() {
    let guest = Guest::new().await;
    let mut open = Vec::new();
    let full = loop {
        let mut events = match guest.rig.guest.watch_files(&own("/srv"), false).await {
            Ok(events) => events,
            Err(error) => break error,
        };
        match timeout(PATIENCE, events.next()).await.unwrap().unwrap() {
            Ok(_) => open.push(events),
            Err(error) => break error,
        }
        assert!(open.len() <= 64, "no bound");
    };
    let is_bound = matches!(
        full,
        GuestError::TooManyFileCalls { limit: 64 }
            | GuestError::File {
                problem: FileProblem::TooManyWatches,
                ..
            }
    );
    assert!(is_bound, "{full:?}");
    drop(open);
    let again = async {
        loop {
            if let Ok(mut events) = guest.rig.guest.watch_files(&own("/srv"), false).await
                && let Some(Ok(_)) = events.next().await
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, again).await.unwrap();
}
