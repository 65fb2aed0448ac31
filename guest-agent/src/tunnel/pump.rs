//! Carries bytes between the host and a socket, both ways at once.
//!
//! What the host sends is taken from the call as it comes, so that what it tells of its own taking is never behind
//! bytes that the socket does not want; [`WINDOW_BYTES`] bound how much that is. The socket is read only as far as the
//! host has room.

use std::collections::VecDeque;
use std::io;

use banger_proto::guest::v1::open_tunnel_request::Message as Asked;
use banger_proto::guest::v1::open_tunnel_response::Message as Told;
use banger_proto::guest::v1::{OpenTunnelRequest, TunnelConnected, TunnelEnd, TunnelHeartbeat};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use tonic::Streaming;

use super::WINDOW_BYTES;
use super::fault::reset;
use super::socket::Socket;
use crate::refusal::Refusal;
use crate::session::reader::HEARTBEAT;

/// The host is told after so many bytes that the socket has taken them.
const TELL_BYTES: u64 = WINDOW_BYTES / 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Pump {
    socket: Socket,
    /// Absent once the host's stream has ended.
    incoming: Option<Streaming<OpenTunnelRequest>>,
    inward: Inward,
    outward: Outward,
    is_greeted: bool,
    /// When the host was last told anything.
    told_at: Instant,
}

/// From the host to the socket.
#[derive(Debug, Default)]
struct Inward {
    waiting: VecDeque<Bytes>,
    received: u64,
    taken: u64,
    told: u64,
    end: End,
}

/// How far the end of the host's bytes has come.
#[derive(Debug, Default)]
enum End {
    /// More may come.
    #[default]
    Open,
    /// The host has sent it.
    Received,
    /// The socket has it.
    Shut,
    /// The socket takes nothing any more; what comes is dropped.
    Broken(io::Error),
}

/// From the socket to the host.
#[derive(Debug, Default)]
struct Outward {
    sent: u64,
    taken: u64,
    has_ended: bool,
}

impl Pump {
    pub(super) fn new(socket: Socket, incoming: Streaming<OpenTunnelRequest>) -> Self {
        Self {
            socket,
            incoming: Some(incoming),
            inward: Inward::default(),
            outward: Outward::default(),
            is_greeted: false,
            told_at: Instant::now(),
        }
    }

    /// The next message to the host; none once both directions have ended.
    ///
    /// # Errors
    /// A connection that broke, and a host that does what it may not.
    pub(super) async fn next(&mut self) -> Result<Option<Told>, Refusal> {
        let message = self.look().await?;
        self.told_at = Instant::now();
        Ok(message)
    }

    async fn look(&mut self) -> Result<Option<Told>, Refusal> {
        if !self.is_greeted {
            self.is_greeted = true;
            return Ok(Some(Told::Connected(TunnelConnected {})));
        }
        loop {
            if let Some(taken) = self.inward.untold() {
                let taken = i64::try_from(taken).unwrap_or(i64::MAX);
                return Ok(Some(Told::Taken(taken)));
            }
            if self.outward.has_ended && self.inward.is_over()? {
                return Ok(None);
            }
            let room = self.outward.room();
            tokio::select! {
                // cancel-safe: a message that has not come whole stays in the stream
                asked = hear(&mut self.incoming), if self.incoming.is_some() => self.heard(asked)?,
                // cancel-safe: nothing is written unless it is counted
                written = write(&self.socket, &self.inward), if self.inward.wants_socket() => {
                    self.wrote(written);
                }
                // cancel-safe: nothing is read unless it is returned
                read = self.socket.read(room), if room > 0 => return self.read(read).map(Some),
                // cancel-safe: an error stays until it is looked at
                error = self.socket.broken(), if self.outward.has_ended && !self.inward.is_broken() => {
                    self.inward.give_up(error);
                }
                // cancel-safe: the instant is kept
                () = sleep_until(self.told_at + HEARTBEAT) => {
                    return Ok(Some(Told::Heartbeat(TunnelHeartbeat {})));
                }
            }
        }
    }

    fn heard(&mut self, asked: Option<Asked>) -> Result<(), Refusal> {
        match asked {
            Some(Asked::Data(data)) => self.inward.receive(data),
            Some(Asked::End(_)) => self.inward.receive_end(),
            Some(Asked::Taken(taken)) => self.outward.take(taken),
            Some(Asked::Start(_)) => Err(Refusal::invalid("`start` came twice")),
            None => {
                self.incoming = None;
                // Whoever has said all reads at its own pace, which the call's own flow control tells.
                self.outward.taken = u64::MAX;
                match self.inward.end {
                    End::Open => Err(Refusal::invalid("the stream ended before `end`")),
                    End::Received | End::Shut | End::Broken(_) => Ok(()),
                }
            }
        }
    }

