//! Names and repositories that lead elsewhere.

use super::*;

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let bench = Bench::with_repository();
    for name in [
        &b".git/hooks/post-checkout"[..],
        b"a/.git/config",
        b".GIT/config",
        b"git~1/config",
        b".gi\xe2\x80\x8ct/config",
        b".git::$INDEX_ALLOCATION/config",
        b"../outside",
        b"a/../../outside",
        b"/etc/passwd",
        b"a//b",
        b"a\0b",
        b"",
    ] {
        let mut parts = snapshot(&bench, Vec::new(), Vec::new(), vec![file(name, 1)]);
        parts.push(content(0, b"x"));
        let error = refused(&bench, ended(parts));
        assert_eq!(
            error.reason(),
            "WORKSPACE_UNSAFE",
            "{}",
            name.escape_ascii()
        );
    }
}

#[test]
fn links_and_repositories_of_the_vm_lead_nowhere() {
    let (bench, base) = prepared();
    let guest = &bench.guest;
    symlink("/etc", guest.join("etc")).unwrap();
    symlink("../../here/.git", guest.join("their-git")).unwrap();
    std::fs::create_dir(guest.join("nested")).unwrap();
    git(&guest.join("nested"), &["init", "-q", "-b", "main"]);
    write(&guest.join("nested"), "inside", "x\n");
    let inside = commit(&guest.join("nested"), "inside");
    // Alternates of the VM name files of this machine to it, and nothing to us.
    let objects = bench.here.join(".git/objects");
    write(
        &guest.join("nested"),
        ".git/objects/info/alternates",
        format!("{}\n", objects.display()),
    );
    let before = tree(&bench.here);
    let landed = bench.export(&base);
    assert_eq!(tree(&bench.here), before);
    let nested = landed
        .repositories
        .iter()
        .find(|one| one.path == b"nested")
        .unwrap();
    assert!(nested.is_own_store);
    assert_eq!(nested.head, inside);
    assert_eq!(
        git(&nested.store, &["rev-parse", "refs/banger/dev/heads/main"]),
        inside
    );
    let link = git_bytes(
        &bench.here,
        &["cat-file", "blob", "refs/banger/dev/state/tree:etc"],
    );
    assert_eq!(link, b"/etc");
}

