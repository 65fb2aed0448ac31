//! The client against a daemon without VMs, over a real socket.
use std::future::IntoFuture;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::fake::running::pattern;
use crate::fake::{Fake, State};
use banger_sdk::types::exit::How;
use banger_sdk::types::{Gap, Stream};
use banger_sdk::{
    Client, ClientOptions, Code, CodeRan, Command, DoctorEvent, Error, Event, Host, HostEvent,
    ReadFrom, SignalTarget, VmEvent,
};
use futures::{StreamExt, TryStreamExt};

async fn connect(fake: &Fake) -> Client {
    Client::connect(Host::socket(fake.socket())).await.unwrap()
}

async fn with_vm(fake: &Fake) -> Client {
    let client = connect(fake).await;
    client.vms().create("debian").name("web").await.unwrap();
    client
}

fn sessions(state: &State) -> usize {
    state.sessions.lock().unwrap().len()
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_a_clear_error() {
    let error = Client::connect(Host::socket("/does/not/exist.sock"))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Connect { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
    assert_eq!(
        (error.reason(), error.code_ran()),
        ("DAEMON_UNREACHABLE", CodeRan::No)
    );
    assert!(error.remedy().unwrap().contains("BANGER_HOST"));
}

#[tokio::test]
async fn connecting_takes_less_than_10_ms() {
    let fake = Fake::start();
    let mut times: Vec<Duration> = Vec::new();
    // On a busy machine the others are of other programs: one that is undisturbed tells.
    for _ in 0..100 {
        let start = Instant::now();
        connect(&fake).await;
        times.push(start.elapsed());
    }
    let fastest = times.iter().min().unwrap();
    assert!(*fastest < Duration::from_millis(10), "{times:?}");
}

#[tokio::test]
async fn lists_read_all_pages() {
    let fake = Fake::start();
    let client = connect(&fake).await;
    for n in 0..5 {
        client
            .vms()
            .create("debian")
            .name(format!("vm-{n}"))
            .label("n", n.to_string())
            .await
            .unwrap();
    }
    let all: Vec<_> = client.vms().list().try_collect().await.unwrap();
    assert_eq!(all.len(), 5);
    let some: Vec<_> = client
        .vms()
        .list_labelled([("n", "3")])
        .try_collect()
        .await
        .unwrap();
    assert_eq!(some[0].spec.as_ref().unwrap().name, "vm-3");
}

#[tokio::test]
async fn creating_reports_stages_and_repeats_join() {
    let fake = Fake::start();
    let client = connect(&fake).await;
    let id = uuid::Uuid::new_v4();
    let (tell, told) = std::sync::mpsc::channel();
    let first = client
        .vms()
        .create("debian")
        .request_id(id)
        .progress(move |operation| {
            tell.send(operation.stages.len()).unwrap();
        });
    let first = first.await.unwrap();
    assert_eq!(told.recv().unwrap(), 3);
    let second = client.vms().create("debian").request_id(id).await.unwrap();
    assert_eq!(first.id, second.id);
}

#[tokio::test]
async fn a_creation_over_a_broken_connection_makes_one_vm() {
    let fake = Fake::start();
    let client = connect(&fake).await;
    let creating = client.vms().create("slow").name("web");
    let cutting = async {
        while fake.state.called("CreateVm slow") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fake.cut();
        while fake.state.called("CreateVm slow") < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(fake.state.vms.lock().unwrap().len(), 1);
        client.vms().delete("web").await.unwrap();
    };
    let (created, ()) = tokio::join!(creating.into_future(), cutting);
    assert_eq!(created.unwrap_err().reason(), "VM_DELETED");
}

#[tokio::test]
async fn a_daemon_that_does_not_come_back_is_an_error_after_the_window() {
    let fake = Fake::start();
    let options = ClientOptions::default().reconnect_window(Duration::from_millis(100));
    let client = Client::connect_with(Host::socket(fake.socket()), options)
        .await
        .unwrap();
    drop(fake);
    let error = client.host_info().await.unwrap_err();
    assert!(error.is_connection_lost(), "{error:?}");
    assert_eq!(error.reason(), "CONNECTION_LOST");
}

#[tokio::test]
async fn a_silent_stream_is_noticed() {
    let fake = Fake::start();
    with_vm(&fake).await;
    let options = ClientOptions::default()
        .silence(Duration::from_millis(150))
        .reconnect_window(Duration::ZERO);
    let client = Client::connect_with(Host::socket(fake.socket()), options)
        .await
        .unwrap();
    let mut process = client
        .sessions()
        .exec("web", Command::new(["sleep"]))
        .await
        .unwrap();
    assert!(matches!(
        process.next().await.unwrap(),
        Some(Event::Output(_))
    ));
    fake.state.silent.store(true, Ordering::Relaxed);
    let error = process.next().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::ConnectionSilent {
                code_ran: CodeRan::Yes,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn output_is_complete_and_in_its_streams() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    let process = client
        .sessions()
        .exec("web", Command::new(["both"]))
        .await
        .unwrap();
    let output = process.output().await.unwrap();
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!(output.exit.how, Some(How::Code(0)));
    let process = client
        .sessions()
        .exec("web", Command::new(["bytes", "3000000"]))
        .await
        .unwrap();
    assert!(process.output().await.unwrap().stdout == pattern(3_000_000));
}

#[tokio::test]
async fn a_program_that_is_missing_did_not_run() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    let error = client
        .sessions()
        .exec("web", Command::new(["missing"]))
        .await
        .unwrap_err();
    assert_eq!(
        (error.reason(), error.code()),
        ("PROGRAM_NOT_FOUND", Code::InvalidArgument)
    );
    assert_eq!(error.code_ran(), CodeRan::No);
}

#[tokio::test]
async fn input_arrives_whole_and_dropping_the_process_kills_it() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    let mut process = client
        .sessions()
        .exec("web", Command::new(["cat"]).stdin())
        .await
        .unwrap();
    let input = process.input();
    let data = pattern(5_000_000);
    let writing = async {
        input.write(data.clone()).await.unwrap();
        input.close();
    };
    let reading = async {
        let mut read = Vec::new();
        while let Some(event) = process.next().await.unwrap() {
            if let Event::Output(output) = event {
                read.extend_from_slice(&output.data);
            }
        }
        read
    };
    let ((), read) = tokio::join!(writing, reading);
    assert!(read == data);
    assert!(matches!(input.write("late").await, Err(Error::InputClosed)));

    let process = client
        .sessions()
        .exec("web", Command::new(["sleep"]))
        .await
        .unwrap();
    let running = fake.state.sessions.lock().unwrap()[process.id()].clone();
    drop(process);
    let sessions = client.sessions();
    let exit = tokio::time::timeout(Duration::from_secs(5), sessions.wait(running_id(&running)));
    assert_eq!(exit.await.unwrap().unwrap().how, Some(How::Signal(9)));
}

fn running_id(running: &crate::fake::running::Running) -> String {
    running.session.lock().unwrap().id.clone()
}

#[tokio::test]
async fn attach_goes_on_at_the_same_byte_over_broken_connections_both_ways() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    let session = client
        .sessions()
        .start("web", Command::new(["cat"]).stdin())
        .await
        .unwrap();
    let mut process = client
        .sessions()
        .attach(&session.id)
        .hold_process()
        .await
        .unwrap();
    let input = process.input();
    let data = pattern(4_000_000);
    fake.cut_after(700_000);
    let writing = async {
        for (index, piece) in data.chunks(100_000).enumerate() {
            input.write(piece.to_vec()).await.unwrap();
            if index % 10 == 9 {
                fake.cut();
            }
        }
        input.close();
    };
    let reading = async {
        let mut read = Vec::new();
        while let Some(event) = process.next().await.unwrap() {
            match event {
                Event::Output(output) => read.extend_from_slice(&output.data),
                Event::Gap(gap) => panic!("{gap:?}"),
                Event::Screen(_) => {}
                Event::Exited(exit) => assert_eq!(exit.how, Some(How::Code(0))),
            }
        }
        read
    };
    let ((), read) = tokio::join!(writing, reading);
    assert!(read == data, "{} of {}", read.len(), data.len());
    let running = fake.state.sessions.lock().unwrap()[&session.id].clone();
    assert!(*running.input.lock().unwrap() == data);
    assert!(process.reconnects() > 0);
    assert_eq!(sessions(&fake.state), 1);
}

