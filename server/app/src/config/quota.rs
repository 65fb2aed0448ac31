//! How much may be promised: of the host, and to each owner.

use std::collections::BTreeMap;
use std::fmt;

use banger_core::Owner;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::vm::Limits;

/// Parts of a whole that a [`Ratio`] is counted in.
const PARTS: u64 = 1000;
/// The largest ratio: more is a mistake of unit.
const RATIO_MAX: u64 = 10_000;

/// How much may be promised for each of what there is; kept in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u64);

impl Ratio {
    /// So many for each one.
    #[must_use]
    pub const fn of_whole(number: u64) -> Self {
        Self(number.saturating_mul(PARTS))
    }

    /// So many thousandths.
    #[must_use]
    pub const fn of_thousandths(number: u64) -> Self {
        Self(number)
    }

    /// Whether nothing may be promised.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// How much may be promised of `amount`.
    #[must_use]
    pub fn of(self, amount: u64) -> u64 {
        let product = u128::from(amount) * u128::from(self.0) / u128::from(PARTS);
        u64::try_from(product).unwrap_or(u64::MAX)
    }

    /// How much of the host a promise of `amount` counts for, where more may be promised than there is; never more
    /// than itself.
    #[must_use]
    pub fn shared_out(self, amount: u64) -> u64 {
        let parts = u128::from(self.0.max(PARTS));
        let share = (u128::from(amount) * u128::from(PARTS)).div_ceil(parts);
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / PARTS, self.0 % PARTS)
    }
}

impl Serialize for Ratio {
    #[allow(clippy::cast_precision_loss)] // at most ten million thousandths
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / PARTS as f64)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number)
    }
}

struct Number;

impl Visitor<'_> for Number {
    type Value = Ratio;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from 0 to {RATIO_MAX}")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Ratio, E> {
        let number = u64::try_from(number)
            .map_err(|_| de::Error::invalid_value(de::Unexpected::Signed(number), &self))?;
        self.visit_u64(number)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Ratio, E> {
        if number > RATIO_MAX {
            return Err(de::Error::invalid_value(
                de::Unexpected::Unsigned(number),
                &self,
            ));
        }
        Ok(Ratio::of_whole(number))
    }

    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )] // checked here
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Ratio, E> {
        if !(0.0..=RATIO_MAX as f64).contains(&number) {
            return Err(de::Error::invalid_value(
                de::Unexpected::Float(number),
                &self,
            ));
        }
        Ok(Ratio((number * PARTS as f64).round() as u64))
    }
}

/// What owners may have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quotas {
    /// Each owner for which nothing else is said.
    pub default: Limits,
    /// Single owners: what is said here goes before the default.
    pub owners: BTreeMap<Owner, Limits>,
}

impl Quotas {
    /// What `owner` may have. The daemon itself, which makes VMs for builds, has no quota but one of its own.
    #[must_use]
    pub fn of(&self, owner: &Owner) -> Limits {
        let own = self.owners.get(owner).copied().unwrap_or_default();
        match *owner == Owner::daemon() {
            true => own,
            false => own.or(self.default),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_exact_and_never_overflows() {
        assert_eq!(Ratio::of_thousandths(1500).of(1001), 1501);
        assert_eq!(Ratio::of_whole(16).of(2), 32);
        assert_eq!(Ratio::of_whole(RATIO_MAX).of(u64::MAX), u64::MAX);
        assert_eq!(Ratio::of_thousandths(2000).shared_out(101), 51);
        assert_eq!(Ratio::of_thousandths(1).shared_out(7), 7);
    }

    #[test]
    fn an_owner_has_the_default_but_for_what_is_its_own() {
        let limits = |vms, vcpus| Limits {
            vms,
            vcpus,
            ..Limits::default()
        };
        let quotas = Quotas {
            default: limits(Some(3), Some(8)),
            owners: BTreeMap::from([(Owner::of_uid(7), limits(Some(9), None))]),
        };
        assert_eq!(quotas.of(&Owner::of_uid(7)), limits(Some(9), Some(8)));
        assert_eq!(quotas.of(&Owner::of_uid(8)), limits(Some(3), Some(8)));
        assert_eq!(quotas.of(&Owner::daemon()), limits(None, None));
    }
}
