//! A program for guests that writes pseudo-random bytes as fast as they are taken: `torrent SEED LENGTH`. It is compiled
//! by the cases that put it there, with the standard library alone; they check what comes by the same numbers.

#[path = "numbers.rs"]
mod numbers;

use std::io::{self, Write};

fn main() -> io::Result<()> {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (Some(Ok(seed)), Some(Ok(length))) = (words.next(), words.next()) else {
        eprintln!("usage: torrent SEED LENGTH");
        std::process::exit(64);
    };
    let mut out = io::stdout().lock();
    let mut at = 0;
    while at < length {
        let piece = numbers::bytes(seed, at, (length - at).min(64 << 10));
        out.write_all(&piece)?;
        at += piece.len() as u64;
    }
    out.flush()
}
