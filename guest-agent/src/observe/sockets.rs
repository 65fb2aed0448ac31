//! Sockets to which others can connect or send, from `/proc/net` (proc_net(5)).

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use crate::refusal::{Refusal, describe};

/// Sockets that are told.
pub(super) const SOCKETS_MAX: usize = 1024;
/// `TCP_LISTEN` (include/net/tcp_states.h).
const LISTENS: &str = "0A";
/// `TCP_CLOSE`: what a UDP socket without a peer is in.
const HAS_NO_PEER: &str = "07";

/// How a socket is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// A socket that can be connected or sent to. The order is the one in which they are told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Socket {
    pub(super) transport: Transport,
    pub(super) port: u16,
    pub(super) address: SocketAddr,
    pub(super) uid: u32,
    pub(super) inode: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) sockets: Vec<Socket>,
    pub(super) is_truncated: bool,
}

/// The sockets of this guest, one for each place that is listened at.
pub(super) fn listening(until: Instant) -> Result<Found, Refusal> {
    let mut found = Found::default();
    for (path, transport) in [
        ("/proc/net/tcp", Transport::Tcp),
        ("/proc/net/tcp6", Transport::Tcp),
        ("/proc/net/udp", Transport::Udp),
        ("/proc/net/udp6", Transport::Udp),
    ] {
        let failed = |error: &std::io::Error| Refusal::File {
            path: path.to_owned(),
            detail: describe(error),
        };
        let file = match File::open(path) {
            Ok(file) => file,
            // A kernel without IPv6.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(&error)),
        };
        let lines = BufReader::new(file).lines();
        found
            .read(lines, transport, until)
            .map_err(|error| failed(&error))?;
    }
    found.sockets.sort_unstable();
    // Several sockets may listen at one place (SO_REUSEPORT).
    found
        .sockets
        .dedup_by_key(|socket| (socket.transport, socket.address));
    if found.sockets.len() > SOCKETS_MAX {
        found.sockets.truncate(SOCKETS_MAX);
        found.is_truncated = true;
    }
    Ok(found)
}

impl Found {
    /// Reads one table. What is no socket is skipped: the first line, and connections, of which there may be many.
    fn read(
        &mut self,
        lines: impl Iterator<Item = std::io::Result<String>>,
        transport: Transport,
        until: Instant,
    ) -> std::io::Result<()> {
        for line in lines {
            let Some(socket) = socket(&line?, transport) else {
                continue;
            };
            // Places may repeat: a few more are kept than are told.
            if self.sockets.len() >= 16 * SOCKETS_MAX || Instant::now() >= until {
                self.is_truncated = true;
                return Ok(());
            }
            self.sockets.push(socket);
        }
        Ok(())
    }
}

fn socket(line: &str, transport: Transport) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let peer = fields.next()?;
    let wanted = match transport {
        Transport::Tcp => LISTENS,
        Transport::Udp => HAS_NO_PEER,
    };
    if fields.next()? != wanted || endpoint(peer)?.port() != 0 {
        return None;
    }
    let address = endpoint(local).filter(|address| address.port() != 0)?;
    Some(Socket {
        transport,
        port: address.port(),
        address,
        uid: fields.nth(3)?.parse().ok()?,
        inode: fields.nth(1)?.parse().ok()?,
    })
}

/// `0100007F:1F90`: words of the address as the machine has them in memory, and the port.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut octets = [0; 16];
            for (at, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(
        address,
        u16::from_str_radix(port, 16).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TCP: &str = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000 100 0 0 10 0";
    const CONNECTED: &str = "   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 12346 1 0000000000000000 20 4 30 10 -1";
    const UDP6: &str = "  99: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 777 2 0000000000000000 0";

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_are_read_as_the_kernel_writes_them() {
        let tcp = socket(TCP, Transport::Tcp).unwrap();
        assert_eq!(tcp.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!((tcp.uid, tcp.inode), (1000, 12345));
        let udp = socket(UDP6, Transport::Udp).unwrap();
        assert_eq!(udp.address, "[::1]:53".parse().unwrap());
        assert_eq!((udp.uid, udp.inode), (0, 777));
    }

    #[test]
    fn connections_headings_and_nonsense_are_no_listeners() {
        for line in [
            CONNECTED,
            "  sl  local_address rem_address   st tx_queue",
            "",
            "0: zz:1F90 00000000:0000 0A",
            "0: é: 00000000:0000 0A 0:0 0:0 0 0 0 1",
        ] {
            assert_eq!(socket(line, Transport::Tcp), None, "{line}");
        }
        assert_eq!(socket(TCP, Transport::Udp), None);
    }

    #[test]
    fn a_listener_of_this_machine_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let found = listening(Instant::now() + Duration::from_secs(60)).unwrap();
        let has = |transport, address| {
            found
                .sockets
                .iter()
                .any(|socket| (socket.transport, socket.address) == (transport, address))
        };
        assert!(has(Transport::Tcp, listener.local_addr().unwrap()));
        assert!(has(Transport::Udp, udp.local_addr().unwrap()));
        assert!(found.sockets.is_sorted());
    }

    #[test]
    fn a_search_that_is_out_of_time_says_so() {
        let mut found = Found::default();
        let lines = [Ok(TCP.to_owned())].into_iter();
        found.read(lines, Transport::Tcp, Instant::now()).unwrap();
        assert!(found.is_truncated && found.sockets.is_empty());
    }
}
