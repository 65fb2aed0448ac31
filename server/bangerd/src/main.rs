//! The banger daemon.
fn main() {}
