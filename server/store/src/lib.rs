//! The state of banger in SQLite.
