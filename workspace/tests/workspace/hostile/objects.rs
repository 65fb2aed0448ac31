//! Objects, references and contents that are not what they should be.

use super::*;

#[test]
fn trees_with_names_of_git_are_refused() {
    let (bench, _) = prepared();
    let guest = &bench.guest;
    let blob = object(guest, "blob", b"x");
    for name in [
        &b".git"[..],
        b".GIT",
        b"git~1",
        b"..",
        b".",
        b"a/b",
        b".g\xe2\x80\x8cit",
        b"",
    ] {
        let tree = tree_with(guest, "100644", name, &blob);
        let commit = commit_of(guest, &tree);
        let pack = pack_of(guest, &[&blob, &tree, &commit]);
        let refs = vec![reference("refs/heads/evil", &commit)];
        let error = refused(&bench, ended(snapshot(&bench, refs, pack, Vec::new())));
        assert_eq!(
            error.reason(),
            "WORKSPACE_OBJECTS_REFUSED",
            "{}",
            name.escape_ascii()
        );
    }
}

#[test]
fn old_histories_with_harmless_mistakes_land() {
    for who in ["A <a@b> 1 +051800", "A <a@b>1 +0000", "A <a@b> 01 +0000"] {
        let (bench, _) = prepared();
        let guest = &bench.guest;
        let blob = object(guest, "blob", b"x");
        let tree = tree_with(guest, "100644", b"x", &blob);
        let text = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nm\n");
        let commit = object(guest, "commit", text.as_bytes());
        let pack = pack_of(guest, &[&blob, &tree, &commit]);
        let refs = vec![reference("refs/heads/old", &commit)];
        let place = bench.place();
        let parts = ended(snapshot(&bench, refs, pack, Vec::new()));
        let landed = land(&place, &Base::default(), parts).unwrap_or_else(|e| panic!("{who}: {e}"));
        let name = format!("refs/banger/{VM}/heads/old");
        assert!(
            landed.repositories[0].refs.contains(&(name, commit)),
            "{who}"
        );
    }
}

#[test]
fn submodules_that_lead_elsewhere_are_refused() {
    let (bench, _) = prepared();
    let guest = &bench.guest;
    for modules in [
        "[submodule \"../../evil\"]\n\tpath = sub\n\turl = https://example.com/x\n",
        "[submodule \"sub\"]\n\tpath = -evil\n\turl = https://example.com/x\n",
        "[submodule \"sub\"]\n\tpath = sub\n\turl = -u./program\n",
        "[submodule \"sub\"]\n\tpath = sub\n\turl = x\n\tupdate = !./program\n",
    ] {
        let blob = object(guest, "blob", modules.as_bytes());
        let tree = tree_with(guest, "100644", b".gitmodules", &blob);
        let commit = commit_of(guest, &tree);
        let pack = pack_of(guest, &[&blob, &tree, &commit]);
        let refs = vec![reference("refs/heads/evil", &commit)];
        let error = refused(&bench, ended(snapshot(&bench, refs, pack, Vec::new())));
        assert_eq!(error.reason(), "WORKSPACE_OBJECTS_REFUSED", "{modules}");
    }
    let link = object(guest, "blob", b"/etc/passwd");
    let tree = tree_with(guest, "120000", b".gitmodules", &link);
    let commit = commit_of(guest, &tree);
    let pack = pack_of(guest, &[&link, &tree, &commit]);
    let refs = vec![reference("refs/heads/evil", &commit)];
    refused(&bench, ended(snapshot(&bench, refs, pack, Vec::new())));
}

#[test]
fn references_with_names_that_are_none_are_refused() {
    let bench = Bench::with_repository();
    let head = git(&bench.here, &["rev-parse", "HEAD"]);
    for name in [
        "refs/../config",
        "refs/heads/../../x",
        "HEAD",
        "refs/heads/a.lock",
        "refs/heads/-\n",
        "refs//x",
        "config",
    ] {
        let refs = vec![reference(name, &head)];
        refused(
            &bench,
            ended(snapshot(&bench, refs, Vec::new(), Vec::new())),
        );
    }
}

const COMMIT: u8 = 1;
const TREE: u8 = 2;
const BLOB: u8 = 3;

/// A pack whose only object says that it has `size` bytes when it is unpacked, and has none.
fn promising(kind: u8, mut size: u64) -> Vec<u8> {
    let mut pack = b"PACK\0\0\0\x02\0\0\0\x01".to_vec();
    let mut byte = (kind << 4) | u8::try_from(size & 0xf).unwrap();
    size >>= 4;
    while size > 0 {
        pack.push(byte | 0x80);
        byte = u8::try_from(size & 0x7f).unwrap();
        size >>= 7;
    }
    pack.push(byte);
    pack.extend([0x78, 0x9c, 0x03, 0, 0, 0, 0, 1]);
    pack.extend([0; 20]);
    pack
}

