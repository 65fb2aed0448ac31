//! The least speed of a transfer, of a catalog as well. A registry that sends a byte now and then stalls no time-out and ends no
//! pull; what it must send is little, but something. Only waiting for the registry counts: a slow disk here is
//! not its fault.

use std::time::Duration;

use crate::limits::{SLOW_BYTES_MIN, SLOW_WINDOW_STALLS};

/// How a transfer goes.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// For a registry that may be silent for `stall`.
    pub(crate) const fn new(stall: Duration) -> Self {
        Self {
            window: stall.saturating_mul(SLOW_WINDOW_STALLS),
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Takes note of a wait and what it brought. `Err` has the window and the bytes that came in it.
    pub(crate) fn note(&mut self, waited: Duration, bytes: usize) -> Result<(), (Duration, u64)> {
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.waited < self.window {
            return Ok(());
        }
        let (window, bytes) = (self.window, self.bytes);
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        if bytes < SLOW_BYTES_MIN {
            return Err((window, bytes));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_told_from_a_slow_line() {
        let second = Duration::from_secs(1);
        let mut trickle = Pace::new(30 * second);
        for _ in 0..59 {
            trickle.note(second, 100).unwrap();
        }
        assert_eq!(trickle.note(second, 100), Err((60 * second, 6000)));
        let mut modem = Pace::new(30 * second);
        for _ in 0..600 {
            modem.note(second, 4000).unwrap();
        }
    }
}
