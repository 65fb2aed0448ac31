//! How much was done in a workspace.

use super::*;

#[test]
fn status_counts_what_an_export_would_bring() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("work");
    scene(&root);
    let request = StatusRequest {
        base: base(&told(&root, &Export::default())),
        had_git: true,
    };
    let own = |status: crate::wire::Status| status.repositories.into_iter().next().unwrap();
    let before = own(status(&place(&root), &request).unwrap());
    assert_eq!((before.ahead_count, before.new_commit_count), (0, 0));
    assert!(before.changed_paths.is_empty());
    git(&root, &["commit", "-q", "--allow-empty", "-m", "one"]);
    git(&root, &["commit", "-q", "--allow-empty", "-m", "two"]);
    work(&root);
    let after = own(status(&place(&root), &request).unwrap());
    assert_eq!((after.ahead_count, after.behind_count), (2, 0));
    assert_eq!(after.new_commit_count, 2);
    assert_eq!(after.staged_count, 3);
    assert_eq!(after.untracked_count, 4);
    assert!(after.object_bytes > 0 && after.file_bytes > 0);
    git(&root, &["reset", "-q", "--hard", "HEAD~3"]);
    let reset = own(status(&place(&root), &request).unwrap());
    assert_eq!((reset.ahead_count, reset.new_commit_count), (0, 2));
    assert!(reset.behind_count > 0);
    assert!(
        !status(&place(&scratch.path().join("none")), &request)
            .unwrap()
            .exists
    );
}
