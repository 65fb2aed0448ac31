//! What of a workspace goes along, and what stays.
use crate::support::{Bench, VM, commit, git, git_bytes, tree, try_git, write};
use banger_workspace::client::collect::Options;
use banger_workspace::guest::Restore;
use banger_workspace::wire::{Part, Piece};

#[test]
fn a_directory_without_git_goes_in_and_comes_back() {
    let bench = Bench::new();
    write(&bench.here, "dir/file", "content\n");
    std::fs::create_dir(bench.here.join("empty")).unwrap();
    let (_, base) = bench.prepare(&Options::default());
    assert_eq!(tree(&bench.guest), tree(&bench.here));
    assert!(base.repositories.is_empty());
    write(&bench.guest, "dir/file", "changed\n");
    write(&bench.guest, "new", "new\n");
    let landed = bench.export(&base);
    assert!(!landed.has_loss(), "{:?}", landed.notes);
    let store = &landed.repositories[0].store;
    let read = |name: &str| {
        git_bytes(
            store,
            &[
                "cat-file",
                "blob",
                &format!("refs/banger/{VM}/state/tree:{name}"),
            ],
        )
    };
    assert_eq!(read("dir/file"), b"changed\n");
    assert_eq!(read("new"), b"new\n");
    assert!(!bench.here.join(".git").exists());
}

#[test]
fn a_shallow_history_is_worked_on_and_comes_back() {
    let bench = Bench::with_repository();
    for step in 0..4 {
        write(&bench.here, "file", format!("{step}\n"));
        commit(&bench.here, "step");
    }
    let options = Options {
        depth: 2,
        ..Options::default()
    };
    let (_, base) = bench.prepare(&options);
    assert_eq!(git(&bench.guest, &["rev-list", "--count", "HEAD"]), "2");
    git(&bench.guest, &["fsck", "--strict"]);
    write(&bench.guest, "file", "theirs\n");
    let theirs = commit(&bench.guest, "theirs");
    let landed = bench.export(&base);
    assert!(!landed.repositories[0].is_own_store);
    assert_eq!(
        git(&bench.here, &["rev-parse", "refs/banger/dev/HEAD"]),
        theirs
    );
    assert_eq!(git(&bench.here, &["rev-list", "--count", &theirs]), "6");
    // The whole history over the shallow one.
    let restore = Restore {
        overwrite: true,
        ..Restore::default()
    };
    let again = bench.try_prepare(&Options::default(), &restore, &mut |_| true);
    again.unwrap();
    assert_eq!(git(&bench.guest, &["rev-list", "--count", "HEAD"]), "5");
    git(&bench.guest, &["fsck", "--strict"]);
}

#[test]
fn a_revision_goes_without_what_is_not_committed() {
    let bench = Bench::with_repository();
    git(&bench.here, &["tag", "v1"]);
    write(&bench.here, "file", "later\n");
    commit(&bench.here, "later");
    write(&bench.here, "new", "not committed\n");
    let options = Options {
        revision: Some("v1".to_owned()),
        ..Options::default()
    };
    bench.prepare(&options);
    assert_eq!(git(&bench.guest, &["status", "--porcelain"]), "");
    let (here, guest) = (["rev-parse", "v1"], ["rev-parse", "HEAD"]);
    assert_eq!(git(&bench.guest, &guest), git(&bench.here, &here));
}

#[test]
fn only_the_branches_that_are_named_go_with_what_is_checked_out() {
    let bench = Bench::with_repository();
    for name in ["wanted", "other"] {
        git(&bench.here, &["switch", "-q", "-c", name, "main"]);
        write(&bench.here, name, "x\n");
        commit(&bench.here, name);
    }
    git(&bench.here, &["tag", "v1"]);
    git(&bench.here, &["switch", "-q", "main"]);
    let options = Options {
        branches: vec!["wanted".to_owned()],
        ..Options::default()
    };
    let (_, base) = bench.prepare(&options);
    let format = "--format=%(refname)";
    let there = git(&bench.guest, &["for-each-ref", format]);
    assert_eq!(there, "refs/heads/main\nrefs/heads/wanted");
    let other = git(&bench.here, &["rev-parse", "other"]);
    assert!(try_git(&bench.guest, &["cat-file", "-e", &other]).is_err());
    // The other one is left alone by what comes back.
    git(&bench.guest, &["switch", "-q", "wanted"]);
    let theirs = commit(&bench.guest, "theirs");
    let landed = bench.export(&base);
    let name = format!("refs/banger/{VM}/heads/wanted");
    assert!(landed.repositories[0].refs.contains(&(name, theirs)));
    assert_eq!(git(&bench.here, &["rev-parse", "other"]), other);
}