#[test]
fn no_memory_is_taken_for_what_is_only_promised() {
    let (bench, _) = prepared();
    for kind in [TREE, COMMIT] {
        let pack = promising(kind, 2_000_000_000);
        let parts = ended(snapshot(&bench, Vec::new(), pack, Vec::new()));
        let error = refused(&bench, parts);
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains("over limit"), "{why}");
    }
}

#[test]
fn a_history_with_a_hole_in_what_is_here_is_refused() {
    let (bench, _) = prepared();
    let guest = &bench.guest;
    let blob = object(guest, "blob", b"some content\n");
    let gone = tree_with(guest, "100644", b"gone", &blob);
    let before = commit_of(guest, &gone);
    let tree = tree_with(guest, "100644", b"x", &blob);
    let text = format!(
        "tree {tree}\nparent {before}\nauthor A <a@b> 2 +0000\ncommitter A <a@b> 2 +0000\n\nm\n"
    );
    let after = object(guest, "commit", text.as_bytes());
    // A commit that nothing leads to, of which git has removed the rest: what comes has all that it leads to by itself.
    let raw = git_bytes(guest, &["cat-file", "commit", &before]);
    assert_eq!(object(&bench.here, "commit", &raw), before);
    let refs = vec![reference("refs/heads/new", &after)];
    let pack = pack_of(guest, &[&after, &tree, &blob]);
    let mut parts = snapshot(&bench, refs, pack, Vec::new());
    let error = refused(&bench, ended(parts.clone()));
    assert_eq!(error.reason(), "WORKSPACE_OBJECTS_REFUSED");
    // A reference to what never came.
    parts.remove(2);
    let error = refused(&bench, ended(parts));
    assert_eq!(error.reason(), "WORKSPACE_OBJECTS_REFUSED");
}

#[test]
fn a_cut_that_the_vm_tells_hides_no_hole_here() {
    let (bench, _) = prepared();
    let tree = git(&bench.here, &["rev-parse", "HEAD^{tree}"]);
    let child = |of: &Path, parent: &str| {
        let text = format!(
            "tree {tree}\nparent {parent}\nauthor A <a@b> 2 +0000\ncommitter A <a@b> 2 +0000\n\nm\n"
        );
        object(of, "commit", text.as_bytes())
    };
    let cut = child(&bench.here, &"1".repeat(40));
    std::fs::remove_file(bench.directory.path().join("object")).unwrap();
    let (guest, refs) = (&bench.guest, |id: &str| {
        vec![reference("refs/heads/new", id)]
    });
    child(guest, &"1".repeat(40));
    let after = child(guest, &cut);
    let pack = pack_of(guest, &[&after]);
    let mut parts = snapshot(&bench, refs(&after), pack, Vec::new());
    let Some(Piece::Repository(own)) = &mut parts[0].part else {
        panic!("{:?}", parts[0]);
    };
    own.shallow = vec![cut];
    let error = refused(&bench, ended(parts));
    assert_eq!(error.reason(), "WORKSPACE_OBJECTS_REFUSED");
}

#[test]
fn settings_that_no_workspace_needs_are_refused() {
    let bench = Bench::with_repository();
    for (name, value) in [
        ("core.sshCommand", "./program"),
        ("include.path", "../evil"),
        ("core.autocrlf", "./program"),
        ("core.worktree", "/"),
    ] {
        let mut parts = snapshot(&bench, Vec::new(), Vec::new(), Vec::new());
        let Some(Piece::Repository(own)) = &mut parts[0].part else {
            panic!("{:?}", parts[0]);
        };
        own.settings.insert(name.to_owned(), value.to_owned());
        assert_eq!(refused(&bench, ended(parts)).reason(), "WORKSPACE_UNSAFE");
    }
}

#[test]
fn packs_that_are_damaged_or_promise_too_much_are_refused() {
    let (bench, _) = prepared();
    let guest = &bench.guest;
    let blob = object(guest, "blob", &b"some content\n".repeat(50));
    let tree = tree_with(guest, "100644", b"x", &blob);
    let commit = commit_of(guest, &tree);
    let whole = pack_of(guest, &[&blob, &tree, &commit]);
    let refs = || vec![reference("refs/heads/new", &commit)];
    let lands = |pack: Vec<u8>| refused(&bench, ended(snapshot(&bench, refs(), pack, Vec::new())));
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    lands(flipped);
    lands(whole[..whole.len() - 10].to_vec());
    lands(b"not a pack at all, but long enough to be looked at".to_vec());
    // The object that the commit leads to is missing.
    lands(pack_of(guest, &[&commit]));
    lands(pack_of(guest, &[&tree, &commit]));
    // A header that promises 100 GB: as a blob, as a tree, as a commit.
    for kind in [BLOB, TREE, COMMIT] {
        lands(promising(kind, 100_000_000_000));
    }
    // And it lands where it is whole.
    let parts = ended(snapshot(&bench, refs(), whole, Vec::new()));
    land(&bench.place(), &Base::default(), parts).unwrap();
    let landed = git_bytes(
        &bench.here,
        &["cat-file", "blob", "refs/banger/dev/heads/new:x"],
    );
    assert_eq!(landed, b"some content\n".repeat(50));
}

