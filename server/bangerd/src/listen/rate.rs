//! How many requests there may be in a time: of all callers, and of each.

use std::num::NonZeroU32;
use std::time::Duration;

use banger_core::{Identity, Owner};
use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::refusal::Refusal;
use super::uncounted::Uncounted;
use crate::config::LimitsConfig;

/// From so many callers on, those are forgotten whose rate is whole again.
const CALLERS_KEPT: usize = 1024;

/// The rates.
#[derive(Debug)]
pub struct Rates {
    uncounted: Uncounted,
    all: Option<Rate<DefaultDirectRateLimiter>>,
    callers: Option<Rate<RateLimiter<Owner, HashMapStateStore<Owner>, DefaultClock>>>,
    clock: DefaultClock,
}

#[derive(Debug)]
struct Rate<L> {
    per_second: u32,
    limiter: L,
}

impl<L> Rate<L> {
    /// `None` where nothing is limited.
    fn new(per_second: u32, burst: u32, limiter: impl FnOnce(Quota) -> L) -> Option<Self> {
        let quota = Quota::per_second(NonZeroU32::new(per_second)?);
        let quota = NonZeroU32::new(burst).map_or(quota, |burst| quota.allow_burst(burst));
        Some(Self {
            per_second,
            limiter: limiter(quota),
        })
    }
}

impl Rates {
    /// As configured, for a daemon that runs as this process does.
    #[must_use]
    pub fn new(limits: &LimitsConfig) -> Self {
        Self {
            uncounted: Uncounted::here(),
            all: Rate::new(
                limits.requests_per_second,
                limits.requests_burst,
                RateLimiter::direct,
            ),
            callers: Rate::new(
                limits.caller_requests_per_second,
                limits.caller_requests_burst,
                RateLimiter::hashmap,
            ),
            clock: DefaultClock::default(),
        }
    }

    /// Counts a request of `caller`.
    ///
    /// # Errors
    /// If it came too early, with the time to wait. It then counts for nobody else.
    pub fn count(&self, caller: &Identity) -> Result<(), Refusal> {
        if self.uncounted.has(caller) {
            return Ok(());
        }
        if let Some(rate) = &self.callers {
            if rate.limiter.len() > CALLERS_KEPT {
                rate.limiter.retain_recent();
            }
            rate.limiter
                .check_key(&caller.owner)
                .map_err(|early| Refusal::CallerTooFast {
                    owner: caller.owner.clone(),
                    per_second: rate.per_second,
                    wait: self.wait(&early),
                })?;
        }
        if let Some(rate) = &self.all {
            rate.limiter.check().map_err(|early| Refusal::AllTooFast {
                per_second: rate.per_second,
                wait: self.wait(&early),
            })?;
        }
        Ok(())
    }

    fn wait(
        &self,
        early: &governor::NotUntil<<DefaultClock as governor::clock::Clock>::Instant>,
    ) -> Duration {
        early.wait_time_from(self.clock.now())
    }
}

#[cfg(test)]
mod tests {
    use banger_core::Role;
    use banger_core::access::Via;

    use super::*;

    fn rates(all: u32, callers: u32) -> Rates {
        Rates::new(&LimitsConfig {
            requests_per_second: all,
            requests_burst: all.max(1) * 2,
            caller_requests_per_second: callers,
            caller_requests_burst: callers.max(1),
            ..LimitsConfig::default()
        })
    }

    fn caller(name: &str) -> Identity {
        Identity {
            owner: Owner::of_certificate(name).unwrap(),
            role: Role::User,
            via: Via::Certificate {
                serial: "01".to_owned(),
            },
        }
    }

    #[test]
    fn one_caller_does_not_use_up_what_others_may() {
        let rates = rates(0, 1);
        let (one, other) = (caller("one"), caller("other"));
        rates.count(&one).unwrap();
        let refused = (0..1000).map(|_| rates.count(&one)).find_map(Result::err);
        match refused {
            Some(Refusal::CallerTooFast { owner, wait, .. }) => {
                assert_eq!(owner, one.owner);
                assert!(wait <= Duration::from_secs(1), "{wait:?}");
            }
            other => panic!("{other:?}"),
        }
        rates.count(&other).unwrap();
    }

    #[test]
    fn all_together_have_a_rate_and_the_keeper_of_the_host_has_none() {
        let rates = rates(1, 0);
        let refused = (0..1000).find_map(|n| rates.count(&caller(&format!("c{n}"))).err());
        assert!(
            matches!(refused, Some(Refusal::AllTooFast { .. })),
            "{refused:?}"
        );
        for _ in 0..100 {
            rates.count(&Identity::of_uid(0, Role::Admin)).unwrap();
        }
        let stranger = Identity::of_uid(3_999_999_999, Role::User);
        assert!((0..1000).any(|_| rates.count(&stranger).is_err()));
    }

    #[test]
    fn nothing_is_limited_by_zero() {
        let rates = rates(0, 0);
        for _ in 0..1000 {
            rates.count(&caller("one")).unwrap();
        }
    }
}
