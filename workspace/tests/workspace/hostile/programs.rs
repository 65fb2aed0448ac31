//! Programs that a VM would have run here.

use super::*;

#[test]
fn hooks_helpers_and_filters_of_the_vm_do_not_run_here() {
    let (bench, base) = prepared();
    let trap = trap(&bench);
    let guest = &bench.guest;
    write(
        guest,
        ".gitattributes",
        "* filter=evil diff=evil merge=evil\n",
    );
    commit(guest, "attributes");
    for setting in [
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "core.editor",
        "diff.external",
        "gpg.program",
    ] {
        git(guest, &["config", setting, &trap]);
    }
    for setting in [
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.evil.textconv",
        "diff.evil.command",
        "merge.evil.driver",
    ] {
        git(guest, &["config", setting, &trap]);
    }
    for hook in [
        "post-checkout",
        "pre-commit",
        "reference-transaction",
        "post-merge",
        "pre-push",
        "post-index-change",
    ] {
        let at = guest.join(".git/hooks").join(hook);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&at);
        symlink(&trap, at).unwrap();
    }
    write(
        guest,
        ".git/evil",
        format!("[core]\n\tfsmonitor = {trap}\n"),
    );
    git(guest, &["config", "include.path", "evil"]);
    write(guest, "file", "changed\n");
    let known = bench.place().base(VM, &base).unwrap();
    let parts = bench.exported(&known).unwrap();
    // In the VM they may run: it is the VM's own git.
    let _ = std::fs::remove_file(bench.directory.path().join("ran"));
    let landed = land(&bench.place(), &known, parts).unwrap();
    assert!(!landed.has_loss(), "{:?}", landed.notes);
    assert_nothing_ran(&bench);
}

#[test]
fn programs_that_come_with_the_tree_do_not_run_when_it_is_applied() {
    let bench = Bench::with_repository();
    let trap = trap(&bench);
    // The owner's own settings name programs in the tree, as many projects have it.
    git(&bench.here, &["config", "core.hooksPath", ".hooks"]);
    git(&bench.here, &["config", "core.fsmonitor", "./monitor"]);
    for setting in [
        "filter.project.clean",
        "filter.project.smudge",
        "merge.project.driver",
    ] {
        git(&bench.here, &["config", setting, "./program"]);
    }
    git(&bench.here, &["config", "filter.project.required", "true"]);
    std::fs::remove_file(bench.here.join("other")).unwrap();
    git(
        &bench.here,
        &[
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.hooksPath=/dev/null",
            "commit",
            "-q",
            "-a",
            "-m",
            "x",
        ],
    );
    git(&bench.here, &["config", "core.fsmonitor", "./monitor"]);
    let (_, base) = bench.prepare(&Options::default());
    let guest = &bench.guest;
    for name in [
        "program",
        "monitor",
        ".hooks/post-merge",
        ".hooks/post-checkout",
        ".hooks/post-index-change",
        ".hooks/reference-transaction",
    ] {
        write(guest, name, std::fs::read(&trap).unwrap());
        std::fs::set_permissions(guest.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    write(guest, ".gitattributes", "* filter=project merge=project\n");
    write(guest, "file", "theirs\n");
    commit(guest, "theirs");
    write(guest, "file", "not committed\n");
    bench.export(&base);
    let repository = LocalRepository::find(&bench.here, &Cancel::default()).unwrap();
    apply(&repository.unwrap(), VM, ApplyOptions::default()).unwrap();
    assert_eq!(
        std::fs::read_to_string(bench.here.join("file")).unwrap(),
        "not committed\n"
    );
    // They are in the tree now, and a file is that git must look into.
    write(&bench.here, "file", "still not  \n");
    let place = bench.place();
    let known = place.base(VM, &base).unwrap();
    let request = StatusRequest {
        base: known.clone(),
        had_git: true,
    };
    let status = status(&bench.guest_place(), &request).unwrap();
    assert_nothing_ran(&bench);
    expected_conflicts(&place, &known, &status).unwrap();
    assert_nothing_ran(&bench);
}

#[test]
fn merge_drivers_that_came_with_the_tree_do_not_run() {
    for way in [How::Merge, How::Rebase, How::Patch] {
        let bench = Bench::with_repository();
        let trap = trap(&bench);
        git(
            &bench.here,
            &["config", "merge.project.driver", "./program"],
        );
        write(&bench.here, ".gitattributes", "file merge=project\n");
        std::fs::copy(&trap, bench.here.join("program")).unwrap();
        commit(&bench.here, "as an earlier apply left it");
        let (_, base) = bench.prepare(&Options::default());
        write(&bench.guest, "file", "theirs\ntwo\nthree\n");
        commit(&bench.guest, "theirs");
        write(&bench.here, "file", "one\ntwo\nmine\n");
        commit(&bench.here, "mine");
        bench.export(&base);
        let repository = LocalRepository::find(&bench.here, &Cancel::default()).unwrap();
        let options = ApplyOptions {
            how: way,
            ..ApplyOptions::default()
        };
        let applied = apply(&repository.unwrap(), VM, options).unwrap();
        // What only the driver could merge is told.
        assert_eq!(applied.conflicts, ["file"], "{way:?}");
        assert_nothing_ran(&bench);
    }
}

#[test]
fn an_apply_does_not_change_what_the_configuration_includes() {
    let evil = "[filter \"evil\"]\n\tclean = ./program\n\tsmudge = ./program\n";
    for (include, named) in [
        ("../.gitconfig", ".gitconfig"),
        ("../conf/none-yet", "conf/none-yet"),
        ("../by/a/link", "conf/file"),
        (".././conf/../.gitconfig", ".gitconfig"),
    ] {
        for is_committed in [true, false] {
            let bench = Bench::with_repository();
            let trap = trap(&bench);
            write(&bench.here, ".gitconfig", "[core]\n\tabbrev = 10\n");
            write(&bench.here, "conf/file", "");
            std::fs::create_dir(bench.here.join("by")).unwrap();
            symlink("../conf", bench.here.join("by/a")).unwrap();
            symlink("file", bench.here.join("conf/link")).unwrap();
            commit(&bench.here, "settings of the project");
            git(&bench.here, &["config", "include.path", include]);
            let (_, base) = bench.prepare(&Options::default());
            let guest = &bench.guest;
            write(guest, "program", std::fs::read(&trap).unwrap());
            std::fs::set_permissions(
                guest.join("program"),
                std::fs::Permissions::from_mode(0o755),
            )
            .unwrap();
            write(guest, ".gitattributes", "* filter=evil\n");
            write(guest, named, evil);
            if is_committed {
                commit(guest, "theirs");
            }
            write(guest, "file", "not committed\n");
            bench.export(&base);
            let before = tree(&bench.here);
            for how in [How::FastForward, How::Merge, How::Rebase, How::Patch] {
                let repository = LocalRepository::find(&bench.here, &Cancel::default()).unwrap();
                let options = ApplyOptions {
                    how,
                    ..ApplyOptions::default()
                };
                match apply(&repository.unwrap(), VM, options) {
                    Err(Error::Refused { paths, .. }) => assert_eq!(paths, [named]),
                    other => panic!("{include}: {other:?}"),
                }
            }
            assert_eq!(tree(&bench.here), before);
            assert_nothing_ran(&bench);
        }
    }
}
