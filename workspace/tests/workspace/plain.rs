//! A directory without git goes into a VM, and what was done there becomes part of it: never at the cost of what was done
//! here.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::support::{Bench, VM, git, land, tree, write};
use banger_workspace::client::collect::{Options, Source};
use banger_workspace::client::land::Place;
use banger_workspace::client::plain::{AppliedFiles, Both, Carried, apply_files, go_back};
use banger_workspace::client::{Error, Result};
use banger_workspace::command::Cancel;
use banger_workspace::guest::Restore;
use banger_workspace::wire::{
    Base, End, ManifestEnd, Note, NoteKind, Piece, Repository, RepositoryKind, part,
};

type Files = BTreeMap<OsString, (String, Vec<u8>)>;

/// A directory with some files.
fn directory() -> Bench {
    let bench = Bench::new();
    write(&bench.here, "file", "one\n");
    write(&bench.here, "other", "other\n");
    write(&bench.here, "dir/inside", "inside\n");
    bench
}

fn carried(bench: &Bench) -> Carried {
    Carried::of(&bench.here, VM, &bench.directory.path().join("state")).unwrap()
}

fn entries(bench: &Bench) -> Vec<banger_workspace::wire::Entry> {
    let mut source = Source::open(&bench.here, &Options::default(), &Cancel::default()).unwrap();
    source.send_manifest(&[], &mut |_| Ok(())).unwrap();
    source.plain_entries().unwrap().to_vec()
}

/// Carries the directory, as the SDK does.
fn prepare(bench: &Bench) {
    let overwrite = Restore {
        overwrite: true,
        ..Restore::default()
    };
    let entries = entries(bench);
    carried(bench).sending(&entries).unwrap();
    let prepared = bench.try_prepare(&Options::default(), &overwrite, &mut |_| true);
    prepared.unwrap();
    carried(bench).sent(&entries).unwrap();
}

fn export(bench: &Bench) {
    let landed = bench.export(&Base::default());
    assert!(!landed.has_loss(), "{:?}", landed.notes);
}

/// Carried, worked on in the VM by `work`, and brought back.
fn worked(work: impl FnOnce(&Path)) -> Bench {
    let bench = directory();
    prepare(&bench);
    work(&bench.guest);
    export(&bench);
    bench
}

fn apply(bench: &Bench, both: Both) -> Result<AppliedFiles> {
    apply_files(&bench.place(), VM, both)
}

fn back(bench: &Bench, applied: &AppliedFiles) -> Result<AppliedFiles> {
    let [command] = &applied.way_back[..] else {
        panic!("{:?}", applied.way_back);
    };
    let at = bench.here.display();
    let time = command.strip_prefix(&format!("banger workspace apply {VM} {at} --plain --back "));
    go_back(
        &bench.place(),
        VM,
        time.expect("the command"),
        Both::Refused,
    )
}

fn read(bench: &Bench, name: &str) -> String {
    std::fs::read_to_string(bench.here.join(name)).unwrap()
}