#[tokio::test]
async fn exec_goes_on_if_the_daemon_kept_the_process_and_says_so_if_not() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    fake.state.keep_exec.store(true, Ordering::Relaxed);
    fake.cut_after(500_000);
    let process = client
        .sessions()
        .exec("web", Command::new(["bytes", "3000000"]))
        .await
        .unwrap();
    assert!(process.output().await.unwrap().stdout == pattern(3_000_000));

    let mut process = client
        .sessions()
        .exec("web", Command::new(["sleep"]))
        .await
        .unwrap();
    process.next().await.unwrap();
    fake.state.sessions.lock().unwrap().remove(process.id());
    fake.cut();
    let error = process.next().await.unwrap_err();
    assert_eq!(
        (error.reason(), error.code_ran()),
        ("CONNECTION_LOST", CodeRan::Yes)
    );
    let lost = error.lost_process().unwrap();
    assert_eq!(lost.session_id, process.id());
    assert_eq!((lost.output_offset, lost.stdin_offset), (6, 0));
    assert_eq!(error.metadata()["session_id"], process.id());
    assert_eq!(error.metadata()["output_offset"], "6");
}

#[tokio::test]
async fn an_exec_that_cannot_be_attached_to_again_ran_whatever_the_refusal_says() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    fake.state.keep_exec.store(true, Ordering::Relaxed);
    let command = Command::new(["sleep"]);
    let mut process = client.sessions().exec("web", command).await.unwrap();
    process.next().await.unwrap();
    fake.state.refuses_attach.store(true, Ordering::Relaxed);
    fake.cut();
    let error = process.next().await.unwrap_err();
    assert_eq!(
        (error.reason(), error.code_ran()),
        ("VM_WRONG_STATE", CodeRan::Yes)
    );
    assert_eq!(error.metadata()["code_ran"], "yes");
    assert_eq!(error.lost_process().unwrap().output_offset, 6);
}

