//! What the index remembers of files that were written after it.
//!
//! git takes a file for changed whose size is not the one that it wrote, without looking into it, though it may be the
//! same to git once line ends are taken into account. So the index forgets what it knows of files that came with the
//! entries, and looks at them anew.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;

use crate::guest::{Place, WorkError};

/// Looks anew at the files at `paths`, of the repositories at `places`.
pub(super) fn look_anew(
    staged: &Place,
    places: &[Bytes],
    paths: &HashSet<Bytes>,
) -> Result<(), WorkError> {
    if paths.is_empty() {
        return Ok(());
    }
    for place in places {
        let directory = match &place[..] {
            b"" => staged.path.clone(),
            place => staged.path.join(OsStr::from_bytes(place)),
        };
        let git = staged.git(&directory);
        let listed = git.run(&["ls-files", "--stage", "-z"])?;
        let is_told = |line: &&[u8]| {
            let Some(tab) = line.iter().position(|&byte| byte == b'\t') else {
                return false;
            };
            let path = match &place[..] {
                b"" => line[tab + 1..].to_vec(),
                place => [place, b"/", &line[tab + 1..]].concat(),
            };
            line[..tab].ends_with(b" 0") && paths.contains(&path[..])
        };
        let lines: Vec<&[u8]> = listed.split(|&byte| byte == 0).filter(is_told).collect();
        if lines.is_empty() {
            continue;
        }
        let feed = |to: &mut dyn Write| {
            let mut to = BufWriter::new(to);
            for line in lines {
                to.write_all(line)?;
                to.write_all(b"\0")?;
            }
            to.flush()
        };
        git.feed(&["update-index", "-z", "--index-info"], feed)?;
        // It fails where files are changed, which they may be.
        git.test(&["update-index", "-q", "--refresh"])?;
    }
    Ok(())
}
