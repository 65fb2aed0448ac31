//! How processes are started, limited and ended, and what they are given to read.
#![allow(missing_docs, clippy::unwrap_used)] // helpers of tests, outside of test functions

mod support;

use std::time::Duration;

use banger_core::session::{Exit, Resource, ResourceLimit, SessionInput};
use bytes::Bytes;
use support::{PATIENCE, gone, outcome, rig, shell, spec};

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
