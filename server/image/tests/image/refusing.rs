//! Registries that ask to wait, lead elsewhere, want to know who we are, and have mirrors.
mod mirrors;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Answer, Registry, Request, Tar, TestImage, Then, gzip, honest, leftovers};
use banger_core::operation::{NoProgress, Progress, StageKey};
use banger_core::{Digest, Explain, FailureKind};
use banger_image::{
    AuthFiles, BuiltImage, ImageStore, Login, PullOptions, RegistrySettings, StoreError,
};
use tokio_util::sync::CancellationToken;

/// How long a registry may take to be given up, however loaded the host is.
const PATIENCE: Duration = Duration::from_secs(120);

fn options() -> PullOptions {
    PullOptions {
        stall_timeout: Duration::from_millis(500),
        platform: "linux/amd64".parse().unwrap(),
        ..PullOptions::default()
    }
}

async fn pull_watched(
    host: &str,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<BuiltImage, StoreError> {
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let reference = format!("{host}/test/image:1").parse().unwrap();
    let pulled = store
        .pull(&reference, options, progress, &CancellationToken::new())
        .await;
    assert_eq!(leftovers(state.path()), Vec::<std::path::PathBuf>::new());
    pulled
}

async fn pull(host: &str, options: &PullOptions) -> Result<BuiltImage, StoreError> {
    pull_watched(host, options, &NoProgress).await
}

/// The settings of some hosts.
fn with(hosts: &[(&str, RegistrySettings)]) -> PullOptions {
    let hosts = hosts
        .iter()
        .map(|(host, settings)| ((*host).to_owned(), settings.clone()));
    PullOptions {
        registries: Arc::new(hosts.collect()),
        ..options()
    }
}

/// Takes down what stages there were.
#[derive(Default)]
struct Stages(Mutex<Vec<String>>);

impl Progress for Stages {
    fn start(&self, key: &StageKey, _: Option<u64>) {
        let mut stages = self.0.lock().unwrap();
        stages.push(format!("{}: {}", key.name, key.item));
    }

    fn advance(&self, _: &StageKey, _: u64) {}
    fn finish(&self, _: &StageKey) {}
}

fn first_time(counter: &AtomicUsize) -> bool {
    counter.fetch_add(1, Ordering::SeqCst) == 0
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_kept_and_told() {
    for (status, after) in [
        (429, "1".to_owned()),
        (503, "1".to_owned()),
        (429, {
            // A date has whole seconds.
            httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(2))
        }),
    ] {
        for part in ["/manifests/", "/blobs/"] {
            let (image, tries) = (TestImage::simple(1, 1000), AtomicUsize::new(0));
            let header = format!("Retry-After: {after}\r\n");
            let registry = Registry::of(image, move |request| {
                let limited = request.path.contains(part) && first_time(&tries);
                limited.then(|| Answer {
                    headers: header.clone(),
                    ..Answer::status(status)
                })
            });
            let registry = registry.await;
            let (stages, begin) = (Stages::default(), Instant::now());
            pull_watched(&registry.host, &options(), &stages)
                .await
                .unwrap();
            // A later round of the loop may find the date over: then there is nothing to wait for.
            let told = stages.0.lock().unwrap().join("\n");
            let expected = format!("wait: {} answered {status}, try 1", registry.host);
            assert!(told.contains(&expected), "{told}");
            if after == "1" {
                assert!(begin.elapsed() >= Duration::from_secs(1), "{status} {part}");
            }
        }
    }
}

#[tokio::test]
async fn a_wait_longer_than_a_pull_is_an_error_that_says_how_long() {
    let registry = Registry::start(|_| Answer {
        headers: "Retry-After: 3600\r\n".into(),
        ..Answer::status(429)
    });
    let registry = registry.await;
    // What is asked for is an hour: that it is not waited for shows by the test's end.
    let options = options();
    let pulling = tokio::time::timeout(Duration::from_secs(300), pull(&registry.host, &options));
    let error = pulling.await.expect("no wait").unwrap_err();
    assert_eq!(error.reason(), "REGISTRY_RATE_LIMITED");
    assert!(
        error.to_string().contains("asks to wait for 3600 s"),
        "{error}"
    );
    let FailureKind::Unavailable { retry_after } = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!(retry_after, Duration::from_secs(3600));
    assert_eq!(registry.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_trickle_is_given_up() {
    let image = TestImage::simple(2, 100_000);
    let name = image.layers[0].to_string();
    for part in ["/manifests/", name.as_str()] {
        let (whole, part) = (image.clone(), part.to_owned());
        let registry = Registry::of(image.clone(), move |request| {
            let hit = request.path.contains(&part);
            hit.then(|| Answer {
                then: Then::Trickle,
                ..honest(&whole, request)
            })
        });
        let registry = registry.await;
        let options = PullOptions {
            stall_timeout: Duration::from_millis(150),
            ..options()
        };
        let pulling = tokio::time::timeout(PATIENCE, pull(&registry.host, &options));
        let error = pulling.await.expect("it is given up").unwrap_err();
        assert_eq!(error.reason(), "REGISTRY_TOO_SLOW", "{error}");
        assert_eq!(error.kind(), FailureKind::DeadlineExceeded);
    }
}

#[tokio::test]
async fn a_wrong_range_and_a_body_without_end_are_refused() {
    let image = TestImage::simple(3, 200_000);
    let name = image.layers[0].to_string();
    let lie = |answer: fn(&[u8], bool) -> Answer| {
        let (whole, name) = (image.clone(), name.clone());
        Registry::of(image.clone(), move |request| {
            let hit = request.path.ends_with(&name);
            hit.then(|| {
                answer(
                    &whole.blobs[&whole.layers[0]],
                    request.header("range").is_some(),
                )
            })
        })
    };
    let elsewhere = lie(|blob, resumed| match resumed {
        false => Answer {
            length: Some(blob.len() as u64),
            ..Answer::ok(&blob[..70_000])
        },
        true => Answer {
            status: 206,
            headers: format!(
                "Content-Range: bytes 0-{}/{}\r\n",
                blob.len() - 1,
                blob.len()
            ),
            body: blob.to_vec(),
            ..Answer::default()
        },
    });
    let error = pull(&elsewhere.await.host, &options()).await.unwrap_err();
    assert_eq!(error.reason(), "REGISTRY_MALFORMED", "{error}");
    let endless = lie(|blob, _| Answer {
        then: Then::Repeat,
        ..Answer::ok(blob)
    });
    let error = pull(&endless.await.host, &options()).await.unwrap_err();
    assert_eq!(error.reason(), "BLOB_TOO_LONG", "{error}");
}

/// A redirect of all blobs to `to`, which `{path}` is put into.
fn redirect(to: &str) -> impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static {
    let to = to.to_owned();
    move |request| {
        let location = to.replace("{path}", &request.path);
        request.path.contains("/blobs/").then(|| Answer {
            headers: format!("Location: {location}\r\n"),
            ..Answer::status(307)
        })
    }
}

#[tokio::test]
async fn redirects_are_followed_without_credentials() {
    let image = TestImage::simple(4, 1000);
    let store = Registry::of(image.clone(), |_| None).await;
    let lead = redirect(&format!("http://{}{{path}}", store.host));
    let registry = Registry::start(move |request| {
        if request.header("authorization") == Some("Basic bWU6c2VjcmV0") {
            return lead(request).unwrap_or_else(|| honest(&image, request));
        }
        Answer {
            headers: "WWW-Authenticate: Basic realm=\"x\"\r\n".into(),
            ..Answer::status(401)
        }
    });
    let registry = registry.await;
    let options = PullOptions {
        login: Some(Login::Password {
            username: "me".into(),
            password: "secret".into(),
        }),
        ..options()
    };
    pull(&registry.host, &options).await.unwrap();
    let seen = store.requests.lock().unwrap();
    assert_eq!(seen.len(), 2, "configuration and layer");
    assert!(
        seen.iter()
            .all(|request| request.header("authorization").is_none())
    );
}

#[tokio::test]
async fn redirects_that_must_not_be_followed_are_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for to in [
        format!("file://{}", file.path().display()),
        "ftp://127.0.0.1/x".to_owned(),
        "{path}".to_owned(), // to itself, for ever
    ] {
        let registry = Registry::of(TestImage::simple(5, 1000), redirect(&to)).await;
        let error = pull(&registry.host, &options()).await.unwrap_err();
        assert_eq!(error.reason(), "REGISTRY_REDIRECT_REFUSED", "{to}: {error}");
        assert!(registry.requests.lock().unwrap().len() < 12, "{to}");
    }
}

/// A registry with a token server; a token is good for `life`.
async fn tokens(image: TestImage, life: Duration) -> (Registry, Arc<Mutex<Vec<Request>>>) {
    let asked = Arc::<Mutex<Vec<Request>>>::default();
    let (seen, last) = (Arc::clone(&asked), Mutex::new((0, Instant::now())));
    let registry = Registry::start(move |request| {
        let mut last = last.lock().unwrap();
        if request.path.starts_with("/token") {
            seen.lock().unwrap().push(request.clone());
            *last = (last.0 + 1, Instant::now());
            return Answer::ok(format!(
                r#"{{"access_token":"t{}","expires_in":60}}"#,
                last.0
            ));
        }
        let bearer = format!("Bearer t{}", last.0);
        if request.header("authorization") == Some(&bearer) && last.1.elapsed() < life {
            std::thread::sleep(SERVING_TIME); // one after the other, on the one thread of the test
            return honest(&image, request);
        }
        let host = request.header("host").unwrap();
        Answer {
            headers: format!(
                "WWW-Authenticate: Bearer realm=\"http://{host}/token?x=1\",service=\"a b\",scope=\"repository:other/secret:push\"\r\n"
            ),
            ..Answer::status(401)
        }
    });
    (registry.await, asked)
}

/// Long enough for what is under way, short enough to run out several times in a pull of 30 slow layers.
const TOKEN_LIFE: Duration = Duration::from_millis(400);
const SERVING_TIME: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_token_that_runs_out_in_the_middle_is_renewed() {
    let layer = |number: usize| Tar::new().file(&format!("{number}"), &[7; 500]).finish();
    let image = TestImage::of(&(0..30).map(layer).collect::<Vec<_>>());
    let (registry, asked) = tokens(image, TOKEN_LIFE).await;
    pull(&registry.host, &options()).await.unwrap();
    let asked = asked.lock().unwrap();
    assert!(asked.len() >= 3, "a token again and again: {}", asked.len());
    // What is asked for is what a pull needs, whatever the challenge names.
    for request in asked.iter() {
        assert_eq!(
            request.path,
            "/token?x=1&service=a+b&scope=repository%3Atest%2Fimage%3Apull"
        );
        assert_eq!(request.header("authorization"), None);
    }
}

#[tokio::test]
async fn an_identity_token_is_changed_into_a_token() {
    let (registry, asked) = tokens(TestImage::simple(6, 1000), Duration::from_secs(60)).await;
    let options = PullOptions {
        login: Some(Login::IdentityToken("refresh&me".into())),
        ..options()
    };
    pull(&registry.host, &options).await.unwrap();
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0].head.starts_with("POST /token?x=1 "),
        "{}",
        asked[0].head
    );
    let form = "application/x-www-form-urlencoded";
    assert_eq!(asked[0].header("content-type"), Some(form));
    assert!(!asked[0].head.contains("refresh"));
}

