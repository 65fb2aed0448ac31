//! The line handshake that both ends do before HTTP/2, on a stream that has no connections of its own.
//!
//! ```text
//! agent: AGENT\n      (written by the port's owner, who knows how to wait for a host)
//! host:  HELLO <nonce>\n     again for each AGENT, and again each second
//! agent: READY <nonce>\n     then HTTP/2, in which the host is the client
//! ```
//! Whatever comes before a `HELLO` is dropped. After `READY`, further `HELLO` lines are skipped up to the
//! preface of HTTP/2, and answered if their nonce is another one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// The line that announces a waiting agent.
pub const ANNOUNCEMENT: &[u8] = b"AGENT\n";
const HELLO: &[u8] = b"HELLO ";
/// Lower-case hexadecimal digits of a nonce.
const NONCE_LEN: usize = 32;
/// Bytes of `HELLO <nonce>`, without the newline.
const HELLO_LEN: usize = HELLO.len() + NONCE_LEN;
/// Bytes of an unterminated line that are kept while a HELLO is looked for. A HELLO line fits.
const GARBAGE_KEPT_BYTES: usize = 64;
/// Bytes read at once.
const READ_BYTES: usize = 4 << 10;

/// Reads until the host has said hello, answers, and returns the stream at the preface of HTTP/2.
///
/// # Errors
/// Those of the stream; [`io::ErrorKind::UnexpectedEof`] when the host has gone.
pub async fn accept<S>(mut stream: S) -> io::Result<Rewound<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        let mut nonce = read_hello(&mut stream, &mut buffer).await?;
        loop {
            ready(&mut stream, &nonce).await?;
            match read_preface(&mut stream, &mut buffer, &nonce).await? {
                After::Preface => {
                    return Ok(Rewound {
                        prefix: buffer.freeze(),
                        stream,
                    });
                }
                After::OtherHello(other) => nonce = other,
                After::Garbage => break,
            }
        }
    }
}

type Nonce = [u8; NONCE_LEN];

/// What followed a READY.
enum After {
    Preface,
    OtherHello(Nonce),
    Garbage,
}

async fn more<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut BytesMut) -> io::Result<()> {
    buffer.reserve(READ_BYTES);
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Drops bytes up to and with the first HELLO line.
async fn read_hello<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> io::Result<Nonce> {
    loop {
        while let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
            let line = buffer.split_to(end);
            buffer.advance(1);
            if let Some(nonce) = parse_hello(&line) {
                return Ok(nonce);
            }
        }
        let surplus = buffer.len().saturating_sub(GARBAGE_KEPT_BYTES);
        buffer.advance(surplus);
        more(stream, buffer).await?;
    }
}

/// The nonce, if `line` ends with a HELLO: garbage without a newline may stand before it.
fn parse_hello(line: &[u8]) -> Option<Nonce> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let tail = line.get(line.len().checked_sub(HELLO_LEN)?..)?;
    let nonce: Nonce = tail.strip_prefix(HELLO)?.try_into().ok()?;
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    nonce.iter().all(is_hex).then_some(nonce)
}

async fn ready<S: AsyncWrite + Unpin>(stream: &mut S, nonce: &Nonce) -> io::Result<()> {
    let mut line = Vec::with_capacity(HELLO_LEN + 1);
    line.extend_from_slice(b"READY ");
    line.extend_from_slice(nonce);
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

/// Skips HELLO lines until something else comes.
async fn read_preface<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    current: &Nonce,
) -> io::Result<After> {
    loop {
        let known = buffer.len().min(HELLO.len());
        if buffer[..known] != HELLO[..known] {
            let preface = b"PRI";
            let known = buffer.len().min(preface.len());
            if buffer[..known] != preface[..known] {
                return Ok(After::Garbage);
            }
            if known == preface.len() {
                return Ok(After::Preface);
            }
        } else if let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
            let line = buffer.split_to(end);
            buffer.advance(1);
            match parse_hello(&line) {
                Some(nonce) if nonce == *current => continue,
                Some(nonce) => return Ok(After::OtherHello(nonce)),
                None => return Ok(After::Garbage),
            }
        } else if buffer.len() > GARBAGE_KEPT_BYTES {
            return Ok(After::Garbage);
        }
        more(stream, buffer).await?;
    }
}

/// A stream that first gives back what was read ahead of it.
#[derive(Debug)]
pub struct Rewound<S> {
    prefix: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