#[test]
fn what_lies_behind_a_link_is_written_neither_by_landing_nor_by_applying() {
    let bench = Bench::with_repository();
    let outside = outside(&bench);
    git(&bench.here, &["tag", "start"]);
    let link = Entry {
        path: "dir".into(),
        kind: EntryKind::Symlink.into(),
        mode: 0o777,
        link_target: outside.as_os_str().as_encoded_bytes().to_vec().into(),
        ..Entry::default()
    };
    let entries = vec![link, file(b"dir/x", 1)];
    let mut parts = snapshot(&bench, Vec::new(), Vec::new(), entries);
    parts.push(content(1, b"x"));
    if land(&bench.place(), &Base::default(), ended(parts)).is_ok() {
        all_ways(&bench);
    }
    // The owner has such a link, and the VM has a directory in its place.
    symlink(&outside, bench.here.join("link")).unwrap();
    commit(&bench.here, "a link");
    git(&bench.here, &["tag", "-f", "start"]);
    let (_, base) = bench.prepare(&Options::default());
    std::fs::remove_file(bench.guest.join("link")).unwrap();
    write(&bench.guest, "link/committed", "theirs\n");
    commit(&bench.guest, "a directory");
    write(&bench.guest, "link/untracked", "theirs\n");
    bench.export(&base);
    all_ways(&bench);
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn submodules_that_lead_outside_are_only_text() {
    let (bench, base) = prepared();
    let outside = outside(&bench);
    git(&bench.here, &["tag", "start"]);
    let guest = &bench.guest;
    let modules = "[submodule \"sub\"]\n\tpath = ../outside\n\turl = ../../outside\n[submodule \"x/../../y\"]\n\tpath = y\n\turl = ./y\n";
    for modules in [&modules[..modules.find("[submodule \"x").unwrap()], modules] {
        write(guest, ".gitmodules", modules);
        let head = git(guest, &["rev-parse", "HEAD"]);
        let link = format!("160000,{head},sub");
        git(guest, &["add", ".gitmodules"]);
        git(guest, &["update-index", "--add", "--cacheinfo", &link]);
        git(guest, &["commit", "-q", "-m", "modules"]);
        let known = bench.place().base(VM, &base).unwrap();
        let parts = bench.exported(&known).unwrap();
        match land(&bench.place(), &known, parts) {
            Ok(_) => all_ways(&bench),
            Err(error) => assert_eq!(error.reason(), "WORKSPACE_OBJECTS_REFUSED"),
        }
    }
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
    assert!(!bench.here.join(".git/modules").exists());
    assert!(!bench.directory.path().join("y").exists());
}

#[test]
fn a_repository_that_does_not_say_so_is_only_files() {
    let (bench, base) = prepared();
    let trap = trap(&bench);
    git(&bench.here, &["tag", "start"]);
    // Whoever runs git in `bare` is in a repository of the VM's making.
    let bare = bench.guest.join("bare");
    git(&bench.guest, &["init", "-q", "--bare", "bare"]);
    for setting in ["core.fsmonitor", "core.sshCommand", "core.pager"] {
        git(&bare, &["config", setting, &trap]);
    }
    git(&bare, &["config", "core.bare", "false"]);
    git(&bare, &["config", "core.worktree", ".."]);
    write(&bare, "refs/kept", "");
    write(&bare, "objects/kept", "");
    commit(&bench.guest, "bare");
    // A file that leads git to the owner's own repository, and a link that does.
    let own = bench.here.join(".git");
    std::fs::create_dir(bench.guest.join("elsewhere")).unwrap();
    let leads = format!("gitdir: {}\n", own.display());
    write(&bench.guest.join("elsewhere"), ".git", leads);
    std::fs::create_dir(bench.guest.join("linked")).unwrap();
    symlink(&own, bench.guest.join("linked/.git")).unwrap();
    let _ = std::fs::remove_file(bench.directory.path().join("ran"));
    let landed = bench.export(&base);
    for repository in &landed.repositories[1..] {
        assert!(repository.is_own_store, "{repository:?}");
    }
    all_ways(&bench);
    let repository = LocalRepository::find(&bench.here, &Cancel::default()).unwrap();
    apply(&repository.unwrap(), VM, ApplyOptions::default()).unwrap();
    assert!(bench.here.join("bare/config").exists());
    bench.export(&base);
    assert_nothing_ran(&bench);
}

#[test]
fn an_entry_in_another_repository_than_it_says_is_refused() {
    let bench = Bench::with_repository();
    let mut parts = snapshot(&bench, Vec::new(), Vec::new(), vec![file(b"sub/x", 1)]);
    let own = parts[0].clone();
    let Some(Piece::Repository(mut inside)) = own.part else {
        panic!("{own:?}");
    };
    inside.path = "sub".into();
    inside.head_commit = String::new();
    parts.insert(parts.len() - 1, part(Piece::Repository(inside)));
    parts.push(content(0, b"x"));
    let error = land(&bench.place(), &Base::default(), ended(parts.clone())).unwrap_err();
    assert_eq!(error.reason(), "WORKSPACE_UNSAFE");
    assert_eq!(git(&bench.here, &["for-each-ref", "refs/banger"]), "");
    // And the other way round.
    let Some(Piece::Entries(entries)) = &mut parts[2].part else {
        panic!("{:?}", parts[2]);
    };
    let outside = std::mem::take(&mut entries.entries);
    let entries = vec![Entry {
        path: "file".into(),
        ..outside[0].clone()
    }];
    let inside = parts.iter().rposition(is_manifest_end).unwrap();
    parts.insert(inside, part(Piece::Entries(Entries { entries })));
    let error = land(&bench.place(), &Base::default(), ended(parts)).unwrap_err();
    assert_eq!(error.reason(), "WORKSPACE_UNSAFE");
}

fn is_manifest_end(part: &Part) -> bool {
    matches!(part.part, Some(Piece::ManifestEnd(_)))
}

#[test]
fn a_repository_inside_lands_in_no_repository_that_is_elsewhere() {
    let bench = Bench::with_repository();
    let outside = outside(&bench);
    git(&outside, &["init", "-q", "-b", "main"]);
    write(&outside, "file", "mine\n");
    commit(&outside, "mine");
    // Here a link leads there; one lies beneath a link; a `.git` leads nowhere, and git looks above.
    symlink(&outside, bench.here.join("link")).unwrap();
    std::fs::create_dir(bench.here.join("broken")).unwrap();
    std::fs::create_dir(bench.here.join("broken/.git")).unwrap();
    symlink(bench.directory.path(), bench.here.join("up")).unwrap();
    let (_, base) = bench.prepare(&Options::default());
    let refs = git(&outside, &["for-each-ref"]);
    for place in ["link", "up/outside", "broken"] {
        let at = bench.guest.join(place);
        for above in [bench.guest.join("up"), at.clone()] {
            if above.is_symlink() {
                std::fs::remove_file(above).unwrap();
            }
        }
        std::fs::create_dir_all(&at).unwrap();
        git(&at, &["init", "-q", "-b", "main"]);
        write(&at, "file", place);
        commit(&at, "theirs");
    }
    let landed = bench.export(&base);
    assert_eq!(landed.repositories.len(), 4, "{landed:?}");
    for repository in &landed.repositories[1..] {
        assert!(repository.is_own_store, "{repository:?}");
    }
    assert_eq!(git(&outside, &["for-each-ref"]), refs);
    assert!(!outside.join(".git/banger").exists());
}

#[test]
fn a_git_directory_that_is_none_is_not_that_of_the_repository_around_it() {
    let bench = Bench::with_repository();
    std::fs::create_dir_all(bench.here.join("broken/.git")).unwrap();
    let own = Repository {
        kind: RepositoryKind::Git.into(),
        head_ref: "refs/heads/main".into(),
        // It cannot land in the owner's, which is then nobody's.
        shallow: vec!["1".repeat(40)],
        ..Repository::default()
    };
    let inside = Repository {
        path: "broken".into(),
        shallow: Vec::new(),
        ..own.clone()
    };
    let parts = vec![
        part(Piece::Repository(own)),
        part(Piece::Repository(inside)),
        part(Piece::ManifestEnd(ManifestEnd { entry_count: 0 })),
    ];
    let landed = land(&bench.place(), &Base::default(), ended(parts)).unwrap();
    assert!(landed.repositories.iter().all(|one| one.is_own_store));
    assert_eq!(git(&bench.here, &["for-each-ref", "refs/banger"]), "");
}
