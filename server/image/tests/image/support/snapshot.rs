//! Everything that can be seen of a tree of files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use banger_core::Digest;
use sha2::{Digest as _, Sha256};

/// What can be seen of one file.
pub struct Seen {
    /// With its type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// 0 for directories: that is the file system's affair.
    pub size: u64,
    pub mtime: (i64, i64),
    /// The first path of the same inode.
    pub inode: PathBuf,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// A digest, a target, a device number.
    pub content: String,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "mode={:o} uid={} gid={} size={} mtime={}.{} inode={} xattrs={:?} {}",
            self.mode,
            self.uid,
            self.gid,
            self.size,
            self.mtime.0,
            self.mtime.1,
            self.inode.display(),
            self.xattrs,
            self.content,
        )
    }
}

/// Everything that can be seen of a file, by path; link counts and identity as the first path of each inode.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
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
            digest_of(&full)
        } else if kind.is_symlink() {
            fs::read_link(&full)
                .unwrap()
                .as_os_str()
                .as_encoded_bytes()
                .escape_ascii()
                .to_string()
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
        let seen_as = Seen {
            mode: metadata.mode(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            size,
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            inode,
            xattrs: xattrs(&full),
            content,
        };
        seen.insert(path, seen_as.to_string());
    }
    seen
}

/// Of a file's content, which may be larger than memory.
fn digest_of(path: &Path) -> String {
    let mut file = fs::File::open(path).unwrap();
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return Digest::from_sha256(hasher.finalize().into()).short(),
            read => hasher.update(&piece[..read]),
        }
    }
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
