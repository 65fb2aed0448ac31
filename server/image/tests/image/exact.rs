//! The finished disk against what `umoci unpack` makes of the same image, file by file: type, mode, owner,
//! time, size, content, attributes, links, device numbers. Where `umoci` does otherwise than the OCI image
//! specification says, or cannot do a thing, the test says so and compares with the specification.
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::TestImage;
use crate::support::disk::{Mounted, differences, fsck, run, unpacked};
use crate::support::raw::Raw;
use crate::support::snapshot::snapshot;
use crate::support::stack::stacks;
use crate::support::{Tar, gzip};
use banger_core::Digest;
use banger_core::operation::NoProgress;
use banger_image::{BuiltImage, ImageStore, RegisterOptions, RegisterSource};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// An image and the disk made of it.
struct Converted {
    directory: TempDir,
    built: BuiltImage,
}

async fn convert(image: &TestImage) -> Converted {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    image.write_layout(&layout);
    let store = ImageStore::open(&directory.path().join("state")).unwrap();
    let options = RegisterOptions {
        platform: "linux/amd64".parse().unwrap(),
    };
    let source = RegisterSource::OciLayout {
        path: layout,
        image: None,
    };
    let built = store
        .register(source, &options, &NoProgress, &CancellationToken::new())
        .await
        .unwrap();
    fsck(&built.rootfs_path);
    Converted { directory, built }
}

impl Converted {
    /// What is to be seen of the disk.
    fn seen(&self, name: &str) -> Option<BTreeMap<PathBuf, String>> {
        let mounted = Mounted::new(&self.built.rootfs_path, name)?;
        Some(snapshot(mounted.path()))
    }
}

/// Converts the image and compares with `umoci`, except where `judge` changes what `umoci` made.
async fn compare(
    name: &str,
    layers: &[Vec<u8>],
    judge: impl FnOnce(&mut BTreeMap<PathBuf, String>, &BTreeMap<PathBuf, String>),
) {
    compare_image(name, &TestImage::of(layers), judge).await;
}

