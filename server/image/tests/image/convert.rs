//! Nasty images through the tools others use: pushed and saved by `skopeo`, served by `docker-registry`,
//! unpacked for comparison by `umoci`, judged by `e2fsck` and by the kernel that mounts the disk.
use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::disk::{Mounted, differences, fsck, run, unpacked};
use crate::support::nasty::nasty;
use crate::support::snapshot::snapshot;
use crate::support::{Tar, TestImage, gzip};
use banger_core::image::ImageConfig;
use banger_core::operation::NoProgress;
use banger_core::{Digest, Explain};
use banger_image::{
    BuiltImage, ImageStore, PullOptions, RegisterOptions, RegisterSource, StoreError,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

fn options() -> RegisterOptions {
    RegisterOptions {
        platform: "linux/amd64".parse().unwrap(),
    }
}

async fn register(store: &ImageStore, source: RegisterSource) -> Result<BuiltImage, StoreError> {
    store
        .register(source, &options(), &NoProgress, &CancellationToken::new())
        .await
}

#[tokio::test]
async fn a_nasty_image_is_what_umoci_makes_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    TestImage::of(&nasty()).write_layout(&layout);
    let store = ImageStore::open(&directory.path().join("state")).unwrap();
    let source = RegisterSource::OciLayout {
        path: layout.clone(),
        image: None,
    };
    let built = register(&store, source).await.unwrap();
    fsck(&built.rootfs_path);
    let spare = Command::new("dumpe2fs")
        .arg("-h")
        .arg(&built.rootfs_path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&spare.stdout).into_owned();
    let number = |key: &str| -> u64 {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    assert!(
        number("Free blocks:") * 20 < number("Block count:") + 5 * 4096,
        "{text}"
    );

    let Some(mounted) = Mounted::new(&built.rootfs_path, "a_nasty_image") else {
        return;
    };
    let ours = snapshot(mounted.path());
    assert_eq!(ours[Path::new("attr")].matches("user.binary").count(), 1);
    assert!(ours[Path::new("attr")].contains("mtime=1699999999.123456789"));
    assert!(ours[Path::new("acl")].contains("system.posix_acl_access"));
    assert!(ours[Path::new("owner")].contains("uid=4000000000 gid=70000"));
    assert!(ours[Path::new("old")].contains("mtime=-86401.500000000"));
    let Some(theirs) = unpacked(&TestImage::of(&nasty()), "a_nasty_image") else {
        return;
    };
    assert_eq!(differences(&ours, &theirs), [""; 0]);
}

/// A registry of the distribution on a free port; ends when dropped.
struct Served {
    child: Child,
    host: String,
    _directory: TempDir,
}

impl Served {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let host = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let config = directory.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            directory.path().join("data").display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        let command = command
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let served = Self {
            child: command.spawn().ok()?,
            host,
            _directory: directory,
        };
        let begin = Instant::now();
        while std::net::TcpStream::connect(&served.host).is_err() {
            assert!(
                begin.elapsed() < Duration::from_secs(120),
                "the registry does not listen"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn skopeo(from: &str, to: &str, more: &[&str]) -> bool {
    let policy = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
    let arguments: Vec<&OsStr> = policy
        .iter()
        .chain(more)
        .chain(&[from, to])
        .map(|word| OsStr::new(*word))
        .collect();
    run("skopeo", &arguments)
}

#[tokio::test]
async fn a_real_registry_serves_every_format_and_all_make_the_same_disk() {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    TestImage::of(&nasty()).write_layout(&layout);
    let from = format!("oci:{}:latest", layout.display());
    let Some(served) = Served::new() else {
        eprintln!("SKIPPED a_real_registry_serves_every_format: docker-registry is not installed");
        return;
    };
    let store = ImageStore::open(&directory.path().join("state")).unwrap();
    let pull_options = PullOptions {
        platform: options().platform,
        ..PullOptions::default()
    };
    let mut disks = Vec::new();
    for (tag, arguments) in [
        ("oci", &["--format", "oci"][..]),
        ("docker", &["--format", "v2s2"]),
        (
            "zstd",
            &[
                "--format",
                "oci",
                "--dest-compress-format",
                "zstd",
                "--dest-force-compress-format",
            ],
        ),
    ] {
        let name = format!("{}/test/nasty:{tag}", served.host);
        let more: Vec<&str> = arguments
            .iter()
            .copied()
            .filter(|word| *word != "--dest-force-compress-format")
            .collect();
        if !skopeo(&from, &format!("docker://{name}"), &more) {
            eprintln!("SKIPPED a_real_registry_serves_every_format: skopeo cannot push {tag} here");
            continue;
        }
        let built = store
            .pull(
                &name.parse().unwrap(),
                &pull_options,
                &NoProgress,
                &CancellationToken::new(),
            )
            .await
            .unwrap();
        assert_eq!(built.reference.as_deref(), Some(name.as_str()));
        fsck(&built.rootfs_path);
        disks.push(Digest::of(&fs::read(&built.rootfs_path).unwrap()));
    }
    assert!(disks.windows(2).all(|pair| pair[0] == pair[1]), "{disks:?}");
    let gone = format!("{}/test/nasty:gone", served.host).parse().unwrap();
    let error = store
        .pull(&gone, &pull_options, &NoProgress, &CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "IMAGE_NOT_FOUND");
}

#[tokio::test]
async fn one_of_several_images_in_an_archive_is_taken_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let images = [TestImage::simple(31, 5000), TestImage::simple(32, 5000)];
    let mut entries = Vec::new();
    for (image, name) in images.iter().zip(["one", "two"]) {
        image.write_layout(&at("layout"));
        let index = fs::read(at("layout").join("index.json")).unwrap();
        let mut index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let mut entry = index["manifests"][0].take();
        // As `docker save one:1 two:1` names them.
        entry["annotations"] = serde_json::json!({
            "io.containerd.image.name": format!("docker.io/library/{name}:1"),
            "org.opencontainers.image.ref.name": "1",
        });
        entry["platform"] = serde_json::json!({"os": "linux", "architecture": "amd64"});
        entries.push(entry);
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": entries});
    fs::write(at("layout").join("index.json"), index.to_string()).unwrap();
    let store = ImageStore::open(&at("state")).unwrap();
    let take = async |name: Option<&str>| {
        let source = RegisterSource::Detect {
            path: at("layout"),
            config: Box::default(),
            image: name.map(str::to_owned),
        };
        register(&store, source).await
    };
    for (image, name) in [
        (&images[0], "docker.io/library/one:1"),
        (&images[1], "docker.io/library/two:1"),
        (&images[1], "two:1"),
    ] {
        let built = take(Some(name)).await.unwrap();
        assert_eq!(built.digest, Digest::of(&image.manifest), "{name}");
    }
    for name in [None, Some("1"), Some("three:1")] {
        let error = take(name).await.unwrap_err();
        assert_eq!(error.reason(), "SOURCE_AMBIGUOUS", "{name:?}");
        assert!(
            error
                .to_string()
                .ends_with("name one of: docker.io/library/one:1, docker.io/library/two:1")
        );
    }
    fs::remove_file(at("layout").join("oci-layout")).unwrap();
    let tar = at("root.tar");
    fs::write(&tar, Tar::new().finish()).unwrap();
    let source = RegisterSource::Detect {
        path: tar,
        config: Box::default(),
        image: Some("one:1".into()),
    };
    let error = register(&store, source).await.unwrap_err();
    assert_eq!(error.reason(), "SOURCE_UNNAMED");
}

#[tokio::test]
async fn a_layout_its_archive_and_a_docker_archive_make_the_same_disk() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    TestImage::of(&nasty()).write_layout(&at("layout"));
    let store = ImageStore::open(&at("state")).unwrap();
    let from = format!("oci:{}:latest", at("layout").display());
    let mut sources = vec![RegisterSource::OciLayout {
        path: at("layout"),
        image: Some("latest".into()),
    }];
    let archive = at("layout.tar");
    assert!(run(
        "tar",
        &[
            "-C".as_ref(),
            at("layout").as_os_str(),
            "-cf".as_ref(),
            archive.as_os_str(),
            ".".as_ref()
        ]
    ));
    fs::write(at("layout.tar.gz"), gzip(&fs::read(&archive).unwrap())).unwrap();
    sources.push(RegisterSource::OciLayout {
        path: archive,
        image: None,
    });
    sources.push(RegisterSource::OciLayout {
        path: at("layout.tar.gz"),
        image: None,
    });
    if skopeo(
        &from,
        &format!("docker-archive:{}:some/name:1", at("saved.tar").display()),
        &[],
    ) {
        sources.push(RegisterSource::DockerArchive {
            path: at("saved.tar"),
            image: None,
        });
        let image = Some("docker.io/some/name:1".to_owned());
        sources.push(RegisterSource::DockerArchive {
            path: at("saved.tar"),
            image,
        });
    } else {
        eprintln!("SKIPPED a_docker_archive_makes_the_same_disk: skopeo is not installed");
    }
    let mut disks = Vec::new();
    for source in sources {
        let built = register(&store, source.clone())
            .await
            .unwrap_or_else(|error| panic!("{source:?}: {error:?}"));
        assert_eq!(built.config.cmd, ["/bin/sh"]);
        disks.push(Digest::of(&fs::read(&built.rootfs_path).unwrap()));
    }
    assert!(disks.windows(2).all(|pair| pair[0] == pair[1]), "{disks:?}");
    assert!(crate::support::leftovers(&at("state")).is_empty());
}

#[tokio::test]
async fn an_archive_of_a_root_file_system_becomes_the_same_image_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let plain = Tar::new()
        .dir("bin/")
        .file("bin/true", b"#!/bin/sh\n")
        .finish();
    fs::write(at("plain.tar"), &plain).unwrap();
    fs::write(at("small.tar.gz"), gzip(&plain)).unwrap();
    fs::write(at("small.tar.zst"), zstd::encode_all(&*plain, 3).unwrap()).unwrap();
    let store = ImageStore::open(&at("state")).unwrap();
    let config = ImageConfig {
        cmd: vec!["/bin/true".into()],
        user: "1000".into(),
        ..ImageConfig::default()
    };
    let mut images = Vec::new();
    for name in ["plain.tar", "plain.tar", "small.tar.gz", "small.tar.zst"] {
        let source = RegisterSource::RootfsTar {
            path: at(name),
            config: Box::new(config.clone()),
        };
        let built = register(&store, source).await.unwrap();
        assert_eq!(built.config, config);
        fsck(&built.rootfs_path);
        images.push((
            built.digest,
            Digest::of(&fs::read(&built.rootfs_path).unwrap()),
        ));
    }
    assert_eq!(images[0], images[1]);
    assert_eq!(images[0].1, images[2].1);
    assert_ne!(images[0].0, images[2].0);
}

#[tokio::test]
async fn links_in_a_layout_never_lead_to_files_of_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let image = TestImage::simple(20, 5000);
    image.write_layout(&at("layout"));
    let blob = at("layout")
        .join("blobs/sha256")
        .join(image.layers[0].hex());
    fs::rename(&blob, at("outside")).unwrap();
    std::os::unix::fs::symlink(at("outside"), &blob).unwrap();
    let store = ImageStore::open(&at("state")).unwrap();
    let error = register(
        &store,
        RegisterSource::OciLayout {
            path: at("layout"),
            image: None,
        },
    )
    .await
    .unwrap_err();
    assert_eq!(error.reason(), "SOURCE_UNREADABLE", "{error}");
    // The same in an archive: the link's target is looked for in the archive.
    let archive = at("layout.tar");
    assert!(run(
        "tar",
        &[
            "-C".as_ref(),
            at("layout").as_os_str(),
            "-cf".as_ref(),
            archive.as_os_str(),
            ".".as_ref()
        ]
    ));
    let error = register(
        &store,
        RegisterSource::OciLayout {
            path: archive,
            image: None,
        },
    )
    .await
    .unwrap_err();
    assert_eq!(error.reason(), "SOURCE_MALFORMED", "{error}");
}

#[tokio::test]
async fn a_tampered_layout_is_data_loss_and_a_wrong_path_an_argument() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let image = TestImage::simple(21, 5000);
    image.write_layout(&at("layout"));
    let blob = at("layout")
        .join("blobs/sha256")
        .join(image.layers[0].hex());
    let mut bytes = fs::read(&blob).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let store = ImageStore::open(&at("state")).unwrap();
    let layout = RegisterSource::OciLayout {
        path: at("layout"),
        image: None,
    };
    assert_eq!(
        register(&store, layout).await.unwrap_err().reason(),
        "BLOB_DIGEST_MISMATCH"
    );
    for (source, reason) in [
        (
            RegisterSource::OciLayout {
                path: at("nowhere"),
                image: None,
            },
            "SOURCE_UNREADABLE",
        ),
        (
            RegisterSource::DockerArchive {
                path: at("layout"),
                image: None,
            },
            "SOURCE_MALFORMED",
        ),
        (
            RegisterSource::OciLayout {
                path: at("layout"),
                image: Some("other".into()),
            },
            "SOURCE_AMBIGUOUS",
        ),
        (
            RegisterSource::RootfsTar {
                path: at("layout"),
                config: Box::default(),
            },
            "SOURCE_UNREADABLE",
        ),
        (
            RegisterSource::RootfsTar {
                path: at("layout/index.json"),
                config: Box::default(),
            },
            "SOURCE_NOT_AN_ARCHIVE",
        ),
    ] {
        let error = register(&store, source).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
    }
    assert!(crate::support::leftovers(&at("state")).is_empty());
}