#[tokio::test]
async fn a_token_server_without_tls_gets_no_password_of_a_registry_with_it() {
    // Checked without a connection: the realm of a registry on TLS must be on TLS. See the fence's own tests.
    let registry = Registry::start(|request| {
        assert!(!request.path.starts_with("/token"), "never asked");
        Answer {
            headers: "WWW-Authenticate: Bearer realm=\"file:///etc/passwd\"\r\n".into(),
            ..Answer::status(401)
        }
    });
    let registry = registry.await;
    let error = pull(&registry.host, &options()).await.unwrap_err();
    assert_eq!(error.reason(), "REGISTRY_REDIRECT_REFUSED", "{error}");
}

#[tokio::test]
async fn the_daemons_auth_files_are_asked_where_a_request_has_no_login() {
    let image = TestImage::simple(7, 1000);
    let registry = Registry::start(move |request| match request.header("authorization") {
        Some("Basic bWU6ZnJvbS1maWxl") => honest(&image, request),
        _ => Answer {
            headers: "WWW-Authenticate: Basic realm=\"x\"\r\n".into(),
            ..Answer::status(401)
        },
    });
    let registry = registry.await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let auths = format!(
        r#"{{"auths":{{"{}/test":{{"auth":"bWU6ZnJvbS1maWxl"}}}}}}"#,
        registry.host
    );
    std::fs::write(file.path(), auths).unwrap();
    let error = pull(&registry.host, &options()).await.unwrap_err();
    assert_eq!(error.reason(), "REGISTRY_UNAUTHORIZED");
    assert!(
        error.to_string().ends_with("without credentials"),
        "{error}"
    );
    let options = PullOptions {
        auth_files: AuthFiles::of(vec![file.path().to_owned()]),
        ..options()
    };
    pull(&registry.host, &options).await.unwrap();
    let wrong = PullOptions {
        login: Some(Login::Password {
            username: "me".into(),
            password: "wrong".into(),
        }),
        ..options.clone()
    };
    let error = pull(&registry.host, &wrong).await.unwrap_err();
    assert!(
        error.to_string().ends_with("with these credentials"),
        "{error}"
    );
    std::fs::write(file.path(), "{").unwrap();
    let error = pull(&registry.host, &options).await.unwrap_err();
    assert_eq!(error.reason(), "REGISTRY_CREDENTIALS_UNREADABLE");
}

