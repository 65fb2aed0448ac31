//! Everything that can be seen of a tree of files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use banger_core::Digest;

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
