//! The stream of one conversation with an agent, and the handle by which the next conversation ends it.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use crate::handshake;

/// The conversation that was opened last, for as long as it lives. There is one at a time.
#[derive(Debug, Default)]
pub(crate) struct CurrentChannel(Mutex<Weak<OwnedFd>>);

impl CurrentChannel {
    /// Ends the conversation, if one lives.
    pub(crate) fn end(&self) {
        shut_down(&std::mem::take(
            &mut *self.0.lock().expect("no holder panics"),
        ));
    }

    /// Makes `stream` the one conversation, without a handshake. Another call may have done so meanwhile: the
    /// last one stays.
    pub(crate) fn replace(&self, stream: UnixStream) -> io::Result<AgentChannel> {
        let link = Arc::new(rustix::io::fcntl_dupfd_cloexec(&stream, 0)?);
        let mut current = self.0.lock().expect("no holder panics");
        shut_down(&std::mem::replace(&mut *current, Arc::downgrade(&link)));
        Ok(AgentChannel {
            stream,
            rest: Vec::new(),
            _link: link,
        })
    }
}

fn shut_down(link: &Weak<OwnedFd>) {
    if let Some(link) = link.upgrade() {
        // An error means that the connection has ended by itself.
        let _ = rustix::net::shutdown(&*link, Shutdown::Both);
    }
}

/// The stream of one conversation with the agent. Dropping it hangs up.
#[derive(Debug)]
pub(crate) struct AgentChannel {
    stream: UnixStream,
    /// Bytes that came with the end of the handshake, last first.
    rest: Vec<u8>,
    /// By which the machine can end the connection.
    _link: Arc<OwnedFd>,
}

impl AgentChannel {
    /// Resolves when the agent has answered this very conversation. Safe to drop.
    pub(crate) async fn greet(&mut self) -> io::Result<()> {
        self.rest = handshake::greet(&mut self.stream, &handshake::nonce()).await?;
        self.rest.reverse();
        Ok(())
    }

    /// Resolves when any agent has spoken, before and without a handshake.
    pub(crate) async fn hear(&mut self) -> io::Result<()> {
        handshake::hear_agent(&mut self.stream).await
    }
}

impl AsyncRead for AgentChannel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        while buffer.remaining() > 0
            && let Some(byte) = self.rest.pop()
        {
            buffer.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for AgentChannel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn bytes_that_came_with_the_handshake_are_read_first() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let current = CurrentChannel::default();
        let mut channel = current.replace(ours).unwrap();
        channel.rest = b"tsrif".to_vec();
        theirs.try_write(b" then").unwrap();
        let mut text = [0; 10];
        channel.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"first then");
        current.end();
        let left = channel.read(&mut text).await.unwrap();
        assert_eq!(left, 0, "a replaced channel has ended");
    }
}
