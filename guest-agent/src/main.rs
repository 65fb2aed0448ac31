//! Process 1 of every banger guest.
fn main() {}
