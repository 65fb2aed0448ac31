//! What is in a directory and in those below it, page by page: each directory before what is in it, names in the
//! order of their bytes, so that a page can begin after any path, whether that is still there or not.
//!
//! Nothing is kept between pages: each reads the names of a directory again, and keeps and sorts no more of them than it
//! has room for.

use std::ops::Bound;

use banger_proto::guest::v1::{self as proto, FileKind, ListFilesRequest, ListFilesResponse};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Here;
use crate::refusal::{Problem, Refusal};
use crate::tree::{PATH_MAX_BYTES, failed, relative_names, walk};

/// Directories that are gone down at most.
const DEPTH_MAX: u32 = 64;
/// Entries of one answer at most.
const ENTRIES_MAX: usize = 1000;
/// Bytes of paths and links of one answer: what is beyond is the next page's.
const TEXT_MAX_BYTES: usize = 1 << 20;

pub(super) fn list(here: &Here, request: &ListFilesRequest) -> Result<ListFilesResponse, Refusal> {
    let path = &request.path[..];
    let directory = here.open(
        &here.inside(path)?,
        OFlags::RDONLY | OFlags::DIRECTORY,
        path,
    )?;
    let after = relative_names(&request.after)?;
    let limit = usize::try_from(request.limit).unwrap_or(ENTRIES_MAX);
    let mut page = Page {
        here,
        limit: limit.clamp(1, ENTRIES_MAX),
        text: 0,
        files: Vec::new(),
        has_more: false,
    };
    page.directory(
        &directory,
        b"",
        request.depth.clamp(1, DEPTH_MAX),
        (!after.is_empty()).then_some(&after[..]),
    )?;
    Ok(ListFilesResponse {
        files: page.files,
        has_more: page.has_more,
    })
}

struct Page<'a> {
    here: &'a Here,
    limit: usize,
    text: usize,
    files: Vec<proto::FileInfo>,
    has_more: bool,
}

/// An open directory below, if it is to be listed and may be.
enum Below {
    None,
    Open(OwnedFd),
    Unreadable,
}

impl Page<'_> {
    /// Adds what is in `directory`, called `path`, and comes after the names `after`.
    fn directory(
        &mut self,
        directory: &OwnedFd,
        path: &[u8],
        depth: u32,
        mut after: Option<&[&[u8]]>,
    ) -> Result<(), Refusal> {
        let mut last: Option<Vec<u8>> = None;
        loop {
            let from = match (&last, after) {
                (Some(last), _) => Bound::Excluded(&last[..]),
                (None, Some([first, ..])) => Bound::Included(*first),
                (None, _) => Bound::Unbounded,
            };
            // One more than there is room for tells that there is more. Those that go meanwhile make room.
            let most = self.limit - self.files.len() + 2;
            let names = walk::list_from(directory, path, from, most)?;
            let is_all = names.len() < most;
            for name in names {
                let (is_told, after) = match after.take() {
                    Some([first, rest @ ..]) if name[..] == **first => {
                        (true, (!rest.is_empty()).then_some(rest))
                    }
                    _ => (false, None),
                };
                let path = match path {
                    b"" => name.clone(),
                    path => [path, &name].join(&b'/'),
                };
                if path.len() > PATH_MAX_BYTES {
                    return Err(failed("reading", &path, Errno::NAMETOOLONG));
                }
                self.one(directory, &name, &path, depth, is_told, after)?;
                if self.has_more {
                    return Ok(());
                }
                last = Some(name);
            }
            if is_all {
                return Ok(());
            }
        }
    }

    fn one(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        depth: u32,
        is_told: bool,
        after: Option<&[&[u8]]>,
    ) -> Result<(), Refusal> {
        let mut info = match self.here.describe(parent, name, path) {
            Ok(info) => info,
            // It went meanwhile.
            Err(Refusal::Path {
                problem: Problem::NotFound,
                ..
            }) => return Ok(()),
            Err(refusal) => return Err(refusal),
        };
        let below = match info.kind() == FileKind::Directory && depth > 1 {
            true => below(parent, name, path)?,
            false => Below::None,
        };
        info.is_unreadable = matches!(below, Below::Unreadable);
        if !is_told && !self.tell(info) {
            return Ok(());
        }
        match below {
            Below::Open(directory) => self.directory(&directory, path, depth - 1, after),
            Below::None | Below::Unreadable => Ok(()),
        }
    }

    /// Whether there was room for it.
    fn tell(&mut self, info: proto::FileInfo) -> bool {
        self.text += info.path.len() + info.link_target.len();
        if self.files.len() >= self.limit || (self.text > TEXT_MAX_BYTES && !self.files.is_empty())
        {
            self.has_more = true;
            return false;
        }
        self.files.push(info);
        true
    }
}

fn below(parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Below, Refusal> {
    match walk::open(parent, name, path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(directory) => Ok(Below::Open(directory)),
        Err(Refusal::Path {
            problem: Problem::AccessDenied,
            ..
        }) => Ok(Below::Unreadable),
        // It is another thing now, or gone.
        Err(Refusal::Path {
            problem: Problem::NotFound | Problem::NotDirectory | Problem::LinkLoop,
            ..
        }) => Ok(Below::None),
        Err(refusal) => Err(refusal),
    }
}
