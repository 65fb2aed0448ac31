//! How many connections the users of this host have at the unix socket: all of them, and each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::slots::{give_back, take};
use super::uncounted::Uncounted;
use crate::config::LimitsConfig;

/// Of one user, connections that are there only to be told that there are too many.
const TOLD_MAX: usize = 8;

/// All places.
#[derive(Debug, Clone)]
pub struct Users(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    uncounted: Uncounted,
    all_max: usize,
    per_user_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    served: HashMap<u32, usize>,
    told: HashMap<u32, usize>,
}

/// What a connection is let in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// To be served.
    Service,
    /// To be told that its user has too many.
    Refusal,
}

/// A connection's place, given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    users: Users,
    uid: u32,
    /// `None` for who is not counted.
    counted: Option<For>,
}

impl Users {
    /// None taken.
    #[must_use]
    pub fn new(limits: &LimitsConfig) -> Self {
        Self(Arc::new(Shared {
            uncounted: Uncounted::here(),
            all_max: limits.socket_connections_max,
            per_user_max: limits.socket_connections_per_user_max,
            taken: Mutex::default(),
        }))
    }

    /// How many connections a user may have.
    #[must_use]
    pub fn per_user_max(&self) -> usize {
        self.0.per_user_max
    }

    fn with<T>(&self, change: impl FnOnce(&mut Taken) -> T) -> T {
        change(&mut self.0.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place for a connection of `uid`, and what for; `None` where there is none at all.
    #[must_use]
    pub fn admit(&self, uid: u32) -> Option<(Place, For)> {
        let place = |counted| Place {
            users: self.clone(),
            uid,
            counted,
        };
        if self.0.uncounted.has_uid(uid) {
            return Some((place(None), For::Service));
        }
        let admitted = self.with(|taken| {
            if taken.all >= self.0.all_max {
                return None;
            }
            let admitted = if take(&mut taken.served, uid, self.0.per_user_max) {
                For::Service
            } else if take(&mut taken.told, uid, TOLD_MAX) {
                For::Refusal
            } else {
                return None;
            };
            taken.all += 1;
            Some(admitted)
        })?;
        Some((place(Some(admitted)), admitted))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(counted) = self.counted else { return };
        self.users.with(|taken| {
            taken.all -= 1;
            match counted {
                For::Service => give_back(&mut taken.served, self.uid),
                For::Refusal => give_back(&mut taken.told, self.uid),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Users of no host.
    const ONE: u32 = 3_999_999_998;
    const OTHER: u32 = 3_999_999_999;

    fn users(all: usize, each: usize) -> Users {
        Users::new(&LimitsConfig {
            socket_connections_max: all,
            socket_connections_per_user_max: each,
            ..LimitsConfig::default()
        })
    }

    #[test]
    fn a_user_has_so_many_is_told_a_few_times_and_keeps_nobody_out() {
        let users = users(100, 2);
        let mut held = Vec::new();
        let mut told = 0;
        while let Some((place, admitted)) = users.admit(ONE) {
            told += usize::from(admitted == For::Refusal);
            held.push(place);
        }
        assert_eq!((held.len(), told), (2 + TOLD_MAX, TOLD_MAX));
        assert_eq!(users.admit(OTHER).unwrap().1, For::Service);
        held.clear();
        assert_eq!(users.admit(ONE).unwrap().1, For::Service);
        users.with(|taken| {
            assert_eq!(taken.all, 0);
            assert!(taken.served.is_empty() && taken.told.is_empty());
        });
    }

    #[test]
    fn root_gets_in_when_all_places_are_taken() {
        let users = users(1, 1);
        let (_held, _) = users.admit(ONE).unwrap();
        assert!(users.admit(OTHER).is_none());
        let _many: Vec<_> = (0..100).map(|_| users.admit(0).unwrap()).collect();
    }
}
