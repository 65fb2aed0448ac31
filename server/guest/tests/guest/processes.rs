//! How processes are started, limited and ended, and what they are given to read.
use std::time::Duration;

use crate::support::{Attached, PATIENCE, Rig, gone, holding, outcome, rig, rig_in, shell, spec};
use banger_core::SessionId;
use banger_core::guest::AttachTarget;
use banger_core::session::{Exit, ReadFrom, Resource, ResourceLimit, SessionInput, SessionSpec};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merged_streams_come_in_the_order_in_which_they_are_written() {
    let rig = rig().await;
    let mut asked = shell("for i in 1 2 3; do echo out $i; echo err $i >&2; done");
    asked.merge_output = true;
    let done = rig.run(asked).await;
    assert_eq!(done.text(), "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n");
    assert!(done.stderr.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn umask_and_limits_are_as_asked_though_the_user_may_not_raise_them() {
    let rig = rig().await;
    let limit = |resource, soft, hard| ResourceLimit {
        resource,
        soft,
        hard,
    };
    let mut asked = shell("umask; ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hc");
    asked.user = "1234:1234".into();
    asked.umask = Some(0o077);
    asked.limits = vec![
        limit(Resource::Nofile, Some(321), Some(654)),
        limit(Resource::Core, Some(0), None),
    ];
    let done = rig.run(asked).await;
    assert_eq!(done.text(), "0077\n321\n654\n0\nunlimited\n");
    assert_eq!(rig.run(shell("umask")).await.text(), "0022\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_the_kernel_refuses_runs_nothing() {
    let rig = rig().await;
    let mut asked = shell("echo ran");
    // More files than the kernel knows (fs.nr_open).
    asked.limits = vec![ResourceLimit {
        resource: Resource::Nofile,
        soft: Some(1 << 40),
        hard: Some(1 << 40),
    }];
    let error = rig.try_start(asked).await.err().unwrap();
    assert!(error.nothing_ran(), "{error:?}");
    assert!(error.to_string().contains("limits"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_that_are_kept_go_on_until_the_session_is_deleted() {
    let rig = rig().await;
    if rig.cgroups.is_none() {
        eprintln!("skipped: no cgroup v2 may be made here");
        return;
    }
    let mut asked = shell("setsid sh -c 'exec sleep 1000' >/dev/null 2>&1 & echo $!; exit 3");
    asked.keep_children = true;
    let session = rig.start(asked).await;
    let id = session.id;
    let done = outcome(session.events).await;
    assert_eq!(done.exit, Some(Exit::Code(3)));
    let child: i32 = done.text().trim().parse().unwrap();
    assert!(std::path::Path::new(&format!("/proc/{child}")).exists());
    let usage = rig.guest.get_session(id).await.unwrap().usage.unwrap();
    assert!(usage.process_count >= 1, "{usage:?}");
    rig.guest.delete_session(id).await.unwrap();
    gone(child).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_that_are_kept_may_go_on_writing_and_hold_no_exit() {
    let rig = rig().await;
    if rig.cgroups.is_none() {
        eprintln!("skipped: no cgroup v2 may be made here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let mut asked = shell(&format!(
        "(for i in 1 2 3 4 5 6 7 8; do echo tick; sleep 0.3; done; touch {}; exec sleep 1000) & echo pid $!; exit 3",
        mark.display()
    ));
    asked.keep_children = true;
    let session = rig.start(asked).await;
    let id = session.id;
    let done = outcome(session.events).await;
    assert_eq!(done.exit, Some(Exit::Code(3)));
    let text = done.text();
    let pid = text.split("pid ").nth(1).unwrap().split_whitespace().next();
    let child: i32 = pid.unwrap().parse().unwrap();
    let written = async {
        while !mark.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.unwrap();
    rig.guest.delete_session(id).await.unwrap();
    gone(child).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_escapes_the_end_and_goes_on_writing_does_not_hold_the_exit() {
    // Without cgroups, a session of its own escapes.
    let rig = rig_in(std::path::Path::new("/")).await;
    let mut asked = shell("setsid sh -c 'while echo tick; do sleep 0.5; done' & read line; exit 4");
    asked.stdin = true;
    let mut session = rig.start(asked).await;
    session.until("tick").await;
    session.stdin(0, "go\n").await;
    assert_eq!(outcome(session.events).await.exit, Some(Exit::Code(4)));
}

/// The command of a call: it is to live as long as somebody attends to it.
async fn called(rig: &Rig, id: SessionId, asked: SessionSpec) -> Attached {
    let target = AttachTarget::Start {
        id,
        spec: Box::new(asked),
        remove_after_exit: true,
    };
    let options = holding(ReadFrom::Start);
    rig.attach(target, id, options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_caller_stays_away_is_ended() {
    let rig = rig().await;
    rig.agent
        .sessions
        .wait_for_callers(Duration::from_millis(300));
    let id = SessionId::new();
    let mut call = called(&rig, id, shell("echo $$ is it; exec sleep 1000")).await;
    let said = call.until("is it").await;
    let pid: i32 = said.split_whitespace().next().unwrap().parse().unwrap();
    drop(call);
    gone(pid).await;
    let forgotten = async {
        while rig.guest.get_session(id).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_comes_back_goes_on_and_the_command_is_forgotten_at_its_end() {
    let rig = rig().await;
    let id = SessionId::new();
    let mut asked = shell("echo begun; read line; echo heard $line");
    asked.stdin = true;
    let mut call = called(&rig, id, asked).await;
    call.until("begun").await;
    drop(call);
    let existing = AttachTarget::Existing(id);
    let options = holding(ReadFrom::Offset(6));
    let back = rig.attach(existing, id, options).await.unwrap();
    back.stdin(0, "it\n").await;
    let done = outcome(back.events).await;
    assert_eq!(done.text(), "heard it\n");
    assert_eq!(rig.guest.list_sessions().await.unwrap(), []);
}

/// Whoever reads the pipe is told of one user.
fn answer(pipe: &std::path::Path, is_over: &std::sync::atomic::AtomicBool) {
    use std::os::unix::fs::OpenOptionsExt as _;
    const NONBLOCK: i32 = 0o4000;
    let begin = std::time::Instant::now();
    while !is_over.load(std::sync::atomic::Ordering::Relaxed) && begin.elapsed() < PATIENCE {
        let open = std::fs::File::options()
            .write(true)
            .custom_flags(NONBLOCK)
            .open(pipe);
        if let Ok(mut pipe) = open {
            let _ = std::io::Write::write_all(&mut pipe, b"root:x:0:0:root:/root:/bin/sh\n");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_hangs_holds_one_start_and_nobody_else() {
    let root = tempfile::tempdir().unwrap();
    let rig = rig_in(root.path()).await;
    std::fs::create_dir(root.path().join("etc")).unwrap();
    let passwd = root.path().join("etc/passwd");
    let made = std::process::Command::new("mkfifo").arg(&passwd).status();
    assert!(made.unwrap().success());
    let mark = root.path().join("mark");
    let asked = spec(&["touch", mark.to_str().unwrap()]);
    let (kept, deleted) = (SessionId::new(), SessionId::new());
    let start = |id| {
        let (guest, asked) = (rig.guest.clone(), asked.clone());
        TaskTracker::new().spawn(async move { guest.start_session(id, &asked).await })
    };
    let hanging = start(deleted);
    // Everybody else is answered; and the one that hangs is given up.
    let answered = tokio::time::timeout(PATIENCE, rig.guest.list_sessions()).await;
    assert_eq!(answered.unwrap().unwrap(), []);
    rig.guest.delete_session(deleted).await.unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| answer(&passwd, &is_over));
        let rest = async {
            // Whether the start was there before the deletion, or came after it: it has no effect.
            assert!(hanging.await.unwrap().is_err());
            assert!(!mark.exists());
            start(kept).await.unwrap().unwrap();
        };
        tokio::task::block_in_place(|| Handle::current().block_on(rest));
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(rig.guest.wait_session(kept).await.unwrap(), Exit::Code(0));
    assert!(mark.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_tells_what_it_uses_and_what_it_used() {
    let rig = rig().await;
    if rig.cgroups.is_none() {
        eprintln!("skipped: no cgroup v2 may be made here");
        return;
    }
    let mut asked =
        shell("i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo worked; read line");
    asked.stdin = true;
    let mut session = rig.start(asked).await;
    session.until("worked").await;
    let id = session.id;
    let usage = rig.guest.get_session(id).await.unwrap().usage.unwrap();
    assert!(
        usage.cpu_time > Duration::ZERO && usage.process_count == 1,
        "{usage:?}"
    );
    session.input.send(SessionInput::CloseStdin).await.unwrap();
    outcome(session.events).await;
    let used = rig.guest.get_session(id).await.unwrap().usage.unwrap();
    assert!(used.cpu_time >= usage.cpu_time, "{used:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_standard_input_is_taken_as_fast_as_it_is_read() {
    const PIECE: usize = 1 << 20;
    const PIECES: u64 = 100;
    let rig = rig().await;
    let mut asked = shell("sleep 0.2; wc -c");
    asked.stdin = true;
    let session = rig.start(asked).await;
    let input = session.input.clone();
    let write = async {
        for piece in 0..PIECES {
            let data = Bytes::from(vec![7; PIECE]);
            let offset = piece * PIECE as u64;
            input
                .send(SessionInput::Stdin { offset, data })
                .await
                .unwrap();
        }
        input.send(SessionInput::CloseStdin).await.unwrap();
    };
    let both = async { tokio::join!(write, outcome(session.events)).1 };
    let done = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(done.text().trim(), (PIECES * PIECE as u64).to_string());
    assert_eq!(done.acked, PIECES * PIECE as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_as_long_as_the_kernel_takes_is_passed_on() {
    let rig = rig().await;
    // MAX_ARG_STRLEN of the kernel, with the byte that ends it: 32 pages.
    let longest = "x".repeat(32 * 4096 - 1);
    let done = rig.run(spec(&["printf", "%s", &longest])).await;
    assert_eq!(done.stdout.len(), longest.len());
    let error = rig
        .try_start(spec(&["true", &format!("{longest}x")]))
        .await
        .err()
        .unwrap();
    assert!(error.nothing_ran(), "{error:?}");
}