#[test]
fn more_than_may_come_is_refused() {
    let (bench, _) = prepared();
    let guest = &bench.guest;
    let blob = object(guest, "blob", &vec![0; 4 << 20]);
    let tree = tree_with(guest, "100644", b"x", &blob);
    let commit = commit_of(guest, &tree);
    let pack = pack_of(guest, &[&blob, &tree, &commit]);
    let refs = vec![reference("refs/heads/new", &commit)];
    let limited = |limits: Limits, parts: Vec<Part>| -> Result<()> {
        let mut landing = Landing::begin(&bench.place(), VM, &Base::default(), limits)?;
        for part in parts {
            landing.part(part)?;
        }
        landing.finish().map(drop)
    };
    let parts = ended(snapshot(&bench, refs, pack, Vec::new()));
    // It is small as it comes, and large when it is unpacked.
    let limits = Limits {
        object_bytes: 1 << 20,
        ..Limits::default()
    };
    assert_eq!(
        limited(limits, parts.clone()).unwrap_err().reason(),
        "WORKSPACE_UNSAFE"
    );
    let limits = Limits {
        unpacked_bytes: 1 << 20,
        ..Limits::default()
    };
    assert_eq!(
        limited(limits, parts.clone()).unwrap_err().reason(),
        "WORKSPACE_UNSAFE"
    );
    let limits = Limits {
        bytes: 100,
        ..Limits::default()
    };
    assert!(limited(limits, parts.clone()).is_err());
    limited(Limits::default(), parts).unwrap();
    let promised = snapshot(
        &bench,
        Vec::new(),
        Vec::new(),
        vec![file(b"huge", 100_000_000_000)],
    );
    assert!(limited(Limits::default(), ended(promised)).is_err());
}

#[test]
fn content_that_still_is_encoded_is_refused() {
    let bench = Bench::with_repository();
    let mut parts = snapshot(&bench, Vec::new(), Vec::new(), vec![file(b"new", 100)]);
    let mut encoded = content(0, b"abc");
    if let Some(Piece::Content(content)) = &mut encoded.part {
        content.set_encoding(Encoding::Zlib);
    }
    parts.push(encoded);
    refused(&bench, ended(parts));
}

#[test]
fn contents_must_be_what_their_digests_say() {
    let bench = Bench::with_repository();
    let mut parts = snapshot(&bench, Vec::new(), Vec::new(), vec![file(b"new", 3)]);
    parts.push(part(Piece::Content(Content {
        entry: 0,
        data: "abc".into(),
        is_last: true,
        sha256: vec![0; 32].into(),
        ..Content::default()
    })));
    refused(&bench, ended(parts));
}

#[test]
fn a_file_is_not_longer_than_its_entry_says() {
    let bench = Bench::with_repository();
    let mut parts = snapshot(&bench, Vec::new(), Vec::new(), vec![file(b"new", 3)]);
    parts.push(content(0, b"abcd"));
    refused(&bench, ended(parts));
}

#[test]
fn an_index_that_names_no_blob_is_refused() {
    let (bench, _) = prepared();
    let tree = git(&bench.here, &["rev-parse", "HEAD^{tree}"]);
    for id in [tree, "1".repeat(40)] {
        let mut parts = snapshot(&bench, Vec::new(), Vec::new(), Vec::new());
        let entry = IndexEntry {
            path: "file".into(),
            mode: 0o100_644,
            object_id: id,
            stage: 0,
        };
        let entries = vec![entry];
        parts.insert(2, part(Piece::Index(IndexEntries { entries })));
        let error = refused(&bench, ended(parts));
        assert_eq!(error.reason(), "WORKSPACE_UNSAFE");
    }
}

#[test]
fn only_a_commit_is_checked_out() {
    let (bench, _) = prepared();
    let mut parts = snapshot(&bench, Vec::new(), Vec::new(), Vec::new());
    let Some(Piece::Repository(own)) = &mut parts[0].part else {
        panic!("{:?}", parts[0]);
    };
    own.head_commit = git(&bench.here, &["rev-parse", "HEAD:file"]);
    let error = refused(&bench, ended(parts));
    assert_eq!(error.reason(), "WORKSPACE_UNSAFE");
}

#[test]
fn a_file_whose_content_does_not_come_is_told() {
    let bench = Bench::with_repository();
    let parts = ended(snapshot(
        &bench,
        Vec::new(),
        Vec::new(),
        vec![file(b"new", 3)],
    ));
    let landed = land(&bench.place(), &Base::default(), parts).unwrap();
    assert!(landed.has_loss());
    assert_eq!(&landed.notes[0].path[..], b"new");
}
