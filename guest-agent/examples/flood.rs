//! An `/init` that does nothing but move bytes on the agent's port: what the channel itself can do, to
//! compare sessions with. It is booted instead of the agent, with the same kernel and modules.
//!
//! The host sends one letter at a time: `f` is answered with [`FLOOD_BYTES`] bytes, and `e` followed by
//! [`ECHO_BYTES`] bytes with those bytes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::mpsc;

use banger_agent::boot;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Bytes of a flood.
const FLOOD_BYTES: usize = 256 << 20;
/// Bytes of an echo.
const ECHO_BYTES: usize = 64;
/// Bytes of one write of a flood.
const WRITE_BYTES: usize = 256 << 10;

fn main() -> io::Result<()> {
    let (sender, receiver) = mpsc::channel();
    let boot = boot::begin().run(None, move |kernel| {
        let _ = sender.send(kernel);
    });
    eprintln!("flood: booted: {boot:?}");
    let kernel = receiver.recv().map_err(io::Error::other)?;
    let port = boot::find_port(&kernel)?;
    fcntl_setfl(&port, fcntl_getfl(&port)? - OFlags::NONBLOCK)?;
    let mut port = File::from(port);
    port.write_all(b"!")?; // waits until a host is connected
    let block = vec![0x5a; WRITE_BYTES];
    loop {
        let mut letter = [0];
        if port.read(&mut letter)? == 0 {
            port.write_all(b"!")?;
            continue;
        }
        match letter[0] {
            b'f' => {
                for _ in 0..FLOOD_BYTES / WRITE_BYTES {
                    port.write_all(&block)?;
                }
            }
            b'e' => {
                let mut bytes = [0; ECHO_BYTES];
                port.read_exact(&mut bytes)?;
                port.write_all(&bytes)?;
            }
            _ => {}
        }
    }
}
