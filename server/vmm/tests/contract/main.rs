//! One contract for every driver, run against QEMU and Firecracker with real guests and against the fake.
#![allow(clippy::unwrap_used)] // helpers of tests are not recognised as tests

mod fake;
mod firecracker;
mod guest;
mod impostor;
mod qemu;
mod rules;
