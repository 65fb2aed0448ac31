//! Nasty images through the tools others use: pushed and saved by `skopeo`, served by `docker-registry`,
//! unpacked for comparison by `umoci`, judged by `e2fsck` and by the kernel that mounts the disk.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger_core::image::ImageConfig;
use banger_core::operation::NoProgress;
use banger_core::{Digest, Explain};
use banger_image::{
    BuiltImage, ImageStore, PullOptions, RegisterOptions, RegisterSource, StoreError,
};
use support::{Tar, TestImage, gzip};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Two layers with one of everything that is known to go wrong.
fn nasty() -> Vec<Vec<u8>> {
    let acl = [
        &2u32.to_le_bytes()[..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 0xe8, 3, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 4, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    let long = format!("long/{}/{}", "d".repeat(150), "n".repeat(255));
    let big: Vec<u8> = (0..700_000u32).flat_map(u32::to_le_bytes).collect();
    let xattr: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.user.binary", b"a\n12 b=c\n\x00\xff"),
        ("SCHILY.xattr.trusted.t", b"root's"),
        (
            "SCHILY.xattr.security.capability",
            b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ),
        ("mtime", b"1699999999.123456789"),
    ];
    let mut lower = Tar::new()
        .dir("./")
        .dir("bin/")
        .add("bin/su", b'0', 0o4755, b"setuid", "", &[])
        .add("bin/wall", b'0', 0o2755, b"setgid", "", &[])
        .add("bin/sh", b'2', 0o777, b"", "su", &[])
        .add("bin/slow", b'2', 0o777, b"", &"x/".repeat(45), &[])
        .add("tmp", b'5', 0o1777, b"", "", &[])
        .dir("dev/")
        .add("dev/null", b'3', 0o666, b"", "", &[])
        .add("dev/disk", b'4', 0o660, b"", "", &[])
        .add("dev/pipe", b'6', 0o600, b"", "", &[])
        .add("none", b'0', 0, b"mode 0", "", &[])
        .add(
            "owner",
            b'0',
            0o640,
            b"",
            "",
            &[("uid", b"4000000000"), ("gid", b"70000")],
        )
        .add("attr", b'0', 0o644, b"attributes", "", &xattr)
        .add("old", b'0', 0o644, b"", "", &[("mtime", b"-86400.5")])
        .add(
            "acl",
            b'0',
            0o640,
            b"",
            "",
            &[("SCHILY.xattr.system.posix_acl_access", &acl)],
        )
        .dir("acldir/")
        .add("newline\nname", b'0', 0o644, b"n", "", &[])
        .file("h\u{e4}\u{1f980}", b"utf-8")
        .file("big", &big)
        .file("empty", b"")
        .file("linked", b"one inode")
        .add("link1", b'1', 0o644, b"", "linked", &[])
        .add("link2", b'1', 0o644, b"", "./link1", &[])
        .dir("usr/")
        .dir("usr/lib/")
        .add("lib", b'2', 0o777, b"", "usr/lib", &[])
        .dir("gone/")
        .file("gone/a", b"a")
        .file("goner", b"b")
        .dir("opaque/")
        .file("opaque/old", b"old")
        .dir("becomes-file/")
        .file("becomes-file/x", b"x")
        .file("becomes-dir", b"f")
        .dir("merged/")
        .file("merged/kept", b"kept")
        .dir("long/")
        .dir(&format!("long/{}/", "d".repeat(150)))
        .file(&long, b"long");
    lower = lower.dir("many/");
    for number in 0..3000 {
        lower = lower.file(&format!("many/file-with-a-longer-name-{number:05}"), b"m");
    }
    let upper = Tar::new()
        .file(".wh.gone", b"")
        .file(".wh.goner", b"")
        .dir("opaque/")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .file("becomes-file", b"now a file")
        .dir("becomes-dir/")
        .file("becomes-dir/y", b"y")
        .add("merged", b'5', 0o700, b"", "", &[])
        .file("merged/added", b"added")
        .file("usr/lib/libz", b"through")
        .add("across", b'1', 0o644, b"", "linked", &[])
        .finish();
    vec![lower.finish(), upper]
}

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

fn run(program: &str, arguments: &[&OsStr]) -> bool {
    let output = Command::new(program).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!("{program}: {}", String::from_utf8_lossy(&output.stderr));
            false
        }
        Err(error) => {
            eprintln!("{program}: {error}");
            false
        }
    }
}

