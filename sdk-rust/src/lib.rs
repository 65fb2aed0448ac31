//! A typed client of the banger daemon.
