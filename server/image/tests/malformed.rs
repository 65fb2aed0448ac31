//! Images no honest tool makes, each refused with a reason and a text of its own, and with nothing left of it.
#![allow(clippy::unwrap_used, clippy::too_many_lines)] // its functions are tables

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;

use banger_core::operation::NoProgress;
use banger_core::{Digest, Explain, FailureKind, chain};
use banger_image::{ImageStore, RegisterOptions, RegisterSource, StoreError};
use futures::StreamExt;
use support::raw::{Raw, pax, pax_of};
use support::{Tar, TestImage, gzip};
use tokio_util::sync::CancellationToken;

/// What is wrong, the image, the reason, and what the text must say.
type Case = (&'static str, TestImage, &'static str, &'static str);

/// Most of the time goes into waiting for the host's disk.
const AT_ONCE: usize = 8;

/// An image of one layer, served as it is.
fn served(blob: Vec<u8>) -> TestImage {
    TestImage::new(&[(blob, Digest::of(b""))])
}

/// An image of these entries, put behind each other without any end mark.
fn entries(parts: &[Vec<u8>]) -> TestImage {
    TestImage::of(&[parts.concat()])
}

fn layers<const COUNT: usize>(layers: [Tar; COUNT]) -> TestImage {
    TestImage::of(&layers.map(Tar::finish))
}

fn broken_streams() -> Vec<Case> {
    let plain = Tar::new().file("a", &support::noise(1, 50_000)).finish();
    let whole = gzip(&plain);
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    let mut checksum = whole.clone();
    let tail = checksum.len() - 6;
    checksum[tail] ^= 1;
    let zstd = zstd::encode_all(&*plain, 3).unwrap();
    let mut window = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    window.window_log(27).unwrap();
    std::io::Write::write_all(&mut window, &plain).unwrap();
    let window = window.finish().unwrap();
    vec![
        (
            "a gzip stream that ends early",
            served(whole[..40].to_vec()),
            "LAYER_TRUNCATED",
            "ends too early",
        ),
        (
            "a zstd stream that ends early",
            served(zstd[..zstd.len() / 2].to_vec()),
            "LAYER_TRUNCATED",
            "ends too early",
        ),
        (
            "a gzip stream with other bytes in it",
            served(damaged),
            "LAYER_DAMAGED",
            "is damaged",
        ),
        (
            "a gzip stream with a wrong checksum",
            served(checksum),
            "LAYER_DAMAGED",
            "is damaged",
        ),
        (
            "a zstd frame that wants much memory",
            served(window),
            "LAYER_DAMAGED",
            "is damaged",
        ),
        (
            "xz",
            served(b"\xfd7zXZ\0\0\x04".to_vec()),
            "LAYER_COMPRESSION_UNSUPPORTED",
            "with xz",
        ),
        (
            "bzip2",
            served(b"BZh91AY&SY".to_vec()),
            "LAYER_COMPRESSION_UNSUPPORTED",
            "with bzip2",
        ),
        (
            "another layer than the configuration names",
            TestImage::new(&[(whole, Digest::of(b"other"))]),
            "LAYER_DIFF_ID_MISMATCH",
            "but the image's configuration says",
        ),
        (
            "a bomb",
            served(bomb()),
            "LAYER_TOO_LARGE",
            "times its size",
        ),
    ]
}

/// A gigabyte of zeros and some more, as one file, in a few hundred KiB.
fn bomb() -> Vec<u8> {
    use std::io::{Read, Write};
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    let size: u64 = (1 << 30) + (1 << 20);
    encoder
        .write_all(&Raw::new("bomb", b'0').size(size).header())
        .unwrap();
    std::io::copy(&mut std::io::repeat(0).take(size), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

fn broken_archives() -> Vec<Case> {
    let file = || Raw::new("f", b'0').data(b"x");
    let whole = Raw::new("f", b'0').data(&[1; 600]);
    vec![
        (
            "no archive",
            TestImage::of(&[b"no archive".repeat(100)]),
            "LAYER_BAD_HEADER",
            "no valid tar header at byte 0",
        ),
        (
            "a header cut off",
            entries(&[whole[..300].to_vec()]),
            "LAYER_CUT_OFF",
            "entry, at byte 0",
        ),
        (
            "data cut off",
            entries(&[whole[..700].to_vec()]),
            "LAYER_CUT_OFF",
            "entry, at byte 700",
        ),
        (
            "a wrong checksum",
            entries(&[Raw::new("f", b'0').damaged()]),
            "LAYER_BAD_HEADER",
            "no valid tar header at byte 0",
        ),
        (
            "entries behind a lone block of zeros",
            entries(&[file(), vec![0; 512], file()]),
            "LAYER_BAD_HEADER",
            "at byte 1024",
        ),
        (
            "a PAX header without an entry",
            entries(&[pax(&[("uid", b"1")]), vec![0; 1024]]),
            "LAYER_CUT_OFF",
            "at byte 2048",
        ),
        (
            "a PAX record that is too long",
            entries(&[Raw::new("x", b'x').data(b"99 a=b\n"), file()]),
            "LAYER_BAD_PAX",
            "PAX header at byte 512",
        ),
        (
            "a PAX time that is none",
            entries(&[pax(&[("mtime", b"noon")]), file()]),
            "LAYER_BAD_PAX",
            "PAX header at byte 512",
        ),
        (
            "a PAX header of a MiB",
            entries(&[Raw::new("x", b'x').size(2 << 20).header()]),
            "LAYER_EXTENSION_TOO_LARGE",
            "has 2097152 bytes",
        ),
        (
            "a long name of a MiB",
            entries(&[Raw::new("x", b'L').size(3 << 20).header()]),
            "LAYER_EXTENSION_TOO_LARGE",
            "has 3145728 bytes",
        ),
        (
            "a size that is no number",
            entries(&[Raw::new("f", b'0').field(124, b"0000000008\0").header()]),
            "LAYER_BAD_FIELD",
            "has a bad size",
        ),
        (
            "a negative size",
            entries(&[Raw::new("f", b'0').field(124, &[0xff; 12]).header()]),
            "LAYER_BAD_FIELD",
            "has a bad size",
        ),
        (
            "an owner that is no number",
            entries(&[Raw::new("f", b'0').field(108, b"root\0\0\0\0").header()]),
            "LAYER_BAD_FIELD",
            "has a bad user id",
        ),
        (
            "the owner that means none",
            entries(&[pax(&[("gid", b"4294967295")]), file()]),
            "LAYER_BAD_FIELD",
            "has a bad group id",
        ),
        (
            "a mode that is no number",
            entries(&[Raw::new("f", b'0').field(100, b"rwxr-xr-").header()]),
            "LAYER_BAD_FIELD",
            "has a bad mode",
        ),
        (
            "a device number Linux has not",
            entries(&[Raw::new("d", b'3').field(329, b"0010000\0").header()]),
            "LAYER_BAD_FIELD",
            "has a bad device number",
        ),
        (
            "a file of eight TiB",
            entries(&[Raw::new("f", b'0')
                .field(124, &[0x80, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0])
                .header()]),
            "LAYER_FILE_TOO_LARGE",
            "has 8796093022208 bytes",
        ),
        (
            "a part of a volume",
            entries(&[Raw::new("f", b'M').header()]),
            "LAYER_ENTRY_UNSUPPORTED",
            "unsupported type `M`",
        ),
        (
            "a socket of a vendor",
            entries(&[Raw::new("f", b'Z').header()]),
            "LAYER_ENTRY_UNSUPPORTED",
            "unsupported type `Z`",
        ),
    ]
}

fn ambiguous_archives() -> Vec<Case> {
    let file = || Raw::new("f", b'0').data(b"12345678");
    let gnu = |kind: u8, name: &[u8]| Raw::new("././@LongLink", kind).data(name);
    let sparse = |size: &[u8], map: &[u8]| {
        entries(&[
            pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)]),
            file(),
        ])
    };
    vec![
        (
            "two sizes",
            entries(&[pax(&[("size", b"1024")]), file(), vec![0; 1024]]),
            "LAYER_AMBIGUOUS",
            "different sizes",
        ),
        (
            "two names",
            entries(&[pax(&[("path", b"a")]), gnu(b'L', b"b"), file()]),
            "LAYER_AMBIGUOUS",
            "two long names",
        ),
        (
            "two targets",
            entries(&[
                pax(&[("linkpath", b"a")]),
                gnu(b'K', b"b"),
                Raw::new("l", b'2').header(),
            ]),
            "LAYER_AMBIGUOUS",
            "two long link targets",
        ),
        (
            "two PAX headers",
            entries(&[pax(&[("uid", b"1")]), pax(&[("gid", b"1")]), file()]),
            "LAYER_AMBIGUOUS",
            "two extension headers",
        ),
        (
            "one name for all entries",
            entries(&[Raw::new("g", b'g').data(b"13 path=evil\n"), file()]),
            "LAYER_AMBIGUOUS",
            "a global header",
        ),
        (
            "sparse pieces that overlap",
            sparse(b"50", b"0,4,2,4"),
            "LAYER_BAD_SPARSE_MAP",
            "malformed sparse map",
        ),
        (
            "a sparse piece behind the end",
            sparse(b"50", b"48,8"),
            "LAYER_BAD_SPARSE_MAP",
            "malformed sparse map",
        ),
        (
            "sparse pieces for more than there is",
            sparse(b"50", b"0,4,10,8"),
            "LAYER_BAD_SPARSE_MAP",
            "malformed sparse map",
        ),
        (
            "a sparse piece around the end of numbers",
            sparse(b"50", b"0,4,18446744073709551615,4"),
            "LAYER_BAD_SPARSE_MAP",
            "malformed sparse map",
        ),
        (
            "a sparse map with half a piece",
            sparse(b"50", b"0,4,8"),
            "LAYER_BAD_PAX",
            "PAX header at byte 512",
        ),
        (
            "a sparse file of eight TiB",
            sparse(b"8796093022208", b"0,8"),
            "LAYER_FILE_TOO_LARGE",
            "has 8796093022208 bytes",
        ),
        (
            "a sparse map of another length than stated",
            entries(&[
                pax(&[
                    ("GNU.sparse.size", b"50"),
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.map", b"0,8"),
                ]),
                file(),
            ]),
            "LAYER_BAD_SPARSE_MAP",
            "malformed sparse map",
        ),
    ]
}

