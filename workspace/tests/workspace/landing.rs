//! Streams that are cut after each part, several at once, and work that goes on meanwhile.
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Bench, VM, commit, git, land, prepared, refused, tree, write};
use banger_workspace::client::collect::Options;
use banger_workspace::client::land::Landed;
use banger_workspace::client::{Expected, Result, expected_conflicts};
use banger_workspace::guest::{self, StatusRequest};
use banger_workspace::wire::{Base, NoteKind, Part, Piece, Status};

#[test]
fn a_stream_that_is_cut_leaves_nothing_and_a_repeat_succeeds() {
    let (bench, base) = prepared();
    write(&bench.guest, "file", "theirs\n");
    commit(&bench.guest, "theirs");
    git(&bench.guest, &["branch", "topic"]);
    write(&bench.guest, "other", "changed\n");
    write(&bench.guest, "new", vec![b'x'; 3 << 20]);
    let known = bench.place().base(VM, &base).unwrap();
    let parts = bench.exported(&known).unwrap();
    for length in 0..parts.len() {
        refused(&bench, parts[..length].to_vec());
    }
    land(&bench.place(), &known, parts).unwrap();
    assert_eq!(
        git(&bench.here, &["rev-parse", "refs/banger/dev/heads/topic"]),
        git(&bench.guest, &["rev-parse", "topic"])
    );
}

#[test]
fn what_landings_that_were_cut_have_left_goes_with_the_next() {
    let (bench, base) = prepared();
    let own = bench.here.join(".git/banger");
    let made = |name: &str| {
        let directory = own.join(name);
        std::fs::create_dir_all(directory.join("files")).unwrap();
        directory
    };
    let (unlocked, held) = (made("incoming-unlocked"), made("incoming-held"));
    // One was cut while it was removed, and one goes on.
    let lock = std::fs::File::create_new(held.join("lock")).unwrap();
    lock.lock().unwrap();
    let land = || {
        let known = bench.place().base(VM, &base).unwrap();
        let parts = bench.exported(&known).unwrap();
        land(&bench.place(), &known, parts).unwrap();
    };
    land();
    assert_eq!((unlocked.exists(), held.exists()), (false, true));
    drop(lock);
    land();
    assert!(!held.exists());
}

#[test]
fn a_prepare_that_is_cut_leaves_what_was_there_and_a_repeat_succeeds() {
    let (bench, _) = prepared();
    let before = tree(&bench.guest);
    write(&bench.here, "file", "next\n");
    commit(&bench.here, "next");
    write(&bench.here, "new", vec![b'x'; 3 << 20]);
    let restore = banger_workspace::guest::Restore {
        overwrite: true,
        ..Default::default()
    };
    let mut cut = 0;
    loop {
        let mut left = cut;
        let mut each = |_: &Part| {
            let goes_on = left > 0;
            left -= usize::from(goes_on);
            goes_on
        };
        match bench.try_prepare(&Options::default(), &restore, &mut each) {
            Err(_) => assert_eq!(tree(&bench.guest), before, "after {cut} parts"),
            Ok(_) => break,
        }
        let beside = std::fs::read_dir(bench.guest.parent().unwrap()).unwrap();
        assert!(beside.count() <= 2, "half a tree is left");
        cut += 1;
    }
    assert!(cut > 4);
    assert_eq!(tree(&bench.guest), tree(&bench.here));
}

#[test]
fn landings_of_two_at_once_do_not_disturb_each_other() {
    let (bench, base) = prepared();
    write(&bench.guest, "file", "theirs\n");
    commit(&bench.guest, "theirs");
    let known = bench.place().base(VM, &base).unwrap();
    let parts = bench.exported(&known).unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| land(&bench.place(), &known, parts.clone())))
            .collect();
        let ended: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    });
    land(&bench.place(), &known, parts).unwrap();
    git(&bench.here, &["fsck", "--strict"]);
}

