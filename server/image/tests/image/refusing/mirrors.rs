//! Mirrors: asked first, and believed no more than a registry; and registries that hold up nobody but themselves.

use std::time::Duration;

use banger_core::operation::NoProgress;
use banger_core::{Digest, Explain};
use banger_image::{ImageStore, Login, PullOptions, RegistrySettings};
use tokio_util::sync::CancellationToken;

use super::{pull, with};
use crate::support::{Answer, Registry, Request, TestImage, Then, honest};

#[tokio::test]
async fn mirrors_are_asked_first_and_what_fails_there_comes_from_the_registry() {
    let image = TestImage::simple(8, 300_000);
    let layer = image.layers[0].to_string();
    let (whole, name) = (image.clone(), layer.clone());
    // The second mirror serves under a path, and breaks off in the middle of the layer for good.
    let mirror = Registry::start(move |request| {
        let Some(rest) = request.path.strip_prefix("/v2/proxy/hub/") else {
            return Answer::status(404);
        };
        assert_eq!(request.header("authorization"), None);
        let request = Request {
            path: format!("/v2/{rest}"),
            head: request.head.clone(),
        };
        if !request.path.ends_with(&name) {
            return honest(&whole, &request);
        }
        let blob = honest(&whole, &request).body;
        Answer {
            length: Some(blob.len() as u64),
            ..Answer::ok(&blob[..100_000])
        }
    });
    let mirror = mirror.await;
    let registry = Registry::of(image.clone(), |_| None).await;
    let settings = RegistrySettings {
        mirrors: vec!["127.0.0.1:1".into(), format!("{}/proxy/hub", mirror.host)],
        insecure: true,
        ..RegistrySettings::default()
    };
    let login = Login::Password {
        username: "me".into(),
        password: "not for mirrors".into(),
    };
    let options = PullOptions {
        login: Some(login),
        ..with(&[(&registry.host, settings)])
    };
    let built = pull(&registry.host, &options).await.unwrap();
    assert_eq!(built.digest, Digest::of(&image.manifest));
    assert_eq!(mirror.count("/manifests/"), 1);
    assert_eq!(registry.count("/manifests/"), 0, "the mirror had it");
    let seen = registry.requests.lock().unwrap();
    let resumed: Vec<_> = seen
        .iter()
        .filter(|request| request.path.ends_with(&layer))
        .collect();
    assert_eq!(resumed.len(), 1);
    assert_eq!(resumed[0].header("range"), Some("bytes=100000-"));
}

/// A way to serve a blob wrongly.
type Lie = fn(Vec<u8>) -> Answer;

const LIES: [(&str, Lie); 4] = [
    ("other bytes", |mut blob| {
        let middle = blob.len() / 2;
        blob[middle] ^= 1;
        Answer::ok(blob)
    }),
    ("no layer at all", |blob| Answer::ok(vec![b'x'; blob.len()])),
    ("a shorter one, told so", |mut blob| {
        blob.truncate(blob.len() / 2);
        Answer::ok(blob)
    }),
    ("a longer one", |mut blob| {
        blob.push(0);
        Answer::ok(blob)
    }),
];

#[tokio::test]
async fn a_layer_that_a_mirror_serves_wrongly_comes_from_the_next_place() {
    for (name, lie) in LIES {
        let image = TestImage::simple(11, 300_000);
        let layer = image.layers[0].to_string();
        let (whole, wanted) = (image.clone(), layer.clone());
        let liar = Registry::of(image.clone(), move |request| {
            request
                .path
                .ends_with(&wanted)
                .then(|| lie(honest(&whole, request).body))
        });
        let liar = liar.await;
        let registry = Registry::of(image.clone(), |_| None).await;
        let settings = RegistrySettings {
            mirrors: vec![liar.host.clone()],
            insecure: true,
            ..RegistrySettings::default()
        };
        let options = with(&[(&registry.host, settings)]);
        let built = pull(&registry.host, &options).await.unwrap();
        assert_eq!(built.digest, Digest::of(&image.manifest), "{name}");
        assert_eq!(liar.count(&layer), 1, "{name}");
        assert_eq!(registry.count(&layer), 1, "{name}");
        // Who lied is not asked for more.
        assert_eq!(registry.count("/manifests/"), 0, "{name}");
    }
}

