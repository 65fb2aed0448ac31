//! Drivers that run virtual machines for banger.
