//! How many calls a caller has under way, over all its connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use banger_core::{Identity, Owner};

use super::refusal::Refusal;
use super::slots::{give_back, take};
use super::uncounted::Uncounted;

/// All calls that are counted.
#[derive(Debug, Clone)]
pub struct Calls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    uncounted: Uncounted,
    most: usize,
    by_owner: Mutex<HashMap<Owner, usize>>,
}

impl Calls {
    /// None, and `most` of each caller.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Shared {
            uncounted: Uncounted::here(),
            most,
            by_owner: Mutex::default(),
        }))
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<Owner, usize>) -> T) -> T {
        let by_owner = &self.0.by_owner;
        change(&mut by_owner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts one more of `caller`, until what is returned is dropped; `None` for who is not counted.
    ///
    /// # Errors
    /// If it has as many as it may.
    pub fn begin(&self, caller: &Identity) -> Result<Option<Call>, Refusal> {
        if self.0.uncounted.has(caller) {
            return Ok(None);
        }
        let (owner, most) = (&caller.owner, self.0.most);
        if !self.with(|calls| take(calls, owner.clone(), most)) {
            return Err(Refusal::TooManyCalls {
                owner: owner.clone(),
                most,
            });
        }
        Ok(Some(Call {
            calls: self.clone(),
            owner: owner.clone(),
        }))
    }
}

/// A call that is counted.
#[derive(Debug)]
pub struct Call {
    calls: Calls,
    owner: Owner,
}

impl Drop for Call {
    fn drop(&mut self) {
        let owner = self.owner.clone();
        self.calls.with(|calls| give_back(calls, owner));
    }
}

#[cfg(test)]
mod tests {
    use banger_core::Role;

    use super::*;

    #[test]
    fn a_caller_has_so_many_and_others_have_their_own() {
        let calls = Calls::new(2);
        let one = Identity::of_uid(3_999_999_999, Role::User);
        let other = Identity::of_uid(3_999_999_998, Role::User);
        let held = [calls.begin(&one).unwrap(), calls.begin(&one).unwrap()];
        assert!(matches!(
            calls.begin(&one),
            Err(Refusal::TooManyCalls { most: 2, .. })
        ));
        calls.begin(&other).unwrap();
        drop(held);
        calls.begin(&one).unwrap();
        calls.with(|calls| assert!(calls.is_empty(), "{calls:?}"));
        let root = Identity::of_uid(0, Role::Admin);
        let many: Vec<_> = (0..10).map(|_| calls.begin(&root).unwrap()).collect();
        assert!(many.iter().all(Option::is_none));
    }
}
