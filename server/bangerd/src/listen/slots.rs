//! How many connections there may be by TCP: in all, that have not shown who they are, of one address, of one caller.
//! Of those that have not shown who they are no address has more than half, so that none keeps all others out.
//!
//! A place is taken before anything is read of a connection, and given back when what holds it is dropped.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use banger_core::Owner;

use crate::config::TcpConfig;

/// Of an IPv6 address the part that one customer is given.
const NETWORK_BITS: u32 = 64;

/// All places.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    most: Most,
    all: usize,
    handshakes: usize,
    by_address: HashMap<IpAddr, usize>,
    handshakes_by_address: HashMap<IpAddr, usize>,
    by_owner: HashMap<Owner, usize>,
}

/// How many there may be of each.
#[derive(Debug, Clone, Copy)]
struct Most {
    all: usize,
    handshakes: usize,
    handshakes_per_address: usize,
    per_address: usize,
    per_owner: usize,
}

/// Which of the bounds is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Of all connections.
    All,
    /// Of those that have not shown who they are.
    Handshakes,
    /// Of those from one address that have not shown who they are.
    AddressHandshakes,
    /// Of those from one address.
    Address,
}

impl Full {
    /// The setting that says so.
    #[must_use]
    pub const fn setting(self) -> &'static str {
        match self {
            Self::All => "tcp.connections_max",
            Self::Handshakes => "tcp.handshakes_max",
            Self::AddressHandshakes => "tcp.handshakes_per_address_max",
            Self::Address => "tcp.connections_per_address_max",
        }
    }
}

impl Slots {
    /// None taken.
    #[must_use]
    pub fn new(config: &TcpConfig) -> Self {
        Self(Arc::new(Mutex::new(Taken {
            most: Most {
                all: config.connections_max,
                handshakes: config.handshakes_max,
                // However few there are, one address leaves some to others.
                handshakes_per_address: config
                    .handshakes_per_address_max
                    .min(config.handshakes_max.div_ceil(2)),
                per_address: config.connections_per_address_max,
                per_owner: config.connections_per_identity_max,
            },
            all: 0,
            handshakes: 0,
            by_address: HashMap::new(),
            handshakes_by_address: HashMap::new(),
            by_owner: HashMap::new(),
        })))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Taken) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place for a connection from `address`, and one for its handshake.
    ///
    /// # Errors
    /// If there is none.
    pub fn admit(&self, address: IpAddr) -> Result<(Place, Handshake), Full> {
        let address = network(address);
        self.with(|taken| {
            if taken.all >= taken.most.all {
                return Err(Full::All);
            }
            if taken.handshakes >= taken.most.handshakes {
                return Err(Full::Handshakes);
            }
            let most = taken.most;
            if !take(&mut taken.by_address, address, most.per_address) {
                return Err(Full::Address);
            }
            let shaking = &mut taken.handshakes_by_address;
            if !take(shaking, address, most.handshakes_per_address) {
                give_back(&mut taken.by_address, address);
                return Err(Full::AddressHandshakes);
            }
            taken.all += 1;
            taken.handshakes += 1;
            Ok(())
        })?;
        let place = Place {
            slots: self.clone(),
            address,
        };
        let handshake = Handshake {
            slots: self.clone(),
            address,
        };
        Ok((place, handshake))
    }

    /// A place among the connections of `owner`; `None` if there is none.
    #[must_use]
    pub fn seat(&self, owner: &Owner) -> Option<Seat> {
        let is_free = self.with(|taken| {
            let most = taken.most.per_owner;
            take(&mut taken.by_owner, owner.clone(), most)
        });
        is_free.then(|| Seat {
            slots: self.clone(),
            owner: owner.clone(),
        })
    }
}

pub(super) fn take<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K, most: usize) -> bool {
    let count = counts.entry(key).or_default();
    let is_free = *count < most;
    *count += usize::from(is_free);
    is_free
}

pub(super) fn give_back<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

/// An address as it is counted: an IPv4 address however it is written, the network of an IPv6 one.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> NETWORK_BITS << NETWORK_BITS;
            Ipv6Addr::from_bits(network).into()
        }
        address => address,
    }
}

/// A connection's place.
#[derive(Debug)]
pub struct Place {
    slots: Slots,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.slots.with(|taken| {
            taken.all -= 1;
            give_back(&mut taken.by_address, self.address);
        });
    }
}

