//! What is told of a workspace, and what of it cannot be.

use super::*;

/// All that is done from now on.
fn since(root: &Path) -> Export {
    Export {
        base: base(&told(root, &Export::default())),
        had_git: true,
        max_bytes: 0,
    }
}

#[test]
fn what_no_reference_leads_to_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("work");
    scene(&root);
    let first = base(&told(&root, &Export::default()));
    git(
        &root,
        &["commit", "-q", "--allow-empty", "-m", "amended away"],
    );
    let amended = git(&root, &["rev-parse", "HEAD"]);
    git(
        &root,
        &["commit", "-q", "--amend", "--allow-empty", "-m", "instead"],
    );
    git(&root, &["checkout", "-q", "--detach"]);
    git(&root, &["commit", "-q", "--allow-empty", "-m", "detached"]);
    let detached = git(&root, &["rev-parse", "HEAD"]);
    write(root.join("a"), "stashed\n");
    git(&root, &["stash", "-q"]);
    write(root.join("a"), "stashed later\n");
    git(&root, &["stash", "-q"]);
    git(&root, &["checkout", "-q", "main"]);
    git(&root, &["reset", "-q", "--hard", "HEAD~2"]);
    let request = Export {
        base: first,
        had_git: true,
        max_bytes: 0,
    };
    let parts = told(&root, &request);
    let mut names = Vec::new();
    for part in &parts {
        if let Some(Piece::Refs(refs)) = &part.part {
            let refs = refs.refs.iter();
            names.extend(refs.map(|found| String::from_utf8_lossy(&found.name).into_owned()));
        }
    }
    for name in [&amended, "stash@{0}", "stash@{1}", "refs/stash"] {
        assert!(names.iter().any(|told| told == name), "{name} in {names:?}");
    }
    assert_eq!(losses(&parts), []);

    // Into a repository that has the base alone.
    let other = scratch.path().join("other");
    git(scratch.path(), &["init", "-q", "--bare", "other"]);
    git(
        &other,
        &[
            "fetch",
            "-q",
            root.to_str().unwrap(),
            "refs/tags/v1:refs/tags/v1",
        ],
    );
    let pack: Vec<u8> = parts
        .iter()
        .filter_map(|part| match &part.part {
            Some(Piece::Pack(pack)) => Some(pack.data.to_vec()),
            _ => None,
        })
        .flatten()
        .collect();
    let file = scratch.path().join("pack");
    fs::write(&file, pack).unwrap();
    let status = Command::new("git")
        .current_dir(&other)
        .args(["index-pack", "--strict", "--stdin", "--fix-thin"])
        .stdin(fs::File::open(file).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    git(&other, &["cat-file", "-e", &amended]);
    git(&other, &["rev-list", "--objects", &detached]);
}

#[test]
fn what_hides_changes_does_not() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("work");
    scene(&root);
    let request = since(&root);
    git(&root, &["update-index", "--assume-unchanged", "a"]);
    git(&root, &["update-index", "--skip-worktree", "dir/b"]);
    git(&root, &["config", "core.fileMode", "false"]);
    git(&root, &["config", "status.showUntrackedFiles", "no"]);
    git(
        &root,
        &[
            "config",
            "core.excludesFile",
            root.join("a").to_str().unwrap(),
        ],
    );
    let trap = scratch.path().join("sprung");
    let hook = scratch.path().join("hook");
    fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", trap.display())).unwrap();
    fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).unwrap();
    git(&root, &["config", "core.fsmonitor", hook.to_str().unwrap()]);
    write(root.join("a"), "*\n");
    write(root.join("dir/b"), "hidden\n");
    write(root.join("untracked"), "hidden\n");
    fs::remove_file(&trap).ok();
    let parts = told(&root, &request);
    let mut paths = Vec::new();
    for part in &parts {
        if let Some(Piece::Entries(entries)) = &part.part {
            let entries = entries.entries.iter();
            paths.extend(entries.map(|entry| String::from_utf8_lossy(&entry.path).into_owned()));
        }
    }
    assert_eq!(paths, ["a", "dir/b", "untracked"]);
    assert!(!trap.exists());
}

#[test]
fn what_cannot_be_taken_is_told_by_path() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("work");
    scene(&root);
    git(&root, &["worktree", "add", "-q", "../elsewhere"]);
    let socket = root.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    write(root.join("dir/GIT~1/config"), "trap");
    write(root.join("promised"), "");
    fs::File::options()
        .write(true)
        .open(root.join("promised"))
        .unwrap()
        .set_len(100 << 30)
        .unwrap();
    write(root.join("broken/.git"), "gitdir: /nonexistent\n");
    fs::write(root.join(".git/index.lock"), "").unwrap();
    let parts = told(&root, &Export::default());
    let losses = losses(&parts);
    for expected in [
        (NoteKind::SpecialFile, "socket"),
        (NoteKind::BadName, "dir/GIT~1"),
        (NoteKind::TooLarge, "promised"),
        (NoteKind::BrokenRepository, "broken"),
    ] {
        let expected = (expected.0, expected.1.to_owned());
        assert!(losses.contains(&expected), "{expected:?} in {losses:?}");
    }
    assert!(
        losses
            .iter()
            .any(|(kind, _)| *kind == NoteKind::LinkedWorktree)
    );
    assert!(
        notes(&parts)
            .iter()
            .any(|note| note.kind() == NoteKind::Locked)
    );
    assert!(state(&parts).len() == 32);
}