fn fsck(disk: &Path) {
    let output = Command::new("e2fsck")
        .arg("-fn")
        .arg(disk)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// A mounted disk; unmounted when dropped.
struct Mounted(TempDir);

impl Mounted {
    fn new(disk: &Path) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let arguments = [
            OsStr::new("-o"),
            OsStr::new("loop,ro,noload"),
            disk.as_os_str(),
            at.path().as_os_str(),
        ];
        run("mount", &arguments).then_some(Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[self.0.path().as_os_str()]);
    }
}

/// Everything that can be seen of a file, by path; link counts and identity as the first path of each inode.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    let mut all = Vec::new();
    while let Some(path) = todo.pop() {
        if root.join(&path).symlink_metadata().unwrap().is_dir() {
            todo.extend(
                fs::read_dir(root.join(&path))
                    .unwrap()
                    .map(|entry| path.join(entry.unwrap().file_name())),
            );
        }
        all.push(path);
    }
    all.sort();
    for path in all
        .into_iter()
        .filter(|path| path != Path::new("lost+found"))
    {
        let full = root.join(&path);
        let metadata = full.symlink_metadata().unwrap();
        let kind = metadata.file_type();
        let content = if kind.is_file() {
            Digest::of(&fs::read(&full).unwrap()).short()
        } else if kind.is_symlink() {
            fs::read_link(&full).unwrap().display().to_string()
        } else if kind.is_char_device() || kind.is_block_device() {
            metadata.rdev().to_string()
        } else {
            String::new()
        };
        let inode = first
            .entry(metadata.ino())
            .or_insert_with(|| path.clone())
            .clone();
        let size = if kind.is_dir() { 0 } else { metadata.len() };
        let line = format!(
            "mode={:o} uid={} gid={} size={size} mtime={}.{} inode={} xattrs={:?} {content}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            inode.display(),
            xattrs(&full),
        );
        seen.insert(path, line);
    }
    seen
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    names
        .map(|name| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let mut value = vec![0; 4096];
            let len = rustix::fs::lgetxattr(path, name.as_str(), &mut value[..]).unwrap();
            (name, value[..len].to_vec())
        })
        .collect()
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

    let Some(mounted) = Mounted::new(&built.rootfs_path) else {
        eprintln!("skipped: loop mounts are not allowed here");
        return;
    };
    let ours = snapshot(mounted.0.path());
    assert_eq!(ours[Path::new("attr")].matches("user.binary").count(), 1);
    assert!(ours[Path::new("attr")].contains("mtime=1699999999.123456789"));
    assert!(ours[Path::new("acl")].contains("system.posix_acl_access"));
    assert!(ours[Path::new("owner")].contains("uid=4000000000 gid=70000"));
    assert!(ours[Path::new("old")].contains("mtime=-86401.500000000"));
    let bundle = directory.path().join("bundle");
    let image = format!("{}:latest", layout.display());
    let arguments = ["unpack", "--image", &image].map(OsStr::new);
    if !run("umoci", &[&arguments[..], &[bundle.as_os_str()]].concat()) {
        eprintln!("skipped: umoci is not installed or cannot unpack here");
        return;
    }
    let theirs = snapshot(&bundle.join("rootfs"));
    assert_eq!(
        ours.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>()
    );
    let different: Vec<_> = ours
        .iter()
        .filter(|(path, line)| theirs[*path] != **line)
        .collect();
    for (path, line) in &different {
        eprintln!(
            "{}\n  ours   {line}\n  theirs {}",
            path.display(),
            theirs[*path]
        );
    }
    assert!(different.is_empty());
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
                begin.elapsed() < Duration::from_secs(20),
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
        eprintln!("skipped: docker-registry is not installed");
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
            eprintln!("skipped: skopeo cannot push {tag} here");
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
        eprintln!("skipped: skopeo is not installed");
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
    assert!(support::leftovers(&at("state")).is_empty());
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
    assert!(support::leftovers(&at("state")).is_empty());
}
