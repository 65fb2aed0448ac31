//! A server for guests, which have little that serves: `serve echo|first PORT|PATH`. It is compiled by the cases that
//! put it there, with the standard library alone.
//!
//! `echo` says again what it hears, each connection by a thread of its own, and ends when its peer has ended. `first`
//! says a word to one connection and ends what it says; then it reads to the end and leaves what it read in
//! `/tmp/heard`.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;

/// A connection of either kind.
trait Peer: Send + Sync + 'static {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    fn write_all(&self, data: &[u8]) -> io::Result<()>;
    fn end(&self) -> io::Result<()>;
}

impl Peer for TcpStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut &*self, buffer)
    }
    fn write_all(&self, data: &[u8]) -> io::Result<()> {
        Write::write_all(&mut &*self, data)
    }
    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Peer for UnixStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut &*self, buffer)
    }
    fn write_all(&self, data: &[u8]) -> io::Result<()> {
        Write::write_all(&mut &*self, data)
    }
    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

fn echo(peer: &dyn Peer) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match peer.read(&mut buffer)? {
            0 => return peer.end(),
            length => peer.write_all(&buffer[..length])?,
        }
    }
}

fn first(peer: &dyn Peer) -> io::Result<()> {
    peer.write_all(b"before\n")?;
    peer.end()?;
    let mut heard = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match peer.read(&mut buffer)? {
            0 => break,
            length => heard.extend_from_slice(&buffer[..length]),
        }
    }
    std::fs::write("/tmp/part", heard)?;
    std::fs::rename("/tmp/part", "/tmp/heard")
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [mode, place] = words.as_slice() else {
        panic!("usage: serve echo|first PORT|PATH");
    };
    let mut next: Box<dyn FnMut() -> io::Result<Arc<dyn Peer>>> = if place.starts_with('/') {
        let listener = UnixListener::bind(place)?;
        Box::new(move || Ok(Arc::new(listener.accept()?.0)))
    } else {
        let port: u16 = place.parse().expect("a port");
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        Box::new(move || Ok(Arc::new(listener.accept()?.0)))
    };
    if mode == "first" {
        return first(&*next()?);
    }
    loop {
        let peer = next()?;
        // A connection that breaks is its own affair.
        thread::spawn(move || drop(echo(&*peer)));
    }
}