#[tokio::test]
async fn an_exec_that_is_lost_leaves_what_was_collected_of_it() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    fake.cut_after(100_000);
    let command = Command::new(["bytes", "3000000"]);
    let process = client.sessions().exec("web", command).await.unwrap();
    fake.state.sessions.lock().unwrap().clear();
    let error = process.output().await.unwrap_err();
    let lost = error.lost_process().unwrap();
    assert!(!lost.stdout.is_empty());
    assert!(lost.stdout == pattern(lost.stdout.len()));
    assert_eq!(
        lost.output_offset,
        i64::try_from(lost.stdout.len()).unwrap()
    );
}

#[tokio::test]
async fn an_exec_is_signalled_and_ended_by_its_drop_after_its_connection_was_lost() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    fake.state.keep_exec.store(true, Ordering::Relaxed);
    let command = Command::new(["sleep", "trap"]);
    let mut process = client.sessions().exec("web", command).await.unwrap();
    process.next().await.unwrap();
    fake.cut();
    let input = process.input();
    // The events come only while they are read, and what is written meanwhile makes one.
    let running = fake.state.sessions.lock().unwrap()[process.id()].clone();
    let before = fake.state.called("AttachSession");
    let again = async {
        while fake.state.called("AttachSession") == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.write(Stream::Stdout, b"back");
    };
    let (event, ()) = tokio::join!(process.next(), again);
    assert!(matches!(event.unwrap(), Some(Event::Output(_))));
    assert_eq!(process.reconnects(), 1);
    input.signal(15).await.unwrap();
    assert!(matches!(
        process.next().await.unwrap(),
        Some(Event::Output(_))
    ));
    assert_eq!(*running.signals.lock().unwrap(), [15]);
    drop(process);
    tokio::time::timeout(Duration::from_secs(10), async {
        while fake.state.called("DeleteSession") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn logs_tell_gaps_and_begin_where_asked() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    let session = client
        .sessions()
        .start("web", Command::new(["bytes", "200000"]))
        .await
        .unwrap();
    fake.state.sessions.lock().unwrap()[&session.id].evict(65_536);
    let log = client
        .sessions()
        .log(&session.id)
        .from(ReadFrom::Offset(10));
    let events: Vec<_> = log.stream().try_collect().await.unwrap();
    let Event::Gap(gap) = &events[0] else {
        panic!("{:?}", events[0])
    };
    assert_eq!((gap.offset, gap.lost_bytes), (10, 65_526));
    assert!(matches!(events.last(), Some(Event::Exited(_))));
    fake.cut_after(50_000);
    let log = client.sessions().log(&session.id).follow();
    let events: Vec<_> = log.stream().try_collect().await.unwrap();
    let length: usize = events
        .iter()
        .map(|e| {
            if let Event::Output(o) = e {
                o.data.len()
            } else {
                0
            }
        })
        .sum();
    assert_eq!(length, 200_000 - 65_536);
}

#[tokio::test]
async fn what_is_lost_before_the_first_byte_came_is_a_gap() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    let command = Command::new(["cat"]).stdin();
    let session = client.sessions().start("web", command).await.unwrap();
    let mut process = client.sessions().attach(&session.id).await.unwrap();
    let running = fake.state.sessions.lock().unwrap()[&session.id].clone();
    fake.cut();
    while running.changed.receiver_count() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.write(Stream::Stdout, b"lost");
    running.evict(4);
    running.write(Stream::Stdout, b"kept");
    let gap = Gap {
        offset: 0,
        lost_bytes: 4,
    };
    assert_eq!(process.next().await.unwrap(), Some(Event::Gap(gap)));
    assert_eq!(process.output_offset(), 4);
}