#[test]
fn a_linked_working_tree_goes_as_it_is() {
    let mut bench = Bench::with_repository();
    let linked = bench.directory.path().join("linked");
    let at = linked.to_str().unwrap();
    git(&bench.here, &["worktree", "add", "-q", "-b", "side", at]);
    bench.here = std::fs::canonicalize(&linked).unwrap();
    write(&bench.here, "file", "changed\n");
    write(&bench.here, "new", "new\n");
    let (_, base) = bench.prepare(&Options::default());
    assert_eq!(tree(&bench.guest), tree(&bench.here));
    assert_eq!(
        git(&bench.guest, &["symbolic-ref", "HEAD"]),
        "refs/heads/side"
    );
    let theirs = commit(&bench.guest, "theirs");
    bench.export(&base);
    assert_eq!(
        git(&bench.here, &["rev-parse", "refs/banger/dev/heads/side"]),
        theirs
    );
}

#[test]
fn ignored_files_go_along_when_a_pattern_fits() {
    let bench = Bench::with_repository();
    write(&bench.here, ".gitignore", ".env\nout/\n");
    commit(&bench.here, "ignore");
    write(&bench.here, ".env", "secret\n");
    write(&bench.here, "out/deep/kept.json", "{}\n");
    write(&bench.here, "out/deep/other", "x\n");
    let options = Options {
        include: vec![".env".to_owned(), "out/**/*.json".to_owned()],
        ..Options::default()
    };
    bench.prepare(&options);
    let there = tree(&bench.guest);
    assert!(there.contains_key(std::ffi::OsStr::new(".env")));
    assert!(there.contains_key(std::ffi::OsStr::new("out/deep/kept.json")));
    assert!(!there.contains_key(std::ffi::OsStr::new("out/deep/other")));
    let bench = Bench::with_repository();
    write(&bench.here, ".gitignore", ".env\n");
    write(&bench.here, ".env", "secret\n");
    bench.prepare(&Options::default());
    assert!(!bench.guest.join(".env").exists());
}

#[test]
fn remotes_and_credentials_stay() {
    let bench = Bench::with_repository();
    let remote = "https://ann:password@example.com/repository.git";
    git(&bench.here, &["remote", "add", "origin", remote]);
    git(
        &bench.here,
        &["config", "http.extraHeader", "Authorization: token"],
    );
    git(&bench.here, &["config", "credential.helper", "store"]);
    bench.prepare(&Options::default());
    let config = std::fs::read_to_string(bench.guest.join(".git/config")).unwrap();
    for word in ["password", "token", "credential", "remote"] {
        assert!(!config.contains(word), "{config}");
    }
}

#[test]
fn a_pointer_of_lfs_stays_a_pointer() {
    let bench = Bench::with_repository();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    write(&bench.here, ".gitattributes", "*.bin filter=lfs -text\n");
    write(&bench.here, "large.bin", pointer);
    commit(&bench.here, "pointer");
    // What git-lfs would have put there, with git taking it for the pointer.
    git(
        &bench.here,
        &[
            "config",
            "filter.lfs.clean",
            &format!("printf '{}'", pointer.replace('\n', "\\n")),
        ],
    );
    write(&bench.here, "large.bin", "large");
    git(&bench.here, &["add", "large.bin"]);
    assert_eq!(git(&bench.here, &["status", "--porcelain"]), "");
    bench.prepare(&Options::default());
    assert_eq!(
        std::fs::read_to_string(bench.guest.join("large.bin")).unwrap(),
        pointer
    );
    assert_eq!(git(&bench.guest, &["status", "--porcelain"]), "");
}

#[test]
fn a_second_prepare_sends_only_what_is_new() {
    let bench = Bench::with_repository();
    let large: Vec<u8> = (0..2_000_000).map(|_| fastrand::u8(..)).collect();
    write(&bench.here, "large", &large);
    commit(&bench.here, "large");
    write(&bench.here, "untracked", &large);
    let bytes = |restore: &Restore| {
        let mut bytes = 0;
        let mut each = |part: &Part| {
            bytes += match &part.part {
                Some(Piece::Pack(pack)) => pack.data.len(),
                Some(Piece::Content(content)) => content.data.len(),
                _ => 0,
            };
            true
        };
        bench
            .try_prepare(&Options::default(), restore, &mut each)
            .unwrap();
        bytes
    };
    assert!(bytes(&Restore::default()) > 4_000_000);
    write(&bench.here, "file", "changed\n");
    commit(&bench.here, "small");
    let restore = Restore {
        overwrite: true,
        ..Restore::default()
    };
    assert!(bytes(&restore) < 10_000);
    assert_eq!(tree(&bench.guest), tree(&bench.here));
}
