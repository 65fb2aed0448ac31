//! Ids, specs, states, lifecycle rules and port traits of banger; no I/O.
