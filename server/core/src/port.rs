//! Who listens in a guest: the guest's own words, within bounds and otherwise not proven.

use std::net::IpAddr;

/// Whether listeners are asked for their pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Probe {
    /// They are only listed.
    #[default]
    No,
    /// Each TCP listener that the guest's loopback reaches is asked by HTTP, from within the guest.
    Http,
}

/// Who listens in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listeners {
    /// By protocol, then port, then address.
    pub listeners: Vec<Listener>,
    /// There are more, or not all of their processes were found.
    pub is_truncated: bool,
}

/// A socket to which others can connect or send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// How it is spoken to.
    pub protocol: PortProtocol,
    /// Of the guest; unspecified means all of them.
    pub address: IpAddr,
    /// Not 0.
    pub port: u16,
    /// Who made the socket.
    pub uid: u32,
    /// A process that has it open.
    pub process: Option<ListeningProcess>,
    /// What it said by HTTP.
    pub http: Option<HttpAnswer>,
}

/// How a listener is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortProtocol {
    /// A listening TCP socket.
    Tcp,
    /// A bound UDP socket without a peer.
    Udp,
}

/// A process that has a socket open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListeningProcess {
    /// In the guest.
    pub pid: u32,
    /// Its own short name for itself; bounded, without control characters.
    pub name: String,
    /// As whom it runs.
    pub uid: u32,
}

/// The answer of a listener to `GET /`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// 100 to 999.
    pub status: u16,
    /// The title of the page; bounded, without control characters.
    pub title: String,
}
