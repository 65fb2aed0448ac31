//! What is written is what our own readers read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use banger_core::Explain as _;
use banger_core::image::ImageConfig;
use banger_core::operation::{Progress, StageKey};
use banger_core::tree::{TreeEntry, TreeKind, TreePiece};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{HistoryLine, ImageDescription, LayerWriter, TarWriter, TreeArchive, Unpacked};
use crate::{ImageStore, StoreError};

struct Quiet;

impl Progress for Quiet {
    fn start(&self, _: &StageKey, _: Option<u64>) {}
    fn advance(&self, _: &StageKey, _: u64) {}
    fn finish(&self, _: &StageKey) {}
}

fn entry(path: &str, kind: TreeKind) -> TreeEntry {
    TreeEntry {
        path: path.into(),
        kind,
        mode: 0o4755,
        uid: 3_000_000,
        gid: 7,
        mtime: (-2, 250_000_000),
        xattrs: BTreeMap::from([(
            "security.capability".into(),
            Bytes::from_static(b"\x01\n\x00=\xff"),
        )]),
    }
}

fn archive(entries: &[(TreeEntry, &[u8])]) -> File {
    let mut tar = TarWriter::new(tempfile::tempfile().unwrap());
    for (entry, content) in entries {
        tar.entry(entry).unwrap();
        tar.data(content).unwrap();
    }
    let mut file = tar.finish().unwrap();
    file.rewind().unwrap();
    file
}

fn file(path: &str, content: &[u8]) -> TreeEntry {
    let size = content.len() as u64;
    entry(path, TreeKind::File { size })
}

#[test]
fn what_is_written_is_read_back() {
    let long = format!("{}/{}", "d".repeat(90), "n".repeat(200));
    let entries = [
        (entry("dir", TreeKind::Directory), &b""[..]),
        (file(&long, b"content"), b"content"),
        (file("ümlaut", b""), b""),
        (
            entry(
                "link",
                TreeKind::Symlink {
                    target: "t".repeat(300).into(),
                },
            ),
            b"",
        ),
        (
            entry(
                "hard",
                TreeKind::HardLink {
                    target: long.clone().into(),
                },
            ),
            b"",
        ),
        (
            entry("null", TreeKind::CharDevice { major: 1, minor: 3 }),
            b"",
        ),
        (entry("pipe", TreeKind::Fifo), b""),
    ];
    let read = TreeArchive::open(archive(&entries), Path::new("test")).unwrap();
    for (read, (written, _)) in read.entries().zip(&entries) {
        assert_eq!(read, written);
    }
    assert_eq!(read.entries().len(), entries.len());
    let mut content = String::new();
    read.content(1).read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
}

#[test]
fn times_before_the_epoch_and_large_ids_survive() {
    for mtime in [
        (-1, 0),
        (-1, 999_999_999),
        (0, 1),
        (1 << 34, 0),
        (5, 500_000_000),
    ] {
        let mut odd = file("x", b"");
        odd.mtime = mtime;
        odd.gid = u32::MAX - 1;
        let read = TreeArchive::open(archive(&[(odd.clone(), b"")]), Path::new("test")).unwrap();
        assert_eq!(read.entries().next(), Some(&odd));
    }
}

#[test]
fn a_file_that_is_too_long_or_short_is_no_archive() {
    let mut tar = TarWriter::new(Vec::new());
    tar.entry(&file("x", b"abc")).unwrap();
    assert!(tar.data(b"abcd").is_err());
    let mut tar = TarWriter::new(Vec::new());
    tar.entry(&file("x", b"abc")).unwrap();
    assert!(tar.entry(&file("y", b"")).is_err());
    assert!(
        TarWriter::new(Vec::new())
            .entry(&entry("x", TreeKind::Removed))
            .is_err()
    );
}

#[test]
fn the_disks_own_directory_is_no_part_of_a_layer() {
    let tmp = tempfile::tempdir().unwrap();
    let lost_found = |path| TreePiece::Entry(Box::new(entry(path, TreeKind::Directory)));
    let mut writer = LayerWriter::new(tmp.path()).unwrap();
    writer.piece(&lost_found("lost+found")).unwrap();
    assert!(writer.finish().unwrap().is_empty());
    let mut writer = LayerWriter::new(tmp.path()).unwrap();
    writer.piece(&lost_found("srv/lost+found")).unwrap();
    assert!(!writer.finish().unwrap().is_empty());
}

