//! The targets of `cargo fuzz` without its tools: the whole corpus, and mutations of it. Bounded by count and time;
//! the seed is printed, and `BANGER_FUZZ_SEED`, `BANGER_FUZZ_SECONDS` and `BANGER_FUZZ_MUTATIONS` choose others.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::raw::{Raw, pax};
use crate::support::{Tar, gzip};

const MUTATIONS_MAX: u64 = 20_000;
/// For each of the targets.
const SECONDS: u64 = 2;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target)
}

/// The inputs of a target, by file name; what `cargo fuzz` found beside them is its own.
fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut inputs: Vec<_> = std::fs::read_dir(corpus(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "seed"))
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 3, "{target}: {} inputs", inputs.len());
    inputs
}

/// Says which input it was when a target panics.
struct Trying<'a> {
    target: &'a str,
    what: String,
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {}", self.target, self.what);
        }
    }
}

/// Numbers from a seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }

    /// Bytes somewhere, of a kind that hurts: flipped, extreme, moved, doubled, cut off.
    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        const EXTREMES: [&[u8]; 8] = [
            b"\0",
            b"\xff",
            b"7777777",
            b"-1",
            b"/",
            b"..",
            b"99999999999999999999",
            b"\x80\xff\xff\xff",
        ];
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 => {
                    let with = EXTREMES[self.below(EXTREMES.len())];
                    for (byte, value) in bytes[at..].iter_mut().zip(with) {
                        *byte = *value;
                    }
                }
                // Whole blocks, as archives are made of them.
                2 => drop(bytes.splice(
                    at / 512 * 512..at / 512 * 512,
                    block(other, self.below(other.len())),
                )),
                3 => drop(bytes.drain(at / 512 * 512..(at / 512 * 512 + 512).min(bytes.len()))),
                4 if self.below(4) == 0 => bytes.truncate(at),
                _ if !bytes.is_empty() => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                _ => {}
            }
        }
    }
}

