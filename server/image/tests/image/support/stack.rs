//! Random stacks of layers, and what they should make: a model that knows nothing but paths, written from the
//! OCI image specification ("Applying Changesets") and without a line of the code it judges.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use banger_core::Digest;

use super::Tar;
use super::snapshot::Seen;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const STEPS_PER_LAYER: u64 = 14;
const LAYERS_MAX: u64 = 4;
const DEPTH_MAX: usize = 4;

/// Numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

/// What is at a path.
#[derive(Debug, Clone)]
struct Node {
    /// Names with the same number are one file.
    inode: usize,
    kind: u8,
    mode: u32,
    mtime: (i64, i64),
    data: Vec<u8>,
    target: String,
    xattrs: BTreeMap<String, Vec<u8>>,
}

/// One stack under a directory of its own, so that many fit into one image.
#[derive(Debug)]
struct Stack {
    root: String,
    random: u64,
    tree: BTreeMap<String, Node>,
    /// What the current layer said something about.
    touched: BTreeSet<String>,
    inodes: usize,
}

/// A layer that may be under construction in several places.
struct Layers(Vec<Tar>);

impl Layers {
    fn add(&mut self, layer: u64, add: impl FnOnce(Tar) -> Tar) {
        let layer = usize::try_from(layer).unwrap();
        let tar = std::mem::take(&mut self.0[layer]);
        self.0[layer] = add(tar);
    }
}

/// The stacks of `seeds` as one image's layers, and all that should be seen of them.
pub fn stacks(seeds: &[u64]) -> (Vec<Vec<u8>>, BTreeMap<PathBuf, String>) {
    let mut layers = Layers((0..LAYERS_MAX).map(|_| Tar::new()).collect());
    layers.add(0, |tar| tar.dir("./"));
    let mut seen = BTreeMap::new();
    for (number, seed) in seeds.iter().enumerate() {
        let stack = Stack::build(format!("{number:04}-{seed:x}"), *seed, &mut layers);
        seen.extend(stack.seen());
    }
    (layers.0.into_iter().map(Tar::finish).collect(), seen)
}

impl Stack {
    fn build(root: String, seed: u64, layers: &mut Layers) -> Self {
        let mut stack = Self {
            root,
            random: seed,
            tree: BTreeMap::new(),
            touched: BTreeSet::new(),
            inodes: 0,
        };
        let mut random = Random(stack.random);
        let root = stack.root.clone();
        stack.put(&root, b'5', &mut random, 0, layers);
        for layer in 0..LAYERS_MAX {
            stack.touched.clear();
            for _ in 0..random.below(STEPS_PER_LAYER) {
                stack.step(&mut random, layer, layers);
            }
        }
        stack
    }

    fn step(&mut self, random: &mut Random, layer: u64, layers: &mut Layers) {
        let directories = self.paths(|node| node.kind == b'5');
        let parent = random.of(&directories).clone();
        let path = format!("{parent}/{}", random.of(&NAMES));
        match random.below(10) {
            0..=2 if path.matches('/').count() < DEPTH_MAX => {
                self.put(&path, b'5', random, layer, layers);
            }
            3..=5 => self.put(&path, b'0', random, layer, layers),
            6 => self.put(&path, *random.of(b"2346"), random, layer, layers),
            7 => {
                let files = self.paths(|node| node.kind != b'5');
                if !files.is_empty() {
                    let target = random.of(&files).clone();
                    self.link(&path, &target, layer, layers);
                }
            }
            8 => self.white_out(&parent, layer, layers),
            _ => self.make_opaque(&parent, random, layer, layers),
        }
    }