fn bad_entries() -> Vec<Case> {
    let named = |path: &str| layers([Tar::new().file(path, b"x")]);
    let xattr = |name: &str, value: &[u8]| {
        layers([Tar::new().add("f", b'0', 0o644, b"", "", &[(name, value)])])
    };
    let mut lists = BTreeMap::new();
    for (what, list) in [
        ("a list that is cut off", &[2u8, 0, 0, 0, 1][..]),
        (
            "a list that starts with others",
            &[2, 0, 0, 0, 0x20, 0, 4, 0, 255, 255, 255, 255],
        ),
    ] {
        lists.insert(what, xattr("SCHILY.xattr.system.posix_acl_access", list));
    }
    let mut cases = vec![
        (
            "a name that leads out",
            named("../../etc/passwd"),
            "LAYER_ENTRY_ESCAPES",
            "`../../etc/passwd` leads out",
        ),
        (
            "a name that leads out by and by",
            named("a/../../x"),
            "LAYER_ENTRY_ESCAPES",
            "`a/../../x` leads out",
        ),
        (
            "a hard link that leads out",
            layers([Tar::new().add("evil", b'1', 0, b"", "../../etc/passwd", &[])]),
            "LAYER_ENTRY_ESCAPES",
            "`evil` leads out",
        ),
        (
            "a name with a NUL",
            entries(&[pax(&[("path", b"a\0b")]), Raw::new("f", b'0').header()]),
            "LAYER_NAME_HAS_NUL",
            "`a\\u{0}b` has a NUL",
        ),
        (
            "a name of 256 bytes",
            entries(&[pax(&[("path", &[b'n'; 256])]), Raw::new("f", b'0').header()]),
            "LAYER_PATH_TOO_LONG",
            "too long or too deep",
        ),
        (
            "a path of 4097 bytes",
            entries(&[
                pax(&[("path", &b"n/".repeat(2049)[..4097])]),
                Raw::new("f", b'0').header(),
            ]),
            "LAYER_PATH_TOO_LONG",
            "too long or too deep",
        ),
        (
            "a path of 600 directories",
            entries(&[
                pax(&[("path", "n/".repeat(600).as_bytes())]),
                Raw::new("f", b'0').header(),
            ]),
            "LAYER_PATH_TOO_LONG",
            "too long or too deep",
        ),
        (
            "a symbolic link to nothing",
            entries(&[Raw::new("l", b'2').header()]),
            "LAYER_BAD_LINK_TARGET",
            "empty or overlong",
        ),
        (
            "a symbolic link of 4096 bytes",
            entries(&[
                pax(&[("linkpath", &[b'x'; 4096])]),
                Raw::new("m", b'2').header(),
            ]),
            "LAYER_BAD_LINK_TARGET",
            "empty or overlong",
        ),
        (
            "a hard link to nothing",
            entries(&[Raw::new("h", b'1').header()]),
            "LAYER_BAD_LINK_TARGET",
            "empty or overlong",
        ),
        (
            "an attribute without a name",
            xattr("SCHILY.xattr.user.", b"1"),
            "LAYER_BAD_XATTR",
            "attribute with a bad name",
        ),
        (
            "an attribute's name that is no text",
            entries(&[
                pax_of(b"SCHILY.xattr.user.\xff", b"1"),
                Raw::new("g", b'0').header(),
            ]),
            "LAYER_BAD_XATTR",
            "attribute with a bad name",
        ),
        (
            "attributes of more than a block",
            xattr("SCHILY.xattr.user.a", &[7; 4096]),
            "LAYER_XATTRS_TOO_LARGE",
            "more extended attributes",
        ),
    ];
    cases.extend(lists.into_iter().map(|(what, image)| {
        (
            what,
            image,
            "LAYER_BAD_ACL",
            "malformed access control list",
        )
    }));
    cases
}

