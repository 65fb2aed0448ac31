//! Measures banger.
fn main() {}