#[test]
fn an_archive_inside_an_archive_is_told_by_its_content() {
    let tmp = tempfile::tempdir().unwrap();
    let mut plain = Vec::new();
    archive(&[(file("inner", b"x"), b"x")])
        .read_to_end(&mut plain)
        .unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut text = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    text.write_all(b"just a text").unwrap();
    let text = text.finish().unwrap();
    let contents: [&[u8]; 5] = [&plain, &gzip, &text, b"short", b"\xfd7zXZ\0..."];
    let entries: Vec<(TreeEntry, &[u8])> = contents
        .iter()
        .map(|content| (file("x", content), *content))
        .collect();
    let outer = TreeArchive::open(archive(&entries), Path::new("test")).unwrap();
    let cancel = CancellationToken::new();
    for number in [0, 1] {
        let Unpacked::Archive(inner) = outer.unpack(number, tmp.path(), &cancel).unwrap() else {
            panic!("{number}");
        };
        assert_eq!(inner.entries().next().unwrap().path, b"inner");
    }
    for number in [2, 3] {
        assert!(matches!(
            outer.unpack(number, tmp.path(), &cancel).unwrap(),
            Unpacked::Plain
        ));
    }
    assert!(matches!(
        outer.unpack(4, tmp.path(), &cancel).unwrap(),
        Unpacked::Unsupported("xz")
    ));
    // Whoever gives up waits for no decompressor.
    cancel.cancel();
    for number in [0, 1, 2] {
        let given_up = outer.unpack(number, tmp.path(), &cancel).unwrap_err();
        assert!(matches!(given_up, StoreError::Cancelled), "{given_up:?}");
    }
}

async fn assembled(
    store: &ImageStore,
    base: Option<crate::BuiltImage>,
    pieces: Vec<TreePiece>,
) -> Result<crate::BuiltImage, StoreError> {
    let mut writer = store.layer_writer()?;
    for piece in &pieces {
        writer.piece(piece)?;
    }
    let layer = writer.finish()?;
    let line = |text: &str, empty_layer| HistoryLine {
        created_by: text.into(),
        empty_layer,
    };
    let description = ImageDescription {
        config: ImageConfig {
            cmd: vec!["run".into()],
            ..ImageConfig::default()
        },
        volumes: ["/data".to_owned()].into(),
        history: vec![line("RUN x", false), line("CMD run", true)],
    };
    let cancel = CancellationToken::new();
    store
        .assemble(
            base.map(|base| base.digest),
            Some(layer),
            &description,
            &Quiet,
            &cancel,
        )
        .await
}

fn pieces(path: &str, content: &'static [u8]) -> Vec<TreePiece> {
    vec![
        TreePiece::Entry(Box::new(file(path, content))),
        TreePiece::Data(Bytes::from_static(content)),
    ]
}

#[tokio::test]
async fn a_layer_on_a_base_is_an_image_that_goes_out_as_a_layout() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let base = assembled(&store, None, pieces("a", b"first"))
        .await
        .unwrap();
    let mut changes = pieces("b", b"second");
    changes.push(TreePiece::Entry(Box::new(entry("a", TreeKind::Removed))));
    changes.push(TreePiece::Entry(Box::new(entry(
        "new",
        TreeKind::OpaqueDirectory,
    ))));
    let image = assembled(&store, Some(base.clone()), changes.clone())
        .await
        .unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.layers[0], base.layers[0]);
    assert_eq!(image.config.cmd, ["run"]);
    // The same again is the same image.
    let again = assembled(&store, Some(base.clone()), changes)
        .await
        .unwrap();
    assert_eq!(again.digest, image.digest);

    let (_, _, config) = store.documents(image.digest).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["history"].as_array().unwrap().len(), 4);
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    assert!(config["config"]["Volumes"]["/data"].is_object());

    let layout = store.oci_layout(image.digest, "1").unwrap();
    let mut tar = tempfile::NamedTempFile::new().unwrap();
    layout.write_to(tar.as_file_mut()).unwrap();
    let source = crate::RegisterSource::OciLayout {
        path: tar.path().into(),
        image: Some("1".into()),
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let other = ImageStore::open(elsewhere.path()).unwrap();
    let options = crate::RegisterOptions::default();
    let back = other
        .register(source, &options, &Quiet, &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(back.digest, image.digest);
    let disk = |image: &crate::BuiltImage| std::fs::read(&image.rootfs_path).unwrap();
    assert!(disk(&back) == disk(&image));
}

#[tokio::test]
async fn a_name_that_means_a_removal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let error = assembled(&store, None, pieces("etc/.wh.passwd", b"x"))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "BUILD_NAME_RESERVED");
    assert_eq!(
        std::fs::read_dir(dir.path().join("tmp/images"))
            .unwrap()
            .count(),
        0
    );
}