fn layers_that_do_not_fit() -> Vec<Case> {
    let tar = Tar::new;
    vec![
        (
            "a hard link to what is not there",
            layers([tar().add("l", b'1', 0, b"", "gone", &[])]),
            "LAYER_BAD_HARD_LINK",
            "a hard link to `gone`",
        ),
        (
            "a hard link to what a layer removed",
            layers([
                tar().file("a", b"x"),
                tar().file(".wh.a", b""),
                tar().add("l", b'1', 0, b"", "a", &[]),
            ]),
            "LAYER_BAD_HARD_LINK",
            "a hard link to `a`",
        ),
        (
            "a hard link to itself",
            layers([tar().add("l", b'1', 0, b"", "l", &[])]),
            "LAYER_BAD_HARD_LINK",
            "a hard link to `l`",
        ),
        (
            "a hard link to a directory",
            layers([tar().dir("d/"), tar().add("l", b'1', 0, b"", "d", &[])]),
            "LAYER_LINK_TO_DIRECTORY",
            "to the directory `d`",
        ),
        (
            "an entry below a file",
            layers([tar().file("a", b"x").file("a/x", b"x")]),
            "LAYER_BAD_PARENT",
            "lies under `a`",
        ),
        (
            "an entry below a device",
            layers([
                tar().add("dev", b'3', 0o600, b"", "", &[]),
                tar().file("dev/x", b"x"),
            ]),
            "LAYER_BAD_PARENT",
            "lies under `dev`",
        ),
        (
            "an entry below links in a circle",
            layers([tar()
                .add("a", b'2', 0, b"", "b", &[])
                .add("b", b'2', 0, b"", "a", &[])
                .file("a/x", b"x")]),
            "LAYER_SYMLINK_LOOP",
            "loop of symbolic links",
        ),
        (
            "a link to a name no disk has",
            layers([tar()
                .add("a", b'2', 0, b"", &"n".repeat(300), &[])
                .file("a/x", b"x")]),
            "LAYER_TOO_DEEP",
            "lies too deep",
        ),
        (
            "a whiteout of nothing",
            layers([tar().file(".wh.", b"")]),
            "LAYER_BAD_WHITEOUT",
            "`.wh.` is not a valid whiteout",
        ),
        (
            "a whiteout of the directory above",
            layers([tar().file("a/.wh...", b"")]),
            "LAYER_BAD_WHITEOUT",
            "`a/.wh...` is not a valid whiteout",
        ),
        (
            "a root that is a file",
            layers([tar().file("./", b"")]),
            "LAYER_BAD_ROOT",
            "root is not a directory",
        ),
        (
            "a root that is a link",
            layers([tar().add("/", b'2', 0, b"", "etc", &[])]),
            "LAYER_BAD_ROOT",
            "root is not a directory",
        ),
        (
            "something in `lost+found`",
            layers([tar().file("lost+found/x", b"")]),
            "LAYER_LOST_FOUND_TAKEN",
            "`lost+found` of its own",
        ),
    ]
}

