//! The initramfs: the agent as `/init`, and the modules it loads first. An uncompressed `newc` archive
//! (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`): unpacking is what costs a guest
//! time. The same agent and kernel make the same bytes.

use std::io::{self, Write};

use cpio::newc::Builder;

/// Changes whenever the same inputs would make another archive.
pub(super) const FORMAT: &str = "v1";
/// Directories of the first root; the agent mounts on most of them.
const DIRECTORIES: [&str; 9] = [
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "etc",
    "newroot",
    "banger",
    "banger/modules",
];

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CONSOLE: u32 = 0o020_600;

/// Writes the archive: `modules` are file names, in load order, with their content.
pub(super) fn write<W: Write>(
    mut out: W,
    agent: &[u8],
    modules: &[(String, Vec<u8>)],
) -> io::Result<W> {
    let mut inode = 0;
    let mut entry = |path: &str, mode: u32, links: u32| {
        inode += 1;
        Builder::new(path).ino(inode).mode(mode).nlink(links)
    };
    let mut heads: Vec<Builder> = DIRECTORIES
        .iter()
        .map(|path| entry(path, DIRECTORY, 2))
        .collect();
    heads.push(entry("dev/console", CONSOLE, 1).rdev_major(5).rdev_minor(1));
    for head in heads {
        out = head.write(out, 0).finish()?;
    }
    out = add(out, entry("init", EXECUTABLE, 1), agent)?;
    for (name, bytes) in modules {
        out = add(
            out,
            entry(&format!("banger/modules/{name}"), FILE, 1),
            bytes,
        )?;
    }
    cpio::newc::trailer(out)
}

fn add<W: Write>(out: W, head: Builder, bytes: &[u8]) -> io::Result<W> {
    let len =
        u32::try_from(bytes.len()).map_err(|_| io::Error::other("a file of more than 4 GiB"))?;
    let mut writer = head.write(out, len);
    writer.write_all(bytes)?;
    writer.finish()
}
