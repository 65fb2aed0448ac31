//! Workspaces that are made of what was told of others.

use super::*;

#[test]
fn a_repository_with_work_in_it_is_made_again() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    scene(&from);
    git(&from, &["stash", "list"]);
    work(&from);
    let parts = told(&from, &Export::default());
    assert_eq!(losses(&parts), []);
    let sent = state(&parts);
    let (restored, _) = made(&to, &Restore::default(), parts).unwrap();
    fs::remove_file(from.join("x.o")).unwrap();
    assert_same(&from, &to);
    assert_eq!(restored.state[..], sent[..]);
    let left: Vec<_> = fs::read_dir(scratch.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_repeat_sends_what_is_new_and_replaces_only_what_is_as_it_was() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    scene(&from);
    work(&from);
    let large: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    write(from.join("large"), &large);
    let (first, sent) = made(&to, &Restore::default(), told(&from, &Export::default())).unwrap();
    assert!(sent > 1_000_000);
    write(to.join("cache.o"), "built in the VM");

    // As it was, and so it may be replaced; ignored files stay.
    write(from.join("small"), "small");
    git(&from, &["commit", "-q", "--allow-empty", "-m", "fourth"]);
    fs::remove_file(from.join("new")).unwrap();
    let request = Restore {
        replaceable_states: vec![Bytes::copy_from_slice(&first.state)],
        ..Restore::default()
    };
    let known = Export {
        base: base(&told(&to, &Export::default())),
        ..Export::default()
    };
    let mut parts = told(&from, &known);
    fill_digests(&mut parts);
    let (second, sent) = made(&to, &request, parts.clone()).unwrap();
    assert!(sent < 10_000, "{sent}");
    assert_eq!(fs::read(to.join("cache.o")).unwrap(), b"built in the VM");
    fs::remove_file(to.join("cache.o")).unwrap();
    fs::remove_file(from.join("x.o")).unwrap();
    assert_same(&from, &to);

    // Something was done: nothing is replaced, unless that is wanted.
    git(&to, &["commit", "-q", "--allow-empty", "-m", "in the VM"]);
    let request = Restore {
        replaceable_states: vec![Bytes::copy_from_slice(&second.state)],
        ..Restore::default()
    };
    let head = git(&to, &["rev-parse", "HEAD"]);
    let refused = made(&to, &request, parts.clone()).unwrap_err();
    assert!(matches!(refused, WorkError::Occupied { .. }), "{refused}");
    assert_eq!(git(&to, &["rev-parse", "HEAD"]), head);
    let request = Restore {
        overwrite: true,
        ..Restore::default()
    };
    made(&to, &request, parts).unwrap();
    assert_same(&from, &to);
}

#[test]
fn a_cut_stream_leaves_what_was_there() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    scene(&from);
    work(&from);
    let parts = told(&from, &Export::default());
    for length in 0..parts.len() {
        let cut = made(&to, &Restore::default(), parts[..length].to_vec()).unwrap_err();
        assert!(matches!(cut, WorkError::Gone), "{length}: {cut}");
        assert!(!to.exists());
    }
    let (restored, _) = made(&to, &Restore::default(), parts.clone()).unwrap();
    let before = content(&to);
    let request = Restore {
        replaceable_states: vec![Bytes::copy_from_slice(&restored.state)],
        ..Restore::default()
    };
    write(from.join("a"), "changed\n");
    let parts = told(&from, &Export::default());
    for length in 0..parts.len() {
        made(&to, &request, parts[..length].to_vec()).unwrap_err();
        assert_eq!(content(&to), before);
    }
    made(&to, &request, parts).unwrap();
    fs::remove_file(from.join("x.o")).unwrap();
    assert_same(&from, &to);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
}

#[test]
fn contents_come_as_they_are_only() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    write(from.join("a"), "one");
    let mut parts = told(&from, &Export::default());
    for part in &mut parts {
        if let Some(Piece::Content(content)) = &mut part.part {
            content.set_encoding(crate::wire::Encoding::Zlib);
        }
    }
    let refused = made(&to, &Restore::default(), parts).unwrap_err();
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(why.contains("encoded"), "{why}");
    assert!(!to.exists());
}

