//! Sessions through both ends of the guest protocol: what runs, what it prints, how it ends.
use std::time::{Duration, Instant};

use crate::support::{gone, holding, outcome, rig, shell, spec};
use banger_core::SessionId;
use banger_core::guest::{AttachTarget, GuestConfig, GuestError, GuestIdentity};
use banger_core::session::{
    AttachOptions, Exit, ReadFrom, SessionInput, SessionState, SignalTarget, TerminalSize, Writing,
};

const RESIZED: TerminalSize = TerminalSize {
    rows: 44,
    columns: 122,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_and_both_streams_arrive_before_the_exit() {
    let rig = rig().await;
    for code in [0, 1, 7, 255] {
        let done = rig
            .run(shell(&format!("echo out; echo err >&2; exit {code}")))
            .await;
        assert_eq!(done.exit, Some(Exit::Code(code)));
        assert_eq!(
            (done.stdout.as_slice(), done.stderr.as_slice()),
            (&b"out\n"[..], &b"err\n"[..])
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_ends_it_is_told() {
    let rig = rig().await;
    let done = rig.run(shell("kill -TERM $$")).await;
    assert_eq!(done.exit, Some(Exit::Signal(15)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_reach_the_group_the_leader_or_all() {
    let rig = rig().await;
    let script = "trap 'echo leader' USR1; sh -c 'trap \"echo child\" USR1; echo up; while :; do sleep 0.1; done' & echo up; while :; do wait; done";
    let mut session = rig.start(shell(script)).await;
    session.until("up\nup\n").await;
    let signal = |target| rig.guest.signal_session(session.id, 10, target);
    signal(SignalTarget::Leader).await.unwrap();
    session.until("leader").await;
    let signal = |target| rig.guest.signal_session(session.id, 10, target);
    signal(SignalTarget::Group).await.unwrap();
    let text = session.until("child").await;
    let text = if text.contains("leader") {
        text
    } else {
        session.until("leader").await
    };
    assert!(text.contains("leader"));
    rig.guest
        .signal_session(session.id, 9, SignalTarget::All)
        .await
        .unwrap();
    assert_eq!(outcome(session.events).await.exit, Some(Exit::Signal(9)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_is_no_signal_is_refused() {
    let rig = rig().await;
    let session = rig.start(shell("sleep 30")).await;
    for signal in [0, -1, 65] {
        let error = rig
            .guest
            .signal_session(session.id, signal, SignalTarget::Group)
            .await;
        assert!(
            matches!(error, Err(GuestError::Refused { .. })),
            "{error:?}"
        );
    }
    rig.guest.delete_session(session.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_program_user_or_directory_is_told_apart() {
    let rig = rig().await;
    let error = |error: Result<_, GuestError>| error.err().unwrap();
    let missing = error(rig.try_start(spec(&["no-such-program"])).await);
    assert_eq!(
        missing,
        GuestError::ProgramNotFound {
            program: "no-such-program".into()
        }
    );
    let missing = error(rig.try_start(spec(&["/etc/passwd"])).await);
    assert!(
        matches!(&missing, GuestError::ProgramNotExecutable { detail, .. } if detail == "Permission denied"),
        "{missing:?}"
    );
    let mut bad = spec(&["true"]);
    bad.user = "nobody-of-this-name".into();
    assert_eq!(
        error(rig.try_start(bad).await),
        GuestError::UnknownUser {
            user: "nobody-of-this-name".into()
        }
    );
    let mut bad = spec(&["true"]);
    bad.working_dir = "/no/such/dir".into();
    let missing = error(rig.try_start(bad).await);
    assert!(
        matches!(&missing, GuestError::WorkingDirectory { path, .. } if path == "/no/such/dir"),
        "{missing:?}"
    );
    assert!(missing.nothing_ran());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_without_its_interpreter_is_not_executable() {
    let rig = rig().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script");
    std::fs::write(&path, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let error = rig
        .try_start(spec(&[path.to_str().unwrap()]))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&error, GuestError::ProgramNotExecutable { detail, .. } if detail == "its interpreter was not found"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environment_directory_and_user_are_as_asked() {
    let rig = rig().await;
    let mut asked = shell("echo $A $B $HOME $USER $(pwd) $(id -u):$(id -g)");
    asked.env.insert("B".into(), "own".into());
    asked.working_dir = "/usr".into();
    let config = GuestConfig {
        keep_pristine: false,
        env: [("A", "guest"), ("B", "guest")]
            .map(|(k, v)| (k.into(), v.into()))
            .into(),
        ..GuestConfig::default()
    };
    rig.guest.configure(&config).await.unwrap();
    rig.guest.configure(&config).await.unwrap();
    let done = rig.run(asked).await;
    assert_eq!(done.text(), "guest own /root root /usr 0:0\n");
    let mut asked = shell("id -u; id -g; id -G");
    asked.user = "1234:4321".into();
    assert_eq!(rig.run(asked).await.text(), "1234\n4321\n4321\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_signal_is_blocked_or_ignored_and_a_broken_pipe_kills() {
    let rig = rig().await;
    let done = rig.run(shell("grep SigBlk /proc/self/status")).await;
    assert_eq!(done.text(), "SigBlk:\t0000000000000000\n");
    // SAFETY: an ignored signal runs nothing, and nobody here sends or awaits this one.
    unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
    let done = rig.run(shell("kill -USR2 $$; echo ignored")).await;
    assert_eq!(done.exit, Some(Exit::Signal(libc::SIGUSR2)));
    let done = rig
        .run(shell("sh -c 'kill -PIPE $$; echo ignored'; echo $?"))
        .await;
    assert_eq!(done.text(), "141\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_start_runs_nothing_twice() {
    let rig = rig().await;
    let id = SessionId::new();
    let one = rig
        .guest
        .start_session(id, &shell("sleep 30"))
        .await
        .unwrap();
    let two = rig
        .guest
        .start_session(id, &shell("echo other"))
        .await
        .unwrap();
    assert_eq!((one.pid, &one.spec), (two.pid, &two.spec));
    assert_eq!(rig.guest.list_sessions().await.unwrap().len(), 1);
    rig.guest.delete_session(id).await.unwrap();
    rig.guest.delete_session(id).await.unwrap();
    assert_eq!(
        rig.guest.get_session(id).await,
        Err(GuestError::UnknownSession { id })
    );
    gone(one.pid.cast_signed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_kills_the_whole_tree() {
    let rig = rig().await;
    let mut slow = shell("sleep 100 & echo $!; sleep 100");
    slow.timeout = Some(Duration::from_millis(300));
    let started = Instant::now();
    let done = rig.run(slow).await;
    assert_eq!(done.exit, Some(Exit::Deadline));
    assert!(started.elapsed() < Duration::from_secs(5));
    gone(done.text().trim().parse().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemonised_child_dies_with_the_session() {
    if crate::support::cgroups().is_none() {
        eprintln!("skipped: no cgroup v2 may be made here");
        return;
    }
    let rig = rig().await;
    let started = Instant::now();
    let done = rig
        .run(shell(
            "setsid sh -c 'echo $$; exec sleep 100' & sleep 0.3; exit 3",
        ))
        .await;
    assert_eq!(done.exit, Some(Exit::Code(3)));
    assert!(started.elapsed() < Duration::from_secs(5));
    gone(done.text().trim().parse().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_keeps_the_pipe_does_not_keep_the_session() {
    let agent = crate::support::agent(None);
    let guest = crate::support::connect(&agent).await;
    let rig = crate::support::Rig {
        agent,
        guest,
        cgroups: None,
    };
    let started = Instant::now();
    let done = rig.run(shell("setsid sleep 20 & exit 4")).await;
    assert_eq!(done.exit, Some(Exit::Code(4)));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sessions_run_at_once() {
    let rig = rig().await;
    let runs = (0..200).map(|n| rig.run(shell(&format!("sleep 0.2; echo {n}; exit {}", n % 100))));
    for (n, done) in futures::future::join_all(runs)
        .await
        .into_iter()
        .enumerate()
    {
        assert_eq!(done.text(), format!("{n}\n"));
        assert_eq!(done.exit, Some(Exit::Code(i32::try_from(n % 100).unwrap())));
    }
    assert_eq!(rig.guest.list_sessions().await.unwrap().len(), 200);
    if let Some(cgroups) = &rig.cgroups {
        let directories = || {
            let entries = std::fs::read_dir(&cgroups.0).unwrap().flatten();
            entries.filter(|entry| entry.path().is_dir()).count()
        };
        let emptied = async {
            while directories() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(crate::support::PATIENCE, emptied)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_removes_itself_is_gone_from_the_list_after_its_exit() {
    let rig = rig().await;
    let id = SessionId::new();
    let target = AttachTarget::Start {
        id,
        spec: Box::new(shell("echo x")),
        remove_after_exit: true,
    };
    let session = rig
        .attach(target, id, AttachOptions::default())
        .await
        .unwrap();
    assert_eq!(outcome(session.events).await.exit, Some(Exit::Code(0)));
    assert_eq!(rig.guest.list_sessions().await.unwrap(), []);
    // A host that lost the connection just then can still ask.
    assert_eq!(rig.guest.wait_session(id).await, Ok(Exit::Code(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_remove_themselves_are_kept_for_their_callers() {
    let rig = rig().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let id = SessionId::new();
        let target = AttachTarget::Start {
            id,
            spec: Box::new(shell("echo x")),
            remove_after_exit: true,
        };
        let session = rig.attach(target, id, holding(ReadFrom::Start)).await;
        outcome(session.unwrap().events).await;
        ids.push(id);
    }
    for id in ids {
        let target = AttachTarget::Existing(id);
        let session = rig.attach(target, id, holding(ReadFrom::Start)).await;
        assert_eq!(outcome(session.unwrap().events).await.text(), "x\n");
    }
    assert_eq!(rig.guest.list_sessions().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_looks_on_does_not_take_the_exit_for_the_caller() {
    let rig = rig().await;
    let id = SessionId::new();
    let mut asked = shell("read line; echo $line");
    asked.stdin = true;
    let target = AttachTarget::Start {
        id,
        spec: Box::new(asked),
        remove_after_exit: true,
    };
    // The caller is away when it ends.
    drop(
        rig.attach(target, id, holding(ReadFrom::Start))
            .await
            .unwrap(),
    );
    let options = AttachOptions {
        writing: Writing::Shared,
        ..AttachOptions::default()
    };
    let other = rig.attach(AttachTarget::Existing(id), id, options).await;
    let other = other.unwrap();
    other.stdin(0, "x\n").await;
    assert_eq!(outcome(other.events).await.exit, Some(Exit::Code(0)));
    // What is to be forgotten is not listed.
    assert_eq!(rig.guest.list_sessions().await.unwrap().len(), 1);
    let back = holding(ReadFrom::Start);
    let back = rig.attach(AttachTarget::Existing(id), id, back).await;
    let back = outcome(back.unwrap().events).await;
    assert_eq!(
        (back.text().as_str(), back.exit),
        ("x\n", Some(Exit::Code(0)))
    );
    assert_eq!(rig.guest.list_sessions().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_has_its_size_and_is_resized() {
    let rig = rig().await;
    let mut asked =
        shell("stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done");
    asked.terminal = Some(TerminalSize {
        rows: 33,
        columns: 111,
    });
    let mut session = rig.start(asked).await;
    assert!(session.until("ready").await.contains("33 111"));
    session.resize(RESIZED).await;
    session.until("44 122").await;
    assert_eq!(outcome(session.events).await.exit, Some(Exit::Code(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_wait_for_one_end() {
    let rig = rig().await;
    let mut asked = shell("read line; exit 3");
    asked.stdin = true;
    let session = rig.start(asked).await;
    let waits = (0..100).map(|_| rig.guest.wait_session(session.id));
    let waits = futures::future::join_all(waits);
    let (told, ()) = tokio::join!(waits, session.stdin(0, "go\n"));
    assert!(
        told.iter().all(|exit| *exit == Ok(Exit::Code(3))),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_size_does_not_wait_for_a_process_that_reads_nothing() {
    let rig = rig().await;
    let mut asked =
        shell("stty raw -echo; trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done");
    asked.terminal = Some(TerminalSize::default());
    let mut session = rig.start(asked).await;
    session.until("ready").await;
    // More than a terminal takes unread.
    session.stdin(0, vec![b'x'; 60_000]).await;
    session.resize(RESIZED).await;
    session.until("44 122").await;
    rig.guest.delete_session(session.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_takes_input_control_characters_and_end_of_file() {
    let rig = rig().await;
    let mut asked = shell("tty; cat; echo after");
    asked.terminal = Some(TerminalSize::default());
    let mut session = rig.start(asked.clone()).await;
    session.until("/dev/pts/").await;
    session.stdin(0, "hello\n").await;
    session.until("hello\r\nhello\r\n").await;
    session.input.send(SessionInput::CloseStdin).await.unwrap();
    let rest = outcome(session.events).await;
    assert!(rest.text().contains("after"));
    let mut session = rig.start(asked).await;
    // A shell between two commands may survive the signal: let the second one be at work.
    session.until("/dev/pts/").await;
    session.stdin(0, "there\n").await;
    session.until("there\r\nthere\r\n").await;
    session.stdin(6, "\x03").await;
    assert_eq!(outcome(session.events).await.exit, Some(Exit::Signal(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_terminal_loses_nothing() {
    let rig = rig().await;
    let mut asked = shell("stty -opost; seq 1 200000");
    asked.terminal = Some(TerminalSize::default());
    let done = rig.run(asked).await;
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(done.stdout.len(), expected.len());
    assert_eq!(done.text(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_reattached_and_replayed_from_an_offset() {
    let rig = rig().await;
    let mut asked = shell("printf 0123456789; read line; echo $line; exit 5");
    asked.stdin = true;
    let mut session = rig.start(asked).await;
    session.until("0123456789").await;
    let id = session.id;
    drop(session);
    let existing = AttachTarget::Existing(id);
    let mut again = rig
        .attach(existing, id, holding(ReadFrom::Offset(4)))
        .await
        .unwrap();
    assert_eq!(again.until("9").await, "456789");
    again.stdin(0, "word\n").await;
    assert_eq!(outcome(again.events).await.exit, Some(Exit::Code(5)));
    let all = rig
        .guest
        .read_log(id, AttachOptions::default(), false)
        .await
        .unwrap();
    assert_eq!(outcome(all).await.text(), "0123456789word\n");
    let state = rig.guest.get_session(id).await.unwrap().state;
    assert_eq!(state, SessionState::Exited(Exit::Code(5)));
    let beyond = AttachOptions {
        from: ReadFrom::Offset(999),
        ..AttachOptions::default()
    };
    assert!(rig.guest.read_log(id, beyond, false).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_and_the_machine_of_a_foreign_agent_are_left_alone() {
    let rig = rig().await;
    assert!(matches!(
        rig.guest.power_off(Duration::ZERO).await,
        Err(GuestError::Refused { .. })
    ));
    let identity = GuestIdentity {
        git_name: "Nobody".into(),
        ..GuestIdentity::default()
    };
    assert!(matches!(
        rig.guest.set_identity(&identity).await,
        Err(GuestError::Refused { .. })
    ));
    assert!(matches!(
        rig.guest.start_init().await,
        Err(GuestError::Refused { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_resolves_when_the_channel_ends_and_sessions_live_on() {
    let agent = crate::support::agent(None);
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let serving = std::sync::Arc::clone(&agent);
    let server = tokio::task::JoinSet::new();
    let mut server = server;
    server.spawn(async move { banger_agent::serve::serve(&serving, theirs).await });
    let connector = banger_guest::Connector::default();
    let (guest, _) = banger_core::guest::GuestConnector::connect(
        &connector,
        banger_core::VmId::new(),
        Box::new(ours),
        banger_core::vmm::Accelerator::Tcg,
    )
    .await
    .unwrap();
    let id = SessionId::new();
    guest
        .start_session(id, &shell("sleep 1; exit 9"))
        .await
        .unwrap();
    let waiting = guest.wait_session(id);
    server.abort_all();
    let (waited, ()) = tokio::join!(waiting, guest.closed());
    assert_eq!(waited, Err(GuestError::Lost { during: "wait" }));
    let guest = crate::support::connect(&agent).await;
    assert_eq!(guest.wait_session(id).await, Ok(Exit::Code(9)));
}
