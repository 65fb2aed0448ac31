//! The only unsafe code of this crate: what the kernel knows about its clock, which nothing safe asks.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// What the kernel knows about the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockState {
    /// Whether something keeps it right.
    pub(crate) is_synchronized: bool,
    /// How wrong it is at most, as whoever keeps it says.
    pub(crate) largest_error: Duration,
}

/// Asks the kernel (adjtimex(2)); changes nothing.
pub(crate) fn clock_state() -> io::Result<ClockState> {
    let mut asked = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: `timex` is made of integers, so that all zeros is a value of it; `modes` of zero makes the call a
    // question; the kernel writes no more than the structure, which outlives the call.
    let (state, answer) = unsafe {
        let state = libc::adjtimex(asked.as_mut_ptr());
        (state, asked.assume_init())
    };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    let microseconds = u64::try_from(answer.maxerror).unwrap_or(0);
    Ok(ClockState {
        is_synchronized: state != libc::TIME_ERROR && answer.status & libc::STA_UNSYNC == 0,
        largest_error: Duration::from_micros(microseconds),
    })
}