#[tokio::test]
async fn a_digest_decides_whatever_the_tag_and_whoever_serves() {
    let (image, other) = (TestImage::simple(9, 1000), TestImage::simple(10, 1000));
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let digest = Digest::of(&image.manifest);
    for (served, fits) in [(image.clone(), true), (other, false)] {
        let registry = Registry::of(served, |_| None).await;
        for name in [
            format!("test/image@{digest}"),
            format!("test/image:9@{digest}"),
        ] {
            let reference = format!("{}/{name}", registry.host).parse().unwrap();
            let pulled = store
                .pull(
                    &reference,
                    &options(),
                    &NoProgress,
                    &CancellationToken::new(),
                )
                .await;
            match pulled {
                Ok(built) => assert!(fits && built.digest == digest),
                Err(error) => {
                    assert!(!fits, "{error}");
                    assert_eq!(error.reason(), "BLOB_DIGEST_MISMATCH");
                }
            }
            let asked = registry.requests.lock().unwrap()[0].path.clone();
            assert_eq!(asked, format!("/v2/test/image/manifests/{digest}"));
        }
    }
}

#[tokio::test]
async fn compressions_are_told_by_content_frames_and_all() {
    let plain = Tar::new()
        .file("a", &[7; 50_000])
        .file("b", b"end")
        .finish();
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    // RFC 8878 section 3.1.2: a magic number, a length, anything.
    let skippable = |text: &[u8]| {
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        [&[0x5a, 0x2a, 0x4d, 0x18], &length[..], text].concat()
    };
    let (left, right) = plain.split_at(20_000);
    let mut digests = Vec::new();
    for blob in [
        plain.clone(),
        gzip(&plain),
        [gzip(left), gzip(right)].concat(),
        zstd(&plain),
        [zstd(left), zstd(right)].concat(),
        [
            skippable(b"first"),
            zstd(left),
            skippable(b""),
            zstd(right),
            skippable(b"index"),
        ]
        .concat(),
    ] {
        let image = TestImage::new(&[(blob, Digest::of(&plain))]);
        let registry = Registry::of(image, |_| None).await;
        let state = tempfile::tempdir().unwrap();
        let store = ImageStore::open(state.path()).unwrap();
        let reference = format!("{}/test/image:1", registry.host).parse().unwrap();
        let built = store
            .pull(
                &reference,
                &options(),
                &NoProgress,
                &CancellationToken::new(),
            )
            .await
            .unwrap();
        digests.push(Digest::of(&std::fs::read(&built.rootfs_path).unwrap()));
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "the same content makes the same disk");
    // A frame that is cut off, one that is damaged, and what grows without measure.
    let bomb = zstd(&vec![0; (1 << 30) + (64 << 20)]);
    for (blob, reason) in [
        (zstd(&plain)[..60].to_vec(), "LAYER_TRUNCATED"),
        ([zstd(left), b"junk".to_vec()].concat(), "LAYER_DAMAGED"),
        (bomb, "LAYER_TOO_LARGE"),
    ] {
        let registry = Registry::of(TestImage::new(&[(blob, Digest::of(&plain))]), |_| None).await;
        let error = pull(&registry.host, &options()).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
    }
}