#[test]
fn a_landing_that_breaks_between_names_in_each_others_way_loses_no_commit() {
    let (bench, base) = prepared();
    write(&bench.guest, "file", "on topic\n");
    git(&bench.guest, &["switch", "-q", "-c", "topic"]);
    let topic = commit(&bench.guest, "on topic");
    git(&bench.guest, &["switch", "-q", "main"]);
    bench.export(&base);
    // The same commit, under a name that needs the former one as a directory.
    git(&bench.guest, &["branch", "-q", "-m", "topic", "topic/one"]);
    write(&bench.guest, "file", "on main\n");
    commit(&bench.guest, "on main");
    let known = bench.place().base(VM, &base).unwrap();
    let parts = bench.exported(&known).unwrap();
    let kept = || {
        let names = ["for-each-ref", "--format=%(refname)", "--contains", &topic];
        git(&bench.here, &names)
    };
    // What comes after the former name has gone cannot be made.
    let lock = bench.here.join(".git/refs/banger/dev/HEAD.lock");
    std::fs::write(&lock, "").unwrap();
    land(&bench.place(), &known, parts.clone()).unwrap_err();
    let earlier = kept();
    assert!(
        earlier.starts_with("refs/banger/dev/earlier/") && earlier.ends_with("/heads/topic"),
        "{earlier:?}"
    );
    std::fs::remove_file(lock).unwrap();
    let landed = land(&bench.place(), &known, parts.clone()).unwrap();
    assert_eq!(landed.repositories[0].kept, [""; 0]);
    git(&bench.here, &["update-ref", "-d", &earlier]);
    assert_eq!(kept(), "refs/banger/dev/heads/topic/one");
    // Whole at once, it leaves nothing that leads there twice.
    git(&bench.guest, &["branch", "-q", "-m", "topic/one", "topic"]);
    bench.export(&base);
    assert_eq!(kept(), "refs/banger/dev/heads/topic");
}

/// The contents of a file that is written to meanwhile are all of one writing.
const WRITINGS: [u8; 4] = [b'a', b'b', b'c', b'd'];

#[test]
fn a_tree_that_is_written_to_meanwhile_is_told_as_it_was_or_said_to_have_moved() {
    let (bench, base) = prepared();
    let known = bench.place().base(VM, &base).unwrap();
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when something here fails, or nobody would end the writing.
        let _ends = Ends(&ends);
        scope.spawn(|| {
            let mut round = 0;
            while !ends.load(Ordering::SeqCst) {
                let letter = WRITINGS[round % WRITINGS.len()];
                // In place, so that a reader may see half of it.
                write(&bench.guest, "moving", vec![letter; 600_000]);
                if round % 3 == 0 {
                    commit(&bench.guest, "moving");
                }
                round += 1;
            }
        });
        for _ in 0..6 {
            let parts = bench.exported(&known).unwrap();
            check_moving(&parts);
            land(&bench.place(), &known, parts).unwrap();
            git(&bench.here, &["fsck", "--strict"]);
        }
    });
    // When it holds still, all of it comes.
    let landed = bench.export(&base);
    assert!(!landed.has_loss(), "{:?}", landed.notes);
    let state = landed.repositories[0].refs.iter();
    let state = state.filter(|(name, _)| name.ends_with("state/tree") || name.ends_with("HEAD"));
    let (_, state) = state.max_by_key(|(name, _)| name.len()).unwrap();
    let came = crate::support::git_bytes(
        &bench.here,
        &["cat-file", "blob", &format!("{state}:moving")],
    );
    assert_eq!(came, std::fs::read(bench.guest.join("moving")).unwrap());
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What is told of the file is one writing, or a note says that it is not.
fn check_moving(parts: &[Part]) {
    let mut content = Vec::new();
    let mut is_told = false;
    let mut paths = Vec::new();
    for part in parts {
        match &part.part {
            Some(Piece::Entries(entries)) => {
                paths.extend(entries.entries.iter().map(|entry| entry.path.clone()));
            }
            Some(Piece::Content(piece)) if paths[piece.entry as usize] == b"moving"[..] => {
                content.extend_from_slice(&piece.data);
            }
            Some(Piece::Note(note)) => {
                is_told |= note.is_loss
                    && (note.kind() == NoteKind::Moved || note.kind() == NoteKind::RefsMoved);
            }
            _ => {}
        }
    }
    let is_one = content.windows(2).all(|two| two[0] == two[1]);
    let is_whole = content.is_empty() || content.len() == 600_000;
    assert!(is_told || (is_one && is_whole), "{} bytes", content.len());
}

