//! What has landed becomes part of the owner's branch and tree, never at the cost of what the owner has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use banger_workspace::client::apply::{Applied, Done, How, Options as ApplyOptions, apply};
use banger_workspace::client::collect::Options;
use banger_workspace::client::render::{Format, Only, Work};
use banger_workspace::client::{Error, LocalRepository, Result};
use banger_workspace::command::Cancel;
use support::{Bench, VM, commit, git, tree, write};

fn how(how: How) -> ApplyOptions {
    ApplyOptions {
        how,
        ..ApplyOptions::default()
    }
}

fn applied(bench: &Bench, options: ApplyOptions) -> Result<Applied> {
    let repository = LocalRepository::find(&bench.here, &Cancel::default()).unwrap();
    apply(&repository.unwrap(), VM, options)
}

fn read(bench: &Bench, name: &str) -> String {
    std::fs::read_to_string(bench.here.join(name)).unwrap()
}

/// Prepared, worked on in the VM by `work`, and exported.
fn worked(bench: &Bench, work: impl FnOnce(&Bench)) {
    let (_, base) = bench.prepare(&Options::default());
    work(bench);
    let landed = bench.export(&base);
    assert!(!landed.has_loss(), "{:?}", landed.notes);
}

fn refused(result: Result<Applied>) -> Vec<String> {
    match result {
        Err(Error::Refused { paths, remedy, .. }) => {
            assert!(!remedy.is_empty());
            paths
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_export_leaves_branch_index_and_files_alone() {
    let bench = Bench::with_repository();
    write(&bench.here, "file", "mine\n");
    let before = tree(&bench.here);
    let index = std::fs::read(bench.here.join(".git/index")).unwrap();
    let head = git(&bench.here, &["rev-parse", "HEAD"]);
    worked(&bench, |bench| drop(commit(&bench.guest, "theirs")));
    assert_eq!(tree(&bench.here), before);
    assert_eq!(std::fs::read(bench.here.join(".git/index")).unwrap(), index);
    assert_eq!(git(&bench.here, &["rev-parse", "HEAD"]), head);
    let own = bench.here.join(".git/banger");
    assert_eq!(
        std::fs::read_dir(own).unwrap().count(),
        0,
        "a quarantine is left"
    );
}

#[test]
fn a_branch_moves_forward_with_what_was_staged_changed_and_new() {
    let bench = Bench::with_repository();
    worked(&bench, |bench| {
        write(&bench.guest, "file", "one\ntwo\nthree\nfour\n");
        commit(&bench.guest, "theirs");
        write(&bench.guest, "staged", "staged\n");
        git(&bench.guest, &["add", "staged"]);
        write(&bench.guest, "other", "changed\n");
        write(&bench.guest, "new", "untracked\n");
    });
    let done = applied(&bench, ApplyOptions::default()).unwrap();
    assert_eq!(
        (done.commits, done.uncommitted),
        (Done::FastForwarded, true)
    );
    assert_eq!(done.conflicts, Vec::<String>::new());
    let status = git(&bench.here, &["status", "--porcelain"]);
    assert_eq!(status, git(&bench.guest, &["status", "--porcelain"]));
    assert_eq!(tree(&bench.here), tree(&bench.guest));
    let again = applied(
        &bench,
        ApplyOptions {
            commits_only: true,
            ..ApplyOptions::default()
        },
    );
    assert_eq!(again.unwrap().commits, Done::Nothing);
}

#[test]
fn the_way_back_leads_back() {
    let bench = Bench::with_repository();
    worked(&bench, |bench| {
        write(&bench.guest, "file", "theirs\n");
        commit(&bench.guest, "theirs");
    });
    write(&bench.here, "other", "mine, not committed\n");
    let head = git(&bench.here, &["rev-parse", "HEAD"]);
    let done = applied(&bench, ApplyOptions::default()).unwrap();
    assert_eq!(read(&bench, "other"), "mine, not committed\n");
    assert_eq!(read(&bench, "file"), "theirs\n");
    for command in &done.way_back {
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        git(&bench.here, &words);
    }
    assert_eq!(git(&bench.here, &["rev-parse", "HEAD"]), head);
    assert_eq!(read(&bench, "other"), "mine, not committed\n");
    assert_eq!(read(&bench, "file"), "one\ntwo\nthree\n");
}

#[test]
fn uncommitted_work_is_never_overwritten() {
    let bench = Bench::with_repository();
    worked(&bench, |bench| {
        write(&bench.guest, "file", "theirs\n");
        commit(&bench.guest, "theirs");
        write(&bench.guest, "other", "theirs, not committed\n");
    });
    for name in ["file", "other"] {
        let was = read(&bench, name);
        write(&bench.here, name, "mine\n");
        let before = tree(&bench.here);
        for way in [How::FastForward, How::Merge, How::Rebase, How::Patch] {
            assert_eq!(refused(applied(&bench, how(way))), [name]);
            assert_eq!(tree(&bench.here), before);
        }
        write(&bench.here, name, was);
    }
}

#[test]
fn untracked_and_ignored_files_are_never_overwritten() {
    let bench = Bench::with_repository();
    worked(&bench, |bench| {
        write(&bench.guest, "committed", "theirs\n");
        write(&bench.guest, "in/a/directory", "theirs\n");
        commit(&bench.guest, "theirs");
        write(&bench.guest, "new", "theirs, not tracked\n");
    });
    write(&bench.here, ".git/info/exclude", "committed\n");
    for (name, at) in [("committed", "committed"), ("new", "new"), ("in", "in")] {
        write(&bench.here, name, "mine\n");
        let before = tree(&bench.here);
        for way in [How::FastForward, How::Merge, How::Patch] {
            assert_eq!(refused(applied(&bench, how(way))), [at]);
            assert_eq!(tree(&bench.here), before);
        }
        std::fs::remove_file(bench.here.join(name)).unwrap();
    }
}

#[test]
fn histories_that_have_parted_become_one_as_the_owner_says() {
    let parted = || {
        let bench = Bench::with_repository();
        worked(&bench, |bench| {
            write(&bench.guest, "theirs", "theirs\n");
            commit(&bench.guest, "theirs");
        });
        write(&bench.here, "mine", "mine\n");
        commit(&bench.here, "mine");
        bench
    };
    let bench = parted();
    assert!(refused(applied(&bench, ApplyOptions::default())).is_empty());
    for (way, commits, parents) in [
        (How::Merge, Done::Merged, 2),
        (How::Rebase, Done::Rebased, 1),
        (How::Patch, Done::Patched, 1),
    ] {
        let bench = parted();
        let done = applied(&bench, how(way)).unwrap();
        assert_eq!(done.commits, commits);
        assert_eq!(
            (read(&bench, "mine"), read(&bench, "theirs")),
            ("mine\n".to_owned(), "theirs\n".to_owned())
        );
        let words = ["log", "-1", "--format=%P"];
        assert_eq!(git(&bench.here, &words).split(' ').count(), parents);
    }
}

#[test]
fn conflicts_are_left_as_git_leaves_them() {
    for way in [How::Merge, How::Rebase, How::Patch] {
        let bench = Bench::with_repository();
        worked(&bench, |bench| {
            write(&bench.guest, "file", "theirs\n");
            commit(&bench.guest, "theirs");
        });
        write(&bench.here, "file", "mine\n");
        commit(&bench.here, "mine");
        let head = git(&bench.here, &["rev-parse", "HEAD"]);
        let done = applied(&bench, how(way)).unwrap();
        assert_eq!(done.conflicts, ["file"]);
        assert!(read(&bench, "file").contains("<<<<<<<"));
        for command in &done.way_back {
            let words: Vec<&str> = command.split(' ').skip(1).collect();
            git(&bench.here, &words);
        }
        assert_eq!(git(&bench.here, &["rev-parse", "HEAD"]), head);
        assert_eq!(read(&bench, "file"), "mine\n");
    }
}

#[test]
fn an_owner_who_changed_branches_is_asked() {
    let bench = Bench::with_repository();
    let (_, base) = bench.prepare(&Options::default());
    git(&bench.here, &["switch", "-q", "-c", "elsewhere"]);
    write(&bench.here, "mine", "mine\n");
    commit(&bench.here, "mine");
    write(&bench.guest, "theirs", "theirs\n");
    let theirs = commit(&bench.guest, "theirs");
    bench.export(&base);
    let main = git(&bench.here, &["rev-parse", "main"]);
    assert!(refused(applied(&bench, how(How::Merge))).is_empty());
    assert_eq!(git(&bench.here, &["rev-parse", "main"]), main);
    git(&bench.here, &["switch", "-q", "main"]);
    applied(&bench, ApplyOptions::default()).unwrap();
    assert_eq!(git(&bench.here, &["rev-parse", "main"]), theirs);
}

#[test]
fn what_the_vm_took_back_is_kept_of_the_earlier_export() {
    let bench = Bench::with_repository();
    let (_, base) = bench.prepare(&Options::default());
    write(&bench.guest, "file", "first try\n");
    let first = commit(&bench.guest, "first try");
    bench.export(&base);
    git(&bench.guest, &["reset", "-q", "--hard", "HEAD~1"]);
    git(&bench.guest, &["reflog", "expire", "--expire=now", "--all"]);
    git(&bench.guest, &["branch", "topic"]);
    bench.export(&base);
    git(&bench.guest, &["branch", "-D", "-q", "topic"]);
    // A name now lies beneath one that was a branch.
    git(&bench.guest, &["branch", "topic/one"]);
    bench.export(&base);
    let refs = git(
        &bench.here,
        &["for-each-ref", "--format=%(objectname)", "refs/banger"],
    );
    assert!(refs.contains(&first), "{refs}");
    git(
        &bench.here,
        &["rev-parse", "--verify", "refs/banger/dev/HEAD"],
    );
}

#[test]
fn forms_are_what_other_programs_take() {
    let bench = Bench::with_repository();
    worked(&bench, |bench| {
        write(&bench.guest, "file", b"\0binary\xff");
        commit(&bench.guest, "theirs");
        write(&bench.guest, "other", "changed\n");
        write(&bench.guest, "new", "untracked\n");
    });
    let repository = LocalRepository::find(&bench.here, &Cancel::default()).unwrap();
    let store = banger_workspace::client::Store::of(&repository.unwrap());
    let work = Work::of(&store, VM).unwrap();
    let form = |format, only| {
        let mut written = Vec::new();
        work.write(format, only, &mut written).unwrap();
        written
    };
    let patch = bench.directory.path().join("all.patch");
    std::fs::write(&patch, form(Format::Patch, Only::All)).unwrap();
    let bundle = bench.directory.path().join("work.bundle");
    std::fs::write(&bundle, form(Format::Bundle, Only::All)).unwrap();
    git(
        &bench.here,
        &["bundle", "verify", "-q", bundle.to_str().unwrap()],
    );
    let stat = String::from_utf8(form(Format::Diffstat, Only::Commits)).unwrap();
    assert!(stat.contains("1 file changed"), "{stat}");
    let mut names = Vec::new();
    let mut each = |file: &banger_workspace::client::render::File, _: &mut dyn std::io::Read| {
        names.push(String::from_utf8(file.path.clone()).unwrap());
        Ok(())
    };
    work.files(Only::All, &mut each).unwrap();
    assert_eq!(names, ["file", "new", "other"]);
    git(&bench.here, &["apply", "--index", patch.to_str().unwrap()]);
    assert_eq!(tree(&bench.here), tree(&bench.guest));
}