    fn wrote(&mut self, written: io::Result<usize>) {
        match written {
            Ok(written) => self.inward.advance(written),
            Err(error) => return self.inward.give_up(error),
        }
        if self.inward.waiting.is_empty() && matches!(self.inward.end, End::Received) {
            match self.socket.shut() {
                Ok(()) => self.inward.finish(End::Shut),
                Err(error) => self.inward.give_up(error),
            }
        }
    }

    fn read(&mut self, read: io::Result<Bytes>) -> Result<Told, Refusal> {
        let data = read.map_err(|error| reset(&error))?;
        if data.is_empty() {
            // The kernel tells of a reset once: where the last write heard of it, this is no end.
            if let Some(error) = self.inward.was_reset() {
                return Err(reset(error));
            }
            self.outward.has_ended = true;
            return Ok(Told::End(TunnelEnd {}));
        }
        self.outward.sent += data.len() as u64;
        Ok(Told::Data(data))
    }
}

impl Inward {
    fn receive(&mut self, data: Bytes) -> Result<(), Refusal> {
        if data.is_empty() {
            return Err(Refusal::invalid("no bytes came"));
        }
        self.received += data.len() as u64;
        match self.end {
            End::Open if self.received - self.taken <= WINDOW_BYTES => {
                self.waiting.push_back(data);
                Ok(())
            }
            End::Open => Err(Refusal::invalid("more bytes came than there is room for")),
            End::Broken(_) => {
                self.taken = self.received;
                Ok(())
            }
            End::Received | End::Shut => Err(Refusal::invalid("bytes came after their end")),
        }
    }

    fn receive_end(&mut self) -> Result<(), Refusal> {
        self.received += 1;
        match self.end {
            End::Open => self.end = End::Received,
            End::Broken(_) => self.taken = self.received,
            End::Received | End::Shut => return Err(Refusal::invalid("`end` came twice")),
        }
        Ok(())
    }

    /// Whether there is something for the socket to take.
    fn wants_socket(&self) -> bool {
        !self.waiting.is_empty() || matches!(self.end, End::Received)
    }

    fn advance(&mut self, written: usize) {
        self.taken += written as u64;
        match self.waiting.front_mut() {
            Some(first) if written < first.len() => drop(first.split_to(written)),
            Some(_) => drop(self.waiting.pop_front()),
            None => {}
        }
    }

    /// What came before this is taken, its end included.
    fn finish(&mut self, end: End) {
        self.waiting.clear();
        self.taken = self.received;
        self.end = end;
    }

    /// The socket takes nothing any more. What it has sent before is still read, and told before this is.
    fn give_up(&mut self, error: io::Error) {
        self.finish(End::Broken(error));
    }

    /// The other side's reset, if writing met one.
    fn was_reset(&self) -> Option<&io::Error> {
        match &self.end {
            End::Broken(error) if error.kind() == io::ErrorKind::ConnectionReset => Some(error),
            _ => None,
        }
    }

    const fn is_broken(&self) -> bool {
        matches!(self.end, End::Broken(_))
    }

    /// What the host is to be told that was taken.
    fn untold(&mut self) -> Option<u64> {
        let untold = self.taken - self.told;
        let is_last = matches!(self.end, End::Shut | End::Broken(_)) && untold > 0;
        if untold < TELL_BYTES && !is_last {
            return None;
        }
        self.told = self.taken;
        Some(self.taken)
    }

    /// Whether the socket has all that it takes.
    ///
    /// # Errors
    /// If that is less than it was sent.
    fn is_over(&self) -> Result<bool, Refusal> {
        match &self.end {
            End::Open | End::Received => Ok(false),
            End::Shut => Ok(true),
            End::Broken(error) => Err(reset(error)),
        }
    }
}

impl Outward {
    /// How much may be read.
    fn room(&self) -> u64 {
        if self.has_ended {
            return 0;
        }
        let under_way = self.sent.saturating_sub(self.taken);
        WINDOW_BYTES.saturating_sub(under_way)
    }

    fn take(&mut self, taken: i64) -> Result<(), Refusal> {
        match u64::try_from(taken) {
            Ok(taken) if (self.taken..=self.sent + 1).contains(&taken) => {
                self.taken = taken;
                Ok(())
            }
            _ => Err(Refusal::invalid("what was taken was not sent")),
        }
    }
}

/// The host's next message; none once its stream has ended, in whatever way.
async fn hear(incoming: &mut Option<Streaming<OpenTunnelRequest>>) -> Option<Asked> {
    let incoming = incoming.as_mut()?;
    incoming.message().await.ok()??.message
}

/// Writes some of what waits; nothing where only the end does.
async fn write(socket: &Socket, inward: &Inward) -> io::Result<usize> {
    match inward.waiting.front() {
        Some(first) => socket.write(first).await,
        None => Ok(0),
    }
}