fn expected(bench: &Bench, base: &banger_workspace::wire::Base) -> Expected {
    let place = bench.place();
    let request = StatusRequest {
        base: place.base(VM, base).unwrap(),
        had_git: true,
    };
    let status = guest::status(&bench.guest_place(), &request).unwrap();
    expected_conflicts(&place, &request.base, &status).unwrap()
}

#[test]
fn files_that_both_sides_changed_are_told_without_an_export() {
    let (bench, base) = prepared();
    let compared = Expected {
        is_compared: true,
        ..Expected::default()
    };
    assert_eq!(expected(&bench, &base), compared);
    write(&bench.guest, "file", "committed there\n");
    commit(&bench.guest, "theirs");
    write(&bench.guest, "other", "changed there\n");
    write(&bench.guest, "new", "untracked there\n");
    write(&bench.guest, "only there", "\n");
    write(&bench.guest, "way/to/it", "\n");
    let compared = Expected {
        is_compared: true,
        ..Expected::default()
    };
    assert_eq!(expected(&bench, &base), compared);
    write(&bench.here, "file", "committed here\n");
    commit(&bench.here, "mine");
    write(&bench.here, "other", "changed here\n");
    write(&bench.here, "new", "untracked here\n");
    write(&bench.here, "only here", "\n");
    write(&bench.here, "way", "a file on the way\n");
    let paths = expected(&bench, &base).paths;
    assert_eq!(paths, ["file", "new", "other", "way/to/it"]);
}

#[test]
fn of_a_directory_without_git_nothing_is_said_to_be_compared() {
    let bench = Bench::new();
    let told = expected_conflicts(&bench.place(), &Base::default(), &Status::default()).unwrap();
    assert!(!told.is_compared, "{told:?}");
}

#[test]
fn what_lies_where_a_linked_working_tree_is_here_lands_beside_its_repository() {
    let bench = Bench::with_repository();
    let inside = bench.here.join("inside");
    let at = inside.to_str().unwrap();
    git(&bench.here, &["worktree", "add", "-q", "-b", "side", at]);
    let (_, base) = bench.prepare(&Options::default());
    write(&bench.guest, "file", "outer\n");
    let outer = commit(&bench.guest, "outer");
    // It did not go along, and somebody makes a repository there.
    let inside = bench.guest.join("inside");
    write(&inside, "file", "inner\n");
    git(&inside, &["init", "-q", "-b", "main"]);
    let inner = commit(&inside, "inner");
    for _ in 0..2 {
        let landed = bench.export(&base);
        let heads: Vec<&str> = landed
            .repositories
            .iter()
            .map(|one| &one.head[..])
            .collect();
        assert_eq!(heads, [&outer[..], &inner]);
        assert!(landed.repositories[1].is_own_store);
        for repository in &landed.repositories {
            let head = git(&repository.store, &["rev-parse", "refs/banger/dev/HEAD"]);
            assert_eq!(head, repository.head);
        }
    }
}

#[test]
fn a_history_that_was_cut_is_whole_for_git_in_a_store_of_its_own() {
    let bench = Bench::with_repository();
    let origin = bench.directory.path().join("origin");
    std::fs::create_dir(&origin).unwrap();
    git(&origin, &["init", "-q", "-b", "main"]);
    for number in 0..5 {
        write(&origin, "file", format!("{number}\n"));
        commit(&origin, "one more");
    }
    let from = format!("file://{}", origin.display());
    let to = bench.guest.to_str().unwrap();
    git(&bench.here, &["clone", "-q", "--depth", "2", &from, to]);
    for count in ["2", "3"] {
        let landed = &bench.export(&Base::default()).repositories[0];
        assert!(landed.is_own_store);
        let head = format!("refs/banger/{VM}/HEAD");
        assert_eq!(git(&landed.store, &["rev-list", "--count", &head]), count);
        git(&landed.store, &["fsck", "--strict"]);
        git(&landed.store, &["log", "-p", &head]);
        commit(&bench.guest, "one more");
    }
    // The owner's own is not cut.
    assert!(!bench.here.join(".git/shallow").exists());
    git(&bench.here, &["fsck", "--strict"]);
}