#[test]
fn without_git_all_files_are_told() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    write(from.join("a/b/c"), "one");
    write(from.join("run"), "two");
    fs::set_permissions(from.join("run"), PermissionsExt::from_mode(0o700)).unwrap();
    symlink("/etc/passwd", from.join("link")).unwrap();
    fs::create_dir_all(from.join("empty")).unwrap();
    let (first, _) = made(&to, &Restore::default(), told(&from, &Export::default())).unwrap();
    assert_eq!(content(&from), content(&to));
    fs::remove_dir_all(from.join("a")).unwrap();
    fs::remove_file(from.join("link")).unwrap();
    write(from.join("link/now"), "directory");
    write(from.join("d"), "three");
    let request = Restore {
        replaceable_states: vec![Bytes::copy_from_slice(&first.state)],
        ..Restore::default()
    };
    let mut parts = told(&from, &Export::default());
    fill_digests(&mut parts);
    let (_, sent) = made(&to, &request, parts).unwrap();
    assert_eq!(content(&from), content(&to));
    assert_eq!(sent, "directorythree".len() as u64);

    // A repository whose `.git` is gone.
    scene(&scratch.path().join("repository"));
    let repository = scratch.path().join("repository");
    let request = Export {
        base: base(&told(&repository, &Export::default())),
        had_git: true,
        max_bytes: 0,
    };
    fs::remove_dir_all(repository.join(".git")).unwrap();
    let parts = told(&repository, &request);
    assert_eq!(losses(&parts), [(NoteKind::GitRemoved, String::new())]);
    made(&scratch.path().join("copy"), &Restore::default(), parts).unwrap();
    assert_eq!(content(&repository), content(&scratch.path().join("copy")));
}

#[test]
fn a_merge_in_conflict_is_told_and_gone_on_with() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    scene(&from);
    git(&from, &["checkout", "-q", "-b", "other"]);
    write(from.join("a"), "theirs\n");
    git(&from, &["commit", "-q", "-a", "-m", "theirs"]);
    git(&from, &["checkout", "-q", "main"]);
    write(from.join("a"), "ours\n");
    git(&from, &["commit", "-q", "-a", "-m", "ours"]);
    fails(&from, &["merge", "-q", "other"]);
    let parts = told(&from, &Export::default());
    let own = parts.iter().find_map(|part| match &part.part {
        Some(Piece::Repository(repository)) => Some(repository.unfinished.clone()),
        _ => None,
    });
    assert_eq!(own.unwrap().len(), 1);
    made(&to, &Restore::default(), parts).unwrap();
    assert_same(&from, &to);
    write(to.join("a"), "both\n");
    git(&to, &["commit", "-q", "-a", "-m", "merged"]);
    assert_eq!(
        git(&to, &["rev-list", "--count", "--merges", "HEAD~1..HEAD"]),
        "1"
    );
}

#[test]
fn submodules_and_repositories_inside_come_along() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    let library = scratch.path().join("library");
    scene(&library);
    scene(&from);
    git(
        &from,
        &[
            "submodule",
            "--quiet",
            "add",
            library.to_str().unwrap(),
            "lib/sub",
        ],
    );
    git(&from, &["commit", "-q", "-m", "submodule"]);
    write(from.join("lib/sub/a"), "changed in the submodule\n");
    let inside = from.join("inside");
    scene(&inside);
    fs::create_dir(from.join("unborn")).unwrap();
    git(&from.join("unborn"), &["init", "-q", "-b", "main"]);
    write(from.join("unborn/file"), "x");
    let parts = told(&from, &Export::default());
    assert_eq!(losses(&parts), []);
    made(&to, &Restore::default(), parts).unwrap();
    assert_same(&from, &to);
    assert_eq!(
        git(&to, &["submodule", "status", "--cached"])
            .split_whitespace()
            .nth(1),
        Some("lib/sub")
    );
}

#[test]
fn a_snapshot_with_names_that_lead_elsewhere_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let to = scratch.path().join("to");
    for name in [
        "../out",
        "/etc/x",
        "a/../../out",
        ".git/hooks/x",
        "a/.GIT/config",
        "GIT~1/x",
    ] {
        let own = Repository {
            kind: RepositoryKind::Plain.into(),
            ..Repository::default()
        };
        let entry = crate::wire::Entry {
            path: Bytes::copy_from_slice(name.as_bytes()),
            kind: crate::wire::EntryKind::File.into(),
            mode: 0o644,
            ..crate::wire::Entry::default()
        };
        let entries = crate::wire::Entries {
            entries: vec![entry],
        };
        let parts = vec![part(Piece::Repository(own)), part(Piece::Entries(entries))];
        let refused = made(&to, &Restore::default(), parts).unwrap_err();
        assert!(matches!(refused, WorkError::Snapshot(_)), "{refused}");
    }
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn what_was_there_goes_when_the_answer_is_given_or_else_with_the_next() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    scene(&from);
    let beside = || {
        let entries = fs::read_dir(scratch.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names
            .filter(|name| name != "from" && name != "to")
            .collect();
        names.sort();
        names
    };
    let request = Restore {
        overwrite: true,
        ..Restore::default()
    };
    let parts = told(&from, &Export::default());
    let (first, _) = made(&to, &request, parts.clone()).unwrap();
    assert!(beside().is_empty(), "{:?}: there was nothing", beside());
    drop(first);
    let (second, _) = made(&to, &request, parts.clone()).unwrap();
    assert_eq!(beside(), [".to.banger-old"]);
    assert_same(&from, &to);
    // Whoever made it was killed before the answer; the next one finds it, and may be made meanwhile.
    std::mem::forget(second);
    let (third, _) = made(&to, &request, parts.clone()).unwrap();
    let (fourth, _) = made(&to, &request, parts).unwrap();
    drop(third);
    drop(fourth);
    assert!(beside().is_empty(), "{:?}", beside());
    assert_same(&from, &to);
}