#[tokio::test]
async fn what_a_registry_calls_a_page_is_no_manifest() {
    let image = TestImage::simple(11, 1000);
    let whole = image.clone();
    let registry = Registry::of(image, move |request| {
        let page = Answer {
            headers: "Content-Type: text/html; charset=utf-8\r\n".into(),
            ..honest(&whole, request)
        };
        request.path.contains("/manifests/").then_some(page)
    });
    let error = pull(&registry.await.host, &options()).await.unwrap_err();
    assert_eq!(error.reason(), "MANIFEST_CONTENT_TYPE", "{error}");
}

/// Cancels at many instants of a pull that takes its time; each time nothing is left and nobody fetches.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_is_cancelled_at_any_instant_and_leaves_nothing() {
    let image = {
        let plain = |name: &str, seed: u32| {
            let noise = TestImage::simple(seed, 600_000);
            Tar::new()
                .file(name, &noise.blobs[&noise.layers[0]])
                .finish()
        };
        TestImage::of(&[plain("a", 20), plain("b", 21), plain("c", 22)])
    };
    let whole = image.clone();
    let registry = Registry::of(image, move |request| {
        Some(Answer {
            then: Then::Slowly,
            ..honest(&whole, request)
        })
    });
    let registry = registry.await;
    let options = PullOptions {
        stall_timeout: Duration::from_secs(20),
        ..options()
    };
    let reference = format!("{}/test/image:1", registry.host).parse().unwrap();
    let (mut cancelled, mut done) = (0, 0);
    for instant in 0..40_u64 {
        let state = tempfile::tempdir().unwrap();
        let store = ImageStore::open(state.path()).unwrap();
        let cancel = CancellationToken::new();
        let pull = store.pull(&reference, &options, &NoProgress, &cancel);
        let stop = async {
            tokio::time::sleep(Duration::from_millis(instant * 12)).await;
            cancel.cancel();
        };
        let (pulled, ()) = tokio::join!(pull, stop);
        match pulled {
            Ok(_) => done += 1,
            Err(error) => {
                assert_eq!(error.reason(), "CANCELLED", "at {instant}: {error}");
                cancelled += 1;
            }
        }
        assert!(leftovers(state.path()).is_empty(), "at {instant}");
        // What was sent before has come by then.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let requests = registry.requests.lock().unwrap().len();
        tokio::time::timeout(Duration::from_secs(5), store.drain())
            .await
            .unwrap();
        assert_eq!(
            registry.requests.lock().unwrap().len(),
            requests,
            "at {instant}"
        );
        // Whatever is kept under a final name is whole.
        for blob in std::fs::read_dir(state.path().join("blobs/sha256")).unwrap() {
            let path = blob.unwrap().path();
            let digest = Digest::of(&std::fs::read(&path).unwrap());
            assert!(
                path.ends_with(digest.hex()),
                "at {instant}: {}",
                path.display()
            );
        }
    }
    assert!(cancelled >= 10, "{cancelled} were cancelled, {done} done");
}