fn block(bytes: &[u8], at: usize) -> Vec<u8> {
    bytes
        .iter()
        .skip(at / 512 * 512)
        .take(512)
        .copied()
        .collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn run(target: &'static str, entry: fn(&[u8])) {
    let inputs = inputs(target);
    for (path, bytes) in &inputs {
        let what = path.display().to_string();
        let _trying = Trying { target, what };
        entry(bytes);
    }
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = number("BANGER_FUZZ_SEED").unwrap_or(u64::from(since.subsec_nanos()) << 1 | 1);
    println!("{target}: seed {seed}");
    let mut random = Random(seed | 1);
    let limit = Duration::from_secs(number("BANGER_FUZZ_SECONDS").unwrap_or(SECONDS));
    let begin = Instant::now();
    let mutations = number("BANGER_FUZZ_MUTATIONS").unwrap_or(MUTATIONS_MAX);
    for mutation in 0..mutations {
        if begin.elapsed() > limit {
            return;
        }
        let mut bytes = inputs[random.below(inputs.len())].1.clone();
        let other = random.below(inputs.len());
        random.mutate(&mut bytes, &inputs[other].1);
        let what = format!(
            "mutation {mutation} of seed {seed}: {}",
            bytes.escape_ascii()
        );
        let _trying = Trying { target, what };
        entry(&bytes);
    }
}

#[test]
fn no_layer_makes_a_wrong_disk_or_a_panic() {
    run("layer", banger_image::fuzz::layer);
}

#[test]
fn no_bundle_makes_the_reader_panic() {
    run("bundle", banger_image::fuzz::bundle);
}

#[test]
fn no_catalog_makes_the_reader_panic() {
    run("catalog_index", banger_image::fuzz::catalog_index);
}

#[test]
fn no_document_makes_the_reader_panic() {
    run("documents", banger_image::fuzz::documents);
}

#[test]
fn no_kernel_makes_its_readers_panic() {
    run("kernel", banger_image::fuzz::kernel);
}

#[test]
fn no_modules_make_their_reader_panic() {
    run("kernel_modules", banger_image::fuzz::kernel_modules);
}

#[test]
fn no_kernel_bundle_makes_the_reader_panic() {
    run("kernel_bundle", banger_image::fuzz::kernel_bundle);
}

/// The corpus as it is committed: one small input for each thing a reader knows.
fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let file = || Raw::new("f", b'0').data(b"12345678");
    let sparse = |records: &[(&str, &[u8])], data: &[u8]| {
        [pax(records), Raw::new("GNUSparseFile.1/s", b'0').data(data)].concat()
    };
    let mut map = b"1\n4096\n8\n".to_vec();
    map.resize(512, 0);
    map.extend(b"12345678");
    let old_sparse = Raw::new("s", b'S')
        .field(257, b"ustar  \0")
        .field(386, b"00000010000")
        .field(398, b"00000000010")
        .field(483, b"00000020000\0")
        .data(b"12345678");
    let links = Tar::new()
        .dir("a/")
        .file("a/x", b"x")
        .add("b", b'1', 0, b"", "a/x", &[])
        .link("c", "a")
        .file("c/y", b"through")
        .file("a/.wh.x", b"")
        .file("a/.wh..wh..opq", b"");
    let attributes = Tar::new()
        .add("x", b'0', 0o4755, b"x", "", &[("SCHILY.xattr.user.a", b"1\n2"), ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), ("mtime", b"-1.5"), ("uid", b"70000")])
        .add("d", b'5', 0o1777, b"", "", &[("SCHILY.xattr.system.posix_acl_default", b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff")])
        .add("n", b'3', 0o600, b"", "", &[])
        .add("p", b'6', 0o600, b"", "", &[]);
    let long = Tar::new()
        .file(&"long/".repeat(40), b"")
        .link("l", &"t".repeat(200));
    let plain = Tar::new().dir("etc/").file("etc/name", b"name").finish();
    let manifest = r#"{"format":"banger.image.v1","rootfs":{"size_bytes":4096}}"#;
    let bundle = |order: [(&str, &[u8]); 2]| {
        let members = order.map(|(name, data)| Raw::new(name, b'0').data(data));
        [members.concat(), vec![0; 1024]].concat()
    };
    let (one, other) = (
        ("manifest.json", manifest.as_bytes()),
        ("rootfs.ext4", &[1u8; 4096][..]),
    );
    let digest = banger_core::Digest::of(b"");
    let descriptor = |kind: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":3,"platform":{{"os":"linux","architecture":"amd64"}}}}"#
        )
    };
    let index = r#"{"format":"banger.catalog.v1","name":"main","version":1,"create_time":"2026-01-01T00:00:00Z","expire_time":"2036-01-01T00:00:00Z","bundles":[],"kernels":[]}"#;
    vec![
        ("layer", "file.seed", file()),
        ("layer", "raw-name.seed", Raw::new(b"caf\xe9", b'5').header()),
        ("layer", "links.seed", links.finish()),
        ("layer", "attributes.seed", attributes.finish()),
        ("layer", "long.seed", long.finish()),
        ("layer", "sparse-0.0.seed", sparse(&[("GNU.sparse.size", b"8192"), ("GNU.sparse.numblocks", b"1"), ("GNU.sparse.offset", b"4096"), ("GNU.sparse.numbytes", b"8")], b"12345678")),
        ("layer", "sparse-0.1.seed", sparse(&[("GNU.sparse.size", b"8192"), ("GNU.sparse.name", b"s"), ("GNU.sparse.map", b"4096,8")], b"12345678")),
        ("layer", "sparse-1.0.seed", sparse(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.name", b"s"), ("GNU.sparse.realsize", b"8192")], &map)),
        ("layer", "sparse-old.seed", old_sparse),
        ("layer", "gzip.seed", gzip(&plain)),
        ("layer", "zstd.seed", zstd::encode_all(&*plain, 3).unwrap()),
        ("bundle", "manifest-first.seed", bundle([one, other])),
        ("bundle", "disk-first.seed", bundle([other, one])),
        ("bundle", "compressed.seed", zstd::encode_all(&*bundle([one, other]), 3).unwrap()),
        ("catalog_index", "index.seed", index.into()),
        ("catalog_index", "envelope.seed", br#"{"payloadType":"application/vnd.banger.catalog.v1+json","payload":"e30=","signatures":[{"keyid":"","sig":"AAAA"}]}"#.to_vec()),
        ("catalog_index", "object.seed", b"{}".to_vec()),
        ("documents", "manifest.seed", format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, descriptor("config.v1+json"), descriptor("layer.v1.tar+gzip")).into()),
        ("documents", "index.seed", format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor("manifest.v1+json")).into()),
        ("documents", "config.seed", format!(r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=b"],"Cmd":null,"ExposedPorts":{{"80/tcp":{{}}}}}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#).into()),
    ]
}

#[test]
fn the_seeds_of_the_corpus_are_what_is_committed() {
    let seeds = seeds().into_iter();
    let seeds = seeds.map(|(target, name, bytes)| (target, name.to_owned(), bytes));
    for (target, name, bytes) in seeds.chain(banger_image::fuzz::kernel_seeds()) {
        let path = corpus(target).join(&name);
        if std::env::var_os("BANGER_REGENERATE").is_some() {
            std::fs::create_dir_all(corpus(target)).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        // What compresses may change; what it holds does not.
        let is_compressed = [
            "gzip",
            "xz",
            "zstd",
            "lz4",
            "compressed",
            "packed",
            "embedded-config",
        ]
        .iter()
        .any(|kind| name.ends_with(&format!("{kind}.seed")));
        let committed =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(is_compressed || committed == bytes, "{}", path.display());
    }
}
