//! Takes a process's output into the log, as fast as it comes and no faster than its readers allow.

use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use banger_proto::guest::v1::Stream;
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use tokio_util::sync::CancellationToken;

use super::log::Log;
use super::start::End;

/// The most that is read at once, which is also the largest frame.
pub const READ_MAX_BYTES: usize = 256 << 10;
/// What is read at once until that was not enough, so that many quiet sessions cost little memory.
const READ_LEAST_BYTES: usize = 16 << 10;
/// A read of at least this much becomes a frame without being copied.
const HAND_OVER_BYTES: usize = READ_MAX_BYTES / 4;
/// What a pipe holds until it was seen full.
const PIPE_BYTES: usize = 64 << 10;
/// What a pipe holds from then on.
const PIPE_MAX_BYTES: usize = 1 << 20;
/// So long after the first process of a session has ended and the others were killed, its output ends at the first
/// moment without any, though somebody may still hold the other end.
const OPEN_AFTER_END: Duration = Duration::from_secs(2);
/// And so it does after this much output: more than was in the pipe at that moment.
const OUTPUT_AFTER_END_BYTES: usize = 4 * PIPE_MAX_BYTES;

/// Whether a short read means that there is no more for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A pipe gives all that it has.
    Pipe,
    /// A terminal gives a part of what it has.
    Terminal,
}

/// Reads `end` into `log` until its end, or a bounded time after `ended`: then somebody holds the other end, and ours is
/// given back. With `keeps_children` those who hold it may be there for long: of a pipe, which has all that was written
/// at once, only that is read then.
pub async fn pump(
    end: End,
    source: Source,
    stream: Stream,
    log: Arc<Log>,
    ended: CancellationToken,
    keeps_children: bool,
) -> Option<End> {
    let mut buffer = Vec::with_capacity(READ_LEAST_BYTES);
    let mut is_enlarged = source == Source::Terminal;
    let mut left = OUTPUT_AFTER_END_BYTES;
    let open = match source {
        Source::Pipe if keeps_children => Duration::ZERO,
        _ => OPEN_AFTER_END,
    };
    let mut late = pin!(async {
        ended.cancelled().await;
        tokio::time::sleep(open).await;
    });
    let mut is_late = false;
    loop {
        log.room().await;
        let read = if is_late {
            now(&end, &mut buffer)
        } else {
            tokio::select! {
                biased; // output first: the end is only of interest where there is none
                // cancel-safe: nothing is awaited after bytes were taken
                read = read(&end, source, &mut buffer) => read,
                // stays pinned, and is not asked again
                () = &mut late => {
                    is_late = true;
                    now(&end, &mut buffer)
                }
            }
        };
        let length = match read {
            Ok(length) if length > 0 => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(end),
            // A terminal whose other end is closed answers with an error: that is its end.
            Ok(_) | Err(_) => return None,
        };
        if length >= PIPE_BYTES && !is_enlarged {
            is_enlarged = true;
            // Where the kernel refuses, the pipe stays as it is.
            let _ = fcntl_setpipe_size(end.get_ref().as_fd(), PIPE_MAX_BYTES);
        }
        let is_full = length == buffer.capacity();
        log.append(stream, take(&mut buffer));
        log.settle().await;
        if is_full || buffer.capacity() == 0 {
            buffer = Vec::with_capacity(READ_MAX_BYTES);
        }
        if ended.is_cancelled() {
            left = left.saturating_sub(length);
            if left == 0 {
                return Some(end);
            }
        }
    }
}

/// Reads what somebody still writes who was kept, to nowhere: neither is it to wait, nor to be ended by a pipe that
/// nobody reads.
pub async fn discard(end: End) {
    let mut buffer = Vec::with_capacity(READ_LEAST_BYTES);
    // A terminal gives a part of what it has: asked as one, any end does.
    while let Ok(1..) = read(&end, Source::Terminal, &mut buffer).await {
        buffer.clear();
    }
}

/// What there is at this moment, whatever is known of it.
fn now(end: &End, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        match rustix::io::read(end.get_ref(), spare_capacity(buffer)) {
            Err(Errno::INTR) => {}
            read => return Ok(read?),
        }
    }
}

/// One read into the empty `buffer`.
async fn read(end: &End, source: Source, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        let mut guard = end.readable().await?;
        match rustix::io::read(end.get_ref(), spare_capacity(buffer)) {
            Ok(length) => {
                // Saves the read that would say so; what came meanwhile is told again.
                if source == Source::Pipe && length > 0 && length < buffer.capacity() {
                    guard.clear_ready();
                }
                return Ok(length);
            }
            Err(Errno::AGAIN) => guard.clear_ready(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The bytes that were read: a large buffer itself, or a copy of the right size.
fn take(buffer: &mut Vec<u8>) -> Bytes {
    if buffer.len() >= HAND_OVER_BYTES {
        return Bytes::from(std::mem::take(buffer));
    }
    let bytes = Bytes::copy_from_slice(buffer);
    buffer.clear();
    bytes
}
