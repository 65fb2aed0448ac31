//! Reads a file, or a part of it.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use banger_proto::guest::v1::read_file_response::Message;
use banger_proto::guest::v1::{FileKind, ReadFileRequest, ReadFileResponse};
use rustix::fs::OFlags;

use super::{Here, wrong};
use crate::refusal::{Problem, Refusal};
use crate::tree::{PIECE_BYTES, failed};

pub(super) fn read(
    here: &Here,
    request: &ReadFileRequest,
    deliver: &mut dyn FnMut(ReadFileResponse) -> bool,
) -> Result<(), Refusal> {
    let path = &request.path[..];
    // A pipe that nobody writes must not hold the thread.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = here.open(&here.inside(path)?, flags, path)?;
    let info = here.describe(&opened, b"", path)?;
    match info.kind() {
        FileKind::File => {}
        FileKind::Directory => return Err(wrong(Problem::IsDirectory, path, "Is a directory")),
        _ => return Err(wrong(Problem::NotRegular, path, "is no regular file")),
    }
    let size = u64::try_from(info.size).unwrap_or_default();
    let offset = match u64::try_from(request.offset) {
        Ok(offset) => offset,
        Err(_) => size.saturating_sub(request.offset.unsigned_abs()),
    };
    let mut left = match request.length {
        None => u64::MAX,
        Some(length) => {
            u64::try_from(length).map_err(|_| Refusal::invalid("a length is negative"))?
        }
    };
    let mut hand = |message| {
        deliver(ReadFileResponse {
            message: Some(message),
        })
    };
    if !hand(Message::File(info)) {
        return Ok(());
    }
    let mut file = File::from(opened);
    if offset > 0 {
        file.seek(SeekFrom::Start(offset))
            .map_err(|error| failed("seeking", path, error))?;
    }
    while left > 0 {
        let want = left.min(PIECE_BYTES as u64);
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        (&file)
            .take(want)
            .read_to_end(&mut piece)
            .map_err(|error| failed("reading", path, error))?;
        if piece.is_empty() {
            return Ok(());
        }
        left -= piece.len() as u64;
        if !hand(Message::Data(piece.into())) {
            return Ok(());
        }
    }
    Ok(())
}