/// A repository with five commits, and its address.
fn origin(bench: &Bench) -> String {
    let origin = bench.directory.path().join("origin");
    std::fs::create_dir(&origin).unwrap();
    git(&origin, &["init", "-q", "-b", "main"]);
    for number in 0..5 {
        write(&origin, "file", format!("{number}\n"));
        commit(&origin, "one more");
    }
    format!("file://{}", origin.display())
}

/// An owner's repository with the last two of the five, carried into the VM.
fn cut_and_prepared() -> (Bench, Base, String) {
    let bench = Bench::new();
    let from = origin(&bench);
    git(&bench.here, &["clone", "-q", "--depth", "2", &from, "."]);
    let (_, base) = bench.prepare(&Options::default());
    (bench, base, from)
}

fn count(store: &std::path::Path, name: &str) -> String {
    let name = format!("refs/banger/{VM}/{name}");
    git(store, &["rev-list", "--count", &name])
}

#[test]
fn a_history_that_the_vm_deepened_lands_whole() {
    let (bench, base, from) = cut_and_prepared();
    let cut = std::fs::read(bench.here.join(".git/shallow")).unwrap();
    git(
        &bench.guest,
        &["fetch", "-q", "--depth", "3", &from, "main"],
    );
    git(&bench.guest, &["branch", "old", "HEAD~2"]);
    commit(&bench.guest, "theirs");
    let landed = &bench.export(&base).repositories[0];
    // Here nothing is known of where it is cut now.
    assert!(landed.is_own_store);
    assert_eq!(count(&landed.store, "HEAD"), "4");
    assert_eq!(count(&landed.store, "heads/old"), "1");
    git(&landed.store, &["fsck", "--strict"]);
    git(&bench.guest, &["fetch", "-q", "--unshallow", &from, "main"]);
    git(&bench.guest, &["branch", "oldest", "HEAD~4"]);
    let landed = &bench.export(&base).repositories[0];
    assert!(!landed.is_own_store);
    assert_eq!(count(&bench.here, "heads/old"), "3");
    assert_eq!(count(&bench.here, "heads/oldest"), "2");
    git(&bench.here, &["fsck", "--strict"]);
    // How the owner's own is cut is the owner's.
    assert_eq!(std::fs::read(bench.here.join(".git/shallow")).unwrap(), cut);
    git(&bench.here, &["fetch", "-q", "--unshallow", &from, "main"]);
    assert_eq!(count(&bench.here, "HEAD"), "6");
    git(&bench.here, &["fsck", "--strict"]);
}

#[test]
fn a_history_that_its_owner_deepened_meanwhile_lands_whole() {
    let (bench, base, from) = cut_and_prepared();
    commit(&bench.guest, "theirs");
    git(&bench.here, &["fetch", "-q", "--unshallow", &from, "main"]);
    let landed = &bench.export(&base).repositories[0];
    assert!(!landed.is_own_store);
    assert_eq!(count(&bench.here, "HEAD"), "6");
    assert!(!bench.here.join(".git/shallow").exists());
    git(&bench.here, &["fsck", "--strict"]);
    // And goes into the VM whole.
    git(&bench.here, &["merge", "-q", "refs/banger/dev/HEAD"]);
    let restore = banger_workspace::guest::Restore {
        overwrite: true,
        ..Default::default()
    };
    bench
        .try_prepare(&Options::default(), &restore, &mut |_| true)
        .unwrap();
    assert_eq!(git(&bench.guest, &["rev-list", "--count", "HEAD"]), "6");
    git(&bench.guest, &["fsck", "--strict"]);
}