#[test]
fn what_is_done_while_it_is_prepared_anew_is_not_replaced() {
    type Deed = fn(&Path);
    let deeds: [(&str, Deed); 6] = [
        ("a commit", |to| {
            git(to, &["commit", "-q", "--allow-empty", "-m", "meanwhile"]);
        }),
        ("a new file", |to| write(to.join("meanwhile"), "x")),
        ("a change", |to| write(to.join("a"), "meanwhile\n")),
        ("a removal", |to| fs::remove_file(to.join("a")).unwrap()),
        ("a stash", |to| {
            write(to.join("a"), "meanwhile\n");
            git(to, &["stash", "-q"]);
        }),
        ("a change like it", |to| {
            let length = fs::metadata(to.join("a")).unwrap().len();
            write(to.join("a"), "x".repeat(usize::try_from(length).unwrap()));
        }),
    ];
    for (what, deed) in deeds {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
        scene(&from);
        let parts = told(&from, &Export::default());
        let (first, _) = made(&to, &Restore::default(), parts.clone()).unwrap();
        let anew = |request: &Restore, deed: Deed| {
            let mut parts: VecDeque<Part> = parts.clone().into();
            // When all but the end has come: the copy was made long before.
            let mut next = || {
                if parts.len() == 1 {
                    deed(&to);
                }
                parts.pop_front()
            };
            restore(&place(&to), request, &mut next, &mut |_| true)
        };
        let request = Restore {
            replaceable_states: vec![Bytes::copy_from_slice(&first.state)],
            ..Restore::default()
        };
        anew(&request, |_| {}).unwrap_or_else(|error| panic!("{what}: {error}"));
        anew(&request, |to| write(to.join("build.o"), "ignored"))
            .unwrap_or_else(|error| panic!("before {what}: {error}"));
        let refused = anew(&request, deed).unwrap_err();
        assert!(
            matches!(&refused, WorkError::Occupied { detail, .. } if detail.contains("meanwhile")),
            "{what}: {refused}"
        );
        let state = |path: &Path| state(&told(path, &Export::default()));
        assert_ne!(state(&to)[..], first.state[..], "{what} is gone");
        let request = Restore {
            overwrite: true,
            ..request
        };
        anew(&request, |_| {}).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(state(&to)[..], first.state[..], "{what} is still there");
    }
}

#[test]
fn files_that_came_along_though_git_ignores_them_come_back() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    scene(&from);
    let inside = from.join("inside");
    scene(&inside);
    let overwrite = Restore {
        overwrite: true,
        ..Restore::default()
    };
    made(&to, &overwrite, told(&from, &Export::default())).unwrap();
    // Ignored there and not here, as what an owner's side is asked to include.
    for top in [&to, &to.join("inside")] {
        fs::create_dir_all(top.join(".git/info")).unwrap();
        write(top.join(".git/info/exclude"), "*.x\n");
    }
    write(from.join("settings.x"), "secret\n");
    write(inside.join("deep.x"), "secret\n");
    let parts = told(&from, &Export::default());
    let (first, _) = made(&to, &overwrite, parts.clone()).unwrap();
    let paths = || {
        let mut paths = Vec::new();
        for part in told(&to, &Export::default()) {
            if let Some(Piece::Entries(entries)) = part.part {
                let entries = entries.entries.into_iter();
                paths.extend(entries.map(|entry| String::from_utf8(entry.path.to_vec()).unwrap()));
            }
        }
        paths.retain(|path| path.ends_with(".x"));
        paths
    };
    assert_eq!(paths(), ["settings.x", "inside/deep.x"]);
    // One that was made there is ignored, and one that came is not: it is not replaced unasked.
    write(to.join("built.x"), "built");
    assert_eq!(paths(), ["settings.x", "inside/deep.x"]);
    write(to.join("settings.x"), "changed in the VM\n");
    let request = Restore {
        replaceable_states: vec![Bytes::copy_from_slice(&first.state)],
        ..Restore::default()
    };
    let refused = made(&to, &request, parts).unwrap_err();
    assert!(matches!(refused, WorkError::Occupied { .. }), "{refused}");
}