/// A place among those that have not shown who they are.
#[derive(Debug)]
pub struct Handshake {
    slots: Slots,
    address: IpAddr,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.slots.with(|taken| {
            taken.handshakes -= 1;
            give_back(&mut taken.handshakes_by_address, self.address);
        });
    }
}

/// A place among the connections of one caller.
#[derive(Debug)]
pub struct Seat {
    slots: Slots,
    owner: Owner,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let owner = self.owner.clone();
        self.slots
            .with(|taken| give_back(&mut taken.by_owner, owner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> Slots {
        Slots::new(&TcpConfig {
            connections_max: 4,
            connections_per_address_max: 2,
            connections_per_identity_max: 1,
            handshakes_max: 3,
            ..TcpConfig::default()
        })
    }

    fn from(slots: &Slots, address: &str) -> Result<(Place, Handshake), Full> {
        slots.admit(address.parse().unwrap())
    }

    #[test]
    fn each_bound_holds_and_what_is_dropped_is_free_again() {
        let slots = slots();
        let (one, shaking) = from(&slots, "10.0.0.1").unwrap();
        let two = from(&slots, "10.0.0.1").unwrap();
        assert_eq!(from(&slots, "10.0.0.1").unwrap_err(), Full::Address);
        assert_eq!(from(&slots, "::ffff:10.0.0.1").unwrap_err(), Full::Address);
        let three = from(&slots, "10.0.0.2").unwrap();
        assert_eq!(from(&slots, "10.0.0.3").unwrap_err(), Full::Handshakes);
        drop(shaking);
        let four = from(&slots, "10.0.0.3").unwrap();
        assert_eq!(from(&slots, "10.0.0.4").unwrap_err(), Full::All);
        drop((one, two, three, four));
        slots.with(|taken| {
            assert_eq!((taken.all, taken.handshakes), (0, 0));
            assert!(taken.by_address.is_empty());
            assert!(taken.handshakes_by_address.is_empty());
        });
    }

    #[test]
    fn no_address_has_more_than_half_of_the_handshakes() {
        let slots = Slots::new(&TcpConfig {
            connections_per_address_max: 100,
            handshakes_max: 4,
            ..TcpConfig::default()
        });
        let mut taken = [
            from(&slots, "10.0.0.1").unwrap(),
            from(&slots, "10.0.0.1").unwrap(),
        ];
        assert_eq!(
            from(&slots, "10.0.0.1").unwrap_err(),
            Full::AddressHandshakes
        );
        assert!(from(&slots, "10.0.0.2").is_ok());
        let [(_, shaking), _] = &mut taken;
        *shaking = from(&slots, "10.0.0.2").unwrap().1;
        assert!(from(&slots, "10.0.0.1").is_ok(), "one has shown who it is");
    }

    #[test]
    fn by_default_no_single_address_takes_all_handshakes() {
        let config = TcpConfig::default();
        let slots = Slots::new(&config);
        let mut held = Vec::new();
        let full = loop {
            match from(&slots, "10.0.0.1") {
                Ok(places) => held.push(places),
                Err(full) => break full,
            }
        };
        assert_eq!(full, Full::AddressHandshakes);
        assert!(held.len() * 4 <= config.handshakes_max, "{}", held.len());
        let (_place, shaking) = from(&slots, "10.0.0.2").unwrap();
        drop(shaking);
        // Who has shown who it is leaves its place to the next.
        drop(held.pop().unwrap().1);
        from(&slots, "10.0.0.1").unwrap();
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let slots = slots();
        let taken = [
            from(&slots, "2001:db8::1").unwrap(),
            from(&slots, "2001:db8::2:0:0:1").unwrap(),
        ];
        assert_eq!(from(&slots, "2001:db8::3").unwrap_err(), Full::Address);
        assert!(from(&slots, "2001:db8:0:1::3").is_ok());
        drop(taken);
    }

    #[test]
    fn a_caller_has_so_many_seats() {
        let slots = slots();
        let owner = Owner::of_certificate("ci").unwrap();
        let seat = slots.seat(&owner).unwrap();
        assert!(slots.seat(&owner).is_none());
        assert!(
            slots
                .seat(&Owner::of_certificate("other").unwrap())
                .is_some()
        );
        drop(seat);
        assert!(slots.seat(&owner).is_some());
    }
}