#[test]
fn a_store_is_cut_no_more_where_what_lies_behind_has_come() {
    let (bench, base) = prepared();
    let from = origin(&bench);
    let inside = bench.guest.join("inside");
    let to = inside.to_str().unwrap();
    git(&bench.here, &["clone", "-q", "--depth", "1", &from, to]);
    for (deepen, number) in [
        (None, "2"),
        (Some("--deepen=1"), "3"),
        (None, "4"),
        (Some("--unshallow"), "7"),
    ] {
        match deepen {
            Some(deepen) => git(&inside, &["fetch", "-q", deepen, &from, "main"]),
            None => commit(&inside, "theirs"),
        };
        let landed = &bench.export(&base).repositories[1];
        assert_eq!(git(&inside, &["rev-list", "--count", "HEAD"]), number);
        assert_eq!(count(&landed.store, "HEAD"), number);
        git(&landed.store, &["fsck", "--strict"]);
        let cut = |git_dir: &std::path::Path| std::fs::read(git_dir.join("shallow")).ok();
        assert_eq!(cut(&landed.store), cut(&inside.join(".git")));
    }
    // One behind which something is missing stays.
    let store = bench.export(&base).repositories[1].store.clone();
    let lone = |tree: &str, parent: &str| {
        let text = format!(
            "tree {tree}\n{parent}author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nm\n"
        );
        let file = bench.directory.path().join("commit");
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let words = ["hash-object", "-w", "-t", "commit", "--literally", file];
        git(&store, &words)
    };
    let tree = git(&store, &["rev-parse", "refs/banger/dev/HEAD^{tree}"]);
    let parent = lone(&"1".repeat(40), "");
    let cut = lone(&tree, &format!("parent {parent}\n"));
    std::fs::write(store.join("shallow"), format!("{cut}\n")).unwrap();
    bench.export(&base);
    let kept = std::fs::read_to_string(store.join("shallow")).unwrap();
    assert_eq!(kept, format!("{cut}\n"));
}

/// What keeps a repository inside from landing here.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kept {
    /// Its references cannot be written.
    References,
    /// git cannot read the one that is at its place here.
    Broken,
    /// Its objects are damaged when they come.
    Objects,
}

#[test]
fn a_repository_inside_that_cannot_land_keeps_no_other_from_it() {
    for kept in [Kept::References, Kept::Broken, Kept::Objects] {
        let (bench, base) = prepared();
        let commit_in = |inside: &str| {
            let inside = bench.guest.join(inside);
            write(&inside, "file", "inner\n");
            git(&inside, &["init", "-q", "-b", "main"]);
            commit(&inside, "inner")
        };
        let (one, two) = (commit_in("one"), commit_in("two"));
        write(&bench.guest, "file", "outer\n");
        let outer = commit(&bench.guest, "outer");
        let here = bench.here.join("one");
        std::fs::create_dir(&here).unwrap();
        git(&here, &["init", "-q", "-b", "main"]);
        let config = std::fs::read(here.join(".git/config")).unwrap();
        match kept {
            Kept::References => write(&here, ".git/refs/banger", "in the way"),
            Kept::Broken => write(&here, ".git/config", "[core"),
            Kept::Objects => {}
        }
        let place = bench.place();
        let known = place.base(VM, &base).unwrap();
        let mut parts = bench.exported(&known).unwrap();
        let whole = parts.clone();
        if kept == Kept::Objects {
            damage(&mut parts, b"one");
        }
        let landed = land(&place, &known, parts).unwrap();
        let heads = |landed: &Landed| {
            let each = landed.repositories.iter();
            each.map(|one| one.head.clone()).collect::<Vec<_>>()
        };
        assert_eq!(heads(&landed), [outer.clone(), two.clone()], "{kept:?}");
        for repository in &landed.repositories {
            let head = git(&repository.store, &["rev-parse", "refs/banger/dev/HEAD"]);
            assert_eq!(head, repository.head, "{kept:?}");
        }
        assert!(landed.has_loss(), "{kept:?}");
        let losses = landed.notes.iter().filter(|note| note.is_loss);
        let losses: Vec<_> = losses.collect();
        let [note] = losses[..] else {
            panic!("{kept:?}: {losses:?}");
        };
        assert_eq!(note.path, "one");
        assert!(note.detail.contains("could not land"), "{note:?}");
        // Not all is here: what is there may not be replaced.
        assert_eq!(place.exported_state(VM).unwrap(), Vec::<u8>::new());
        std::fs::write(here.join(".git/config"), config).unwrap();
        let _ = std::fs::remove_file(here.join(".git/refs/banger"));
        let landed = land(&place, &known, whole).unwrap();
        assert_eq!(heads(&landed), [outer, one, two], "{kept:?}");
        assert!(!landed.has_loss(), "{kept:?}: {:?}", landed.notes);
        assert!(!place.exported_state(VM).unwrap().is_empty(), "{kept:?}");
    }
}