fn bad_documents() -> Vec<Case> {
    let with = |change: fn(&str) -> String| {
        let mut image = layers([Tar::new().file("a", b"x")]);
        let manifest = String::from_utf8(image.manifest.clone()).unwrap();
        image.manifest = change(&manifest).into_bytes();
        image
    };
    let configured =
        |change: fn(&str) -> String| layers([Tar::new().file("a", b"x")]).with_config(change);
    vec![
        (
            "a page",
            with(|_| "<html></html>".into()),
            "IMAGE_MALFORMED",
            "the manifest is malformed",
        ),
        (
            "a manifest that is cut off",
            with(|text| text[..text.len() / 2].into()),
            "IMAGE_MALFORMED",
            "the manifest is malformed",
        ),
        (
            "nothing",
            with(|_| "{}".into()),
            "NOT_AN_IMAGE",
            "neither an image's manifest nor an index",
        ),
        (
            "a manifest that is an index too",
            with(|text| text.replace("\"layers\"", "\"manifests\":[],\"layers\"")),
            "NOT_AN_IMAGE",
            "neither an image's manifest nor an index",
        ),
        (
            "a digest of another algorithm",
            with(|text| text.replace("sha256:", "sha512:")),
            "IMAGE_MALFORMED",
            "the manifest is malformed",
        ),
        (
            "a digest that is a path",
            with(|text| text.replace("sha256:", "sha256:../../")),
            "IMAGE_MALFORMED",
            "the manifest is malformed",
        ),
        (
            "a chart",
            with(|text| {
                text.replace(
                    "application/vnd.oci.image.config.v1+json",
                    "application/vnd.cncf.helm.config.v1+json",
                )
            }),
            "NOT_AN_IMAGE",
            "its configuration has the media type",
        ),
        (
            "a layer that is a program",
            with(|text| {
                text.replace(
                    "application/vnd.oci.image.layer.v1.tar+gzip",
                    "application/wasm",
                )
            }),
            "NOT_AN_IMAGE",
            "its layer has the media type",
        ),
        (
            "a negative size",
            with(|text| text.replace("\"size\":", "\"size\":-")),
            "IMAGE_MALFORMED",
            "the manifest is malformed",
        ),
        (
            "a layer of 2^63 bytes",
            with(|text| text.replacen("\"size\":", "\"size\":9223372036854775", 2)),
            "IMAGE_TOO_LARGE",
            "more than is allowed",
        ),
        (
            "a thousand layers",
            with(|text| {
                text.replace(
                    "\"layers\":[",
                    &format!(
                        "\"layers\":[{}",
                        format!("{},", layer_of(text)).repeat(1000)
                    ),
                )
            }),
            "IMAGE_TOO_LARGE",
            "layers, which is more",
        ),
        (
            "more layers than digests",
            with(|text| text.replace("\"layers\":[", &format!("\"layers\":[{},", layer_of(text)))),
            "IMAGE_LAYER_COUNT",
            "2 layers and the configuration 1",
        ),
        (
            "a configuration that is no object",
            configured(|_| "[]".into()),
            "IMAGE_MALFORMED",
            "the configuration is malformed",
        ),
        (
            "a configuration without layers",
            configured(|text| text.replace("rootfs", "roots")),
            "IMAGE_MALFORMED",
            "the configuration is malformed",
        ),
        (
            "a configuration of another machine",
            configured(|text| text.replace("amd64", "s390x")),
            "IMAGE_PLATFORM_MISSING",
            "no variant for linux/amd64; it has linux/s390x",
        ),
    ]
}

