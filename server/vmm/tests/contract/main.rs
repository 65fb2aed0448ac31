//! One contract for every driver, run against QEMU with real guests and against the fake.
#![allow(clippy::unwrap_used)] // helpers of tests are not recognised as tests

mod fake;
mod guest;
mod qemu;
mod rules;