/// Turns a byte of the pack of the repository at `path`.
fn damage(parts: &mut [Part], path: &[u8]) {
    let mut is_its = false;
    for part in parts {
        match &mut part.part {
            Some(Piece::Repository(repository)) => is_its = repository.path[..] == *path,
            Some(Piece::Pack(pack)) if is_its => {
                let mut data = pack.data.to_vec();
                let middle = data.len() / 2;
                data[middle] ^= 1;
                pack.data = data.into();
            }
            _ => {}
        }
    }
}

#[test]
fn a_repository_in_an_ignored_directory_lands_and_stays() {
    let bench = Bench::with_repository();
    write(&bench.here, ".gitignore", "vendor/\n*.o\n");
    commit(&bench.here, "ignoring");
    let (_, base) = bench.prepare(&Options::default());
    let inside = bench.guest.join("vendor/deep/library");
    write(&inside, "file", "inner\n");
    git(&inside, &["init", "-q", "-b", "main"]);
    let inner = commit(&inside, "inner");
    write(&inside, "file", "changed\n");
    write(&inside, "new", "new\n");
    write(&bench.guest, "outer", "outer\n");
    commit(&bench.guest, "outer");
    write(&bench.guest, "vendor/built", "ignored\n");
    // What is no repository in an ignored directory is no loss.
    write(&bench.guest, "vendor/broken/.git", "nothing\n");
    let landed = bench.export(&base);
    assert!(!landed.has_loss(), "{:?}", landed.notes);
    let [own, library] = &landed.repositories[..] else {
        panic!("{:?}", landed.repositories);
    };
    assert_eq!(library.path, b"vendor/deep/library");
    assert_eq!(library.head, inner);
    let files = ["new", "file"].map(|name| {
        let name = format!("refs/banger/dev/state/tree:{name}");
        git(&library.store, &["show", &name])
    });
    assert_eq!(files, ["new", "changed"]);
    // Nothing of it is told of the repository around it.
    assert_eq!((own.untracked, own.changed, own.staged), (0, 0, 0));
    let told = guest::status(
        &bench.guest_place(),
        &StatusRequest {
            base,
            had_git: true,
        },
    );
    let told = told.unwrap().repositories;
    assert_eq!(told.len(), 2);
    assert_eq!((told[1].changed_count, told[1].untracked_count), (1, 1));
    // It is no work that is in the way of another prepare, and that leaves it.
    write(&bench.here, "file", "next\n");
    let restore = guest::Restore {
        replaceable_states: vec![landed.state],
        ..guest::Restore::default()
    };
    let prepared = bench.try_prepare(&Options::default(), &restore, &mut |_| true);
    prepared.unwrap();
    assert_eq!(git(&inside, &["rev-parse", "HEAD"]), inner);
    assert_eq!(
        std::fs::read_to_string(inside.join("new")).unwrap(),
        "new\n"
    );
}

#[test]
fn a_workspace_where_something_is_mounted_is_refused_at_once() {
    let bench = Bench {
        guest: "/proc".into(),
        ..Bench::with_repository()
    };
    let restore = guest::Restore {
        overwrite: true,
        ..guest::Restore::default()
    };
    let mut sent = 0;
    let mut each = |_: &Part| {
        sent += 1;
        true
    };
    let refused = bench.try_prepare(&Options::default(), &restore, &mut each);
    let refused = refused.unwrap_err();
    assert!(refused.contains("is mounted at `/proc`"), "{refused}");
    assert_eq!(sent, 0);
}
