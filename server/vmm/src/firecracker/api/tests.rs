//! The client against servers that lie.

use std::io::ErrorKind;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::model::{Action, InstanceInfo};
use super::*;

const SOCKET: &str = "api.sock";

/// Long enough for anything that ends, short enough to wait for what does not.
const LIMIT: Duration = Duration::from_millis(500);

/// A server whose every connection is dealt with by `serve`, and a client of it.
struct Bench {
    api: Api,
    tracker: TaskTracker,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Bench {
    fn new<F, Fut>(serve: F) -> Self
    where
        F: Fn(UnixStream, usize) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let dir = tempfile::tempdir().unwrap();
        let vm_dir = VmDir::open(dir.path()).unwrap();
        let listener = vm_dir.listen(SOCKET).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = UnixListener::from_std(listener).unwrap();
        let tracker = TaskTracker::new();
        let stop = CancellationToken::new();
        let (serving, stopping) = (tracker.clone(), stop.clone());
        tracker.spawn(stop.clone().run_until_cancelled_owned(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                serving.spawn(
                    stopping
                        .clone()
                        .run_until_cancelled_owned(serve(stream, number)),
                );
            }
        }));
        let api = Api::new(vm_dir, SOCKET, tracker.clone(), stop.clone());
        Self {
            api,
            tracker,
            stop,
            _dir: dir,
        }
    }

    async fn info(&self) -> Result<InstanceInfo, VmmError> {
        self.api.get(call()).await
    }

    async fn end(self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

fn call() -> Call {
    Call {
        during: "test",
        path: "/".into(),
        limit: LIMIT,
    }
}

/// Reads one request: its head and as much body as it says.
async fn request(stream: &mut UnixStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return Some(text);
        }
    }
}

/// Answers every request with `bytes`.
async fn always(mut stream: UnixStream, bytes: Vec<u8>) {
    while request(&mut stream).await.is_some() {
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn running() -> Vec<u8> {
    answer(
        "200 ",
        &json!({ "id": "x", "state": "Running", "vmm_version": "1", "app_name": "Firecracker" })
            .to_string(),
    )
}

#[tokio::test]
async fn calls_share_one_connection() {
    let bench = Bench::new(|mut stream, number| async move {
        while let Some(text) = request(&mut stream).await {
            assert_eq!(number, 0, "one connection is enough");
            let bytes = match text.starts_with("GET / ") {
                true => running(),
                false => {
                    assert!(
                        text.ends_with("\r\n\r\n{\"action_type\":\"InstanceStart\"}"),
                        "{text}"
                    );
                    b"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"
                        .to_vec()
                }
            };
            stream.write_all(&bytes).await.unwrap();
        }
    });
    for _ in 0..3 {
        assert_eq!(bench.info().await.unwrap().state, "Running");
        bench.api.put(call(), &Action::InstanceStart).await.unwrap();
    }
    bench.end().await;
}

#[tokio::test]
async fn a_refusal_carries_firecrackers_words_bounded_and_in_one_line() {
    let long = format!("{{\"fault_message\":\"a\\nb{}\"}}", "x".repeat(5000));
    for (body, begins) in [
        (long.as_str(), "a bx"),
        ("{\"error\":\"too large\"}", "too large"),
        ("<html>", "<html>"),
        ("", "status 400"),
    ] {
        let bytes = answer("400 ", body);
        let bench = Bench::new(move |stream, _| always(stream, bytes.clone()));
        let Err(VmmError::Refused { during, detail }) = bench.info().await else {
            panic!("{body} is a refusal");
        };
        assert_eq!(during, "test");
        assert!(detail.starts_with(begins), "{detail}");
        assert!(detail.len() <= MAX_WORDS);
        bench.end().await;
    }
}

#[tokio::test]
async fn lies_are_errors_of_the_call_and_never_more() {
    let endless = [
        b"HTTP/1.1 200 \r\nContent-Length: 99999999\r\n\r\n".as_slice(),
        &[b'1'; MAX_ANSWER + 4096],
    ]
    .concat();
    let headers = [
        b"HTTP/1.1 200 \r\nX: ".as_slice(),
        &[b'x'; MAX_HEADERS * 2],
        b"\r\n\r\n",
    ]
    .concat();
    let table: [(&str, Vec<u8>); 6] = [
        ("no JSON", answer("200 ", "yes")),
        ("other JSON", answer("200 ", "{\"state\":7}")),
        ("no HTTP", b"SSH-2.0-OpenSSH\r\n".to_vec()),
        ("a huge body", endless),
        ("huge headers", headers),
        (
            "two lengths",
            b"HTTP/1.1 200 \r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
        ),
    ];
    for (what, bytes) in table {
        let bench = Bench::new(move |stream, _| always(stream, bytes.clone()));
        let error = bench.info().await.unwrap_err();
        assert!(
            matches!(&error, VmmError::Control { during: "test", .. }),
            "{what}: {error:?}"
        );
        bench.end().await;
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_an_error() {
    for kept in [0, 10, 60] {
        let bench = Bench::new(move |mut stream, _| async move {
            request(&mut stream).await;
            stream.write_all(&running()[..kept]).await.unwrap();
        });
        let error = bench.info().await.unwrap_err();
        assert!(matches!(&error, VmmError::Control { .. }), "{error:?}");
        bench.end().await;
    }
}

#[tokio::test]
async fn silence_ends_at_the_deadline_and_the_next_call_has_a_new_connection() {
    let bench = Bench::new(|mut stream, number| async move {
        match number {
            // Says the beginning of an answer, and nothing more.
            0 => {
                request(&mut stream).await;
                stream.write_all(&running()[..30]).await.unwrap();
                std::future::pending::<()>().await;
            }
            _ => always(stream, running()).await,
        }
    });
    let error = bench.info().await.unwrap_err();
    assert!(
        matches!(error, VmmError::Deadline { during: "test", limit } if limit == LIMIT),
        "{error:?}"
    );
    assert_eq!(bench.info().await.unwrap().state, "Running");
    bench.end().await;
}

#[tokio::test]
async fn a_call_that_is_dropped_does_not_spoil_the_next() {
    let bench = Bench::new(|mut stream, number| async move {
        if number == 0 {
            request(&mut stream).await;
            tokio::time::sleep(LIMIT / 5).await;
        }
        always(stream, running()).await;
    });
    let dropped = tokio::time::timeout(LIMIT / 10, bench.info()).await;
    assert!(dropped.is_err());
    assert_eq!(bench.info().await.unwrap().state, "Running");
    bench.end().await;
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_made_again() {
    let bench = Bench::new(|mut stream, _| async move {
        request(&mut stream).await;
        stream.write_all(&running()).await.unwrap();
    });
    for _ in 0..3 {
        assert_eq!(bench.info().await.unwrap().state, "Running");
        // Until the end of the connection has been seen, which is no event of the client.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.end().await;
}

#[tokio::test]
async fn a_socket_without_a_listener_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let vm_dir = VmDir::open(dir.path()).unwrap();
    drop(vm_dir.listen(SOCKET).unwrap());
    let api = Api::new(vm_dir, SOCKET, TaskTracker::new(), CancellationToken::new());
    let error = api.get::<InstanceInfo>(call()).await.unwrap_err();
    let VmmError::Control { source, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.kind(), ErrorKind::ConnectionRefused);
}
