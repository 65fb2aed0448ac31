//! Workspaces over the whole protocol: an agent in this process, the machine's git, and real repositories.
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::support::{PATIENCE, rig};
use banger_core::file::FilePlace;
use banger_core::guest::{Guest, GuestError};
use banger_core::workspace::{
    Base, ExportEvent, Part, PrepareEvent, PreparedWorkspace, WorkspacePreparation,
    WorkspaceProblem, WorkspaceView,
};
use banger_workspace::command::{Cancel, HostLauncher};
use banger_workspace::guest::{Export, Place, export};
use banger_workspace::wire::{BaseRepository, Note, Piece};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;

fn git(directory: &Path, words: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com"])
        .args(words)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {words:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

fn scene(root: &Path) {
    fs::create_dir_all(root.join("dir")).unwrap();
    git(root, &["init", "-q", "-b", "main"]);
    fs::write(root.join("a"), "one\n").unwrap();
    fs::write(root.join("dir/b"), vec![7; 700_000]).unwrap();
    git(root, &["add", "."]);
    git(root, &["commit", "-q", "-m", "first"]);
    fs::write(root.join("a"), "two\n").unwrap();
    git(root, &["add", "a"]);
    fs::write(root.join("a"), "three\n").unwrap();
    fs::write(root.join("new"), vec![9; 300_000]).unwrap();
}

/// What a client sends of a tree.
async fn told(root: &Path) -> Vec<Part> {
    let place = Place {
        launcher: Arc::new(HostLauncher),
        cancel: Cancel::default(),
        path: root.into(),
    };
    let collect = move || {
        let mut parts = Vec::new();
        export(&place, &Export::default(), &mut |part| {
            parts.push(part);
            true
        })
        .unwrap();
        parts
    };
    tokio::task::spawn_blocking(collect).await.unwrap()
}

fn preparation(path: &Path) -> WorkspacePreparation {
    WorkspacePreparation {
        place: at(path),
        overwrite: false,
        replaceable_states: Vec::new(),
        author_name: "Ann".into(),
        author_email: "ann@example.com".into(),
    }
}

fn at(path: &Path) -> FilePlace {
    FilePlace {
        user: String::new(),
        path: path.as_os_str().as_encoded_bytes().to_vec(),
    }
}

fn view(path: &Path, base: Base) -> WorkspaceView {
    WorkspaceView {
        place: at(path),
        base,
        had_git: true,
        max_bytes: 0,
        encoding: None,
    }
}

/// Sends the parts as a client does: the contents that are wanted, when it is known which.
async fn carry(
    guest: &Arc<dyn Guest>,
    preparation: &WorkspacePreparation,
    parts: Vec<Part>,
) -> Result<PreparedWorkspace, GuestError> {
    let (sender, receiver) = mpsc::channel(1);
    let parts_in = ReceiverStream::new(receiver).boxed();
    let mut events = guest.prepare_workspace(preparation, parts_in).await?;
    let mut sender = Some(sender);
    let mut parts = parts.into_iter().peekable();
    let mut needed = BTreeSet::new();
    let mut sending = None;
    loop {
        let event = match timeout(PATIENCE, events.next()).await.unwrap() {
            Some(event) => event?,
            None => panic!("a preparation ends with an event"),
        };
        match event {
            PrepareEvent::Known(known) if known.is_last => {
                let mut manifest = Vec::new();
                while let Some(part) = parts.next_if(|part| {
                    !matches!(
                        part.part,
                        Some(Piece::Content(_) | Piece::Note(_) | Piece::End(_))
                    )
                }) {
                    manifest.push(part);
                }
                let sender = sender.clone();
                sending = Some(TaskTracker::new().spawn(async move {
                    for part in manifest {
                        let _ = sender.as_ref().unwrap().send(part).await;
                    }
                }));
            }
            PrepareEvent::Needed(some) => {
                needed.extend(some.entries);
                if some.is_last {
                    sending.take().unwrap().await.unwrap();
                    let wanted = |part: &Part| match &part.part {
                        Some(Piece::Content(content)) => needed.contains(&content.entry),
                        _ => true,
                    };
                    let rest: Vec<Part> = parts.by_ref().filter(wanted).collect();
                    let sender = sender.take().unwrap();
                    TaskTracker::new().spawn(async move {
                        for part in rest {
                            let _ = sender.send(part).await;
                        }
                    });
                }
            }
            PrepareEvent::Prepared(prepared) => return Ok(prepared),
            _ => {}
        }
    }
}

async fn exported(guest: &Arc<dyn Guest>, view: &WorkspaceView) -> Result<Vec<Part>, GuestError> {
    let mut events = guest.export_workspace(view).await?;
    let mut parts = Vec::new();
    while let Some(event) = timeout(PATIENCE, events.next()).await.unwrap() {
        if let ExportEvent::Part(part) = event? {
            parts.push(part);
        }
    }
    Ok(parts)
}

fn base(root: &Path) -> Base {
    let head = git(root, &["rev-parse", "HEAD"]);
    Base {
        repositories: vec![BaseRepository {
            path: bytes::Bytes::new(),
            commits: vec![head.clone()],
            head_commit: head,
            shallow: Vec::new(),
        }],
    }
}

fn losses(parts: &[Part]) -> Vec<&Note> {
    let notes = parts.iter().filter_map(|part| match &part.part {
        Some(Piece::Note(note)) if note.is_loss => Some(note),
        _ => None,
    });
    notes.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_goes_in_and_comes_back() {
    let rig = rig().await;
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("a/b/to"));
    scene(&from);
    let parts = told(&from).await;
    let prepared = carry(&rig.guest, &preparation(&to), parts).await.unwrap();
    assert_eq!(prepared.path, to.as_os_str().as_encoded_bytes());
    for words in [
        &["rev-parse", "HEAD"][..],
        &["status", "--porcelain=v2", "--branch"],
        &["ls-files", "-s"],
    ] {
        assert_eq!(git(&from, words), git(&to, words), "{words:?}");
    }
    assert_eq!(
        fs::read(from.join("new")).unwrap(),
        fs::read(to.join("new")).unwrap()
    );
    assert_eq!(git(&to, &["config", "user.name"]), "Ann");
    // Once more, though nobody remembers that it was there.
    let parts = told(&from).await;
    let again = carry(&rig.guest, &preparation(&to), parts).await.unwrap();
    assert_eq!(again.state, prepared.state);

    git(&to, &["commit", "-q", "-m", "in the VM"]);
    git(&to, &["checkout", "-q", "-b", "other"]);
    git(&to, &["commit", "-q", "--allow-empty", "-m", "more"]);
    let view = view(&to, base(&from));
    let status = rig.guest.workspace_status(&view).await.unwrap();
    let own = &status.repositories[0];
    assert_eq!((own.ahead_count, own.new_commit_count), (2, 2));
    assert_eq!(own.untracked_count, 1);
    let parts = exported(&rig.guest, &view).await.unwrap();
    assert!(losses(&parts).is_empty());
    assert!(
        parts
            .iter()
            .any(|part| matches!(part.part, Some(Piece::Pack(_))))
    );

    let refused = carry(&rig.guest, &preparation(&to), told(&from).await).await;
    let work = WorkspaceProblem::HasWork;
    assert!(
        matches!(&refused, Err(GuestError::Workspace { problem, .. }) if *problem == work),
        "{refused:?}"
    );
    assert_eq!(git(&to, &["log", "-1", "--format=%s"]), "more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_cut_or_wrong_changes_nothing() {
    let rig = rig().await;
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    scene(&from);
    let parts = told(&from).await;
    for length in 0..parts.len() {
        let sent = futures::stream::iter(parts[..length].to_vec()).boxed();
        let events = rig.guest.prepare_workspace(&preparation(&to), sent).await;
        let events: Vec<_> = events.unwrap().collect().await;
        let cut = WorkspaceProblem::Cut;
        let last = events.last().unwrap();
        assert!(
            matches!(last, Err(GuestError::Workspace { problem, .. }) if *problem == cut),
            "{length}: {last:?}"
        );
        assert!(!to.exists());
    }
    let mut wrong = parts.clone();
    wrong.swap(0, 1);
    let sent = futures::stream::iter(wrong).boxed();
    let events = rig.guest.prepare_workspace(&preparation(&to), sent).await;
    let events: Vec<_> = events.unwrap().collect().await;
    let invalid = WorkspaceProblem::SnapshotInvalid;
    let last = events.last().unwrap();
    assert!(
        matches!(last, Err(GuestError::Workspace { problem, .. }) if *problem == invalid),
        "{last:?}"
    );
    // Nothing stays in the way of one that is whole.
    carry(&rig.guest, &preparation(&to), parts).await.unwrap();
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_an_export_up_holds_nothing_back() {
    let rig = rig().await;
    let scratch = tempfile::tempdir().unwrap();
    let from = scratch.path().join("from");
    scene(&from);
    // More often than calls may go on at once.
    for _ in 0..20 {
        let mut events = loop {
            match rig
                .guest
                .export_workspace(&view(&from, Base::default()))
                .await
            {
                Ok(events) => break events,
                // Those before end as soon as they see that nobody listens.
                Err(GuestError::TooManyWorkspaceCalls { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        timeout(PATIENCE, events.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
    let missing = view(&scratch.path().join("none"), Base::default());
    let status = rig.guest.workspace_status(&missing).await;
    assert!(status.is_ok_and(|status| !status.exists));
    let refused = exported(&rig.guest, &missing).await;
    let not_found = WorkspaceProblem::NotFound;
    assert!(
        matches!(&refused, Err(GuestError::Workspace { problem, .. }) if *problem == not_found),
        "{refused:?}"
    );
}