#[tokio::test]
async fn a_daemon_that_is_replaced_interrupts_nobody() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    let session = client
        .sessions()
        .start("web", Command::new(["bytes", "200000"]))
        .await
        .unwrap();
    fake.state.draining.store(3, Ordering::SeqCst);
    let log = client.sessions().log(&session.id).follow();
    let events: Vec<_> = log.stream().try_collect().await.unwrap();
    assert!(matches!(events.last(), Some(Event::Exited(_))));
    fake.state.draining.store(3, Ordering::SeqCst);
    let process = client.sessions().attach(&session.id).await.unwrap();
    assert!(process.output().await.unwrap().stdout == pattern(200_000));
}

#[tokio::test]
async fn a_guest_that_is_silent_for_a_while_interrupts_no_exec() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    fake.state.keep_exec.store(true, Ordering::Relaxed);
    fake.state.agent_silent.store(3, Ordering::SeqCst);
    let command = Command::new(["bytes", "200000"]);
    let process = client.sessions().exec("web", command).await.unwrap();
    assert!(process.output().await.unwrap().stdout == pattern(200_000));
    assert_eq!(fake.state.called("AttachSession"), 3);
}

#[tokio::test]
async fn signals_reach_the_process() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    let session = client
        .sessions()
        .start("web", Command::new(["sleep"]))
        .await
        .unwrap();
    client
        .sessions()
        .signal(&session.id, 15, SignalTarget::All)
        .await
        .unwrap();
    let exit = client.sessions().wait(&session.id).await.unwrap();
    assert_eq!(exit.how, Some(How::Signal(15)));
    assert_eq!(fake.state.called("SignalSession 15 3"), 1);
    client.sessions().delete(&session.id).await.unwrap();
    assert_eq!(
        client
            .sessions()
            .get(&session.id)
            .await
            .unwrap_err()
            .reason(),
        "SESSION_NOT_FOUND"
    );
}

#[tokio::test]
async fn pulls_go_on_over_a_broken_connection_with_the_same_request_id() {
    let fake = Fake::start();
    let client = connect(&fake).await;
    let cutting = async {
        tokio::time::sleep(Duration::from_millis(80)).await;
        fake.cut();
    };
    let (image, ()) = tokio::join!(client.images().pull("debian").into_future(), cutting);
    assert_eq!(image.unwrap().references, ["debian"]);
    let calls = fake.state.calls.lock().unwrap();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0], calls[1]);
}

#[tokio::test]
async fn uploads_arrive_whole_and_directories_as_tar() {
    let fake = Fake::start();
    let client = connect(&fake).await;
    let file = fake.dir().join("vmlinux");
    std::fs::write(&file, pattern(2_500_000)).unwrap();
    let modules = fake.dir().join("modules");
    std::fs::create_dir(&modules).unwrap();
    std::fs::write(modules.join("a.ko"), b"module").unwrap();
    let kernel = client
        .kernels()
        .import_file(&file, Some(modules))
        .name("mine")
        .make_default();
    assert!(kernel.await.unwrap().is_default);
    {
        let uploads = fake.state.uploads.lock().unwrap();
        assert!(uploads["kernel"] == pattern(2_500_000));
        assert!(uploads["modules"].windows(4).any(|w| w == b"a.ko"));
    }
    let layout = fake.dir().join("layout");
    std::fs::create_dir(&layout).unwrap();
    std::fs::write(layout.join("oci-layout"), b"{}").unwrap();
    client.images().register("app:1", &layout).await.unwrap();
    assert_eq!(fake.state.called("RegisterImage app:1 1"), 1);
    let missing = client
        .images()
        .register("app:2", "/does/not/exist")
        .await
        .unwrap_err();
    assert_eq!(missing.reason(), "FILE_UNREADABLE");
    assert!(
        !fake.state.uploads.lock().unwrap().contains_key("app:2"),
        "half an upload is none"
    );
}