#[test]
fn a_repository_inside_that_is_gone_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("work");
    let library = scratch.path().join("library");
    scene(&library);
    scene(&root);
    for name in ["kept", "without", "removed"] {
        let add = ["submodule", "--quiet", "add", library.to_str().unwrap()];
        git(&root, &[&add[..], &[name]].concat());
    }
    git(&root, &["commit", "-q", "-m", "submodules"]);
    let request = since(&root);
    assert_eq!(losses(&told(&root, &request)), []);
    write(root.join("without/a"), "changed\n");
    fs::remove_file(root.join("without/.git")).unwrap();
    fs::remove_dir_all(root.join("removed")).unwrap();
    let told = told(&root, &request);
    let gone = (NoteKind::GitRemoved, "without".to_owned());
    assert_eq!(losses(&told), [gone]);
    let noted = notes(&told).into_iter();
    let mut noted = noted.filter(|note| note.kind() == NoteKind::GitRemoved);
    assert!(noted.any(|note| &note.path[..] == b"removed"));
}

#[test]
fn the_commits_of_a_working_tree_elsewhere_come_though_no_branch_has_them() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("work");
    scene(&root);
    let request = since(&root);
    let other = scratch.path().join("other");
    let words = ["worktree", "add", "-q", "--detach", "../other"];
    git(&root, &words);
    git(
        &other,
        &["commit", "-q", "--allow-empty", "-m", "elsewhere"],
    );
    let commit = git(&other, &["rev-parse", "HEAD"]);
    let told = told(&root, &request);
    let refs = told.iter().filter_map(|part| match &part.part {
        Some(Piece::Refs(refs)) => Some(&refs.refs),
        _ => None,
    });
    let ids: Vec<&String> = refs.flatten().map(|found| &found.object_id).collect();
    assert!(ids.contains(&&commit), "{commit} in {ids:?}");
    let path = other.display().to_string();
    assert_eq!(losses(&told), [(NoteKind::LinkedWorktree, path)]);
}

#[test]
fn the_commits_of_a_merge_that_is_not_over_come_though_no_reference_has_them() {
    let scratch = tempfile::tempdir().unwrap();
    let (root, other) = (scratch.path().join("work"), scratch.path().join("other"));
    scene(&root);
    let request = since(&root);
    git(scratch.path(), &["clone", "-q", "work", "other"]);
    for name in ["one", "two"] {
        write(other.join(name), "theirs\n");
        git(&other, &["add", name]);
        git(&other, &["commit", "-q", "-m", name]);
    }
    git(&root, &["fetch", "-q", "../other", "main"]);
    git(
        &root,
        &["merge", "-q", "--no-ff", "--no-commit", "FETCH_HEAD"],
    );
    let theirs = git(&other, &["rev-parse", "HEAD"]);
    let told = told(&root, &request);
    assert_eq!(losses(&told), []);
    let refs = told.iter().filter_map(|part| match &part.part {
        Some(Piece::Refs(refs)) => Some(&refs.refs),
        _ => None,
    });
    let found = refs.flatten().filter(|found| found.kind() == RefKind::Lost);
    let ids: Vec<&String> = found.map(|found| &found.object_id).collect();
    assert_eq!(ids, [&theirs]);
}

#[test]
fn what_is_changed_after_it_was_looked_at_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("work");
    scene(&root);
    write(root.join("large"), "x".repeat(100_000));
    let request = since(&root);
    let exported = |deed: &dyn Fn()| {
        let mut parts = Vec::new();
        export(&place(&root), &request, &mut |part| {
            if matches!(part.part, Some(Piece::ManifestEnd(_))) {
                deed();
            }
            parts.push(part);
            true
        })
        .unwrap();
        parts
    };
    let still = exported(&|| write(root.join("built.o"), "ignored"));
    assert_eq!((losses(&still), state(&still).len()), (Vec::new(), 32));
    let moved = exported(&|| {
        write(root.join("a"), "meanwhile\n");
        write(root.join("appeared"), "meanwhile\n");
        fs::remove_file(root.join("large")).unwrap();
    });
    let moved_paths = |path: &str| (NoteKind::Moved, path.to_owned());
    let mut told = losses(&moved);
    told.sort();
    assert_eq!(told, ["a", "appeared", "large"].map(moved_paths));
    assert!(state(&moved).is_empty());
}