async fn compare_image(
    name: &str,
    image: &TestImage,
    judge: impl FnOnce(&mut BTreeMap<PathBuf, String>, &BTreeMap<PathBuf, String>),
) {
    let converted = convert(image).await;
    let Some(ours) = converted.seen(name) else {
        return;
    };
    let Some(mut theirs) = unpacked(image, name) else {
        return;
    };
    judge(&mut theirs, &ours);
    let differences = differences(&ours, &theirs);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn layers_that_hide_replace_and_link_make_what_umoci_makes() {
    compare("changes", &crate::support::special::changes(), |_, _| {}).await;
}

#[tokio::test]
async fn names_of_every_length_and_byte_make_what_umoci_makes() {
    compare("names", &crate::support::special::names(), |_, _| {}).await;
}

#[tokio::test]
async fn owners_modes_times_and_attributes_make_what_umoci_makes() {
    compare(
        "metadata",
        &crate::support::special::metadata(),
        |theirs, ours| {
            // umoci counts nanoseconds in 64 bits, so that its time ends in the year 2262; ext4's does in 2446.
            let late = Path::new("late");
            assert!(
                theirs[late].contains("mtime=-2147483648.0"),
                "{}",
                theirs[late]
            );
            assert!(
                ours[late].contains("mtime=15032385535.999999999"),
                "{}",
                ours[late]
            );
            theirs.insert(late.into(), ours[late].clone());
        },
    )
    .await;
}

#[tokio::test]
async fn sparse_files_in_every_form_make_what_umoci_makes() {
    let Some(layers) = crate::support::special::sparse() else {
        eprintln!("SKIPPED sparse: GNU tar is not installed");
        return;
    };
    // umoci does not know the old form, "unknown typeflag"; it holds the same files as the newest.
    let ours = convert(&TestImage::of(&layers)).await.seen("sparse");
    let theirs = unpacked(&TestImage::of(&layers[1..]), "sparse");
    let (Some(ours), Some(mut theirs)) = (ours, theirs) else {
        return;
    };
    let [old, .., new] = crate::support::special::SPARSE_FORMS;
    let known: Vec<_> = theirs
        .iter()
        .filter(|(path, _)| path.starts_with(new))
        .collect();
    let other = |text: &str| text.replace(new, old);
    let old: Vec<_> = known
        .into_iter()
        .map(|(path, line)| (PathBuf::from(other(path.to_str().unwrap())), other(line)))
        .collect();
    theirs.extend(old);
    theirs.insert(PathBuf::new(), ours[Path::new("")].clone()); // a root no layer mentions
    let differences = differences(&ours, &theirs);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn what_umoci_cannot_or_does_otherwise_is_what_the_specification_says() {
    let lower = Tar::new()
        .dir("./")
        .dir("d/")
        .file("d/below", b"1")
        .file("f", b"2")
        .file("empty-attribute", b"");
    // A whiteout hides what lower layers have, never what its own layer brings ("Applying Changesets"), whatever
    // the order in the archive. umoci removes the new file too if the whiteout comes behind it.
    let upper = Tar::new()
        .file("f", b"new")
        .file(".wh.f", b"")
        .dir("d/")
        .file("d/new", b"3")
        .file(".wh.d", b"")
        // A parent nobody declared: ours are root's, 0755, at the epoch; umoci's are of the moment.
        .file("implicit/file", b"4")
        // Go's archives drop empty attributes; the specification keeps all of them.
        .add(
            "empty-attribute",
            b'0',
            0o644,
            b"",
            "",
            &[("SCHILY.xattr.user.empty", b"")],
        );
    let mut upper = upper.entries();
    // umoci: "unknown typeflag"; POSIX says to take it as a file.
    upper.extend(Raw::new("contiguous", b'7').data(b"as a file"));
    let converted = convert(&TestImage::of(&[lower.finish(), upper])).await;
    let Some(seen) = converted.seen("specification") else {
        return;
    };
    let paths: Vec<&str> = seen.keys().filter_map(|path| path.to_str()).collect();
    let expected = [
        "",
        "contiguous",
        "d",
        "d/new",
        "empty-attribute",
        "f",
        "implicit",
        "implicit/file",
    ];
    assert_eq!(paths, expected);
    let line = |path: &str| seen[Path::new(path)].as_str();
    assert!(
        line("implicit").starts_with("mode=40755 uid=0 gid=0 size=0 mtime=0.0"),
        "{}",
        line("implicit")
    );
    assert!(line("f").contains("size=3"));
    assert!(line("empty-attribute").contains(r#"{"user.empty": []}"#));
    assert!(line("contiguous").contains("mode=100644") && line("contiguous").contains("size=9"));
}

/// A number from the environment.
fn setting(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(otherwise, |text| text.parse().unwrap())
}

/// Where a sparse file has what.
fn pieces(size: u64) -> [(u64, &'static [u8; 5]); 3] {
    [
        (0, b"begin"),
        (size / 2 + 7, b"middl"),
        (size - 5, b"final"),
    ]
}

/// An image with a sparse file, by GNU tar; `None`, and the test `name` is said to be skipped, where there is none.
fn sparse_image(name: &str, size: u64, format: &str) -> Option<TestImage> {
    let directory = tempfile::tempdir().unwrap();
    let file = fs::File::create(directory.path().join("sparse")).unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in pieces(size) {
        file.write_all_at(bytes, offset).unwrap();
    }
    let mut tar = std::process::Command::new("tar");
    tar.args(["-S", "--format", format, "-cf", "-", "-C"]);
    let Ok(archive) = tar.arg(directory.path()).arg("sparse").output() else {
        eprintln!("SKIPPED {name}: GNU tar is not installed");
        return None;
    };
    Some(TestImage::of(&[archive.stdout]))
}

/// umoci writes the holes: Go's reader hands them out as bytes. `BANGER_EXACT_SPARSE_MIB=8192` takes 16 GiB of disk.
#[tokio::test]
async fn a_large_sparse_file_is_to_the_last_byte_what_umoci_makes() {
    let size = setting("BANGER_EXACT_SPARSE_MIB", 128) << 20;
    let name = "large_sparse_file";
    // umoci does not know the entries of GNU's own format.
    let Some(image) = sparse_image(name, size, "posix") else {
        return;
    };
    compare_image(name, &image, undeclared).await;
}

/// Nobody declared the root and the directories in it: umoci gives them the time of its work.
fn undeclared(theirs: &mut BTreeMap<PathBuf, String>, ours: &BTreeMap<PathBuf, String>) {
    for (path, seen) in ours {
        let is_directory = seen.starts_with("mode=4");
        if is_directory && path.components().count() <= 1 && theirs.contains_key(path) {
            theirs.insert(path.clone(), seen.clone());
        }
    }
}

#[tokio::test]
async fn a_sparse_file_of_8_gib_takes_what_it_holds() {
    const SIZE: u64 = 8 << 30;
    for format in ["gnu", "posix"] {
        let Some(image) = sparse_image("sparse_8_gib", SIZE, format) else {
            return;
        };
        // Generous for a loaded host; writing the holes, or hashing them, would take longer all the same.
        let converted = tokio::time::timeout(Duration::from_secs(60), convert(&image));
        let converted = converted.await.expect(format);
        let disk = converted.built.rootfs_path.metadata().unwrap();
        assert!(
            disk.len() < 64 << 20 && disk.blocks() * 512 < 2 << 20,
            "{format}: {disk:?}"
        );
        let Some(mounted) = Mounted::new(&converted.built.rootfs_path, "sparse_8_gib") else {
            return;
        };
        let file = fs::File::open(mounted.path().join("sparse")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), SIZE);
        for (offset, bytes) in pieces(SIZE) {
            let mut read = [1; 15];
            let from = offset.saturating_sub(5);
            let len = file.read_at(&mut read, from).unwrap();
            let at = usize::try_from(offset - from).unwrap();
            assert_eq!(&read[at..at + 5], bytes);
            assert!(
                read[..at]
                    .iter()
                    .chain(&read[at + 5..len])
                    .all(|byte| *byte == 0)
            );
        }
    }
}

/// How many files [`many_files`] makes at most.
const FILES: usize = 200_000;

/// Directories of 1,000 files and one of half of them. All names are of one length, so that only their own bytes change
/// the header's checksum.
fn path_of(number: usize, files: usize) -> String {
    let directory = if number < files / 2 {
        1000 + number / 1000
    } else {
        0
    };
    format!("d{directory:04}/file-{number:06}")
}

/// What a file holds: no other has the same.
fn content_of(number: usize) -> String {
    format!("{number:06}")
}

fn many_files(files: usize) -> Vec<u8> {
    let path = |number| path_of(number, files);
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let mut entry = Raw::new(path(0), b'0').data(content_of(0).as_bytes());
    let rest = sum(&entry[..148]) + sum(&entry[156..512]) + 256 - sum(path(0).as_bytes());
    let mut archive = Vec::with_capacity(files * 1024 + 1024);
    for number in 0..files {
        let (name, content) = (path(number), content_of(number));
        entry[..name.len()].copy_from_slice(name.as_bytes());
        entry[512..512 + content.len()].copy_from_slice(content.as_bytes());
        let checksum = format!("{:06o}\0 ", rest + sum(name.as_bytes()));
        entry[148..156].copy_from_slice(checksum.as_bytes());
        archive.extend_from_slice(&entry);
    }
    archive.extend([0; 1024]);
    archive
}

/// `BANGER_EXACT_FILES=200000` compares all of them, which takes umoci minutes.
#[tokio::test]
async fn many_small_files_are_one_by_one_what_umoci_makes() {
    let files = usize::try_from(setting("BANGER_EXACT_FILES", 10_000)).unwrap();
    assert!(files <= FILES, "at most {FILES}");
    let image = TestImage::of(&[many_files(files)]);
    compare_image("many_small_files", &image, undeclared).await;
}

#[tokio::test]
async fn two_hundred_thousand_files_are_all_there() {
    let archive = many_files(FILES);
    let compressed = zstd::encode_all(&*archive, 1).unwrap();
    let image = TestImage::new(&[(compressed, Digest::of(&archive))]);
    let begin = Instant::now();
    let converted = convert(&image).await;
    eprintln!(
        "{FILES} files converted and checked in {:?}",
        begin.elapsed()
    );
    let Some(mounted) = Mounted::new(&converted.built.rootfs_path, "many_files") else {
        return;
    };
    let mut count = 0;
    for directory in fs::read_dir(mounted.path()).unwrap() {
        let directory = directory.unwrap();
        if directory.file_name() != "lost+found" {
            count += fs::read_dir(directory.path()).unwrap().count();
        }
    }
    assert_eq!(count, FILES);
    for number in [0, 1, 99_999, 100_000, 199_999] {
        let path = mounted.path().join(path_of(number, FILES));
        assert_eq!(fs::read(path).unwrap(), content_of(number).as_bytes());
    }
}

#[tokio::test]
async fn the_one_directory_more_is_the_one_that_mkfs_makes() {
    let image = TestImage::of(&[Tar::new().dir("etc/").file("etc/name", b"name").finish()]);
    let converted = convert(&image).await;
    let Some(ours) = Mounted::new(&converted.built.rootfs_path, "lost_found_ours") else {
        return;
    };
    let (tree, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(tree.path().join("etc")).unwrap();
    let disk = place.path().join("disk");
    let options = ["-q", "-d"].map(OsStr::new);
    let files = [tree.path().as_os_str(), disk.as_os_str(), OsStr::new("4M")];
    assert!(run("mkfs.ext4", &[&options[..], &files].concat()));
    let Some(theirs) = Mounted::new(&disk, "lost_found_theirs") else {
        return;
    };
    let told = |mounted: &Mounted| {
        let directory = mounted.path().join("lost+found");
        let seen = fs::metadata(&directory).unwrap();
        let count = fs::read_dir(directory).unwrap().count();
        (seen.mode(), seen.uid(), seen.gid(), count)
    };
    assert_eq!(told(&ours), told(&theirs));
    assert_eq!(told(&ours), (0o40_700, 0, 0, 0));
    let names = |mounted: &Mounted| {
        let entries = fs::read_dir(mounted.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&ours), ["etc", "lost+found"]);
    assert_eq!(names(&theirs), names(&ours));
}

#[tokio::test]
async fn the_same_image_makes_the_same_bytes_wherever_and_however_it_comes() {
    let layers = [
        crate::support::special::changes(),
        crate::support::special::names(),
        crate::support::special::metadata(),
    ]
    .concat();
    let digest =
        |converted: &Converted| Digest::of(&fs::read(&converted.built.rootfs_path).unwrap());
    let image = TestImage::of(&layers);
    let first = convert(&image).await;
    let again = convert(&image).await;
    assert_ne!(first.directory.path(), again.directory.path());
    assert_eq!(digest(&first), digest(&again));
    // Served plain, with zstd, and layer by layer in another way: other blobs, the same content.
    let served = |number: usize, plain: &[u8]| match number % 3 {
        0 => plain.to_vec(),
        1 => zstd::encode_all(plain, 3).unwrap(),
        _ => gzip(plain),
    };
    for shift in 0..3 {
        let layers: Vec<_> = layers
            .iter()
            .enumerate()
            .map(|(number, plain)| (served(number + shift, plain), Digest::of(plain)))
            .collect();
        let other = convert(&TestImage::new(&layers)).await;
        assert_ne!(other.built.digest, first.built.digest);
        assert_eq!(digest(&other), digest(&first));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_stacks_make_what_a_model_and_umoci_make(seeds in prop::collection::vec(any::<u64>(), 100..140)) {
        let (layers, model) = stacks(&seeds);
        let image = TestImage::of(&layers);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let converted = runtime.block_on(convert(&image));
        let Some(mut ours) = converted.seen("random_stacks") else { return Ok(()) };
        ours.remove(Path::new(""));
        let from_model = differences(&ours, &model);
        prop_assert!(from_model.is_empty(), "model: {}", from_model.join("\n"));
        let Some(mut theirs) = unpacked(&image, "random_stacks") else { return Ok(()) };
        theirs.remove(Path::new(""));
        let from_umoci = differences(&ours, &theirs);
        prop_assert!(from_umoci.is_empty(), "umoci: {}", from_umoci.join("\n"));
    }
}
