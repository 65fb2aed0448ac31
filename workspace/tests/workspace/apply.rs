//! What has landed becomes part of the owner's branch and tree, never at the cost of what the owner has.
use crate::support::{Bench, VM, commit, git, tree, write};
use banger_workspace::client::apply::{Applied, Done, How, Options as ApplyOptions, apply};
use banger_workspace::client::collect::Options;
use banger_workspace::client::render::{Format, Only, Work};
use banger_workspace::client::{Error, LocalRepository, Result};
use banger_workspace::command::Cancel;

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

/// Runs commands as the owner would.
fn go_back(bench: &Bench, commands: &[String]) {
    for command in commands {
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        git(&bench.here, &words);
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
    go_back(&bench, &done.way_back);
    assert_eq!(git(&bench.here, &["rev-parse", "HEAD"]), head);
    assert_eq!(read(&bench, "other"), "mine, not committed\n");
    assert_eq!(read(&bench, "file"), "one\ntwo\nthree\n");
}

/// The ways of which nothing moves forward, once [`part`] has been called.
const PARTED: [How; 3] = [How::Merge, How::Rebase, How::Patch];

/// The owner commits what the VM has not.
fn part(bench: &Bench) {
    write(&bench.here, "apart", "mine\n");
    commit(&bench.here, "apart");
}

/// Refused for `paths` each way, and nothing has changed.
fn refused_each_way(bench: &Bench, ways: &[How], paths: &[&str]) {
    let picture = || {
        let head = git(&bench.here, &["rev-parse", "HEAD"]);
        (tree(&bench.here), head)
    };
    let before = picture();
    for &way in ways {
        assert_eq!(refused(applied(bench, how(way))), paths, "{way:?}");
        assert_eq!(picture(), before, "{way:?}");
    }
}

#[test]
fn the_way_back_is_told_by_what_fails_halfway() {
    for (way, is_parted) in [
        (How::FastForward, false),
        (How::Merge, true),
        (How::Rebase, true),
    ] {
        let bench = Bench::with_repository();
        worked(&bench, |bench| {
            write(&bench.guest, "file", "theirs\n");
            commit(&bench.guest, "theirs");
        });
        if is_parted {
            part(&bench);
        }
        write(&bench.here, "other", "mine, not committed\n");
        let head = git(&bench.here, &["rev-parse", "HEAD"]);
        // The branch cannot be moved.
        let lock = bench.here.join(".git/refs/heads/main.lock");
        std::fs::write(&lock, "").unwrap();
        let error = applied(&bench, how(way)).unwrap_err();
        std::fs::remove_file(lock).unwrap();
        assert_eq!(error.reason(), "GIT_FAILED");
        let way_back = error.way_back();
        assert!(!way_back.is_empty(), "{way:?}: {error:?}");
        let remedy = error.remedy().unwrap();
        assert!(way_back.iter().all(|command| remedy.contains(command)));
        go_back(&bench, way_back);
        assert_eq!(git(&bench.here, &["rev-parse", "HEAD"]), head);
        assert_eq!(read(&bench, "other"), "mine, not committed\n");
        assert_eq!(read(&bench, "file"), "one\ntwo\nthree\n");
        assert_eq!(applied(&bench, how(way)).unwrap().conflicts, [""; 0]);
    }
}

#[test]
fn uncommitted_work_is_never_overwritten() {
    let bench = Bench::with_repository();
    worked(&bench, |bench| {
        write(&bench.guest, "file", "theirs\n");
        commit(&bench.guest, "theirs");
        write(&bench.guest, "other", "theirs, not committed\n");
    });
    let check = |ways: &[How]| {
        for name in ["file", "other"] {
            let was = read(&bench, name);
            write(&bench.here, name, "mine\n");
            refused_each_way(&bench, ways, &[name]);
            write(&bench.here, name, was);
        }
    };
    check(&[How::FastForward, How::Patch]);
    part(&bench);
    check(&PARTED);
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
    let check = |ways: &[How]| {
        for name in ["committed", "new", "in"] {
            write(&bench.here, name, "mine\n");
            refused_each_way(&bench, ways, &[name]);
            std::fs::remove_file(bench.here.join(name)).unwrap();
        }
    };
    check(&[How::FastForward, How::Patch]);
    part(&bench);
    check(&PARTED);
}

#[test]
fn changes_that_are_hidden_from_git_are_never_taken() {
    let bench = Bench::with_repository();
    write(&bench.here, "third", "third\n");
    commit(&bench.here, "with a third");
    worked(&bench, |bench| {
        write(&bench.guest, "file", "theirs\n");
        commit(&bench.guest, "theirs");
        write(&bench.guest, "new", "theirs\n");
    });
    let hide = |how: &str, name: &str| drop(git(&bench.here, &["update-index", how, name]));
    // Hidden and not changed, hidden and not there: nothing would be lost.
    hide("--assume-unchanged", "other");
    hide("--skip-worktree", "third");
    std::fs::remove_file(bench.here.join("third")).unwrap();
    // The way back takes it wherever it is, though the apply does not touch it.
    write(&bench.here, "other", "mine\n");
    refused_each_way(&bench, &[How::FastForward, How::Patch], &["other"]);
    write(&bench.here, "other", "other\n");
    // What is only skipped a reset leaves alone; what the apply writes to it does not.
    write(&bench.here, "third", "mine\n");
    hide("--skip-worktree", "file");
    write(&bench.here, "file", "mine\n");
    refused_each_way(&bench, &[How::FastForward, How::Patch], &["file"]);
    hide("--no-skip-worktree", "file");
    git(&bench.here, &["checkout", "-q", "--", "file"]);
    let done = applied(&bench, how(How::FastForward)).unwrap();
    assert_eq!(read(&bench, "file"), "theirs\n");
    go_back(&bench, &done.way_back);
    assert_eq!(read(&bench, "third"), "mine\n");
    let own = std::fs::read_dir(bench.here.join(".git/banger")).unwrap();
    assert_eq!(own.count(), 0, "a copy of the index is left");
}

#[test]
fn what_comes_and_goes_among_the_vms_commits_overwrites_nothing() {
    let bench = Bench::with_repository();
    worked(&bench, |bench| {
        let was = std::fs::read(bench.guest.join("file")).unwrap();
        write(&bench.guest, ".env", "theirs\n");
        write(&bench.guest, "file", "theirs\n");
        commit(&bench.guest, "comes");
        std::fs::remove_file(bench.guest.join(".env")).unwrap();
        write(&bench.guest, "file", was);
        commit(&bench.guest, "goes");
    });
    write(&bench.here, ".git/info/exclude", ".env\n");
    part(&bench);
    write(&bench.here, ".env", "mine\n");
    refused_each_way(&bench, &[How::Rebase], &[".env"]);
    write(&bench.here, "file", "mine\n");
    refused_each_way(&bench, &[How::Rebase], &["file"]);
    let done = applied(&bench, how(How::Merge)).unwrap();
    assert_eq!((done.commits, done.conflicts), (Done::Merged, Vec::new()));
    assert_eq!(read(&bench, ".env"), "mine\n");
    assert_eq!(read(&bench, "file"), "mine\n");
}

#[test]
fn histories_with_nothing_in_common_overwrite_nothing() {
    let bench = Bench::with_repository();
    worked(&bench, |bench| {
        git(&bench.guest, &["checkout", "-q", "--orphan", "again"]);
        write(&bench.guest, ".env", "theirs\n");
        commit(&bench.guest, "comes");
        std::fs::remove_file(bench.guest.join(".env")).unwrap();
        commit(&bench.guest, "goes");
        git(&bench.guest, &["branch", "-q", "-M", "main"]);
    });
    write(&bench.here, ".git/info/exclude", ".env\n");
    write(&bench.here, ".env", "mine\n");
    refused_each_way(&bench, &[How::Rebase], &[".env"]);
    std::fs::remove_file(bench.here.join(".env")).unwrap();
    let done = applied(&bench, how(How::Rebase)).unwrap();
    assert_eq!((done.commits, done.conflicts), (Done::Rebased, Vec::new()));
}

#[test]
fn what_follows_a_renamed_directory_overwrites_nothing() {
    for is_committed in [true, false] {
        let bench = Bench::with_repository();
        for name in ["one", "two"] {
            write(
                &bench.here,
                format!("a/{name}"),
                format!("{name}\n").repeat(9),
            );
        }
        commit(&bench.here, "a directory");
        worked(&bench, |bench| {
            write(&bench.guest, "a/key.env", "theirs\n");
            git(&bench.guest, &["add", "a/key.env"]);
            if is_committed {
                commit(&bench.guest, "theirs");
            }
        });
        git(&bench.here, &["mv", "a", "b"]);
        commit(&bench.here, "renamed");
        write(&bench.here, ".git/info/exclude", "*.env\n");
        write(&bench.here, "b/key.env", "mine\n");
        refused_each_way(&bench, &[How::Merge, How::Rebase], &["b/key.env"]);
        std::fs::remove_file(bench.here.join("b/key.env")).unwrap();
        applied(&bench, how(How::Merge)).unwrap();
        assert_eq!(read(&bench, "b/key.env"), "theirs\n");
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
        go_back(&bench, &done.way_back);
        assert_eq!(git(&bench.here, &["rev-parse", "HEAD"]), head);
        assert_eq!(read(&bench, "file"), "mine\n");
    }
}

#[test]
fn uncommitted_work_that_conflicts_keep_out_is_told_of() {
    for (way, goes_on) in [(How::Merge, "merge"), (How::Rebase, "cherry-pick")] {
        let bench = Bench::with_repository();
        worked(&bench, |bench| {
            write(&bench.guest, "more", "theirs\n");
            commit(&bench.guest, "more");
            write(&bench.guest, "file", "theirs\n");
            commit(&bench.guest, "theirs");
            write(&bench.guest, "more", "staged\n");
            git(&bench.guest, &["add", "more"]);
        });
        write(&bench.here, "file", "mine\n");
        commit(&bench.here, "mine");
        let done = applied(&bench, how(way)).unwrap();
        assert_eq!(
            (&done.conflicts[..], done.uncommitted),
            (&["file".to_owned()][..], false)
        );
        let bring = "git stash apply --index refs/banger/dev/state/worktree";
        assert_eq!(done.left_out, [bring]);
        write(&bench.here, "file", "both\n");
        git(&bench.here, &["add", "file"]);
        git(&bench.here, &[goes_on, "--continue"]);
        go_back(&bench, &done.left_out);
        assert_eq!(git(&bench.here, &["status", "--porcelain"]), "M  more");
        assert_eq!(read(&bench, "more"), "staged\n");
    }
}

#[test]
fn the_way_back_ends_a_rebase_of_several_commits() {
    let bench = Bench::with_repository();
    worked(&bench, |bench| {
        for text in ["theirs\n", "more of theirs\n"] {
            write(&bench.guest, "file", text);
            commit(&bench.guest, text);
        }
    });
    write(&bench.here, "file", "mine\n");
    let head = commit(&bench.here, "mine");
    for _ in 0..2 {
        let done = applied(&bench, how(How::Rebase)).unwrap();
        assert_eq!(done.conflicts, ["file"]);
        go_back(&bench, &done.way_back);
        assert_eq!(git(&bench.here, &["rev-parse", "HEAD"]), head);
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