fn refused(bench: &Bench, both: Both) -> Vec<String> {
    let before = tree(&bench.here);
    let refused = apply(bench, both);
    assert_eq!(tree(&bench.here), before, "a refusal changed something");
    match refused {
        Err(Error::Refused { paths, remedy, .. }) => {
            assert!(!remedy.is_empty());
            paths
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn work_of_the_vm_comes_and_work_of_the_owner_stays() {
    let bench = worked(|guest| {
        write(guest, "file", "theirs\n");
        std::fs::set_permissions(guest.join("file"), PermissionsExt::from_mode(0o750)).unwrap();
        std::fs::remove_file(guest.join("dir/inside")).unwrap();
        std::fs::remove_dir(guest.join("dir")).unwrap();
        write(guest, "new/deep/file", b"\0binary\xff");
        symlink("file", guest.join("link")).unwrap();
        std::fs::create_dir(guest.join("empty")).unwrap();
    });
    write(&bench.here, "other", "mine\n");
    write(&bench.here, "own", "mine\n");
    let applied = apply(&bench, Both::Refused).unwrap();
    assert_eq!((applied.written, applied.removed), (4, 1));
    assert!(applied.moved.is_empty() && applied.left.is_empty());
    assert_eq!(
        (read(&bench, "other"), read(&bench, "own")),
        ("mine\n".into(), "mine\n".into())
    );
    let mut now = tree(&bench.here);
    now.remove(&OsString::from("own"));
    now.insert("other".into(), ("file".into(), b"other\n".to_vec()));
    assert_eq!(now, tree(&bench.guest));
    let mode = bench
        .here
        .join("file")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o750);
    let again = apply(&bench, Both::Refused).unwrap();
    assert_eq!((again.written, again.removed, again.before), (0, 0, None));
}

#[test]
fn what_was_changed_on_both_sides_is_refused_or_whose_the_owner_says() {
    let parted = || {
        let bench = worked(|guest| {
            write(guest, "file", "theirs\n");
            std::fs::remove_file(guest.join("other")).unwrap();
            write(guest, "new", "theirs\n");
            write(guest, "dir/inside", "theirs\n");
        });
        write(&bench.here, "file", "mine\n");
        write(&bench.here, "other", "mine\n");
        write(&bench.here, "new", "mine\n");
        bench
    };
    let bench = parted();
    assert_eq!(refused(&bench, Both::Refused), ["file", "new", "other"]);
    let before = tree(&bench.here);
    let applied = apply(&bench, Both::Theirs).unwrap();
    assert_eq!(tree(&bench.here), tree(&bench.guest));
    back(&bench, &applied).unwrap();
    assert_eq!(tree(&bench.here), before);

    let bench = parted();
    apply(&bench, Both::Mine).unwrap();
    for name in ["file", "other", "new"] {
        assert_eq!(read(&bench, name), "mine\n");
    }
    assert_eq!(read(&bench, "dir/inside"), "theirs\n");
    // It was said whose they are.
    write(&bench.guest, "more", "theirs\n");
    export(&bench);
    apply(&bench, Both::Refused).unwrap();
    assert_eq!(
        (read(&bench, "file"), read(&bench, "more")),
        ("mine\n".into(), "theirs\n".into())
    );
}

#[test]
fn the_way_back_leads_back_and_never_over_later_work() {
    let bench = worked(|guest| {
        write(guest, "file", "theirs\n");
        std::fs::remove_file(guest.join("other")).unwrap();
        std::fs::remove_dir_all(guest.join("dir")).unwrap();
        write(guest, "dir", "a file now\n");
        write(guest, "new/file", "theirs\n");
    });
    std::fs::set_permissions(bench.here.join("other"), PermissionsExt::from_mode(0o600)).unwrap();
    prepare(&bench);
    std::fs::remove_file(bench.guest.join("other")).unwrap();
    write(&bench.guest, "file", "theirs\n");
    export(&bench);
    let before = tree(&bench.here);
    let applied = apply(&bench, Both::Refused).unwrap();
    assert!(!bench.here.join("other").exists());
    write(&bench.here, "file", "later\n");
    assert!(matches!(back(&bench, &applied), Err(Error::Refused { .. })));
    assert_eq!(read(&bench, "file"), "later\n");
    write(&bench.here, "file", "theirs\n");
    let there = back(&bench, &applied).unwrap();
    assert_eq!(tree(&bench.here), before);
    let mode = bench
        .here
        .join("other")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // And forth again.
    back(&bench, &there).unwrap();
    assert!(!bench.here.join("other").exists());
    let unknown = go_back(&bench.place(), VM, "../heads/main", Both::Refused);
    assert!(matches!(unknown, Err(Error::Refused { .. })));
}

#[test]
fn a_link_on_the_way_is_not_followed() {
    let bench = worked(|guest| {
        write(guest, "dir/inside", "theirs\n");
        write(guest, "dir/new", "theirs\n");
        write(guest, "dir/sub/new", "theirs\n");
        write(guest, "deep/new", "theirs\n");
    });
    let outside = bench.directory.path().join("outside");
    write(&outside, "inside", "inside\n");
    write(&outside, "sub/other", "other\n");
    std::fs::remove_dir_all(bench.here.join("dir")).unwrap();
    symlink(&outside, bench.here.join("dir")).unwrap();
    symlink(&outside, bench.here.join("deep")).unwrap();
    let before = tree(&outside);
    assert_eq!(refused(&bench, Both::Refused), ["dir/inside"]);
    assert_eq!(refused(&bench, Both::Theirs), ["deep", "dir"]);
    apply(&bench, Both::Mine).unwrap();
    assert_eq!(tree(&outside), before);
}

#[test]
fn files_that_the_vm_does_not_know_are_not_overwritten() {
    let bench = worked(|guest| {
        write(guest, "a", "a file\n");
        write(guest, "b/c", "in a directory\n");
        std::fs::remove_dir_all(guest.join("dir")).unwrap();
        write(guest, "dir", "a file now\n");
    });
    write(&bench.here, "a/mine", "mine\n");
    write(&bench.here, "b", "mine\n");
    write(&bench.here, "dir/mine", "mine\n");
    for both in [Both::Refused, Both::Theirs] {
        assert_eq!(refused(&bench, both), ["a", "b", "dir"]);
    }
    apply(&bench, Both::Mine).unwrap();
    for name in ["a/mine", "b", "dir/mine"] {
        assert_eq!(read(&bench, name), "mine\n");
    }
}

#[test]
fn an_older_export_takes_nothing_of_what_was_carried_since() {
    let bench = worked(|guest| write(guest, "new", "theirs\n"));
    write(&bench.here, "file", "later\n");
    prepare(&bench);
    apply(&bench, Both::Refused).unwrap();
    assert_eq!(
        (read(&bench, "file"), read(&bench, "new")),
        ("later\n".into(), "theirs\n".into())
    );
}

#[test]
fn a_second_export_is_compared_with_the_first() {
    let bench = worked(|guest| write(guest, "file", "first\n"));
    apply(&bench, Both::Refused).unwrap();
    write(&bench.here, "other", "mine\n");
    write(&bench.guest, "file", "second\n");
    export(&bench);
    apply(&bench, Both::Refused).unwrap();
    assert_eq!(
        (read(&bench, "file"), read(&bench, "other")),
        ("second\n".into(), "mine\n".into())
    );
}

#[test]
fn after_a_prepare_that_was_cut_only_what_is_sure_is_taken() {
    let bench = directory();
    prepare(&bench);
    write(&bench.here, "file", "sent, or not\n");
    carried(&bench).sending(&entries(&bench)).unwrap();
    // The VM has what it had.
    write(&bench.guest, "other", "theirs\n");
    write(&bench.guest, "new", "theirs\n");
    export(&bench);
    assert_eq!(refused(&bench, Both::Refused), ["file"]);
    apply(&bench, Both::Mine).unwrap();
    assert_eq!(
        (read(&bench, "file"), read(&bench, "new")),
        ("sent, or not\n".into(), "theirs\n".into())
    );
}

#[test]
fn where_nothing_is_known_of_what_was_carried_nothing_is_overwritten() {
    let bench = worked(|guest| {
        write(guest, "file", "theirs\n");
        write(guest, "new", "theirs\n");
    });
    let place = bench.place();
    std::fs::remove_dir_all(place.store().directory().join("banger/carried")).unwrap();
    export(&bench);
    assert_eq!(refused(&bench, Both::Refused), ["file"]);
    apply(&bench, Both::Mine).unwrap();
    assert_eq!(
        (read(&bench, "file"), read(&bench, "new")),
        ("one\n".into(), "theirs\n".into())
    );
}

#[test]
fn what_the_vm_does_not_tell_of_is_not_removed() {
    let bench = directory();
    prepare(&bench);
    let lost = |path: &str| Note {
        kind: NoteKind::Unreadable.into(),
        path: path.to_owned().into(),
        detail: "no".to_owned(),
        is_loss: true,
    };
    let parts = vec![
        part(Piece::Repository(Repository {
            kind: RepositoryKind::Plain.into(),
            ..Repository::default()
        })),
        part(Piece::ManifestEnd(ManifestEnd { entry_count: 0 })),
        part(Piece::Note(lost("dir"))),
        part(Piece::Note(lost("file"))),
        part(Piece::End(End::default())),
    ];
    land(&bench.place(), &Base::default(), parts).unwrap();
    let applied = apply(&bench, Both::Refused).unwrap();
    assert_eq!(applied.left, ["dir/inside", "file"]);
    assert_eq!(
        (read(&bench, "dir/inside"), read(&bench, "file")),
        ("inside\n".into(), "one\n".into())
    );
    assert!(!bench.here.join("other").exists());
}

#[test]
fn a_directory_that_became_a_repository_is_no_set_of_files() {
    let bench = worked(|guest| write(guest, "file", "theirs\n"));
    git(&bench.guest.join("dir"), &["init", "-q"]);
    export(&bench);
    let applied = apply(&bench, Both::Refused).unwrap();
    assert_eq!(applied.left, ["dir/inside"]);
    assert_eq!(read(&bench, "file"), "theirs\n");
    git(&bench.guest, &["init", "-q"]);
    git(&bench.guest, &["add", "file"]);
    git(&bench.guest, &["commit", "-q", "-m", "first"]);
    export(&bench);
    let before = tree(&bench.here);
    match apply(&bench, Both::Theirs) {
        Err(Error::Refused {
            problem, remedy, ..
        }) => {
            assert!(problem.contains("a git repository"), "{problem}");
            let words = remedy.split('`').nth(1).unwrap();
            let words: Vec<&str> = words.split(' ').skip(1).collect();
            let other = bench.directory.path().join("other");
            std::fs::create_dir(&other).unwrap();
            git(&other, &["init", "-q"]);
            git(&other, &words);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(tree(&bench.here), before);
}

/// A name or two, so that all kinds of changes meet.
fn disturb(top: &Path, random: &mut fastrand::Rng) {
    let names = ["a", "a/x", "a/y", "b", "b/x", "b/c/x", "d"];
    for _ in 0..random.usize(1..5) {
        let at = top.join(names[random.usize(..names.len())]);
        let _ = std::fs::remove_dir_all(&at);
        let _ = std::fs::remove_file(&at);
        let parent = at.parent().unwrap();
        if random.u8(..4) == 0 || (parent != top && !parent.is_dir() && parent.exists()) {
            continue;
        }
        if std::fs::create_dir_all(parent).is_err() {
            continue;
        }
        match random.u8(..8) {
            0 => symlink("a", &at).unwrap(),
            1 => std::fs::create_dir(&at).unwrap(),
            which => {
                std::fs::write(&at, format!("{}\n", random.u8(..3))).unwrap();
                let mode = if which == 2 { 0o755 } else { 0o644 };
                std::fs::set_permissions(&at, PermissionsExt::from_mode(mode)).unwrap();
            }
        }
    }
}

fn files(top: &Path) -> Files {
    let mut files = tree(top);
    files.retain(|_, (kind, _)| kind != "directory");
    files
}

#[test]
fn random_work_on_both_sides_is_never_lost() {
    let one = std::env::var("WORKSPACE_SEED").ok();
    let one: Option<u64> = one.map(|seed| seed.parse().expect("WORKSPACE_SEED is a number"));
    let seeds = one.map_or(0..60, |seed| seed..seed + 1);
    let (mut applied, mut kept_back) = (0, 0);
    for seed in seeds {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let bench = Bench::new();
        disturb(&bench.here, &mut random);
        prepare(&bench);
        let base = tree(&bench.here);
        disturb(&bench.guest, &mut random);
        disturb(&bench.here, &mut random);
        export(&bench);
        let (theirs, mine) = (tree(&bench.guest), tree(&bench.here));
        let all: Vec<OsString> = base
            .keys()
            .chain(theirs.keys())
            .chain(mine.keys())
            .cloned()
            .collect();
        let both = [Both::Refused, Both::Mine, Both::Theirs][random.usize(..3)];
        let before = tree(&bench.here);
        match apply(&bench, both) {
            Err(Error::Refused { paths, .. }) => {
                assert!(!paths.is_empty() && both != Both::Mine, "seed {seed}");
                assert_eq!(tree(&bench.here), before, "seed {seed}");
                kept_back += 1;
            }
            Err(error) => panic!("seed {seed}: {error:?}"),
            Ok(done) => {
                applied += 1;
                let now = files(&bench.here);
                for path in &all {
                    let (base, theirs, mine) = (base.get(path), theirs.get(path), mine.get(path));
                    let now = now.get(path);
                    let is_file = |leaf: &&(String, Vec<u8>)| leaf.0 != "directory";
                    let told = format!("seed {seed}, {both:?}: {path:?}");
                    if mine != base && (theirs == base || both == Both::Mine) {
                        assert_eq!(now, mine.filter(is_file), "{told}: work of the owner's");
                    } else if both != Both::Mine {
                        assert_eq!(now, theirs.filter(is_file), "{told}");
                    } else {
                        let mine_or_theirs = [mine.filter(is_file), theirs.filter(is_file)];
                        assert!(mine_or_theirs.contains(&now), "{told}");
                    }
                }
                if !done.way_back.is_empty() {
                    back(&bench, &done).unwrap();
                    let mut mine = mine.clone();
                    mine.retain(|_, (kind, _)| kind != "directory");
                    assert_eq!(files(&bench.here), mine, "seed {seed}: the way back");
                }
            }
        }
    }
    assert!(
        one.is_some() || (applied > 15 && kept_back > 10),
        "{applied} {kept_back}"
    );
}

#[test]
fn a_plain_place_is_found_with_or_without_a_repository_around() {
    let bench = Bench::with_repository();
    let state = bench.directory.path().join("state");
    let inside = bench.here.join("data");
    write(&inside, "file", "one\n");
    let place = Place::find(&inside, &state, true, &Cancel::default()).unwrap();
    assert!(place.repository().is_none());
    assert_eq!(place.top(), inside);
}