/// The layer's descriptor out of a manifest.
fn layer_of(manifest: &str) -> String {
    let begin = manifest.find("\"layers\":[").unwrap() + 10;
    manifest[begin..manifest.rfind(']').unwrap()].to_owned()
}

#[tokio::test]
async fn every_malformed_image_is_refused_with_its_own_reason_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let store = ImageStore::open(&state).unwrap();
    let cases = [
        broken_streams(),
        broken_archives(),
        ambiguous_archives(),
        bad_entries(),
        layers_that_do_not_fit(),
        bad_documents(),
    ]
    .concat();
    assert!(cases.len() >= 40, "{}", cases.len());
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let refused = cases.into_iter().enumerate().map(|(number, case)| {
        let layout = directory.path().join(number.to_string());
        refused(&store, layout, case)
    });
    let mut refused = futures::stream::iter(refused).buffer_unordered(AT_ONCE);
    while let Some((reason, what)) = refused.next().await {
        reasons.entry(reason).or_default().push(what);
    }
    assert!(support::leftovers(&state).is_empty());
    assert!(reasons.len() >= 30, "{reasons:#?}");
    assert_eq!(std::fs::read_dir(state.join("rootfs")).unwrap().count(), 0);
}

/// Sees an image refused as it should be.
async fn refused(store: &ImageStore, layout: PathBuf, case: Case) -> (&'static str, &'static str) {
    let (what, image, reason, text) = case;
    image.write_layout(&layout);
    let error = register(store, layout).await.expect_err(what);
    let said = chain(&error);
    assert_eq!(error.reason(), reason, "{what}: {said}");
    assert!(said.contains(text), "{what}: {said}");
    assert!(error.remedy().is_some(), "{what}: {said}");
    assert!(
        !matches!(error.kind(), FailureKind::Internal),
        "{what}: {said}"
    );
    (reason, what)
}

async fn register(
    store: &ImageStore,
    path: PathBuf,
) -> Result<banger_image::BuiltImage, StoreError> {
    let options = RegisterOptions {
        platform: "linux/amd64".parse().unwrap(),
    };
    let source = RegisterSource::OciLayout { path, image: None };
    store
        .register(source, &options, &NoProgress, &CancellationToken::new())
        .await
}