    /// A new file, or new owner, mode and attributes of a directory.
    fn put(&mut self, path: &str, kind: u8, random: &mut Random, layer: u64, layers: &mut Layers) {
        let there = self.tree.get(path);
        let is_kept = kind == b'5' && there.is_some_and(|there| there.kind == b'5');
        // Twice in one layer is nothing tools write.
        if self.touched.contains(path) || (!is_kept && self.is_touched_below(path)) {
            return;
        }
        if !is_kept {
            self.remove(path);
        }
        let nanos = random.below(1_000_000_000);
        let len = usize::try_from(random.below(3) * random.below(5000)).unwrap();
        let mut node = Node {
            inode: self.inodes,
            kind,
            mode: u32::try_from(random.below(0o10000)).unwrap(),
            mtime: (
                i64::try_from(random.below(2_000_000_000)).unwrap(),
                i64::try_from(nanos).unwrap(),
            ),
            data: if kind == b'0' {
                super::noise(u32::try_from(random.below(1 << 30)).unwrap(), len)
            } else {
                Vec::new()
            },
            target: if kind == b'2' {
                "x/".repeat(1 + usize::try_from(random.below(45)).unwrap())
            } else {
                String::new()
            },
            xattrs: BTreeMap::new(),
        };
        if kind == b'2' {
            node.mode = 0o777; // a link has no other on Linux
        }
        if random.below(4) == 0 {
            let len = usize::try_from(random.below(200)).unwrap() + 1;
            let value = super::noise(u32::try_from(nanos).unwrap(), len);
            node.xattrs.insert("trusted.test".to_owned(), value);
        }
        self.inodes += 1;
        layers.add(layer, |tar| {
            let mtime = format!("{}.{nanos:09}", node.mtime.0);
            let mut records = vec![("mtime", mtime.as_bytes())];
            records.extend(
                node.xattrs
                    .values()
                    .map(|value| ("SCHILY.xattr.trusted.test", &**value)),
            );
            tar.add(path, kind, node.mode, &node.data, &node.target, &records)
        });
        self.tree.insert(path.to_owned(), node);
        self.touched.insert(path.to_owned());
    }

    fn link(&mut self, path: &str, target: &str, layer: u64, layers: &mut Layers) {
        if self.touched.contains(path)
            || self.is_touched_below(path)
            || path == target
            || target.starts_with(&format!("{path}/"))
        {
            return;
        }
        let node = self.tree[target].clone();
        self.remove(path);
        layers.add(layer, |tar| tar.add(path, b'1', 0o600, b"", target, &[]));
        self.tree.insert(path.to_owned(), node);
        self.touched.insert(path.to_owned());
    }

    /// Hides one child that only lower layers know.
    fn white_out(&mut self, parent: &str, layer: u64, layers: &mut Layers) {
        let prefix = format!("{parent}/");
        let child = self.tree.keys().find(|path| {
            path.strip_prefix(&prefix)
                .is_some_and(|name| !name.contains('/'))
                && !self.touched.contains(*path)
                && !self.is_touched_below(path)
        });
        let Some(path) = child.cloned() else { return };
        self.remove(&path);
        let name = &path[prefix.len()..];
        layers.add(layer, |tar| tar.file(&format!("{prefix}.wh.{name}"), b""));
        // A name that was hidden may come again, but behind its whiteout.
    }

    fn make_opaque(&mut self, path: &str, random: &mut Random, layer: u64, layers: &mut Layers) {
        if path == self.root || self.touched.contains(path) || self.is_touched_below(path) {
            return;
        }
        self.put(path, b'5', random, layer, layers);
        let prefix = format!("{path}/");
        self.tree.retain(|path, _| !path.starts_with(&prefix));
        layers.add(layer, |tar| tar.file(&format!("{prefix}.wh..wh..opq"), b""));
    }

    fn remove(&mut self, path: &str) {
        let prefix = format!("{path}/");
        self.tree
            .retain(|other, _| other != path && !other.starts_with(&prefix));
    }

    fn is_touched_below(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        self.touched.iter().any(|other| other.starts_with(&prefix))
    }

    fn paths(&self, wanted: impl Fn(&Node) -> bool) -> Vec<String> {
        let found = self.tree.iter().filter(|(_, node)| wanted(node));
        found.map(|(path, _)| path.clone()).collect()
    }

    fn seen(&self) -> BTreeMap<PathBuf, String> {
        let mut first = BTreeMap::new();
        let mut seen = BTreeMap::new();
        let mut sorted: Vec<_> = self
            .tree
            .iter()
            .map(|(path, node)| (PathBuf::from(path), node))
            .collect();
        sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (path, node) in sorted {
            let inode: PathBuf = first
                .entry(node.inode)
                .or_insert_with(|| path.clone())
                .clone();
            let (bits, size, content) = match node.kind {
                b'5' => (0o040_000, 0, String::new()),
                b'0' => (0o100_000, node.data.len(), Digest::of(&node.data).short()),
                b'2' => (0o120_000, node.target.len(), node.target.clone()),
                b'3' => (0o020_000, 0, rustix::fs::makedev(7, 300).to_string()),
                b'4' => (0o060_000, 0, rustix::fs::makedev(7, 300).to_string()),
                _ => (0o010_000, 0, String::new()),
            };
            let line = Seen {
                mode: bits | node.mode,
                uid: 1000,
                gid: 1001,
                size: size as u64,
                mtime: node.mtime,
                inode,
                xattrs: node.xattrs.clone(),
                content,
            };
            seen.insert(path, line.to_string());
        }
        seen
    }
}
