//! Peers that get nowhere, by the address they come from: who knocks too often without being let in is not listened to
//! for a while. Each knock costs a handshake, and would else be had for nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::slots::network;

/// The time over which misses are counted: one is forgiven each so-many-th part of it.
const OVER: Duration = Duration::from_secs(60);
/// The most addresses that are kept.
const ADDRESSES_MAX: usize = 4096;

/// The misses of all addresses.
#[derive(Debug)]
pub struct Misses {
    /// How many an address has over that time.
    most: u32,
    by_address: Mutex<HashMap<IpAddr, Missed>>,
}

#[derive(Debug, Clone, Copy)]
struct Missed {
    /// When all of them are forgiven.
    forgiven: Instant,
    /// Whether it was said that the address is not listened to.
    is_told: bool,
}

impl Misses {
    /// An address may miss `most` times in a minute.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self {
            most,
            by_address: Mutex::default(),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<IpAddr, Missed>) -> T) -> T {
        let by_address = self.by_address.lock();
        change(&mut by_address.unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a connection from `address` is listened to.
    #[must_use]
    pub fn allow(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        self.with(|by_address| {
            let Some(missed) = by_address.get_mut(&network(address)) else {
                return true;
            };
            let each = OVER / self.most;
            if missed.forgiven + each <= now + OVER {
                return true;
            }
            if !std::mem::replace(&mut missed.is_told, true) {
                tracing::warn!(%address, most = self.most, "who comes from there is let in nowhere too often, and is not listened to for a while");
            }
            false
        })
    }

    /// A connection from `address` got nowhere.
    pub fn count(&self, address: IpAddr) {
        let now = Instant::now();
        self.with(|by_address| {
            let address = network(address);
            if by_address.len() >= ADDRESSES_MAX && !by_address.contains_key(&address) {
                make_room(by_address, now);
            }
            let missed = by_address.entry(address).or_insert(Missed {
                forgiven: now,
                is_told: false,
            });
            if missed.forgiven <= now {
                missed.is_told = false;
            }
            missed.forgiven = missed.forgiven.max(now) + OVER / self.most;
        });
    }
}

/// Forgets those that are forgiven; where there are none, the one that will be first.
fn make_room(by_address: &mut HashMap<IpAddr, Missed>, now: Instant) {
    by_address.retain(|_, missed| missed.forgiven > now);
    if by_address.len() >= ADDRESSES_MAX {
        let first = by_address.iter().min_by_key(|(_, missed)| missed.forgiven);
        if let Some(first) = first.map(|(address, _)| *address) {
            by_address.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    #[tokio::test(start_paused = true)]
    async fn who_misses_too_often_waits_and_nobody_else_does() {
        let misses = Misses::new(4);
        for _ in 0..4 {
            assert!(misses.allow(address(1)));
            misses.count(address(1));
        }
        assert!(!misses.allow(address(1)));
        assert!(!misses.allow("::ffff:0.0.0.1".parse().unwrap()));
        assert!(misses.allow(address(2)));
        tokio::time::advance(OVER / 4).await;
        assert!(misses.allow(address(1)), "one is forgiven");
        misses.count(address(1));
        assert!(!misses.allow(address(1)));
        tokio::time::advance(OVER).await;
        assert!(misses.allow(address(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_are_kept_are_bounded_and_the_worst_stay() {
        let misses = Misses::new(2);
        for _ in 0..2 {
            misses.count(address(0));
        }
        for number in 1..2 * u32::try_from(ADDRESSES_MAX).unwrap() {
            misses.count(address(number));
        }
        assert!(misses.with(|by_address| by_address.len()) <= ADDRESSES_MAX);
        assert!(!misses.allow(address(0)));
    }
}
