//! The line handshake by which both ends of an agent channel start afresh.
//!
//! A virtio-serial port has no connections: when the host leaves and comes back, the guest may still be in
//! the former conversation. So each conversation starts with lines, and only then carries HTTP/2:
//!
//! ```text
//! host                              agent
//!   │ HELLO <nonce>  ──────────────►  │     at once, for every AGENT, and every second
//!   │  ◄──────────────────────  AGENT │     whenever it starts over
//!   │  ◄──────────────  READY <nonce> │     this nonce only: another one answers an older HELLO
//!   │ HTTP/2 preface ──────────────►  │
//! ```
//!
//! The agent is hostile: whatever it sends that is not one of its two lines is dropped, in bounded memory.
//! Nothing here has a deadline; the caller has it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often HELLO is repeated in case that the one before was lost.
pub const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// How much of an unterminated line is remembered: more than the longest line that means anything.
pub const MAX_LINE: usize = 64;

/// What one read takes at most. Larger than any burst before READY.
const READ_BYTES: usize = 4096;

/// Resolves when the agent has answered this very conversation. Returns the bytes that followed the answer:
/// they belong to HTTP/2.
///
/// # Errors
/// If the stream ends or fails.
pub async fn greet<S>(stream: &mut S, nonce: &str) -> io::Result<Vec<u8>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = format!("HELLO {nonce}\n");
    let ready = format!("READY {nonce}");
    let mut repeat = interval_at(Instant::now() + REPEAT_AFTER, REPEAT_AFTER);
    repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lines = Lines::default();
    let mut chunk = [0_u8; READ_BYTES];
    stream.write_all(hello.as_bytes()).await?;
    loop {
        tokio::select! {
            // cancel-safe: `read` takes bytes only when it resolves
            count = stream.read(&mut chunk) => {
                let bytes = &chunk[..some(count?)?];
                match lines.find(bytes, ready.as_bytes()) {
                    Found::Awaited { rest } => return Ok(bytes[rest..].to_vec()),
                    // One answer per read, however many lines came: a flood is not answered by a flood.
                    Found::Agent => stream.write_all(hello.as_bytes()).await?,
                    Found::Nothing => {}
                }
            }
            // cancel-safe: a tick that is dropped comes again
            _ = repeat.tick() => stream.write_all(hello.as_bytes()).await?,
        }
    }
}

/// Resolves when any agent has spoken on the stream: the guest's kernel runs, and so does its process 1.
///
/// # Errors
/// If the stream ends or fails.
pub async fn hear_agent<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut lines = Lines::default();
    let mut chunk = [0_u8; READ_BYTES];
    loop {
        let count = some(stream.read(&mut chunk).await?)?;
        if !matches!(lines.find(&chunk[..count], b"AGENT"), Found::Nothing) {
            return Ok(());
        }
    }
}

/// A nonce of a new conversation: 32 lower-case hexadecimal digits.
#[must_use]
pub fn nonce() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn some(count: usize) -> io::Result<usize> {
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(count)
}

/// What a chunk of bytes held.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Agent,
    Awaited { rest: usize },
}

/// Finds lines in a stream, remembering at most [`MAX_LINE`] bytes of an unfinished one.
#[derive(Debug, Default)]
struct Lines {
    unfinished: Vec<u8>,
}

impl Lines {
    /// Looks for a line that ends in `awaited`, else for one that ends in `AGENT`. Only the end counts: the
    /// last bytes of a former conversation may stand before it on the same line.
    fn find(&mut self, bytes: &[u8], awaited: &[u8]) -> Found {
        let mut found = Found::Nothing;
        for (index, &byte) in bytes.iter().enumerate() {
            if byte != b'\n' {
                if self.unfinished.len() == MAX_LINE {
                    self.unfinished.remove(0);
                }
                self.unfinished.push(byte);
                continue;
            }
            if self.unfinished.ends_with(awaited) {
                return Found::Awaited { rest: index + 1 };
            }
            if self.unfinished.ends_with(b"AGENT") {
                found = Found::Agent;
            }
            self.unfinished.clear();
        }
        found
    }
}

#[cfg(test)]
mod tests;
