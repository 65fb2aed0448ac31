//! Places of which there are so many, and of which no owner takes all: whoever fills its own leaves others theirs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use banger_core::Owner;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all: Arc<Semaphore>,
    per_owner: usize,
    /// Of those who have a place, or wait for one.
    owners: Mutex<HashMap<Owner, Arc<Semaphore>>>,
}

/// A place, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _all: OwnedSemaphorePermit,
    _own: Own,
}

/// One of an owner's own.
#[derive(Debug)]
struct Own {
    turns: Turns,
    owner: Owner,
    places: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Whose places are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Those of all owners together.
    All,
    /// The owner's own.
    Owner,
}

impl Turns {
    pub(crate) fn new(all: usize, per_owner: usize) -> Self {
        Self(Arc::new(Shared {
            all: Arc::new(Semaphore::new(all)),
            per_owner,
            owners: Mutex::default(),
        }))
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<Owner, Arc<Semaphore>>) -> T) -> T {
        let owners = self.0.owners.lock();
        change(&mut owners.unwrap_or_else(PoisonError::into_inner))
    }

    fn own(&self, owner: &Owner) -> (Own, Arc<Semaphore>) {
        let fresh = || Arc::new(Semaphore::new(self.0.per_owner));
        let places = self.with(|owners| owners.entry(owner.clone()).or_insert_with(fresh).clone());
        let own = Own {
            turns: self.clone(),
            owner: owner.clone(),
            places: Some(places.clone()),
            permit: None,
        };
        (own, places)
    }

    /// A place for `owner`, if there is one now.
    ///
    /// # Errors
    /// With whose places are taken.
    pub(crate) fn try_take(&self, owner: &Owner) -> Result<Turn, Full> {
        let (mut own, places) = self.own(owner);
        own.permit = Some(places.try_acquire_owned().map_err(|_| Full::Owner)?);
        let all = self.0.all.clone().try_acquire_owned();
        Ok(Turn {
            _all: all.map_err(|_| Full::All)?,
            _own: own,
        })
    }

    /// Waits for a place for `owner`, behind its own others and then behind everybody's.
    pub(crate) async fn take(&self, owner: &Owner) -> Option<Turn> {
        let (mut own, places) = self.own(owner);
        // They are never closed.
        own.permit = Some(places.acquire_owned().await.ok()?);
        let all = self.0.all.clone().acquire_owned().await.ok()?;
        Some(Turn {
            _all: all,
            _own: own,
        })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.permit = None;
        self.places = None;
        self.turns.with(|owners| {
            let is_last = |places: &Arc<Semaphore>| Arc::strong_count(places) == 1;
            if owners.get(&self.owner).is_some_and(is_last) {
                owners.remove(&self.owner);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn an_owner_fills_its_own_and_leaves_others_theirs() {
        let turns = Turns::new(5, 2);
        let owner = Owner::of_uid;
        let held = [
            turns.try_take(&owner(1)).unwrap(),
            turns.take(&owner(1)).await.unwrap(),
        ];
        assert_eq!(turns.try_take(&owner(1)).unwrap_err(), Full::Owner);
        let mut waits = Box::pin(async { turns.take(&owner(1)).await });
        assert!(poll!(&mut waits).is_pending());
        let others = [2, 2, 3].map(|uid| turns.try_take(&owner(uid)).unwrap());
        assert_eq!(turns.try_take(&owner(3)).unwrap_err(), Full::All);
        drop(held);
        assert!(poll!(&mut waits).is_ready());
        drop((waits, others));
        assert!(turns.with(|owners| owners.is_empty()));
        assert_eq!(turns.0.all.available_permits(), 5);
    }
}
