//! How long it is until something that should not have failed is tried again: removing files, ending a process.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_secs(1);
/// A pause is twice the one before, up to this.
const LONGEST: Duration = Duration::from_secs(60);

/// Pauses that grow.
#[derive(Debug, Default)]
pub(crate) struct Pauses(u32);

impl Pauses {
    pub(crate) fn next(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.0.min(16));
        self.0 = self.0.saturating_add(1);
        pause.min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut pauses = Pauses::default();
        let seconds: Vec<u64> = (0..8).map(|_| pauses.next().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