#[tokio::test]
async fn a_layer_of_which_two_mirrors_sent_halves_that_do_not_fit_comes_whole() {
    let image = TestImage::simple(12, 300_000);
    let layer = image.layers[0].to_string();
    let (whole, wanted) = (image.clone(), layer.clone());
    // Breaks off after bytes that are wrong.
    let liar = Registry::of(image.clone(), move |request| {
        request.path.ends_with(&wanted).then(|| {
            let length = honest(&whole, request).body.len() as u64;
            Answer {
                length: Some(length),
                ..Answer::ok(vec![b'x'; 100_000])
            }
        })
    });
    let liar = liar.await;
    let registry = Registry::of(image.clone(), |_| None).await;
    let settings = RegistrySettings {
        mirrors: vec![liar.host.clone()],
        insecure: true,
        ..RegistrySettings::default()
    };
    let options = with(&[(&registry.host, settings)]);
    let built = pull(&registry.host, &options).await.unwrap();
    assert_eq!(built.digest, Digest::of(&image.manifest));
    assert_eq!(liar.count(&layer), 1);
    // The rest, and then the whole.
    let seen = registry.requests.lock().unwrap();
    let ranges = seen.iter().filter(|request| request.path.ends_with(&layer));
    let ranges: Vec<_> = ranges.map(|request| request.header("range")).collect();
    assert_eq!(ranges, [Some("bytes=100000-"), None]);
}

#[tokio::test]
async fn a_lie_that_nobody_else_can_put_right_is_told() {
    let image = TestImage::simple(13, 100_000);
    let layer = image.layers[0].to_string();
    let (whole, wanted) = (image.clone(), layer.clone());
    let lie = move |request: &Request| {
        let body = || vec![b'x'; honest(&whole, request).body.len()];
        request.path.ends_with(&wanted).then(|| Answer::ok(body()))
    };
    let mirror = Registry::of(image.clone(), lie.clone()).await;
    let registry = Registry::of(image, lie).await;
    let settings = RegistrySettings {
        mirrors: vec![mirror.host.clone()],
        insecure: true,
        ..RegistrySettings::default()
    };
    let options = with(&[(&registry.host, settings)]);
    let error = pull(&registry.host, &options).await.unwrap_err();
    assert_eq!(error.reason(), "BLOB_DIGEST_MISMATCH");
    assert_eq!((mirror.count(&layer), registry.count(&layer)), (1, 1));
}

#[tokio::test]
async fn a_registry_that_stalls_holds_up_no_other() {
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let options = PullOptions {
        stall_timeout: Duration::from_secs(600),
        ..with(&[])
    };
    // More images than one registry has places for layers, each with a layer of its own that never comes.
    let mut registries = Vec::new();
    let cancel = CancellationToken::new();
    let mut waiting = tokio::task::JoinSet::new();
    let silent = Registry::start(|request| {
        let number = request.path.split('/').nth(3).unwrap();
        let number: u32 = number.parse().unwrap();
        let image = TestImage::simple(100 + 2 * number, 50_000);
        let is_layer = |layer: &Digest| request.path.ends_with(&layer.to_string());
        let mut answer = honest(&image, request);
        if image.layers.iter().any(is_layer) {
            answer.length = Some(answer.body.len() as u64);
            answer.body.truncate(1000);
            answer.then = Then::Stall;
        }
        answer
    });
    let silent = silent.await;
    for number in 0..12 {
        let (store, options, cancel) = (store.clone(), options.clone(), cancel.clone());
        let reference = format!("{}/test/{number}:1", silent.host).parse().unwrap();
        waiting.spawn(async move { store.pull(&reference, &options, &NoProgress, &cancel).await });
    }
    let busy = async {
        // All its places are taken: one layer of each of eight images was asked for.
        while silent.count("/blobs/") < 12 + 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), busy).await;
    let asked = silent.count("/blobs/");
    assert!(in_time.is_ok(), "it was asked for {asked} blobs");
    for seed in 0..3 {
        let image = TestImage::simple(200 + 2 * seed, 50_000);
        let registry = Registry::of(image, |_| None).await;
        let reference = format!("{}/test/image:1", registry.host).parse().unwrap();
        let pulling = store.pull(&reference, &options, &NoProgress, &cancel);
        let pulled = tokio::time::timeout(Duration::from_secs(60), pulling).await;
        pulled.expect("nobody holds it up").unwrap();
        registries.push(registry);
    }
    assert_eq!(silent.count("/blobs/"), 12 + 8, "no more than its places");
    cancel.cancel();
    while let Some(ended) = waiting.join_next().await {
        assert_eq!(ended.unwrap().unwrap_err().reason(), "CANCELLED");
    }
}
