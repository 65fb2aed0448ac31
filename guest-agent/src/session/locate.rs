//! Where a reader begins that does not name a byte: so many bytes or lines before the end, or at a time.

use std::sync::Arc;
use std::time::SystemTime;

use banger_proto::guest::v1::ReadOptions;
use banger_proto::guest::v1::read_options::From as ReadFrom;

use super::log::{Frame, Log};
use super::spill::Segment;
use crate::refusal::Refusal;

/// Lines before the end that may be asked for.
const LINES_MAX: u64 = 1_000_000;

/// The offset at which a reader of `log` begins, which had `range` when the reader was told of it.
///
/// # Errors
/// An offset that no output has reached, or a number of lines that is too large.
pub async fn locate(
    log: &Arc<Log>,
    (start, end): (u64, u64),
    options: &ReadOptions,
) -> Result<u64, Refusal> {
    Ok(match options.from {
        None | Some(ReadFrom::End(false) | ReadFrom::Screen(false)) => start,
        Some(ReadFrom::End(true) | ReadFrom::Screen(true)) => end,
        Some(ReadFrom::Offset(offset)) => {
            let reached = natural(offset, "an offset")?;
            if reached > end {
                return Err(Refusal::invalid(format!(
                    "the output has {end} bytes, and {offset} was asked"
                )));
            }
            reached
        }
        Some(ReadFrom::TailBytes(bytes)) => {
            let bytes = natural(bytes, "a number of bytes")?;
            end.saturating_sub(bytes).max(start)
        }
        Some(ReadFrom::TailLines(lines)) => {
            let lines = natural(lines, "a number of lines")?;
            if lines > LINES_MAX {
                return Err(Refusal::invalid(format!(
                    "more than {LINES_MAX} lines were asked"
                )));
            }
            tail(log, start, end, lines).await
        }
        Some(ReadFrom::Since(time)) => {
            let time = SystemTime::try_from(time)
                .map_err(|_| Refusal::invalid("a time is out of range"))?;
            since(log, start, end, time).await
        }
    })
}

fn natural(number: i64, what: &str) -> Result<u64, Refusal> {
    u64::try_from(number).map_err(|_| Refusal::invalid(format!("{what} is negative")))
}

/// The beginning of the last `lines` lines before `end`.
async fn tail(log: &Arc<Log>, start: u64, end: u64, lines: u64) -> u64 {
    if lines == 0 {
        return end;
    }
    // A line end at the very end begins no line.
    let mut left = lines;
    for part in log.parts().into_iter().rev() {
        for frame in frames(log, part).await.iter().rev() {
            for (index, byte) in frame.data.iter().enumerate().rev() {
                let after = frame.offset + index as u64 + 1;
                if *byte != b'\n' || after >= end {
                    continue;
                }
                left -= 1;
                if left == 0 {
                    return after.max(start);
                }
            }
        }
    }
    start
}

/// The first output that was read at `time` or later.
async fn since(log: &Arc<Log>, start: u64, end: u64, time: SystemTime) -> u64 {
    let parts = log.parts();
    // What is before the last part that begins earlier is earlier as a whole.
    let earlier = parts.iter().rposition(|part| part.time() < time);
    for part in parts.into_iter().skip(earlier.unwrap_or_default()) {
        let frames = frames(log, part).await;
        if let Some(frame) = frames.iter().find(|frame| frame.time >= time) {
            return frame.offset.clamp(start, end);
        }
    }
    end
}

/// A part of a log that can be looked at alone.
#[derive(Debug, Clone)]
pub enum Part {
    /// On the disk.
    Segment(Segment),
    /// In memory.
    Frame(Frame),
}

impl Part {
    fn time(&self) -> SystemTime {
        match self {
            Self::Segment(segment) => segment.time,
            Self::Frame(frame) => frame.time,
        }
    }
}

async fn frames(log: &Arc<Log>, part: Part) -> Vec<Frame> {
    match part {
        // One that was evicted meanwhile has nothing any more.
        Part::Segment(segment) => log.load(segment).await.unwrap_or_default(),
        Part::Frame(frame) => vec![frame],
    }
}

#[cfg(test)]
mod tests;