#[tokio::test]
async fn watches_end_with_the_last_word() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    let events: Vec<_> = client.vms().watch("web").try_collect().await.unwrap();
    assert!(matches!(events[..], [VmEvent::State(_), VmEvent::Deleted]));
    let mut operations = client.operations().list();
    let operation = operations.next().await.unwrap().unwrap();
    let states: Vec<_> = client
        .operations()
        .watch(&operation.id)
        .try_collect()
        .await
        .unwrap();
    assert!(states.last().unwrap().end_time.is_some());
    let console: Vec<_> = client
        .vms()
        .console("web")
        .offset(6)
        .stream()
        .try_collect()
        .await
        .unwrap();
    assert!(console[0].data.starts_with(b"version"));
}

#[tokio::test]
async fn a_diagnosis_is_told_as_its_checks_end_and_then_summed_up() {
    let fake = Fake::start();
    let client = connect(&fake).await;
    let events: Vec<_> = client.doctor().fix().stream().try_collect().await.unwrap();
    assert_eq!(events.len(), 5);
    assert!(matches!(&events[0], DoctorEvent::Check(check) if check.changed.contains("0700")));
    assert!(matches!(events[4], DoctorEvent::Summary(_)));
    fake.state.draining.store(1, Ordering::Relaxed);
    let cut: Vec<_> = client.doctor().stream().collect().await;
    let error = cut.last().unwrap().as_ref().unwrap_err();
    assert!(error.is_connection_lost(), "{error:?}");
}

#[tokio::test]
async fn a_daemon_that_is_silent_about_its_host_is_noticed() {
    let fake = Fake::start();
    fake.state.silent.store(true, Ordering::Relaxed);
    let options = ClientOptions::default().silence(Duration::from_millis(150));
    let client = Client::connect_with(Host::socket(fake.socket()), options)
        .await
        .unwrap();
    let events: Vec<_> = client.doctor().stream().collect().await;
    assert!(
        matches!(events[..], [Err(Error::ConnectionSilent { .. })]),
        "{events:?}"
    );
}

#[tokio::test]
async fn measurements_come_whole_and_go_on_over_a_broken_connection() {
    let fake = Fake::start();
    let client = with_vm(&fake).await;
    client.vms().create("debian").name("db").await.unwrap();
    let interval = Duration::from_millis(500);
    let mut rounds = client.vms().watch_all_stats(interval);
    assert_eq!(rounds.next().await.unwrap().unwrap().len(), 2);
    fake.cut();
    assert_eq!(rounds.next().await.unwrap().unwrap().len(), 2);
    let mut one = client.vms().watch_stats("web", interval);
    let round = one.next().await.unwrap().unwrap();
    assert_eq!((round.len(), round[0].name.as_str()), (1, "web"));
}

#[tokio::test]
async fn the_audit_log_goes_on_after_the_last_record_over_a_broken_connection() {
    let fake = Fake::start();
    let client = connect(&fake).await;
    let mut records = client.audit().follow(None);
    for sequence in 8..=9 {
        assert_eq!(records.next().await.unwrap().unwrap().sequence, sequence);
    }
    fake.cut();
    for sequence in 10..=11 {
        assert_eq!(records.next().await.unwrap().unwrap().sequence, sequence);
    }
    assert_eq!(fake.state.called("WatchAudit"), 2);
}

#[tokio::test]
async fn events_go_on_after_the_last_one_over_a_broken_connection() {
    let fake = Fake::start();
    let client = connect(&fake).await;
    let mut events = client.events().stream();
    let mut sequence = async || match events.next().await.unwrap().unwrap() {
        HostEvent::Snapshot {
            snapshot,
            dropped_count,
        } => (snapshot.sequence, Some(dropped_count)),
        HostEvent::Event(event) => (event.sequence, None),
    };
    assert_eq!(sequence().await, (2, Some(0)));
    assert_eq!(sequence().await, (3, None));
    fake.cut();
    assert_eq!(sequence().await, (4, None), "no snapshot, no repetition");
    fake.cut();
    assert_eq!(sequence().await, (5, None));
    let mut other = client.events().after("another", 7).stream();
    let first = other.next().await.unwrap().unwrap();
    assert!(
        matches!(
            first,
            HostEvent::Snapshot {
                dropped_count: 5,
                ..
            }
        ),
        "{first:?}"
    );
}
