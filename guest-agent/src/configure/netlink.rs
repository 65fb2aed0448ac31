//! Network interfaces by netlink (rtnetlink(7)): four messages, no helper process.

use std::io;
use std::net::Ipv4Addr;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use super::Addresses;
use crate::agent::kernel_text;
use crate::refusal::Refusal;

/// Bytes of an answer that are looked at: an acknowledgement is far shorter.
const ANSWER_BYTES: usize = 4096;
/// The first network interface.
const INTERFACE: &str = "eth0";

// Message types, flags and attributes of linux/netlink.h, linux/rtnetlink.h and linux/if_addr.h.
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
const NLM_F_CREATE_REPLACE: u16 = 0x400 | 0x100;
const NLMSG_ERROR: u16 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
/// Bytes of the header of a message.
const HEADER_BYTES: usize = 16;

/// Brings the loopback up, and the first interface with its address and route.
pub(super) fn set_up(network: Option<&Addresses>) -> Result<(), Refusal> {
    let failed = |step: &'static str| move |error: io::Error| Refusal::setup(step, error);
    let socket = Socket::open().map_err(failed("opening a netlink socket"))?;
    socket.up(1).map_err(failed("bringing lo up"))?;
    let Some(network) = network else {
        return Ok(());
    };
    let index = kernel_text(format!("/sys/class/net/{INTERFACE}/ifindex"))
        .parse()
        .map_err(|_| Refusal::setup("finding the network interface", "there is no eth0"))?;
    socket
        .address(index, network.address, network.prefix)
        .map_err(failed("setting eth0's address"))?;
    socket.up(index).map_err(failed("bringing eth0 up"))?;
    if let Some(gateway) = network.gateway {
        socket
            .default_route(index, gateway)
            .map_err(failed("setting the default route"))?;
    }
    Ok(())
}

struct Socket(rustix::fd::OwnedFd);

impl Socket {
    fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None, // NETLINK_ROUTE is number 0
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    fn up(&self, index: u32) -> io::Result<()> {
        // struct ifinfomsg: family, padding, type, index, flags, mask of changed flags.
        let mut body = vec![0; 4];
        body.extend(index.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        self.ask(RTM_NEWLINK, 0, &body)
    }

    fn address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        let mut body = vec![AF_INET, prefix, 0, 0];
        body.extend(index.to_ne_bytes());
        attribute(&mut body, IFA_LOCAL, &address.octets());
        attribute(&mut body, IFA_ADDRESS, &address.octets());
        self.ask(RTM_NEWADDR, NLM_F_CREATE_REPLACE, &body)
    }

    fn default_route(&self, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
        // struct rtmsg: family, two prefix lengths, tos, table, protocol, scope, type, flags.
        let mut body = vec![AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST];
        body.extend(0_u32.to_ne_bytes());
        attribute(&mut body, RTA_GATEWAY, &gateway.octets());
        attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
        self.ask(RTM_NEWROUTE, NLM_F_CREATE_REPLACE, &body)
    }

    /// Sends one request and reads its acknowledgement, which the kernel gives at once.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        send(&self.0, &message(kind, flags, body), SendFlags::empty())?;
        let mut answer = vec![0; ANSWER_BYTES];
        let (length, _) = recv(&self.0, answer.as_mut_slice(), RecvFlags::empty())?;
        acknowledged(&answer[..length.min(ANSWER_BYTES)])
    }
}

/// A message: length, type, flags, sequence number, port, body.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags | NLM_F_REQUEST_ACK).to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}

/// Appends an attribute of at most 4 bytes: length, type, value. All of ours are aligned by themselves.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8; 4]) {
    body.extend(8_u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

/// The result in an answer: type NLMSG_ERROR with an errno below zero, or zero.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let kind = answer
        .get(4..6)
        .map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let code: Option<[u8; 4]> = answer
        .get(HEADER_BYTES..HEADER_BYTES + 4)
        .and_then(|bytes| bytes.try_into().ok());
    match (kind, code.map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(Errno::PROTO.into()),
    }
}
