//! Output put together from pieces, each of which must be right and at its place.

use banger_sdk::{Event, types};
use sha2::{Digest, Sha256};

use super::duel::{self, Duel};
use super::numbers;

/// What the output must be.
#[derive(Debug)]
enum Right {
    /// The numbers of this seed.
    Numbers(u64),
    /// What two writers wrote, mixed in any way, with how much of each has come.
    Mixed(Duel, [u64; 2]),
}

/// What one reader put together.
#[derive(Debug)]
pub(super) struct Pieced {
    right: Right,
    pub(super) next: u64,
    pub(super) lost: u64,
    pub(super) hash: Sha256,
}

impl Pieced {
    pub(super) fn new(seed: u64) -> Self {
        Self::of(Right::Numbers(seed))
    }

    pub(super) fn mixed(duel: Duel) -> Self {
        Self::of(Right::Mixed(duel, [0; 2]))
    }

    fn of(right: Right) -> Self {
        Self {
            right,
            next: 0,
            lost: 0,
            hash: Sha256::new(),
        }
    }

    /// Takes an event; true is the end.
    pub(super) fn take(&mut self, event: Event, told: &str) -> bool {
        match event {
            Event::Output(output) => {
                let at = u64::try_from(output.offset).unwrap();
                assert_eq!(at, self.next, "{told}: output is at its place");
                self.right.check(at, &output.data, told);
                self.hash.update(&output.data);
                self.next += output.data.len() as u64;
                false
            }
            Event::Gap(gap) => {
                assert_eq!(
                    u64::try_from(gap.offset).unwrap(),
                    self.next,
                    "{told}: a gap is at its place"
                );
                let lost = u64::try_from(gap.lost_bytes).unwrap();
                self.next += lost;
                self.lost += lost;
                false
            }
            Event::Screen(_) => panic!("{told}: a screen that nobody asked for"),
            Event::Exited(exit) => {
                let code = types::exit::How::Code(0);
                assert_eq!(exit.how, Some(code), "{told}: how it ended");
                true
            }
        }
    }

    /// All of it was the right `length` bytes, and nothing was lost.
    pub(super) fn check_whole(self, seed: u64, length: u64, told: &str) {
        assert_eq!(self.next, length, "{told}: all of it is there");
        assert_eq!(self.lost, 0, "{told}: nothing is lost");
        match self.right {
            Right::Numbers(_) => {
                let right = Sha256::digest(numbers::bytes(seed, 0, length));
                let hash = self.hash.finalize();
                assert_eq!(hash, right, "{told}: what was put together");
            }
            Right::Mixed(duel, came) => {
                assert_eq!(came, duel.shares, "{told}: what came of each writer");
            }
        }
    }
}

impl Right {
    /// Of two writers, the bits tell whose each byte is: all of one's must come in order.
    fn check(&mut self, at: u64, data: &[u8], told: &str) {
        match self {
            Self::Numbers(seed) => {
                let right = numbers::bytes(*seed, at, data.len() as u64);
                assert!(right == data, "{told}: the bytes at {at} are right");
            }
            Self::Mixed(duel, came) => {
                for (side, came) in came.iter_mut().enumerate() {
                    let of_side = |byte: &u8| duel::side(*byte) == side;
                    let own: Vec<u8> = data.iter().copied().filter(of_side).collect();
                    let right = duel.bytes(side, *came, own.len() as u64);
                    assert!(
                        right == own,
                        "{told}: in the output at {at}, what writer {side} wrote at {came} is right"
                    );
                    *came += own.len() as u64;
                }
            }
        }
    }
}
